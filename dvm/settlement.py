"""How a job can be paid, and which way is chosen (DESIGN §6, "Settlement methods"). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from core.identifier import PubKey
from core.money import Msat
from relays.nip57 import lnurl_of

COSIGN_MARGIN_S = 60  # a buyer co-signs, and locks after the work, only so long before the locktime
CLAIM_NEED_S = 10  # what a seller needs after that to claim
ATOMIC_MARGIN_S = 90  # a lock to a hash ends at least so long after the seller's time
MODE_A, MODE_B = "A", "B"


class Method(StrEnum):
    """One way to settle a job, from the safest for the buyer to the one that trusts the seller most; `free` is none."""

    ATOMIC = "atomic"  # ecash for the key of the sealed result (NUT-14)
    LOCKED = "locked"  # ecash locked to the seller, refundable (NUT-11)
    INVOICE_AFTER = "invoice_after"  # a Lightning invoice that comes with the result
    INVOICE_BEFORE = "invoice_before"  # a Lightning invoice that comes with the quote
    PREPAID = "prepaid"  # drawn from a deposit at a known seller
    FREE = "free"

    @property
    def by_invoice(self) -> bool:
        """Over Lightning: what is paid is gone at once."""
        return self in (Method.INVOICE_AFTER, Method.INVOICE_BEFORE)


_SAFETY = {method: place for place, method in enumerate(Method)}
NOTHING, UNSECURED_MAX = Msat(0), Msat(1_000_000)
UNSECURED = frozenset({Method.LOCKED})  # the seller could take the money and deliver nothing


@dataclass(frozen=True, slots=True)
class Settlement:
    """How jobs are paid, and how they are sold.

    Attributes:
        atomic: whether results are bought and sold sealed at all.
        modes: in which we buy.
        max_fee_share: percent of the price that a method's fees may be, if there is another with less.
        max_unsecured: what may be out to one seller at once without the seller having to deliver for it.
        order_max: as a seller: jobs up to this price are worked on before any money is locked (mode A).
        orders_per_customer: unpaid jobs of one customer at once in mode A; `orders` in all.
        orders: see `orders_per_customer`.
        credit_per_key: as a seller: what one trusted customer may owe for results that carry an invoice; 0 is off.
        credit: the same for all of them together.
        order_bytes: of large results that one customer may have on our file servers unpaid in mode A; all of them
            `orders` times as much.
        ban_s: a customer that had a job done and never paid gets no more of them for so long.
        prepaid_max: the most in one deposit of ours at a seller (ADR 27); nothing opens none.
        prepaid_after: jobs that a seller must have delivered for money before.
        prepaid_s: after so long the rest of a deposit can be taken back without its seller.
        deposit_max: as a seller: the most that a customer may deposit here; nothing takes none.
        deposits: so many deposits of customers may be open.
        deposit_margin_s: before its locktime, when nothing more is drawn on a deposit.
    """

    atomic: bool = True
    modes: tuple[str, ...] = (MODE_A, MODE_B)
    max_fee_share: int = 10
    max_unsecured: Msat = UNSECURED_MAX
    order_max: Msat = NOTHING
    credit_per_key: Msat = NOTHING
    credit: Msat = NOTHING
    orders_per_customer: int = 1
    orders: int = 8
    order_bytes: int = 4 << 20
    ban_s: int = 86_400
    prepaid_max: Msat = NOTHING
    prepaid_after: int = 3
    prepaid_s: int = 7 * 86_400
    deposit_max: Msat = NOTHING
    deposits: int = 256
    deposit_margin_s: int = 3_600

    def mode_for(self, price: Msat, modes: Sequence[str], *, trusted: bool) -> str:
        """As a seller: the mode in which a job of this price is offered sealed; empty if in none.

        Args:
            price: of the job.
            modes: those that the customer takes.
            trusted: whether the customer may have work done before any money is locked.
        """
        if not self.atomic:
            return ""
        if MODE_A in modes and trusted and price <= self.order_max:
            return MODE_A
        return MODE_B if MODE_B in modes else ""


class Way(Protocol):
    """One way to pay a quote."""

    @property
    def method(self) -> Method:
        """By which method."""

    @property
    def gross(self) -> Msat:
        """What it takes from us at most, all fees included."""


W = TypeVar("W", bound=Way)


def choose(ways: Sequence[W], price: Msat, policy: Settlement, unsecured: Msat) -> tuple[tuple[W, ...], str]:
    """Those ways to pay by which this quote is paid, and why by these.

    It is the safest method whose fees are within `max_fee_share`; if there is none, the one with the least fees.

    Args:
        ways: all that both sides can.
        price: what the seller gets.
        policy: ours.
        unsecured: what is out to this seller already without it having to deliver.
    """
    allowed = [way for way in ways if way.method not in UNSECURED or unsecured + way.gross <= policy.max_unsecured]
    if not allowed:
        return (), f"it could be paid only unsecured, above the limit of {policy.max_unsecured.value} msat per seller"
    most = price.value * policy.max_fee_share // 100
    fair = [way for way in allowed if way.gross.value - price.value <= most]
    if fair:
        method = min((way.method for way in fair), key=_SAFETY.__getitem__)
        reason = f"{method.value}, the safest whose fees are at most {policy.max_fee_share} % of the price"
    else:
        method = min(allowed, key=lambda way: (way.gross.value, _SAFETY[way.method])).method
        reason = f"{method.value}, the one with the least fees, though they are above {policy.max_fee_share} %"
    return tuple(way for way in allowed if way.method is method), reason


@dataclass(frozen=True, slots=True)
class Account:
    """Where zaps reach us.

    Attributes:
        address: our lightning address (LUD-16).
        provider: the key with which its server signs receipts (`nostrPubkey`).
    """

    address: str
    provider: PubKey

    @property
    def lnurl(self) -> str:
        """The address as an LNURL."""
        return lnurl_of(self.address)
