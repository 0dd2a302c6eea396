"""Which quote wins, and why: for every quote a reason that is kept with the job. Pure.

A *firm* quote carries our `quote` tag and is bound by its hash of the terms. A plain NIP-90 answer is an *implicit*
one: it counts, but names no wallet key, so that nothing can be locked to it (DESIGN §6). A result that came while
quotes were collected and that asks for nothing is an offer that is already in hand; if its author stated no amount it
ranks at the full reservation, behind every firm quote.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from core.money import Msat

ACCEPT_MARGIN_S = 5  # a quote must stand that much longer: locking and sending the money takes a moment


class Nature(StrEnum):
    """What a seller's answer is."""

    QUOTE = "quote"  # firm: payable terms, bound until they expire
    IMPLICIT = "implicit"  # a price without terms that we could pay by
    DELIVERED = "delivered"  # the result itself, free
    PROMISE = "promise"  # `processing` without a price: a free result may follow
    DECLINED = "declined"  # the seller says no


@dataclass(frozen=True, slots=True)
class Terms:
    """One way to pay a firm quote: at this mint, locked to this key. `gross` is what it costs us at most."""

    mint: str
    wallet_key: str
    gross: Msat


@dataclass(frozen=True, slots=True)
class Offer:
    """One seller's answer while quotes are collected. `refusal` is empty as long as nothing speaks against it."""

    event_id: str
    seller: str
    nature: Nature
    at_ms: int
    price: Msat | None = None
    quote_id: str = ""
    expires_at: int = 0
    eta_s: int = 0
    terms: tuple[Terms, ...] = ()
    content: str = ""
    refusal: str = ""

    @property
    def best(self) -> Terms | None:
        """The cheapest way to pay it."""
        return min(self.terms, key=lambda item: (item.gross.value, item.mint), default=None)


def judge(offer: Offer, ceiling: Msat, now: int, deadline: int) -> Offer:
    """The offer, with the first reason that speaks against it.

    Args:
        offer: as it arrived; `terms` hold only mints that both sides accept.
        ceiling: the most msat that the reservation covers, fees included.
        now: Unix seconds.
        deadline: Unix seconds after which the result is worthless to us.
    """
    return replace(offer, refusal=offer.refusal or _refusal(offer, ceiling, now, deadline))


def _refusal(offer: Offer, ceiling: Msat, now: int, deadline: int) -> str:
    if offer.nature is Nature.PROMISE:
        return ""
    if offer.nature is Nature.DELIVERED:
        return "it asks to be paid after the result" if offer.price is not None and offer.price.value else ""
    if offer.nature is Nature.DECLINED:
        return "the seller declined"
    price = offer.price
    if price is None or price <= Msat(0):
        return "a quote without a price above zero"
    if price > ceiling:
        return f"{price.value} msat is above the reserved maximum of {ceiling.value} msat"
    if offer.nature is Nature.IMPLICIT:
        return "it names no key and mint that payment could be locked to"
    best = offer.best
    if best is None:
        return "no mint that both sides accept"
    if best.gross > ceiling:
        return f"{best.gross.value} msat with fees is above the reserved maximum of {ceiling.value} msat"
    if not _stands(offer, now):
        return "the quote has expired or is about to"
    # The money stays locked for as long as the seller says that it needs: not longer than we would wait for it.
    if now + offer.eta_s > deadline:
        return f"it takes {offer.eta_s} s, too late for the deadline"
    return ""


def _stands(offer: Offer, now: int) -> bool:
    return offer.expires_at > now + ACCEPT_MARGIN_S


def payable(offers: Iterable[Offer], now: int) -> list[Offer]:
    """Firm quotes that may be accepted now, cheapest first; ties go to the quicker, then to the smaller event id."""
    found = [item for item in offers if item.nature is Nature.QUOTE and not item.refusal and _stands(item, now)]
    return sorted(found, key=_rank)


def _rank(offer: Offer) -> tuple[int, int, str]:
    best = offer.best
    assert best is not None  # judge() refuses a firm quote without terms
    return best.gross.value, offer.eta_s, offer.event_id


def usefulness(offer: Offer) -> tuple[int, int]:
    """What is kept when there are too many: the larger. Keys cost nothing, so the earliest have no right to stay."""
    if offer.refusal:
        return 0, 0
    if offer.nature is Nature.PROMISE:
        return 1, 0
    if offer.nature is Nature.QUOTE:
        assert offer.best is not None  # judge() refuses a firm quote without terms
        return 2, -offer.best.gross.value
    return (3, 0) if offer.content else (0, 1)


def least_useful(offers: Sequence[Offer]) -> Offer:
    """The one that makes room; of equals the latest."""
    return min(reversed(offers), key=usefulness)


def in_hand(offers: Iterable[Offer], *, stated_free: bool) -> Offer | None:
    """The earliest good free result: of those that state the amount 0, or of all."""
    found = [item for item in offers if item.nature is Nature.DELIVERED and item.content and not item.refusal]
    if stated_free:
        found = [item for item in found if item.price == Msat(0)]
    return min(found, key=lambda item: (item.at_ms, item.event_id), default=None)


def answered(offers: Iterable[Offer]) -> frozenset[str]:
    """Sellers whose last word is in: whoever only promised may still answer."""
    return frozenset(item.seller for item in offers if item.nature is not Nature.PROMISE)


def reasons(chosen: Offer, offers: Sequence[Offer], now: int) -> tuple[str, ...]:
    """Why this one: one line for the choice and one for each that lost."""
    best = chosen.best
    if best is None:
        lines = [f"{chosen.seller}: chosen, its result was delivered free"]
    else:
        lines = [f"{chosen.seller}: chosen, the cheapest admissible quote at {best.gross.value} msat with fees"]
    for other in offers:
        if other.event_id == chosen.event_id:
            continue
        rival = other.best
        if other.refusal:
            lines.append(f"{other.seller}: refused, {other.refusal}")
        elif other.nature is Nature.PROMISE:
            lines.append(f"{other.seller}: passed over, it promised work and had not delivered")
        elif other.nature is Nature.QUOTE and not _stands(other, now):
            lines.append(f"{other.seller}: refused, the quote has expired or is about to")
        elif rival is not None:
            lines.append(f"{other.seller}: passed over at {rival.gross.value} msat with fees")
        else:
            lines.append(f"{other.seller}: passed over")
    return tuple(lines)
