"""The address of a wallet and its words: parsed strictly, bounded, and nothing secret in any error."""

import json
from dataclasses import replace

import nostr_sdk as sdk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.error import InvalidInput
from core.identifier import PubKey
from relays.error import MalformedEvent, NotForUs
from relays.event import Draft, Event
from relays.key import Key
from relays.nip47 import (
    INFO,
    MAX_PAYLOAD,
    NOTIFICATION,
    NOTIFICATION_LEGACY,
    RESPONSE,
    Address,
    Encryption,
    Method,
    parse_address,
    read_balance,
    read_fee,
    read_info,
    read_notification,
    read_response,
    read_transaction,
    read_transactions,
    request_event,
)

WALLET, OURS, OTHER = Key(b"\x01" * 32), Key(b"\x02" * 32), Key(b"\x03" * 32)
SECRET = ("02" * 32).lower()
URI = f"nostr+walletconnect://{WALLET.pubkey}?relay=wss%3A%2F%2Frelay.example%2Fv1&relay=ws://Two.example:80&secret={SECRET}"
ADDRESS = parse_address(URI)
HASH = "ab" * 32


def said(body, kind=RESPONSE, author=WALLET, encryption=Encryption.NIP44, to=OURS, request=HASH, raw=None) -> Event:
    seal = author.encrypt if encryption is Encryption.NIP44 else author.encrypt_legacy
    content = seal(OURS.pubkey, json.dumps(body) if raw is None else raw)
    return author.sign(Draft(kind, content, (("p", to.pubkey), ("e", request)), 1_800_000_000))


def test_an_address_is_read_and_shows_its_secret_nowhere() -> None:
    assert ADDRESS.wallet == WALLET.pubkey
    assert ADDRESS.relays == ("wss://relay.example/v1", "ws://two.example")
    assert ADDRESS.key.pubkey == OURS.pubkey
    assert SECRET not in repr(ADDRESS)


def test_nostr_sdk_reads_the_same_address() -> None:
    theirs = sdk.NostrWalletConnectUri.parse(URI)
    assert str(theirs.public_key().to_hex()) == ADDRESS.wallet
    assert str(theirs.secret().to_hex()) == SECRET


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.com",
        URI.replace("nostr+walletconnect", "nostrconnect"),
        URI.replace(WALLET.pubkey, "zz" * 32),
        URI.replace(WALLET.pubkey, "ff" * 32),  # no point on the curve
        URI.replace(WALLET.pubkey, OURS.pubkey),
        URI.replace(SECRET, "00" * 32),
        URI.replace(SECRET, SECRET[:-2]),
        URI + f"&secret={SECRET}",
        URI.replace("wss%3A%2F%2Frelay.example%2Fv1", "https://relay.example").replace("ws://Two.example:80", SECRET),
        f"nostr+walletconnect://{WALLET.pubkey}?secret={SECRET}",
        URI + "&x=" + "y" * 5_000,
        f"nostr+walletconnect://[{SECRET}?relay=wss://a",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_address(text)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__cause__)


def test_an_info_event_says_what_the_wallet_can() -> None:
    tags = (("encryption", "nip44_v2 nip04"), ("notifications", "payment_sent"))
    event = WALLET.sign(Draft(INFO, "pay_invoice get_balance", tags, 5))
    info = read_info(ADDRESS, event)
    assert info.encryption is Encryption.NIP44
    assert info.methods == {"pay_invoice", "get_balance"}
    assert read_info(ADDRESS, WALLET.sign(Draft(INFO, "pay_invoice", (), 5))).encryption is Encryption.NIP04
    with pytest.raises(MalformedEvent):
        read_info(ADDRESS, WALLET.sign(Draft(INFO, "pay_invoice", (("encryption", "rot13"),), 5)))
    with pytest.raises(NotForUs):
        read_info(ADDRESS, OTHER.sign(Draft(INFO, "pay_invoice", tags, 5)))


@pytest.mark.parametrize("encryption", list(Encryption))
def test_a_request_is_what_other_wallets_read(encryption: Encryption) -> None:
    event = request_event(ADDRESS, encryption, Method.PAY_INVOICE, {"invoice": "lnbc1"}, 100, 160)
    assert (event.kind, event.pubkey, event.value("p")) == (23_194, OURS.pubkey, WALLET.pubkey)
    assert event.value("expiration") == "160"
    assert event.value("encryption") == (encryption.value if encryption is Encryption.NIP44 else None)
    secret, author = sdk.SecretKey.parse(WALLET.secret.hex()), sdk.PublicKey.parse(OURS.pubkey)
    opens = sdk.nip44_decrypt if encryption is Encryption.NIP44 else sdk.nip04_decrypt
    assert json.loads(opens(secret, author, event.content)) == {"method": "pay_invoice", "params": {"invoice": "lnbc1"}}


