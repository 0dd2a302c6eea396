"""Nostr Wallet Connect (NIP-47): the address of a wallet, and the words between a client and a wallet. Pure.

The address holds the secret of a key that is for this connection alone: whoever has it can spend. It signs our
requests, opens the answers, and proves us to the wallet's relays; no identity key is ever shown there.

A wallet's answer is believed to come from the wallet: its author is checked, and the event was verified before. What
it says is not: every field is bounded, and whether a payment was made is judged by its preimage (`wallet.lightning`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from core.error import InvalidInput
from core.identifier import EventId, PubKey, is_hex64
from relays.address import canonical
from relays.error import MalformedEvent, NotForUs
from relays.event import Draft, Event
from relays.key import Key

INFO = 13_194
REQUEST = 23_194
RESPONSE = 23_195
NOTIFICATION_LEGACY = 23_196  # encrypted after NIP-04
NOTIFICATION = 23_197  # encrypted after NIP-44
SCHEME = "nostr+walletconnect"
MAX_RELAYS = 4
MAX_URI = 4_096
MAX_PAYLOAD = 60_000  # characters of an encrypted answer
MAX_TRANSACTIONS = 200
MAX_MSAT = 2_100_000_000_000_000_000
_MAX_WORDS = 4_000
_MAX_MESSAGE = 200


class Encryption(StrEnum):
    """How a talk is encrypted, in the words of the `encryption` tag."""

    NIP44 = "nip44_v2"
    NIP04 = "nip04"


class Method(StrEnum):
    """The commands that are used here."""

    GET_INFO = "get_info"
    GET_BALANCE = "get_balance"
    MAKE_INVOICE = "make_invoice"
    PAY_INVOICE = "pay_invoice"
    LOOKUP_INVOICE = "lookup_invoice"
    LIST_TRANSACTIONS = "list_transactions"


class Code(StrEnum):
    """Error codes of NIP-47. A wallet may send others."""

    RATE_LIMITED = "RATE_LIMITED"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    INSUFFICIENT_BALANCE = "INSUFFICIENT_BALANCE"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    RESTRICTED = "RESTRICTED"
    UNAUTHORIZED = "UNAUTHORIZED"
    INTERNAL = "INTERNAL"
    UNSUPPORTED_ENCRYPTION = "UNSUPPORTED_ENCRYPTION"
    OTHER = "OTHER"
    PAYMENT_FAILED = "PAYMENT_FAILED"
    NOT_FOUND = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Address:
    """A wallet and how to reach it.

    Attributes:
        wallet: the key with which the wallet answers.
        relays: where to meet, canonical.
        key: ours in this connection, and for nothing else.
    """

    wallet: PubKey
    relays: tuple[str, ...]
    key: Key = field(repr=False)


@dataclass(frozen=True, slots=True)
class Info:
    """What a wallet says it can (kind 13194)."""

    methods: frozenset[str]
    encryption: Encryption
    notifications: frozenset[str]
    created_at: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A wallet's error. `code` is one of `Code`, or any other word; `message` is the wallet's, shortened."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to one request: a result, or an error."""

    request: EventId
    method: str
    result: Mapping[str, Any] = field(repr=False)
    error: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """An invoice or a payment as the wallet tells it. Amounts in msat, times in Unix seconds; what it left out is None.

    `direction` is `incoming`, `outgoing` or empty; `state` pending, settled, accepted, expired, failed or empty.
    """

    payment_hash: str
    direction: str = ""
    state: str = ""
    invoice: str = field(default="", repr=False)
    preimage: str = field(default="", repr=False)
    amount: int | None = None
    fees_paid: int | None = None
    created_at: int | None = None
    settled_at: int | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """Something happened at the wallet: `payment_received` or `payment_sent`."""

    type: str
    payment_hash: str


# ---------------------------------------------------------------------- the address


