import json

import pytest

from relays.key import Keyring
from tests.wallet_part import BUYER_WORDS
from wallet.cashu.lock import Lock, condition, read_lock
from wallet.error import TokenLock

KEYRING = Keyring(BUYER_WORDS)
SELLER = KEYRING.key("wallet").compressed
REFUND = KEYRING.key("refund", "job").compressed
GOOD = {
    "nonce": "00" * 16,
    "data": SELLER,
    "tags": [["sigflag", "SIG_INPUTS"], ["locktime", "1900000000"], ["refund", REFUND]],
}


def secret(kind: str = "P2PK", **changes) -> str:
    return json.dumps([kind, {**GOOD, **changes}])


def tags(*extra: list[str], without: str = "") -> list[list[str]]:
    return [tag for tag in GOOD["tags"] if tag[0] != without] + list(extra)


def test_a_lock_reads_back_as_it_was_written():
    lock = Lock(SELLER, 1_900_000_000, REFUND)
    assert read_lock(lock.secret("00" * 16)) == lock
    assert read_lock(secret()) == lock


@pytest.mark.parametrize(
    "bad",
    [
        "ab" * 32,
        secret("HTLC"),
        secret(data="02" + "00" * 32),
        secret(data=SELLER.upper()),
        secret(data=SELLER[2:]),
        secret(nonce=None),
        secret(extra="x"),
        secret(tags="refund"),
        secret(tags=[["refund"]]),
        secret(tags=[["refund", 1]]),
        secret(tags=tags(without="locktime")),
        secret(tags=tags(without="refund")),
        secret(tags=tags(["pubkeys", REFUND])),
        secret(tags=tags(["n_sigs", "2"])),
        secret(tags=tags(["n_sigs_refund", "2"])),
        secret(tags=tags(["n_sigs", "0"])),  # no signature at all, for some mints
        secret(tags=tags(["n_sigs", "00"])),
        secret(tags=tags(["n_sigs_refund", "0"])),
        " " + secret(),
        "\n" + secret(),
        secret(nonce="\ud800"),  # half of a pair: JSON for some readers only
        secret(nonce="\u00e9"),
        secret(nonce="a\\b"),
        secret(tags=tags(["unheard", "of"])),
        secret(tags=tags(["locktime", "1"])),
        secret(tags=tags(["sigflag", "SIG_ALL"], without="sigflag")),
        secret(tags=tags(["locktime", "-5"], without="locktime")),
        secret(tags=tags(["locktime", "１９"], without="locktime")),
        secret(tags=tags(["refund", REFUND, SELLER], without="refund")),
        secret(tags=tags(["refund", "02" + "11" * 31], without="refund")),
        f'["P2PK", {{"nonce": "0", "data": "{SELLER}", "data": "{REFUND}", "tags": []}}]',
        '["P2PK"]',
        "[" * 1000,
    ],
)
def test_any_other_condition_is_refused(bad):
    with pytest.raises(TokenLock):
        read_lock(bad)


def test_a_plain_secret_has_no_condition():
    assert condition("ab" * 32) is None


def test_a_lock_to_something_that_is_no_key_is_never_written():
    for lock in (Lock("not-a-key", 1, REFUND), Lock(SELLER, 1, ""), Lock("02" + "ff" * 32, 1, REFUND)):
        with pytest.raises(TokenLock):
            lock.secret("00" * 16)
