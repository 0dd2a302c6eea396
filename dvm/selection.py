"""Which quote wins, and why: for every quote a reason with its numbers that is kept with the job. Pure.

What counts as best is the job's preference (`dvm.preference`).

A *firm* quote carries our `quote` tag and is bound by its hash of the terms. A plain NIP-90 answer is an *implicit*
one: it names no wallet key, so that nothing can be locked to it (DESIGN §6), and counts if its Lightning invoice can be
paid. A result that came while
quotes were collected and that asks for nothing is an offer that is already in hand; if its author stated no amount it
ranks at the full reservation, behind every firm quote.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.change import replace
from core.money import Msat
from dvm.preference import UNSAID_MS, Prefer, draw, weigh
from dvm.reputation import FRESH, Standing
from dvm.settlement import Method

_BEST = {
    Prefer.COST: "the cheapest",
    Prefer.LATENCY: "the quickest",
    Prefer.QUALITY: "the best in quality",
    Prefer.REPUTATION: "the best in reputation",
    Prefer.BALANCED: "the best in cost, time and reputation together",
}
ACCEPT_MARGIN_S = 5  # a quote must stand that much longer: locking and sending the money takes a moment


class Nature(StrEnum):
    """What a seller's answer is."""

    QUOTE = "quote"  # firm: payable terms, bound until they expire
    IMPLICIT = "implicit"  # a price without firm terms; payable if it comes with an invoice
    DELIVERED = "delivered"  # the result itself, free or to be paid for now
    PROMISE = "promise"  # `processing` without a price: a free result may follow
    DECLINED = "declined"  # the seller says no


@dataclass(frozen=True, slots=True)
class Terms:
    """One way to pay a quote: at this mint, to this key. `gross` is what it costs us at most.

    If it is atomic it is for the key of `hash` in `mode`, and `seal_key` is the seller's half of the seal (ADR 25).
    """

    mint: str
    wallet_key: str
    gross: Msat
    method: Method = Method.LOCKED
    mode: str = ""
    hash: str = ""
    seal_key: str = ""
    deposit: str = ""  # of ours at this seller, on which it is drawn


@dataclass(frozen=True, slots=True)
class Bill:
    """A seller's Lightning invoice: how it can be paid, or the `fault` for which it is not. See `dvm.invoice`."""

    invoice: str = ""
    payment_hash: str = ""
    expires_at: int = 0
    terms: tuple[Terms, ...] = ()
    fault: str = ""


@dataclass(frozen=True)  # no slots: copied by core.change
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
    raw: str = ""  # a firm quote as its seller signed it, until another was chosen
    standing: Standing = FRESH  # the seller's, when the answer came
    invoice: str = ""
    payment_hash: str = ""
    how: str = ""  # by which method it would be paid, and why

    @property
    def expected_ms(self) -> int:
        """How long it is likely to take: what we measured of this seller, else what it says, else very long."""
        return self.standing.took_ms or self.eta_s * 1000 or UNSAID_MS

    @property
    def numbers(self) -> str:
        """What its rank is made of."""
        best, seen = self.best, self.standing
        cost = "" if best is None else f"{best.gross.value} msat with fees, "
        took = f"{seen.took_ms} ms as measured" if seen.took_ms else f"{self.eta_s} s as it says"
        return f"{cost}{took}, reputation {seen.reputation}, quality {seen.quality} of 1000 after {seen.jobs} paid jobs"

    @property
    def best(self) -> Terms | None:
        """The cheapest way to pay it; by an invoice only if there is no safer one."""
        if len(self.terms) == 1:
            return self.terms[0]
        return min(self.terms, key=lambda item: (item.method.by_invoice, item.gross.value, item.mint), default=None)


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
    if offer.standing.fraud:
        return f"a fraud of this seller is proven: {offer.standing.fraud}"
    if offer.nature is Nature.PROMISE:
        return ""
    if offer.nature is Nature.DELIVERED and not offer.price:
        return ""
    if offer.nature is Nature.DELIVERED and not offer.terms:
        return "it asks to be paid after the result"
    if offer.nature is Nature.DECLINED:
        return "the seller declined"
    price = offer.price
    if price is None or price <= Msat(0):
        return "a quote without a price above zero"
    if price > ceiling:
        return f"{price.value} msat is above the reserved maximum of {ceiling.value} msat"
    if offer.nature is Nature.IMPLICIT and not offer.terms:
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


