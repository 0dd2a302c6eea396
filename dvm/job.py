"""A job that we buy, as the buyer's machine keeps it: two tracks, the job's and its money's (DESIGN §6). Pure."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from core.change import replace
from core.identifier import OperationId, derived_id
from core.money import MicroUsd, Money, Msat, Rate, money
from dvm.parcel import Kept
from dvm.preference import Prefer
from dvm.redundancy import Seat
from dvm.reputation import Verdict
from dvm.request import ComputeRequest, Datum
from dvm.selection import Offer
from dvm.settlement import UNSECURED, Method

ZERO = Msat(0)
MAX_OFFERS = 64
MAX_REFUSED = 32
MAX_NOTES = 100
MAX_PARTS = 64
MAX_PART_BYTES = 32_768  # all parts of one job
REFUND_MARGIN_MS = 2_000


class State(StrEnum):
    """Where the job is."""

    STAGED = "staged"  # allowed and written down; nothing has left the process
    QUOTING = "quoting"  # the request is out, answers are collected
    ORDERED = "ordered"  # a quote is accepted, and its sealed result is waited for before any money is locked
    PAYING = "paying"  # a quote is chosen and its money is being locked
    WORKING = "working"  # the locked money is on its way to the seller
    SEALED = "sealed"  # the sealed result is here, and the seller can take the money by showing its key
    FALLBACK = "fallback"  # a built-in provider works on it
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Funds(StrEnum):
    """Where the job's money is."""

    NONE = "none"  # nothing left, or proven never to have left
    LOCKING = "locking"  # may or may not have left
    LOCKED = "locked"  # locked to the seller
    REFUNDING = "refunding"  # the locktime has passed; it is being taken back
    CLAIMED = "claimed"  # the seller has it
    REFUNDED = "refunded"  # it is back, less fees


ENDED = frozenset({State.DELIVERED, State.FAILED, State.CANCELLED})
FINAL = frozenset({Funds.NONE, Funds.CLAIMED, Funds.REFUNDED})


def lock_id(job_id: str, quote_event_id: str) -> OperationId:
    """The wallet's name for paying this quote: the same after a restart, so that it is never paid twice (M1)."""
    return OperationId(derived_id("lock", job_id, quote_event_id))


def refund_id(lock_op_id: str) -> OperationId:
    """The wallet's name for taking a lock's money back."""
    return OperationId(derived_id("refund", lock_op_id))


@dataclass(frozen=True, slots=True)
class Limit:
    """The reservation, in the budget's unit, and the one rate at which this job counts (M8).

    `ceiling` is the most msat, fees included, whose cost at that rate stays within the reservation.
    """

    unit: str
    value: int
    ceiling: Msat
    rate: Rate | None = None

    @property
    def money(self) -> Money:
        """The reservation itself."""
        return money(self.unit, self.value)

    def cost(self, amount: Msat) -> Money:
        """What an amount counts as in the budget, rounded up."""
        if self.unit == Msat.unit:
            return amount
        if not amount:
            return MicroUsd(0)
        assert self.rate is not None  # a job in µUSD is not staged without a rate
        return self.rate.cost(amount)

    def usd(self, amount: Msat) -> MicroUsd | None:
        """What an amount is worth at the frozen rate, rounded up; None if there is none."""
        return None if self.rate is None else self.rate.cost(amount)


@dataclass(frozen=True)  # no slots: copied by core.change
class Payment:
    """The one payment of a job, by default ecash locked to the chosen seller's wallet key (NUT-11).

    An atomic one is locked to `hash` as well (NUT-14), in `mode`; `seal_key` is the seller's half of the seal.

    `gross` is what it takes from our wallet, our swap's fee included; `amount` is what is locked; `received` is what
    a refund brought back. `refunds` counts refunds that the mint refused: each is tried again, ever more slowly.
    """

    op_id: str
    offer_id: str
    quote_id: str
    seller: str
    mint: str
    wallet_key: str
    price: Msat
    ceiling: Msat
    locktime: int
    gross: Msat = ZERO
    amount: Msat = ZERO
    received: Msat = ZERO
    ys: tuple[str, ...] = ()
    refunds: int = 0
    method: Method = Method.LOCKED
    quote: str = ""  # as its seller signed it
    invoice: str = ""  # of a payment over Lightning; what it pays is gone at once
    mode: str = ""
    hash: str = ""
    seal_key: str = ""
    deposit: str = ""  # on which a voucher draws (ADR 27); while that is out its money counts as locked

    @property
    def atomic(self) -> bool:
        """Whether the money buys the key of a sealed result."""
        return self.method is Method.ATOMIC


def refund_from_ms(payment: Payment) -> int:
    """When to begin taking it back: the mint's clock decides whether the locktime has passed, so not at once."""
    return payment.locktime * 1000 + REFUND_MARGIN_MS


