"""A deposit of ours at a seller, as the buyer keeps it (ADR 27). `step` does no I/O. Pure.

Until vouchers draw on it a deposit is our own money elsewhere. `charged` is what good results have earned the seller.
One voucher is out at a time: `pending`. It counts when its job was delivered, or when the seller says, of a job that
has ended without a result, that it has earned it; and it is void once the seller has said that it has not, or the coins
are back. What the seller can take all the same is the whole deposit: that is the bound of the trust in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from core.change import replace
from core.identifier import OperationId, derived_id
from core.money import Msat
from dvm import prepaid
from dvm.prepaid import Statement, rest_sat

ZERO = Msat(0)
REFUND_MARGIN_S = 2  # the mint's clock decides whether the locktime has passed
GRACE_S = 30 * 86_400  # coins that the seller took, and of which it says nothing, are given up so long after it
MOST_TAKES = 3  # tokens that are worth nothing


class State(StrEnum):
    """Where the deposit is."""

    ASKED = "asked"  # for the seller's terms; nothing was locked
    LOCKING = "locking"  # it may or may not have left
    SENT = "sent"  # locked, and on its way to the seller
    OPEN = "open"  # the seller has it: vouchers draw on it
    CLOSING = "closing"  # no more is drawn; the rest, or the locktime, is waited for
    TAKING = "taking"  # what the seller gave back is being taken
    RETURNED = "returned"  # that is here; the mint is asked whether the seller took the deposit
    REFUNDING = "refunding"  # the locktime has passed: it is being taken back
    FAILED = "failed"  # nothing was ever locked
    CLOSED = "closed"
    REFUNDED = "refunded"
    LOST = "lost"  # the seller took it, and gave nothing back


ENDED = frozenset({State.FAILED, State.CLOSED, State.REFUNDED, State.LOST})
HELD = frozenset({State.SENT, State.OPEN, State.CLOSING, State.TAKING, State.RETURNED, State.REFUNDING})


@dataclass(frozen=True)  # no slots: stored
class Pending:
    """The voucher that is out: for which job, its number, and the total that it names."""

    job_id: str
    request_id: str
    seq: int
    price: Msat
    total: Msat


@dataclass(frozen=True)  # no slots: copied by core.change
class Deposit:
    """One deposit. `amount` is what claiming it leaves the seller; `gross` what left our wallet. Times in Unix seconds.

    `heard` is the seller's last word of it; `wrap` the message that brought the rest, encrypted to our key.
    """

    id: str
    effect_id: str
    seller: str
    amount: Msat
    margin_s: int
    created_at: int
    mint: str = ""
    wallet_key: str = ""
    locktime: int = 0
    fee_sat: int = 0
    state: State = State.ASKED
    gross: Msat = ZERO
    ys: tuple[str, ...] = ()
    seq: int = 0
    charged: Msat = ZERO
    pending: Pending | None = None
    heard_state: str = ""
    heard_seq: int = 0
    heard_total: Msat = ZERO
    wrap: str = ""
    takes: int = 0
    spent: bool = False
    spent_at: int = 0
    returned: Msat = ZERO  # what came back, net
    refunds: int = 0
    error: str = ""
    fault: str = ""  # what the seller did that it should not have
    unwanted: bool = False  # it was to be closed while its coins were being locked

    @property
    def lock_id(self) -> OperationId:
        """The wallet's name for locking it: the same after a restart, so that it is never locked twice."""
        return OperationId(derived_id("deposit", self.id))

    @property
    def refund_id(self) -> OperationId:
        """The wallet's name for taking it back."""
        return OperationId(derived_id("refund", self.lock_id))

    @property
    def return_id(self) -> OperationId:
        """The wallet's name for taking the rest."""
        return OperationId(derived_id("rest", self.id, str(self.takes)))

    @property
    def due_at(self) -> int:
        """When it is closed even if nobody asks."""
        return self.locktime - self.margin_s

    @property
    def left(self) -> Msat:
        """What can still be drawn."""
        return self.amount - self.charged - (self.pending.price if self.pending is not None else ZERO)

    @property
    def at_risk(self) -> Msat:
        """What the seller could keep without delivering for it."""
        if self.state not in HELD and self.state is not State.LOCKING:
            return ZERO
        return self.amount - self.charged

    @property
    def is_open(self) -> bool:
        """Whether more may be drawn."""
        return self.state is State.OPEN

    def agrees(self, seq: int, total: Msat) -> bool:
        """Whether the seller counts as we do."""
        if seq > self.seq:
            return False
        return total == self.charged or (self.pending is not None and total == self.pending.total)


