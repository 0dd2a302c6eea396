"""The guards and actions of the buyer's rules for sealed results (ADR 25). Pure.

A sealed result is worth nothing without the key that the money buys, and the money cannot be taken without showing the
key: so from the moment at which the seller can take it the job waits for either, whatever its deadline was.
"""

from typing import Any, TypeAlias

from core.change import replace
from dvm.buyer_event import (
    Chosen,
    Effect,
    KeyHeld,
    KeyShown,
    PublishCosign,
    ResultArrived,
    RevealPassed,
    SealedArrived,
    SeekKey,
    SellerFailed,
    StartTimer,
)
from dvm.job import Funds, Payment, Purchase, State
from dvm.policy import MARKET
from dvm.selection import Offer
from dvm.settlement import COSIGN_MARGIN_S

Move: TypeAlias = tuple[Purchase, list[Effect]]

AWAITED = (State.WORKING, State.ORDERED)  # where a sealed result is waited for
REVEAL_MS = 60_000  # how long a mint that shows the money taken is asked with which preimage
KEEP_MS = 86_400_000  # how long a result that is paid for is fetched and stored again if the disk does not take it


def mode_of(offer: Offer) -> str:
    """The mode in which an offer would be paid; empty if its result is not sealed."""
    return offer.best.mode if offer.best is not None else ""


def ordered_badly(purchase: Purchase, event: Any) -> bool:
    """What the chosen seller of an ordered result said ends its offer: nothing was paid, and another may be taken."""
    if purchase.state is not State.ORDERED or purchase.payment is None or purchase.payment.seller != event.seller:
        return False
    if isinstance(event, ResultArrived):
        return bool(event.fault)
    return isinstance(event, SellerFailed) or not good_order(purchase, event)


def good_order(purchase: Purchase, event: Any) -> bool:
    """It is the sealed result that was ordered, and the quote for it is still known."""
    payment = purchase.payment
    if payment is None or payment.seller != event.seller or event.fault or purchase.offer(purchase.chosen) is None:
        return False
    return bool(event.hash == payment.hash)


def in_hand(purchase: Purchase, event: Any) -> bool:
    """The sealed result is here already, and its money is locked in time."""
    payment = purchase.payment
    if payment is None or not purchase.sealed or purchase.money is not Funds.LOCKED:
        return False
    return bool(safe_until_ms(payment) >= event.at_ms)


def nothing_ordered(purchase: Purchase, event: Any) -> bool:
    """The money goes before the work."""
    return not purchase.sealed


def good_seal(purchase: Purchase, event: Any) -> bool:
    """It is the chosen seller's sealed result, and can be paid before the seller's time at the mint runs out."""
    payment = purchase.payment
    if payment is None or not payment.atomic or payment.seller != event.seller or event.fault:
        return False
    return bool(event.hash == payment.hash and safe_until_ms(payment) >= event.at_ms)


def safe_until_ms(payment: Payment) -> int:
    """A seller that is given a signature or a token later than this may come too late: then it is not given."""
    return (payment.locktime - COSIGN_MARGIN_S) * 1000


def opened_well(purchase: Purchase, event: Any) -> bool:
    """The key opens the sealed result, and what is in it passed the check for its kind."""
    return not event.fault


def over(purchase: Purchase, event: RevealPassed) -> bool:
    """The money is gone to the seller, and there was time enough for what it bought."""
    held = purchase.held_ms
    return purchase.money is Funds.CLAIMED and (not held or event.at_ms >= held + KEEP_MS)


def keep_sealed(purchase: Purchase, event: SealedArrived) -> Move:
    """The sealed result is here; in the same commit the seller is given what it needs to take the money."""
    payment = purchase.payment
    assert payment is not None  # the guard found it
    purchase = replace(purchase, sealed=event.whole, pt_hash=event.pt_hash, sealed_id=event.event_id)
    effects: list[Effect] = [PublishCosign(payment)]
    return purchase.noted(event.at_ms, "sealed", f"by {event.seller}"), effects


def pay_for_sealed(purchase: Purchase, event: SealedArrived) -> Move:
    """What was ordered is here, sealed: its money is locked now. The seller can take it with the key alone."""
    offer = purchase.offer(purchase.chosen)
    assert offer is not None  # the guard found it
    purchase = replace(purchase, sealed=event.whole, pt_hash=event.pt_hash, sealed_id=event.event_id)
    return purchase.noted(event.at_ms, "sealed", f"by {event.seller}"), [Chosen(event.at_ms, offer)]


def deliver_opened(purchase: Purchase, event: KeyShown) -> Move:
    """What the key opened."""
    purchase = replace(purchase, provider=MARKET, result=event.content, kept=event.kept)
    purchase = replace(purchase, result_id=purchase.sealed_id, sealed="")
    return purchase.noted(event.at_ms, "delivered", f"by {purchase.seller}, opened"), []


def hold_on(purchase: Purchase, event: KeyHeld) -> Move:
    """What the key opens is ours, so it is fetched and stored again until our disk takes it."""
    if purchase.unkept == event.reason:
        return purchase, []
    first = not purchase.held_ms
    purchase = replace(purchase, held_ms=purchase.held_ms or event.at_ms, unkept=event.reason)
    purchase = purchase.noted(event.at_ms, "unkept", event.reason)
    return purchase, [_end_of_wait(purchase, event.at_ms)] if first and purchase.money is Funds.CLAIMED else []


def seek_key(purchase: Purchase, now_ms: int) -> list[Effect]:
    """What follows from the money being taken: if it bought a key, that is asked for until it is here."""
    if purchase.state is not State.SEALED or purchase.money not in (Funds.LOCKED, Funds.REFUNDING, Funds.CLAIMED):
        return []
    assert purchase.payment is not None  # money is out only with a payment
    return [SeekKey(purchase.payment), _end_of_wait(purchase, now_ms)]


def _end_of_wait(purchase: Purchase, now_ms: int) -> StartTimer:
    if purchase.held_ms:
        return StartTimer("reveal", max(purchase.held_ms + KEEP_MS, now_ms))
    return StartTimer("reveal", max(purchase.deadline * 1000, now_ms) + REVEAL_MS)


def sealed_why_not(purchase: Purchase, event: Any) -> str:
    """Why a sealed result did not become one that can be read."""
    match event:
        case SealedArrived() if event.ours:
            return event.fault
        case SealedArrived() if event.fault:
            return f"The seller's sealed result is bad: {event.fault}"
        case SealedArrived() if purchase.payment is None or event.hash != purchase.payment.hash:
            return "The result is sealed with another key than the one that was locked for."
        case SealedArrived():
            return "The sealed result came too late to be paid safely."
        case KeyShown():
            return f"The seller's sealed result is bad: {event.fault}"
        case RevealPassed() if purchase.unkept:
            return f"The result was paid for, and could not be kept all day: {purchase.unkept}"
        case RevealPassed():
            return "The mint shows that the money was taken, but not with which key."
    return "The seller did not take the money, so its result stays sealed."