@dataclass(frozen=True, slots=True)
class Note:
    """One line of the job's story."""

    at_ms: int
    word: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a result that came before it (7000 `partial`): shown, and never taken for the result."""

    at_ms: int
    event_id: str
    content: str


@dataclass(frozen=True, slots=True)
class Refused:
    """An answer that changed nothing, and why."""

    event_id: str
    seller: str
    reason: str


@dataclass(frozen=True)  # no slots: copied by core.change
class Purchase:
    """One job that we buy. Immutable: the machine's `step` returns the next one."""

    job_id: str
    effect_id: str
    caller: str
    kind: int
    inputs: tuple[Datum, ...]
    params: tuple[tuple[str, ...], ...]
    output: str
    limit: Limit
    bid: Msat
    mints: tuple[str, ...]
    route: tuple[str, ...]  # `dvm` or names of built-in providers, in the order in which they are asked
    created_at: int
    window_ms: int
    patience_ms: int
    timeout_s: int
    lock_margin_s: int
    state: State = State.STAGED
    money: Funds = Funds.NONE
    leg: int = 0  # which part of the route is at work
    request: str = ""  # the signed request event as JSON
    request_id: str = ""
    deadline: int = 0
    round: int = 0  # 1 once a seller that promised a free result is waited for
    offers: tuple[Offer, ...] = ()
    chosen: str = ""  # event id of the accepted answer
    payment: Payment | None = None
    provider: str = ""
    seller: str = ""
    result: str = ""
    result_id: str = ""
    sealed: str = ""  # the signed sealed result as JSON; kept after the job only as evidence
    sealed_id: str = ""
    pt_hash: str = ""
    preimage: str = ""  # of the payment's hash, once the mint has shown it
    held_ms: int = 0  # since when what it opens could not be had or kept, and why: `unkept`
    unkept: str = ""
    fault: str = ""  # `fraud`: the key that was paid for does not open what the seller signed
    error: str = ""
    why: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    refused: tuple[Refused, ...] = ()
    refused_count: int = 0
    closed: bool = False
    prefer: Prefer = Prefer.COST
    luck: int | None = None  # a random number if one of the best three offers is drawn (dvm.preference)
    to: str = ""  # the one seller that is asked
    private: str = ""  # how it is hidden (relays.private_job.Scheme)
    parts: tuple[Part, ...] = ()  # the first that came, within bounds
    verdict: Verdict = Verdict.NONE  # how the chosen seller did
    began_ms: int = 0  # when the job was handed to it
    took_ms: int = 0
    seat: Seat | None = None  # its place among the purchases of a job that several sellers do
    kept: Kept | None = None  # of a result that came by file servers; it lies in a file if `result` is empty
    copied: bool = False  # it was under way when the copy was made from which this node was restored (dvm.copy)

    @property
    def ask(self) -> ComputeRequest:
        """What was asked for."""
        return ComputeRequest(self.kind, self.inputs, self.params, None, None, self.output)

    @property
    def next_leg(self) -> str | None:
        """Who is asked after the present one; None at the end of the route."""
        return self.route[self.leg + 1] if self.leg + 1 < len(self.route) else None

    @property
    def cost(self) -> Msat:
        """What it has cost for good: nothing as long as the money may still come back."""
        if self.payment is None:
            return Msat(0)
        if self.money is Funds.CLAIMED:
            return self.payment.gross
        if self.money is Funds.REFUNDED:
            return self.payment.gross - self.payment.received
        return Msat(0)

    def unsecured(self, seller: str) -> Msat:
        """What is out to a seller that could keep it and deliver nothing."""
        payment = self.payment
        if payment is None or payment.seller != seller or payment.method not in UNSECURED:
            return Msat(0)
        if self.state is State.DELIVERED or self.money in (Funds.NONE, Funds.REFUNDED):
            return Msat(0)
        return payment.gross or payment.ceiling

    def noted(self, at_ms: int, word: str, detail: str = "") -> Self:
        """With one more line in its story; the oldest go when there are too many."""
        return replace(self, notes=(*self.notes, Note(at_ms, word, detail[:500]))[-MAX_NOTES:])

    def streamed(self, at_ms: int, event_id: str, content: str) -> Self:
        """With one more part of the result; as it is if the part is known or there are too many."""
        size = sum(len(part.content.encode(errors="replace")) for part in self.parts)
        known = any(part.event_id == event_id for part in self.parts)
        full = len(self.parts) >= MAX_PARTS or size + len(content.encode(errors="replace")) > MAX_PART_BYTES
        return self if known or full else replace(self, parts=(*self.parts, Part(at_ms, event_id, content)))

    def refusing(self, event_id: str, seller: str, reason: str) -> Self:
        """With an answer recorded that changes nothing."""
        kept = (*self.refused, Refused(event_id, seller, reason[:200]))[-MAX_REFUSED:]
        return replace(self, refused=kept, refused_count=self.refused_count + 1)

    def offer(self, event_id: str) -> Offer | None:
        """The answer with this event id."""
        return next((item for item in self.offers if item.event_id == event_id), None)