@pytest.mark.parametrize("encryption", list(Encryption))
def test_an_answer_is_read_in_either_encryption(encryption: Encryption) -> None:
    body = {"result_type": "pay_invoice", "error": None, "result": {"preimage": "x"}}
    response = read_response(ADDRESS, said(body, encryption=encryption))
    assert (response.request, response.method, response.result, response.error) == (
        HASH, "pay_invoice", {"preimage": "x"}, None,
    )  # fmt: skip


def test_an_error_is_read_and_its_message_is_bounded() -> None:
    error = {"code": "insufficient_balance", "message": "a\x1b[31mb\n" + "c" * 5_000}
    refusal = read_response(ADDRESS, said({"result_type": "pay_invoice", "error": error})).error
    assert refusal is not None
    assert refusal.code == "INSUFFICIENT_BALANCE"
    assert refusal.message.startswith("a[31mbc")
    assert len(refusal.message) == 200


def test_what_is_not_from_our_wallet_to_us_is_not_read() -> None:
    body = {"result_type": "pay_invoice", "result": {}}
    for event in (
        said(body, author=OTHER),
        said(body, to=OTHER),
        said(body, request="short"),
        said(body, kind=NOTIFICATION),
        replace(said(body), pubkey=OTHER.pubkey),
    ):
        with pytest.raises(NotForUs):
            read_response(ADDRESS, event)


@pytest.mark.parametrize(
    "body", [[], {}, {"result_type": "x"}, {"result_type": 1, "result": {}}, {"result_type": "x", "error": {}}]
)
def test_what_is_no_answer_is_malformed(body: object) -> None:
    with pytest.raises(MalformedEvent):
        read_response(ADDRESS, said(body))


def test_what_is_no_json_or_too_long_is_malformed() -> None:
    with pytest.raises(MalformedEvent):
        read_response(ADDRESS, said(None, raw="not json"))
    with pytest.raises(MalformedEvent):
        read_response(ADDRESS, replace(said({}), content="x" * (MAX_PAYLOAD + 1)))


@pytest.mark.parametrize("kind", [NOTIFICATION, NOTIFICATION_LEGACY])
def test_a_notification_names_a_payment(kind: int) -> None:
    body = {"notification_type": "payment_received", "notification": {"payment_hash": HASH}}
    found = read_notification(ADDRESS, said(body, kind=kind))
    assert (found.type, found.payment_hash) == ("payment_received", HASH)
    with pytest.raises(MalformedEvent):
        read_notification(ADDRESS, said({"notification_type": "x", "notification": {}}, kind=kind))


def test_a_transaction_is_read_with_what_wallets_leave_out() -> None:
    full = {
        "type": "Outgoing", "state": "settled", "payment_hash": HASH, "amount": 5_000.0, "fees_paid": None,
        "settled_at": 7, "preimage": "CD" * 32, "invoice": None,
    }  # fmt: skip
    found = read_transaction(full)
    assert (found.direction, found.state, found.amount, found.fees_paid, found.settled_at) == (
        "outgoing", "settled", 5_000, None, 7,
    )  # fmt: skip
    assert found.preimage == "cd" * 32
    assert read_transaction({"payment_hash": HASH, "settled_at": 0}).settled_at is None


@pytest.mark.parametrize(
    "value",
    [
        None, {}, {"payment_hash": "x"}, {"payment_hash": HASH, "amount": -1}, {"payment_hash": HASH, "amount": "5"},
        {"payment_hash": HASH, "amount": 10**30}, {"payment_hash": HASH, "amount": True},
        {"payment_hash": HASH, "preimage": "a" * 65}, {"payment_hash": HASH, "fees_paid": 0.5},
    ],
)  # fmt: skip
def test_a_transaction_beyond_all_bounds_is_refused(value: object) -> None:
    with pytest.raises(MalformedEvent):
        read_transaction(value)


def test_lists_and_balances_are_bounded() -> None:
    assert [one.payment_hash for one in read_transactions({"transactions": [{"payment_hash": HASH}, {}, 5]})] == [HASH]
    for wrong in ({}, {"transactions": [{}] * 201}, {"transactions": "x"}):
        with pytest.raises(MalformedEvent):
            read_transactions(wrong)
    assert read_balance({"balance": 12}) == 12
    with pytest.raises(MalformedEvent):
        read_balance({"balance": -1})
    assert read_fee({"fees_paid": 3}) == 3
    assert read_fee({"fees_paid": -3}) is None
    assert read_fee({}) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["result_type", "error", "result", "notification"]), _JSON))
def test_no_answer_breaks_the_reader(body: dict[str, object]) -> None:
    try:
        response = read_response(ADDRESS, said(body))
        read_transactions(response.result)
    except (MalformedEvent, NotForUs):
        pass


def test_an_address_of_one_s_own_making_is_the_same() -> None:
    assert Address(PubKey(WALLET.pubkey), ADDRESS.relays, OURS).key.pubkey == ADDRESS.key.pubkey