def payable(offers: Iterable[Offer], now: int, prefer: Prefer = Prefer.COST, luck: int | None = None) -> list[Offer]:
    """What may be accepted now, the preferred first.

    Ties go to what is in hand, then to what protects the money, then to firm quotes.

    Args:
        offers: judged ones.
        now: Unix seconds.
        prefer: what counts as best.
        luck: a random number from 0 if one of the best three shall be drawn; None always takes the best.
    """
    found = [item for item in offers if _may_be_paid(item, now)]
    ranked = sorted(found, key=lambda item: _rank(item, prefer))
    return ranked if luck is None else draw(ranked, luck)


def any_payable(offers: Iterable[Offer], now: int) -> bool:
    """Whether `payable` would find anything."""
    return any(_may_be_paid(item, now) for item in offers)


def _may_be_paid(offer: Offer, now: int) -> bool:
    return bool(offer.terms) and not offer.refusal and _stands(offer, now)


def _rank(offer: Offer, prefer: Prefer) -> tuple[tuple[int, ...], str]:
    best = offer.best
    assert best is not None  # there are terms
    seen = offer.standing
    first, *rest = weigh(prefer, best.gross.value, offer.eta_s, offer.expected_ms, seen.reputation, seen.quality)
    ties = offer.nature is not Nature.DELIVERED, best.method.by_invoice, offer.nature is Nature.IMPLICIT
    return (first, *map(int, ties), *rest), offer.event_id


def usefulness(offer: Offer, prefer: Prefer = Prefer.COST) -> tuple[int, ...]:
    """What is kept when there are too many: the larger. Keys cost nothing, so the earliest have no right to stay."""
    if offer.refusal:
        return 0, 0
    if offer.nature is Nature.PROMISE:
        return 1, 0
    if offer.best is not None:
        return 2, *(-part for part in _rank(offer, prefer)[0])
    return (3, 0) if offer.content else (0, 1)


def least_useful(offers: Sequence[Offer], prefer: Prefer = Prefer.COST) -> Offer:
    """The one that makes room; of equals the latest."""
    return min(reversed(offers), key=lambda offer: usefulness(offer, prefer))


def in_hand(offers: Iterable[Offer], *, stated_free: bool) -> Offer | None:
    """The earliest good free result: of those that state the amount 0, or of all."""
    found = [item for item in offers if item.nature is Nature.DELIVERED and item.content and not item.refusal]
    found = [item for item in found if not item.price]
    if stated_free:
        found = [item for item in found if item.price == Msat(0)]
    return min(found, key=lambda item: (item.at_ms, item.event_id), default=None)


def answered(offers: Iterable[Offer]) -> frozenset[str]:
    """Sellers whose last word is in: whoever only promised may still answer."""
    return frozenset(item.seller for item in offers if item.nature is not Nature.PROMISE)


def reasons(
    chosen: Offer, offers: Sequence[Offer], now: int, prefer: Prefer = Prefer.COST, *, drawn: bool = False
) -> tuple[str, ...]:
    """Why this one: one line for the choice and one for each that lost, with the numbers that decided."""
    if chosen.best is None:
        lines = [f"{chosen.seller}: chosen, its result was delivered free"]
    else:
        how = f"drawn among the best by {prefer.value}" if drawn else _BEST[prefer]
        lines = [f"{chosen.seller}: chosen, {how} at {chosen.numbers}"]
        method = chosen.best.method
        if method.by_invoice:
            when = "after the result" if method is Method.INVOICE_AFTER else "before the work"
            lines[0] += f", paid by a Lightning invoice {when}"
    if chosen.how:
        lines.append(f"{chosen.seller}: paid by {chosen.how}")
    for other in offers:
        if other.event_id == chosen.event_id:
            continue
        if other.refusal:
            lines.append(f"{other.seller}: refused, {other.refusal}")
        elif other.nature is Nature.PROMISE:
            lines.append(f"{other.seller}: passed over, it promised work and had not delivered")
        elif other.terms and not _stands(other, now):
            lines.append(f"{other.seller}: refused, the quote has expired or is about to")
        elif other.best is not None:
            lines.append(f"{other.seller}: passed over at {other.numbers}")
        else:
            lines.append(f"{other.seller}: passed over")
    return tuple(lines)