# -- what can happen ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Agreed:
    """The seller takes such deposits, on terms that were checked. `at` in Unix seconds, as everywhere here."""

    at: int
    mint: str
    wallet_key: str
    locktime: int
    fee_sat: int


@dataclass(frozen=True, slots=True)
class Declined:
    """It takes none, or nothing was heard."""

    reason: str


@dataclass(frozen=True, slots=True)
class LockDone:
    """The wallet has locked the coins."""

    gross: Msat
    ys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LockFailed:
    """The wallet says for certain that nothing left."""

    reason: str


@dataclass(frozen=True, slots=True)
class Heard:
    """The seller's statement. `wrap` is the whole message if it brings something back."""

    statement: Statement
    wrap: str = ""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A job takes a voucher."""

    at: int
    job_id: str
    request_id: str
    price: Msat


@dataclass(frozen=True, slots=True)
class Counted:
    """What became of a job's voucher, in the commit that says so of the job."""

    job_id: str
    ok: bool


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """Nothing more is to be drawn; or its time is over."""


@dataclass(frozen=True, slots=True)
class SpentSeen:
    """The mint says that the coins are spent, and it was not us."""

    at: int


@dataclass(frozen=True, slots=True)
class LocktimePassed:
    """The refund path may be open."""

    at: int


@dataclass(frozen=True, slots=True)
class GraceOver:
    """The seller has had long enough to say something."""

    at: int


@dataclass(frozen=True, slots=True)
class TakeDone:
    """What the seller gave back is ours: `face` as it came, `net` after the mint's fee."""

    face: Msat
    net: Msat


@dataclass(frozen=True, slots=True)
class TakeFailed:
    """It is worth nothing, for certain."""

    reason: str


@dataclass(frozen=True, slots=True)
class RefundDone:
    """The coins are back."""

    net: Msat


@dataclass(frozen=True, slots=True)
class RefundFailed:
    """The mint refused this refund for certain; it is tried again."""


Event: TypeAlias = (
    Agreed
    | Declined
    | LockDone
    | LockFailed
    | Heard
    | Drawn
    | Counted
    | CloseAsked
    | SpentSeen
    | LocktimePassed
    | GraceOver
    | TakeDone
    | TakeFailed
    | RefundDone
    | RefundFailed
)

# -- what the driver must do about it, in the same commit -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendCoins:
    """Hand the locked coins to the seller."""


@dataclass(frozen=True, slots=True)
class SendClose:
    """Tell the seller that it is closed."""


@dataclass(frozen=True, slots=True)
class Settle:
    """End the effect."""

    ok: bool


Effect: TypeAlias = SendCoins | SendClose | Settle
Move: TypeAlias = tuple[Deposit, list[Effect]]


# -- guards and actions -------------------------------------------------------------------------------------------


def _opens(deposit: Deposit, event: Heard) -> bool:
    return event.statement.state == prepaid.OPEN


def _says_closed(deposit: Deposit, event: Heard) -> bool:
    return event.statement.state == prepaid.CLOSED and not event.statement.busy


def _gives_back(deposit: Deposit, event: Heard) -> bool:
    return _says_closed(deposit, event) and bool(deposit.wrap) and deposit.takes < MOST_TAKES


def _gives_none(deposit: Deposit, event: Heard) -> bool:
    return _says_closed(deposit, event) and not event.wrap and rest_sat(deposit.amount, _most(deposit), 0) == 0


def _ends_it(deposit: Deposit, event: Heard) -> bool:
    return event.statement.state in (prepaid.RELEASED, prepaid.REFUSED, prepaid.CLOSING, prepaid.CLOSED)


def _covers(deposit: Deposit, event: Drawn) -> bool:
    room = event.price > ZERO and event.price <= deposit.left
    return deposit.pending is None and room and event.at < deposit.due_at


def _theirs(deposit: Deposit, event: LocktimePassed) -> bool:
    return not deposit.spent and event.at >= deposit.locktime + REFUND_MARGIN_S


def _given_up(deposit: Deposit, event: GraceOver) -> bool:
    return deposit.spent and event.at >= max(deposit.locktime, deposit.spent_at) + GRACE_S


