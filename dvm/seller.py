"""The seller's side of one job, without I/O: `step(sale, event) -> (sale, effects)`, with `TRANSITIONS` as data.

A rule fires if its guard holds; the first that fires wins; no rule means that nothing changes. A paid job is worked
only once its payment was verified (M7), and claimed only after its result is on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

from core.money import Msat

ZERO = Msat(0)


class State(StrEnum):
    """Where the sale is."""

    SEEN = "seen"  # admitted, nothing written yet
    QUOTED = "quoted"  # a firm quote stands
    WORKING = "working"  # for free, or the payment is verified and ours to claim
    DELIVERED = "delivered"  # the result is out; the payment is not claimed yet
    DONE = "done"  # claimed, or delivered for free
    EXPIRED = "expired"  # nobody paid in time
    FAILED = "failed"  # the work did not succeed; a payment is left for its sender to take back
    LOST = "lost"  # delivered, and the payment could not be claimed
    CANCELLED = "cancelled"  # by the customer, before the work


ENDED = frozenset({State.DONE, State.EXPIRED, State.FAILED, State.LOST, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Sale:
    """One job that we sell. `request`, `answer` and `payment` are whole signed events as JSON.

    `answer` is the quote, later the result: what is sent again, in the same bytes, if the request comes again.
    `payment` is the gift wrap that brought the money: it stays encrypted to our key, also in the database.
    """

    request_id: str
    effect_id: str
    customer: str
    kind: int
    request: str
    price: Msat
    state: State = State.SEEN
    mints: tuple[str, ...] = ()  # those that the quote names
    quote_id: str = ""
    expires_at: int = 0
    answer: str = ""
    payment: str = ""
    payment_id: str = ""
    mint: str = ""
    ys: tuple[str, ...] = ()
    net: Msat = ZERO
    locktime: int = 0
    claimed: Msat = ZERO
    error: str = ""

    @property
    def paid(self) -> bool:
        """Whether a verified payment came."""
        return bool(self.payment)


# -- what can happen --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quoted:
    """The request is admitted at a price; the signed quote is ready."""

    quote_id: str
    expires_at: int
    answer: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request is served for free."""


@dataclass(frozen=True, slots=True)
class PaymentVerified:
    """The wallet found the payment good. `at` is when it was received (Unix seconds)."""

    at: int
    payment: str
    payment_id: str
    sender: str
    mint: str
    ys: tuple[str, ...]
    net: Msat
    locktime: int


@dataclass(frozen=True, slots=True)
class PaymentRefused:
    """A payment message came for this quote, and it is not good."""

    sender: str
    reason: str


