"""What anybody can check of a job that was paid: a label (NIP-32) with the proof that the seller took the money. Pure.

The buyer signs it once the money is final. It holds the seller's signed quote, which names a wallet key and is
addressed to the buyer, with that key's signature, so that nobody quotes with another's; and the coins that were locked
to it (NUT-11, 14), with the mint's proofs that it signed them (NUT-12). Such a coin is worth nothing any more: its mint
says that it is spent, and by which signature (NUT-07). So a receipt costs its author at least the mint's fees and as
much money as it shows, however many keys he has.

Whoever reads a receipt could hold its coins up as his own, so it is also signed with the key to which the coins would
have gone back, which only the buyer had. The same coin counts once, whatever else is claimed of it.

It tells the mint which of its swaps the buyer made, by the blinding factors. Jobs that are private get none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from core.error import VendoError
from core.identifier import EventId, PubKey
from relays.error import ForgedEvent, MalformedEvent
from relays.event import Draft, Event, parse_json, verify
from relays.nip32 import label_draft, read_label
from relays.nip90 import Quote, read_answer
from wallet.cashu.lock import condition, read_hash_lock, read_lock
from wallet.cashu.signature import holds
from wallet.cashu.token import Payment, from_payload

NAMESPACE = "dvm.settled"
MAX_QUOTE_CHARS = 8_192
MAX_CONTENT_CHARS = 49_152
MAX_COINS = 32


class Verdict(StrEnum):
    """What the buyer says became of the job whose money the seller took."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"  # no result in time, or a bad one


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt as its author states it; what it holds fits together, and the mint was not asked yet.

    `wallet_key` is the key that the seller's quote names for this mint, and to which all coins are locked.
    """

    event_id: EventId
    buyer: PubKey
    seller: PubKey
    request_id: EventId
    kind: int
    verdict: Verdict
    payment: Payment
    wallet_key: str
    created_at: int


def claim_text(request_id: str, buyer: str) -> str:
    """What the refund key of the coins signs: whose job they paid for."""
    return f"{NAMESPACE}:{request_id}:{buyer}"


def wallet_text(seller: str, quote_id: str) -> str:
    """What the wallet key that a quote names signs, for its `walletsig` tag: whose quote it is."""
    return f"{NAMESPACE}:quote:{seller}:{quote_id}"


def receipt_draft(*, verdict: Verdict, kind: int, quote: str, payload: object, claim: str, created_at: int) -> Draft:
    """The label for a job.

    Args:
        verdict: what became of it.
        kind: of the request.
        quote: the seller's signed quote as JSON.
        payload: what it was paid with (NUT-18).
        claim: the refund key's signature on `claim_text`, hex.
        created_at: Unix seconds.

    Raises:
        MalformedEvent: the quote is none, or all of it is too long for one event.
    """
    answer = _quote(quote)
    payment = from_payload(payload)
    coins = [proof.to_dict(dleq=True) for proof in payment.proofs]
    body = {"quote": orjson.loads(quote), "unit": payment.unit, "proofs": coins, "claim": claim}
    content = orjson.dumps(body).decode()
    if len(content) > MAX_CONTENT_CHARS or len(payment.proofs) > MAX_COINS:
        raise MalformedEvent("The receipt is too long for an event.")
    tags = [
        ("e", answer.request_id),
        ("p", answer.seller),
        ("k", str(kind)),
        ("receipt", payment.mint, *(proof.y for proof in payment.proofs)),
    ]
    return label_draft(NAMESPACE, verdict.value, tags, content, created_at)


def _quote(raw: str) -> Quote:
    if len(raw) > MAX_QUOTE_CHARS:
        raise MalformedEvent("The quote in a receipt is too long.")
    answer = read_answer(parse_json(raw))
    if not isinstance(answer, Quote) or answer.implicit:
        raise MalformedEvent("A receipt holds a firm quote.")
    return answer


def read_receipt(event: Event) -> Receipt:
    """A receipt, once all that it holds fits together: everything but what only the mint can say.

    The quote is signed by the seller and addressed to the receipt's author; its terms are those that its hash names;
    every coin is locked to the wallet key that it names for that mint, and to the hash if it names one; that key has
    signed the quote too.

    Raises:
        MalformedEvent: it is none, or something does not fit.
    """
    verdict = _verdict(read_label(event, NAMESPACE).word)
    try:
        body: Any = orjson.loads(event.content[:MAX_CONTENT_CHARS])
        raw = orjson.dumps(body["quote"]).decode()
        signed = parse_json(raw)
        verify(signed)
        quote = _quote(raw)
        mint = next((tag[1] for tag in event.all("receipt") if len(tag) > 1), "")
        payment = from_payload({"mint": mint, "unit": body["unit"], "proofs": body["proofs"]})
        locks = [_lock(proof.secret) for proof in payment.proofs]
        claim = body["claim"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise MalformedEvent("A receipt's content is not of the known form.") from error
    except ForgedEvent as error:
        raise MalformedEvent("The quote in a receipt is not its seller's.") from error
    except VendoError as error:
        raise MalformedEvent(f"A receipt cannot be read: {error.message}") from error
    if quote.seller not in event.values("p") or quote.request_id not in event.values("e"):
        raise MalformedEvent("A receipt is about another seller or job than its quote.")
    if event.pubkey not in signed.values("p") or event.pubkey == quote.seller:
        raise MalformedEvent("The quote in a receipt is for somebody else.")
    if len({lock.refund for lock in locks}) != 1 or not holds(
        claim, claim_text(quote.request_id, event.pubkey), locks[0].refund
    ):
        raise MalformedEvent("The coins in a receipt were not locked by its author.")
    ways = [method for method in quote.methods if (method.mint, method.unit) == (payment.mint, payment.unit)]
    named = {(lock.pubkey, lock.hash) for lock in locks}
    if len(named) != 1 or named - {(way.pubkey, way.hash) for way in ways} or len(payment.proofs) > MAX_COINS:
        raise MalformedEvent("A coin in a receipt is not locked to the key of its quote.")
    if not holds(signed.value("walletsig"), wallet_text(quote.seller, quote.quote_id), locks[0].pubkey):
        raise MalformedEvent("The wallet key that the quote in a receipt names did not sign it.")
    return Receipt(
        event.id,
        event.pubkey,
        quote.seller,
        quote.request_id,
        _kind(event.values("k")),
        verdict,
        payment,
        locks[0].pubkey,
        event.created_at,
    )


@dataclass(frozen=True, slots=True)
class _Lock:
    """Who can take a coin, and to whom it goes back; `hash` is empty if no key of a sealed result is bought with it."""

    pubkey: str
    refund: str
    hash: str = ""


def _lock(secret: str) -> _Lock:
    found = condition(secret)
    if found is not None and found[0] == "HTLC":
        sealed = read_hash_lock(secret)
        return _Lock(sealed.seller, sealed.refund, sealed.hash)
    plain = read_lock(secret)
    return _Lock(plain.pubkey, plain.refund)


def _verdict(word: str) -> Verdict:
    try:
        return Verdict(word)
    except ValueError as error:
        raise MalformedEvent(f"{word[:32]!r} is not a word of {NAMESPACE}.") from error


def _kind(values: Sequence[str]) -> int:
    return int(values[0]) if values and len(values[0]) < 6 and values[0].isascii() and values[0].isdigit() else 0