def parse_address(text: str) -> Address:
    """A wallet's address from `nostr+walletconnect://<its key>?relay=…&secret=…`. No error repeats any of it.

    Raises:
        InvalidInput: it is none, names no relay, or its secret is no key.
    """
    wrong = InvalidInput("This is not a wallet's address (nostr+walletconnect://<64 hex digits>?relay=…&secret=…).")
    text = text.strip()
    if len(text) > MAX_URI:
        raise wrong
    try:
        parts = urlsplit(text)
        items = parse_qsl(parts.query)
    except ValueError:
        raise wrong from None
    wallet = parts.netloc or parts.path  # some wallets write no slashes
    if parts.scheme != SCHEME or not is_hex64(wallet):
        raise wrong
    secrets = [value for name, value in items if name == "secret"]
    if len(secrets) != 1 or not is_hex64(secrets[0]):
        raise InvalidInput("The wallet's address has no secret, or one that is not 64 hex digits.")
    try:
        key = Key(bytes.fromhex(secrets[0]))
    except (ValueError, InvalidInput):
        raise InvalidInput("The secret in the wallet's address is not a key.") from None
    if key.pubkey == wallet:
        raise InvalidInput("The wallet's address names the same key for both sides.")
    try:
        key.encrypt(PubKey(wallet), "-")
    except InvalidInput:
        raise InvalidInput("The wallet's key in its address is not a point on the curve.") from None
    return Address(PubKey(wallet), _relays([value for name, value in items if name == "relay"]), key)


def _relays(urls: list[str]) -> tuple[str, ...]:
    try:
        found = tuple(dict.fromkeys(canonical(url) for url in urls))[:MAX_RELAYS]
    except InvalidInput:  # an address that was cut short may hold the secret where a relay should be
        raise InvalidInput("A relay in the wallet's address is not a ws:// or wss:// address.") from None
    if not found:
        raise InvalidInput("The wallet's address names no relay.")
    return found


# ---------------------------------------------------------------------- what the wallet can


def read_info(address: Address, event: Event) -> Info:
    """What a verified kind-13194 event says. Without an `encryption` tag the wallet knows NIP-04 alone.

    Raises:
        NotForUs: it is not this wallet's.
        MalformedEvent: it names no encryption that is known here.
    """
    if event.kind != INFO or event.pubkey != address.wallet:
        raise NotForUs("This is not what our wallet says it can.")
    offered = _words(event.value("encryption") or Encryption.NIP04)
    known = next((one for one in (Encryption.NIP44, Encryption.NIP04) if one in offered), None)
    if known is None:
        raise MalformedEvent("The wallet offers no encryption that is known here.")
    told = _words(event.value("notifications") or "")
    return Info(_words(event.content), known, told, event.created_at)


def _words(text: str) -> frozenset[str]:
    """Words between spaces; some wallets write commas."""
    return frozenset(text[:_MAX_WORDS].replace(",", " ").split())


# ---------------------------------------------------------------------- asking


def request_event(
    address: Address, encryption: Encryption, method: Method, params: Mapping[str, Any], now: int, until: int
) -> Event:
    """A signed request (kind 23194). `until`, in Unix seconds, is its `expiration`: the wallet ignores it after that.

    Raises:
        InvalidInput: it is too long.
    """
    text = orjson.dumps({"method": method.value, "params": dict(params)}).decode()
    sealed = (address.key.encrypt if encryption is Encryption.NIP44 else address.key.encrypt_legacy)(
        address.wallet, text
    )
    tags: tuple[tuple[str, ...], ...] = (("p", address.wallet), ("expiration", str(until)))
    if encryption is Encryption.NIP44:
        tags = (*tags, ("encryption", Encryption.NIP44.value))
    return address.key.sign(Draft(REQUEST, sealed, tags, now))


# ---------------------------------------------------------------------- hearing


def read_response(address: Address, event: Event) -> Response:
    """The answer in a verified kind-23195 event.

    Raises:
        NotForUs: it is not from our wallet, not to us, names no request, or our key does not open it.
        MalformedEvent: what is inside is no answer.
    """
    request = event.value("e")
    if event.kind != RESPONSE or not is_hex64(request):
        raise NotForUs("This is not an answer to a request.")
    body = _opened(address, event)
    method, result, error = body.get("result_type"), body.get("result"), body.get("error")
    if type(method) is not str:
        raise MalformedEvent("The wallet's answer does not say what it answers.")
    if error is not None:
        return Response(EventId(str(request)), method, {}, _refusal(error))
    if type(result) is not dict:
        raise MalformedEvent("The wallet's answer holds neither a result nor an error.")
    return Response(EventId(str(request)), method, result)