def _came_back(deposit: Deposit, event: Any) -> bool:
    return bool(deposit.returned)


def _can_take(deposit: Deposit, event: Any) -> bool:
    return bool(deposit.wrap) and deposit.takes < MOST_TAKES


def _most(deposit: Deposit) -> Msat:
    """The most that the seller may count: what was delivered, and the voucher that is out."""
    return deposit.pending.total if deposit.pending is not None else deposit.charged


def _agree(deposit: Deposit, event: Agreed) -> Move:
    agreed = replace(
        deposit, mint=event.mint, wallet_key=event.wallet_key, locktime=event.locktime, fee_sat=event.fee_sat
    )
    return agreed, []


def _decline(deposit: Deposit, event: Declined | LockFailed) -> Move:
    return replace(deposit, error=event.reason[:200]), [Settle(ok=False)]


def _withdraw(deposit: Deposit, event: CloseAsked) -> Move:
    return replace(deposit, error="It was closed before anything was locked."), [Settle(ok=False)]


def _send(deposit: Deposit, event: LockDone) -> Move:
    return replace(deposit, gross=event.gross, ys=event.ys), [SendCoins()]


def _unwanted(deposit: Deposit, event: CloseAsked) -> Move:
    """The coins may have left already, so it is closed as soon as that is known."""
    return replace(deposit, unwanted=True), []


def _send_to_close(deposit: Deposit, event: LockDone) -> Move:
    """Only its seller can give the coins back before the locktime: it gets them, and the word that it is closed."""
    deposit, effects = _send(deposit, event)
    return deposit, [*effects, SendClose()]


def _is_unwanted(deposit: Deposit, event: LockDone) -> bool:
    return deposit.unwanted


def _nothing(deposit: Deposit, event: Any) -> Move:
    return deposit, []


def _ended(deposit: Deposit, event: Heard) -> Move:
    refused = event.statement.state == prepaid.REFUSED
    return replace(deposit, error="The seller refuses it." if refused else deposit.error), []


def _draw(deposit: Deposit, event: Drawn) -> Move:
    seq = deposit.seq + 1
    out = Pending(event.job_id, event.request_id, seq, event.price, deposit.charged + event.price)
    return replace(deposit, seq=seq, pending=out), []


def _close(deposit: Deposit, event: CloseAsked) -> Move:
    return deposit, [SendClose()]


def _spent(deposit: Deposit, event: SpentSeen) -> Move:
    return replace(deposit, spent=True, spent_at=deposit.spent_at or event.at), []


def _spent_end(deposit: Deposit, event: SpentSeen) -> Move:
    return replace(deposit, spent=True, spent_at=deposit.spent_at or event.at), [Settle(ok=True)]


def _give_up(deposit: Deposit, event: GraceOver) -> Move:
    return replace(deposit, fault=deposit.fault or "kept"), [Settle(ok=False)]


def _took(deposit: Deposit, event: TakeDone) -> Move:
    expected = Msat.of_sat(rest_sat(deposit.amount, max(deposit.heard_total, _most(deposit)), deposit.fee_sat))
    short = "short" if event.face < expected else ""
    return replace(deposit, returned=deposit.returned + event.net, fault=deposit.fault or short), []


def _took_nothing(deposit: Deposit, event: TakeFailed) -> Move:
    return replace(deposit, wrap="", takes=deposit.takes + 1, fault="token", error=event.reason[:200]), []


def _back(deposit: Deposit, event: RefundDone) -> Move:
    return replace(deposit, returned=deposit.returned + event.net), [Settle(ok=True)]


def _again(deposit: Deposit, event: RefundFailed) -> Move:
    return replace(deposit, refunds=deposit.refunds + 1), []


@dataclass(frozen=True, slots=True)
class Rule:
    """If `when` holds, do `do` and be in `to`."""

    to: State
    do: Callable[[Deposit, Any], Move]
    when: Callable[[Deposit, Any], bool] = lambda deposit, event: True


