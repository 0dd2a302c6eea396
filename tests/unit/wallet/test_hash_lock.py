"""Locks to a hash (NUT-14): the strict reader and writer, and what a witness reveals."""

import json
from hashlib import sha256

import pytest

from relays.key import Keyring
from tests.wallet_part import BUYER_WORDS
from wallet.cashu.lock import MAX_SECRET, MAX_WITNESS, HashLock, read_hash_lock, read_lock, revealed
from wallet.cashu.signature import is_signed, sign_secret, witness
from wallet.error import TokenLock

KEYRING = Keyring(BUYER_WORDS)
SELLER = KEYRING.key("wallet").compressed
COSIGNER = KEYRING.key("cosign", "job").compressed
REFUND = KEYRING.key("refund", "job").compressed
PREIMAGE = "5e" * 32
HASH = sha256(bytes.fromhex(PREIMAGE)).hexdigest()
GOOD = [
    ["sigflag", "SIG_INPUTS"],
    ["pubkeys", SELLER, COSIGNER],
    ["n_sigs", "2"],
    ["locktime", "1900000000"],
    ["refund", REFUND],
]


def flipped(key: str) -> str:
    """The same point but for its sign, for which the same signatures are good."""
    return ("03" if key.startswith("02") else "02") + key[2:]


def secret(kind: str = "HTLC", tags: list[list[str]] | None = None, **changes) -> str:
    return json.dumps([kind, {"nonce": "00" * 16, "data": HASH, "tags": GOOD if tags is None else tags, **changes}])


def tags(*extra: list[str]) -> list[list[str]]:
    """The good tags, with these in place of those of the same name; a name alone leaves it out."""
    names = {tag[0] for tag in extra}
    return [tag for tag in GOOD if tag[0] not in names] + [tag for tag in extra if len(tag) > 1]


@pytest.mark.parametrize("cosigner", [COSIGNER, ""])
def test_a_lock_reads_back_as_it_was_written(cosigner):
    lock = HashLock(HASH, SELLER, 1_900_000_000, REFUND, cosigner)
    written = lock.secret("00" * 16)
    assert read_hash_lock(written) == lock
    assert len(written) <= MAX_SECRET
    with pytest.raises(TokenLock):
        read_lock(written)


def test_the_good_form_is_read():
    assert read_hash_lock(secret()) == HashLock(HASH, SELLER, 1_900_000_000, REFUND, COSIGNER)


@pytest.mark.parametrize(
    "bad",
    [
        "ab" * 32,
        secret("P2PK"),
        secret(data="ab" * 31),
        secret(data=HASH.upper()),
        secret(data=SELLER),
        secret(tags=tags(["n_sigs", "1"])),
        secret(tags=tags(["n_sigs"])),
        secret(tags=tags(["n_sigs", "3"])),
        secret(tags=tags(["pubkeys", SELLER])),
        secret(tags=tags(["pubkeys"])),
        secret(tags=tags(["pubkeys", SELLER, COSIGNER, KEYRING.key("third").compressed])),
        secret(tags=tags(["pubkeys", SELLER, SELLER])),
        secret(tags=tags(["pubkeys", SELLER, flipped(SELLER)])),
        secret(tags=tags(["pubkeys", SELLER, "02" + "00" * 32])),
        secret(tags=tags(["refund", COSIGNER])),
        secret(tags=tags(["refund", flipped(COSIGNER)])),
        secret(tags=tags(["refund", SELLER])),
        secret(tags=tags(["refund", REFUND, SELLER])),
        secret(tags=tags(["refund"])),
        secret(tags=tags(["locktime"])),
        secret(tags=tags(["locktime", "soon"])),
        secret(tags=tags(["sigflag", "SIG_ALL"])),
        secret(tags=tags(["n_sigs_refund", "2"])),
        secret(tags=tags(["n_sigs_refund", "0"])),
        secret(tags=tags(["n_sigs", "0"], ["pubkeys", SELLER])),
        " " + secret(),
        secret(nonce="\ud800"),
        secret(nonce="\u00e9"),
        secret(tags=tags(["unheard", "of"])),
        secret(tags=[*GOOD, ["refund", REFUND]]),
        secret(tags=[*GOOD, ["pubkeys", SELLER]]),
        secret(extra="x"),
        f'["HTLC", {{"nonce": "0", "data": "{HASH}", "data": "{"0" * 64}", "tags": []}}]',
    ],
)
def test_any_other_condition_is_refused(bad):
    with pytest.raises(TokenLock):
        read_hash_lock(bad)


@pytest.mark.parametrize(
    "lock",
    [
        HashLock("short", SELLER, 1, REFUND, COSIGNER),
        HashLock(HASH, "no key", 1, REFUND, COSIGNER),
        HashLock(HASH, SELLER, 1, COSIGNER, COSIGNER),
        HashLock(HASH, SELLER, 1, flipped(COSIGNER), COSIGNER),
        HashLock(HASH, SELLER, 1, SELLER),
        HashLock(HASH, SELLER, 1, ""),
    ],
)
def test_a_lock_that_would_not_be_safe_is_never_written(lock):
    with pytest.raises(TokenLock):
        lock.secret("00" * 16)


def test_a_witness_reveals_the_preimage_of_its_hash_and_nothing_else():
    shown = witness("a secret", KEYRING.key("wallet"), preimage=PREIMAGE, cosigned="00" * 64)
    assert len(shown) <= MAX_WITNESS
    assert revealed(shown, HASH) == PREIMAGE
    assert revealed(shown, "00" * 32) is None
    for nothing in (None, "", "null", "[]", "{}", "{", '{"preimage": 5}', '{"preimage": "5e"}', "[" * 5_000):
        assert revealed(nothing, HASH) is None
    assert revealed(witness("a secret", KEYRING.key("wallet")), HASH) is None


@pytest.mark.parametrize(
    "written", [PREIMAGE.upper(), f" {PREIMAGE} ", " ".join(PREIMAGE[at : at + 2] for at in range(0, 64, 2))]
)
def test_a_preimage_is_read_however_the_seller_wrote_it_for_the_mint(written):
    assert revealed(json.dumps({"preimage": written, "signatures": []}), HASH) == PREIMAGE


def test_a_preimage_of_another_length_is_one_if_it_has_the_hash():
    short = "5e" * 31  # with two blanks it has 64 characters, which is all that some mints look at
    assert revealed(json.dumps({"preimage": f"{short}  "}), sha256(bytes.fromhex(short)).hexdigest()) == short
    assert revealed('{"preimage": ""}', sha256(b"").hexdigest()) is None
    assert revealed(json.dumps({"preimage": "5e" * 65}), sha256(b"\x5e" * 65).hexdigest()) is None


def test_a_signature_is_good_for_its_secret_and_key_alone():
    signature = sign_secret("a secret", KEYRING.key("cosign", "job"))
    assert is_signed("a secret", signature, COSIGNER)
    for text, given, key in (
        ("another", signature, COSIGNER),
        ("a secret", signature, SELLER),
        ("a secret", signature[:-2], COSIGNER),
        ("a secret", "no hex", COSIGNER),
        ("a secret", "", COSIGNER),
        ("a secret", signature, "02"),
    ):
        assert not is_signed(text, given, key)