@dataclass(frozen=True, slots=True)
class WorkDone:
    """The provider's result, signed and ready to go out."""

    answer: str


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """The provider could not do it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """The payment is in our wallet; `net` is what arrived."""

    net: Msat


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """The mint says for certain that the payment cannot be claimed any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class QuoteLapsed:
    """The quote's time may be over. `at` in Unix seconds."""

    at: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The customer deleted the request (NIP-09)."""

    sender: str


@dataclass(frozen=True, slots=True)
class AskedAgain:
    """The same request came once more."""

    at: int


Event: TypeAlias = (
    Quoted
    | Admitted
    | PaymentVerified
    | PaymentRefused
    | WorkDone
    | WorkFailed
    | Claimed
    | ClaimRefused
    | QuoteLapsed
    | Cancelled
    | AskedAgain
)

# -- what the driver must do about it ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """In the same commit: put `answer` on its way, again if it was sent before."""

    again: bool = False


@dataclass(frozen=True, slots=True)
class SendWord:
    """In the same commit: a 7000 with this status."""

    status: str
    info: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """Let the provider do it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Take the payment at the mint, and try again until it is certain."""


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """In the same commit: 7000 `success` with the receipt of the claim."""


@dataclass(frozen=True, slots=True)
class Settle:
    """In the same commit: end the effect."""

    ok: bool


Effect: TypeAlias = Send | SendWord | Work | Claim | SendReceipt | Settle
Move: TypeAlias = tuple[Sale, list[Effect]]


@dataclass(frozen=True, slots=True)
class Rule:
    """If `when` holds, do `do` and be in `to`."""

    to: State
    do: Callable[[Sale, Any], Move]
    when: Callable[[Sale, Any], bool] = lambda sale, event: True


def _quote(sale: Sale, event: Quoted) -> Move:
    sale = replace(sale, quote_id=event.quote_id, expires_at=event.expires_at, answer=event.answer)
    return sale, [Send()]


def _serve(sale: Sale, event: Admitted) -> Move:
    return sale, [SendWord("processing"), Work()]


def _take_payment(sale: Sale, event: PaymentVerified) -> Move:
    sale = replace(
        sale,
        payment=event.payment,
        payment_id=event.payment_id,
        mint=event.mint,
        ys=event.ys,
        net=event.net,
        locktime=event.locktime,
        answer="",
    )
    return sale, [SendWord("processing"), Work()]


def _refuse_payment(sale: Sale, event: PaymentRefused) -> Move:
    return sale, [SendWord("error", f"the payment is not accepted: {event.reason}")]


def _deliver_free(sale: Sale, event: WorkDone) -> Move:
    return replace(sale, answer=event.answer), [Send(), Settle(ok=True)]


def _deliver(sale: Sale, event: WorkDone) -> Move:
    return replace(sale, answer=event.answer), [Send(), Claim()]


def _fail(sale: Sale, event: WorkFailed) -> Move:
    return replace(sale, error=event.reason), [SendWord("error", event.reason), Settle(ok=False)]


def _claimed(sale: Sale, event: Claimed) -> Move:
    return replace(sale, claimed=event.net), [SendReceipt(), Settle(ok=True)]


def _lost(sale: Sale, event: ClaimRefused) -> Move:
    return replace(sale, error=event.reason), [Settle(ok=False)]


def _end(sale: Sale, event: Any) -> Move:
    """Nobody paid: what a stranger sent is not kept, or the database would grow with whatever is asked."""
    return replace(sale, request="", answer=""), [Settle(ok=False)]


def _again(sale: Sale, event: AskedAgain) -> Move:
    return sale, [Send(again=True)]


def _is_customer(sale: Sale, event: Any) -> bool:
    return bool(event.sender == sale.customer)


def _in_time(sale: Sale, event: PaymentVerified) -> bool:
    return _is_customer(sale, event) and event.at < sale.expires_at and event.net >= sale.price


def _over(sale: Sale, event: QuoteLapsed) -> bool:
    return event.at >= sale.expires_at


def _stands(sale: Sale, event: AskedAgain) -> bool:
    return event.at < sale.expires_at


def _is_paid(sale: Sale, event: Any) -> bool:
    return sale.paid


def _is_free(sale: Sale, event: Any) -> bool:
    return not sale.price


S = State
TRANSITIONS: dict[tuple[State, type[Any]], tuple[Rule, ...]] = {
    (S.SEEN, Quoted): (Rule(S.QUOTED, _quote),),
    (S.SEEN, Admitted): (Rule(S.WORKING, _serve, _is_free),),
    (S.QUOTED, PaymentVerified): (Rule(S.WORKING, _take_payment, _in_time),),
    (S.QUOTED, PaymentRefused): (Rule(S.QUOTED, _refuse_payment, _is_customer),),
    (S.QUOTED, QuoteLapsed): (Rule(S.EXPIRED, _end, _over),),
    (S.QUOTED, Cancelled): (Rule(S.CANCELLED, _end, _is_customer),),
    (S.QUOTED, AskedAgain): (Rule(S.QUOTED, _again, _stands),),
    (S.WORKING, WorkDone): (
        Rule(S.DELIVERED, _deliver, _is_paid),
        Rule(S.DONE, _deliver_free, _is_free),
    ),
    (S.WORKING, WorkFailed): (Rule(S.FAILED, _fail),),
    (S.DELIVERED, Claimed): (Rule(S.DONE, _claimed),),
    (S.DELIVERED, ClaimRefused): (Rule(S.LOST, _lost),),
    (S.DELIVERED, AskedAgain): (Rule(S.DELIVERED, _again),),
    (S.DONE, AskedAgain): (Rule(S.DONE, _again),),
    (S.LOST, AskedAgain): (Rule(S.LOST, _again),),
}


def step(sale: Sale, event: Event) -> Move:
    """The sale after an event, and what the driver must do. What no rule allows changes nothing."""
    for rule in TRANSITIONS.get((sale.state, type(event)), ()):
        if rule.when(sale, event):
            after, effects = rule.do(sale, event)
            return replace(after, state=rule.to), effects
    return sale, []


def resumed(sale: Sale) -> list[Effect]:
    """What a restart must do again. Everything here is harmless if it was already done."""
    if sale.state is State.WORKING:
        return [Work()]
    if sale.state is State.DELIVERED:
        return [Claim()]
    return []
