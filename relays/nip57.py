"""Zap receipts on the wire (NIP-57, appendices D to F): that a lightning provider says that somebody was paid. Pure.

A receipt proves nothing: whoever owns the provider's key writes what it likes. It says where to look.
"""

from dataclasses import dataclass

import orjson
from bech32 import bech32_encode, convertbits

from core.identifier import is_hex64
from relays.error import ForgedEvent, MalformedEvent
from relays.event import Event, verified
from relays.kind import ZAP_RECEIPT, ZAP_REQUEST

MAX_REQUEST_CHARS = 16_384
MAX_AMOUNT = 1 << 50


@dataclass(frozen=True, slots=True)
class Receipt:
    """A kind 9735 as its provider wrote it.

    Attributes:
        sender: who signed the zap request in it; this alone is not the provider's word.
        invoice: the text of the invoice that is said to be paid.
        request: the zap request's text, of which the invoice holds the hash.
        amount: what the zap request asks to be paid, in msat; None if it does not say.
        named: the event that is zapped; empty if none is.
    """

    id: str
    sender: str
    invoice: str
    request: str
    amount: int | None
    named: str


def lnurl_of(address: str) -> str:
    """The LNURL of a lightning address `name@domain` (LUD-16, LUD-01), in lower case; empty for no address."""
    name, at, domain = address.partition("@")
    if not at or not name or not domain:
        return ""
    five = convertbits(f"https://{domain}/.well-known/lnurlp/{name}".encode(), 8, 5)
    return str(bech32_encode("lnurl", five or []))


def read_receipt(event: Event, *, provider: str, recipient: str, lnurl: str) -> Receipt:
    """A verified kind 9735, once all that it says of itself fits together.

    Args:
        event: whose signature was verified.
        provider: the key that our LNURL provider announces as `nostrPubkey`.
        recipient: our key.
        lnurl: ours, from `lnurl_of`.

    Raises:
        MalformedEvent: another author, another recipient, or a zap request that is none, is not signed, is for
            somebody or something else than the receipt says, or names another LNURL.
    """
    if event.kind != ZAP_RECEIPT or event.pubkey != provider:
        raise MalformedEvent("This is not a zap receipt of our provider.")
    request = _request(_one(event, "description"))
    if event.values("p") != [recipient] or request.values("p") != [recipient]:
        raise MalformedEvent("The zap is for another key.")
    named = request.values("e")
    if len(named) > 1 or event.values("e") != named or not all(is_hex64(one) for one in named):
        raise MalformedEvent("The zap is for several events, or receipt and request differ in that.")
    if event.value("P") not in (None, request.pubkey):
        raise MalformedEvent("The receipt names another sender than signed the request.")
    if any(one.lower() != lnurl for one in request.values("lnurl")):
        raise MalformedEvent("The zap was paid to another LNURL.")
    return Receipt(
        event.id, request.pubkey, _one(event, "bolt11"), _one(event, "description"), _amount(request),
        "".join(named),
    )  # fmt: skip


def _one(event: Event, name: str) -> str:
    values = event.values(name)
    if len(values) != 1:
        raise MalformedEvent(f"A zap receipt has one tag {name}.")
    return values[0]


def _request(text: str) -> Event:
    """The zap request (kind 9734) in a receipt, verified."""
    if len(text) > MAX_REQUEST_CHARS:
        raise MalformedEvent("The zap request is too long.")
    try:
        request = verified(orjson.loads(text))
    except (orjson.JSONDecodeError, ForgedEvent) as error:
        raise MalformedEvent("The zap request is no signed event.") from error
    if request.kind != ZAP_REQUEST:
        raise MalformedEvent("The receipt holds no zap request.")
    return request


def _amount(request: Event) -> int | None:
    amounts = request.values("amount")
    if not amounts:
        return None
    if len(amounts) > 1 or not amounts[0].isascii() or not amounts[0].isdigit() or not 0 < int(amounts[0]) < MAX_AMOUNT:
        raise MalformedEvent("The zap request's amount is none.")
    return int(amounts[0])