S = State
_LIVE = (S.SENT, S.OPEN, S.CLOSING)
TRANSITIONS: dict[tuple[State, type[Any]], tuple[Rule, ...]] = {
    (S.ASKED, Agreed): (Rule(S.LOCKING, _agree),),
    (S.ASKED, Declined): (Rule(S.FAILED, _decline),),
    (S.ASKED, CloseAsked): (Rule(S.FAILED, _withdraw),),
    (S.LOCKING, LockDone): (Rule(S.CLOSING, _send_to_close, _is_unwanted), Rule(S.SENT, _send)),
    (S.LOCKING, CloseAsked): (Rule(S.LOCKING, _unwanted),),
    (S.LOCKING, LockFailed): (Rule(S.FAILED, _decline),),
    (S.SENT, Heard): (
        Rule(S.OPEN, _nothing, _opens),
        Rule(S.TAKING, _nothing, _gives_back),
        Rule(S.RETURNED, _nothing, _gives_none),
        Rule(S.CLOSING, _ended, _ends_it),
    ),
    (S.OPEN, Heard): (
        Rule(S.TAKING, _nothing, _gives_back),
        Rule(S.RETURNED, _nothing, _gives_none),
        Rule(S.CLOSING, _ended, _ends_it),
    ),
    (S.CLOSING, Heard): (Rule(S.TAKING, _nothing, _gives_back), Rule(S.RETURNED, _nothing, _gives_none)),
    (S.OPEN, Drawn): (Rule(S.OPEN, _draw, _covers),),
    (S.SENT, CloseAsked): (Rule(S.CLOSING, _close),),
    (S.OPEN, CloseAsked): (Rule(S.CLOSING, _close),),
    **{(place, SpentSeen): (Rule(place, _spent),) for place in _LIVE},
    **{(place, LocktimePassed): (Rule(S.REFUNDING, _nothing, _theirs),) for place in (*_LIVE, S.RETURNED)},
    **{(place, GraceOver): (Rule(S.LOST, _give_up, _given_up),) for place in _LIVE},
    (S.TAKING, TakeDone): (Rule(S.RETURNED, _took),),
    (S.TAKING, TakeFailed): (Rule(S.CLOSING, _took_nothing),),
    (S.RETURNED, SpentSeen): (Rule(S.CLOSED, _spent_end),),
    (S.REFUNDING, RefundDone): (Rule(S.REFUNDED, _back),),
    (S.REFUNDING, RefundFailed): (Rule(S.REFUNDING, _again),),
    (S.REFUNDING, SpentSeen): (
        Rule(S.CLOSED, _spent_end, _came_back),
        Rule(S.TAKING, _spent, _can_take),
        Rule(S.CLOSING, _spent),
    ),
}


def _learn(deposit: Deposit, event: Heard) -> Deposit:
    """The seller's word, whatever the state; an older one, or one that counts what was never signed, tells nothing."""
    said = event.statement
    if said.state == prepaid.CLOSED and deposit.state in HELD and not deposit.wrap:
        deposit = replace(deposit, wrap=event.wrap)  # what comes back is taken, whatever it counts: our row may be old
    if said.seq < deposit.heard_seq or said.total < deposit.heard_total or said.seq > deposit.seq:
        return deposit
    if said.total > _most(deposit) and deposit.state not in ENDED:
        deposit = replace(deposit, fault=deposit.fault or "total")
    if not said.busy:
        deposit = replace(deposit, heard_seq=said.seq, heard_total=said.total)
    return replace(deposit, heard_state=said.state)


def _count(deposit: Deposit, event: Counted) -> Deposit:
    out = deposit.pending
    if out is None or out.job_id != event.job_id:
        return deposit
    return replace(deposit, charged=out.total if event.ok else deposit.charged, pending=None)


def step(deposit: Deposit, event: Event) -> Move:
    """The deposit after an event, and what goes with it. What no rule allows changes only what is recorded."""
    if isinstance(event, Counted):
        return _count(deposit, event), []
    if isinstance(event, Heard):
        deposit = _learn(deposit, event)
    for rule in TRANSITIONS.get((deposit.state, type(event)), ()):
        if rule.when(deposit, event):
            after, effects = rule.do(deposit, event)
            return replace(after, state=rule.to), effects
    return deposit, []


def verdict(deposit: Deposit, job_id: str) -> bool | None:
    """Whether the voucher of a job that brought no result counts; None as long as that is not known (M5)."""
    out = deposit.pending
    if out is None or out.job_id != job_id:
        return False  # it was never drawn, or is counted already
    if deposit.state is State.REFUNDED:
        return False
    final = deposit.heard_state in (prepaid.CLOSED, prepaid.RELEASED)
    if final or deposit.heard_seq >= out.seq:
        return deposit.heard_total >= out.total
    return True if deposit.state in ENDED else None  # the seller took the coins: what we signed may be what for