def read_notification(address: Address, event: Event) -> Notification:
    """What a verified event of kind 23196 or 23197 tells.

    Raises:
        NotForUs: it is not from our wallet, not to us, or our key does not open it.
        MalformedEvent: what is inside names no payment.
    """
    if event.kind not in (NOTIFICATION, NOTIFICATION_LEGACY):
        raise NotForUs("This is not a notification.")
    body = _opened(address, event)
    kind, about = body.get("notification_type"), body.get("notification")
    if type(kind) is not str or type(about) is not dict or not is_hex64(about.get("payment_hash")):
        raise MalformedEvent("The wallet's notification names no payment.")
    return Notification(kind[:_MAX_MESSAGE], about["payment_hash"])


def _opened(address: Address, event: Event) -> dict[str, Any]:
    if event.pubkey != address.wallet or set(event.values("p")) - {address.key.pubkey}:
        raise NotForUs("This is not from our wallet to us.")
    if len(event.content) > MAX_PAYLOAD:
        raise MalformedEvent("The wallet's message is too long.")
    opens = address.key.decrypt_legacy if "?iv=" in event.content else address.key.decrypt
    try:
        body: Any = orjson.loads(opens(address.wallet, event.content))
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("The wallet's message is not JSON.") from error
    if type(body) is not dict:
        raise MalformedEvent("The wallet's message is not an object.")
    return body


def _refusal(error: object) -> Refusal:
    if type(error) is not dict or type(error.get("code")) is not str:
        raise MalformedEvent("The wallet's error has no code.")
    message = error.get("message")
    said = "".join(one for one in message if one.isprintable()) if type(message) is str else ""
    return Refusal(error["code"][:64].upper(), said[:_MAX_MESSAGE])


def read_transaction(value: object) -> Transaction:
    """An invoice or a payment, as `lookup_invoice`, `make_invoice` and `list_transactions` give it.

    Raises:
        MalformedEvent: it names no payment hash, or a field is of the wrong type or beyond all bounds.
    """
    if type(value) is not dict or not is_hex64(value.get("payment_hash")):
        raise MalformedEvent("The wallet's transaction has no payment hash.")
    return Transaction(
        value["payment_hash"],
        _text(value, "type", 16).lower(),
        _text(value, "state", 16).lower(),
        _text(value, "invoice", 4_096),
        _text(value, "preimage", 64).lower(),
        _number(value, "amount"),
        _number(value, "fees_paid"),
        _number(value, "created_at"),
        _number(value, "settled_at") or None,
    )


def read_transactions(result: Mapping[str, Any]) -> list[Transaction]:
    """What `list_transactions` gives, newest first; entries that are none are left out.

    Raises:
        MalformedEvent: it is no list, or longer than was asked for.
    """
    found = result.get("transactions")
    if type(found) is not list or len(found) > MAX_TRANSACTIONS:
        raise MalformedEvent("The wallet's list of transactions is none, or too long.")
    out = []
    for one in found:
        try:
            out.append(read_transaction(one))
        except MalformedEvent:
            continue  # a keysend without a hash, say
    return out


def read_balance(result: Mapping[str, Any]) -> int:
    """What `get_balance` gives, in msat.

    Raises:
        MalformedEvent: it is no amount.
    """
    found = _number(result, "balance")
    if found is None:
        raise MalformedEvent("The wallet's balance is not a number.")
    return found


def read_fee(result: Mapping[str, Any]) -> int | None:
    """The fee in msat that an answer to `pay_invoice` tells; None if it tells none that can be."""
    try:
        return _number(result, "fees_paid")
    except MalformedEvent:
        return None


def _text(value: Mapping[str, Any], name: str, most: int) -> str:
    found = value.get(name)
    if found is None:
        return ""
    if type(found) is not str or len(found) > most:
        raise MalformedEvent(f"The wallet's {name} is not a text of at most {most} characters.")
    return found


def _number(value: Mapping[str, Any], name: str) -> int | None:
    found = value.get(name)
    if found is None:
        return None
    if type(found) is float and found.is_integer():  # as JavaScript writes large numbers
        found = int(found)
    if type(found) is not int or not 0 <= found <= MAX_MSAT:
        raise MalformedEvent(f"The wallet's {name} is not a whole number within bounds.")
    return found
