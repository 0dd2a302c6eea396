"""A deposit that a customer has locked to us, as the seller keeps it (ADR 27). `step` does no I/O. Pure.

What was earned rises only when a job was delivered, by the voucher that it was worked for; one job of a deposit is at
work at a time, so that a job that fails leaves nothing to be told apart. The coins are claimed once: when the customer
closes the deposit, or shortly before they could be taken back, if anything was earned. What is left goes back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from core.change import replace
from core.money import Msat
from dvm import prepaid
from dvm.error import (
    VoucherBusy,
    VoucherDeposit,
    VoucherExceeds,
    VoucherExpired,
    VoucherRefused,
    VoucherReplayed,
    VoucherRequest,
    VoucherSignature,
    VoucherTotal,
)
from dvm.prepaid import Statement, Voucher, rest_sat

ZERO = Msat(0)


class State(StrEnum):
    """Where the deposit is."""

    OPEN = "open"
    CLAIMING = "claiming"  # its coins are being taken at the mint
    RETURNING = "returning"  # taken; what is left of it is made into a token for the customer
    CLOSED = "closed"  # taken, and what was left is on its way back
    RELEASED = "released"  # nothing was earned: it is left for the customer to take back
    LOST = "lost"  # it was taken back before it was claimed


ENDED = frozenset({State.CLOSED, State.RELEASED, State.LOST})
_SAID = {State.OPEN: prepaid.OPEN, State.CLOSED: prepaid.CLOSED, State.RELEASED: prepaid.RELEASED}


@dataclass(frozen=True)  # no slots: copied by core.change
class Custody:
    """One deposit. `amount` is what claiming it leaves; times are Unix seconds.

    `payment` is the gift wrap that brought the coins, encrypted to our key. `key` signs vouchers. `total` is what is
    earned, by `voucher`; `held` what will be once the job `busy` is delivered. No voucher is taken from `margin_s`
    before the locktime on.
    """

    id: str
    effect_id: str
    customer: str
    key: str
    mint: str
    amount: Msat
    locktime: int
    margin_s: int
    fee_sat: int
    payment: str
    state: State = State.OPEN
    seq: int = 0
    total: Msat = ZERO
    voucher: str = ""  # the signature for `total`, kept as evidence
    busy: str = ""
    held: Msat = ZERO
    held_voucher: str = ""
    closing: bool = False
    claimed: Msat = ZERO
    returned_sat: int = 0
    returns: int = 0  # tokens that the mint refused to make
    error: str = ""

    @property
    def drawn_until(self) -> int:
        """From then on no voucher is taken."""
        return self.locktime - self.margin_s

    @property
    def due_at(self) -> int:
        """When it is claimed even if nobody closes it."""
        return self.locktime - self.margin_s // 2

    @property
    def rest_sat(self) -> int:
        """What goes back; a mint that took more than was expected takes it of this."""
        return rest_sat(min(self.amount, self.claimed), self.total, self.fee_sat)

    @property
    def statement(self) -> Statement:
        """What the customer is told."""
        word = prepaid.CLOSING if self.closing else _SAID.get(self.state, prepaid.CLOSING)
        if self.state in ENDED:
            word = _SAID.get(self.state, prepaid.REFUSED)
        return Statement(word, self.seq, self.total, bool(self.busy))


# -- what can happen ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VoucherShown:
    """A voucher came for a job at this price. `seller` is our key. `at` in Unix seconds, as everywhere here."""

    at: int
    sender: str
    seller: str
    voucher: Voucher
    request_id: str
    price: Msat


@dataclass(frozen=True, slots=True)
class WorkEnded:
    """The job that was at work has ended; `ok` if its result is on its way in the same commit."""

    request_id: str
    ok: bool


@dataclass(frozen=True, slots=True)
class StatusAsked:
    """The customer wants to know; vouchers up to `seq` that are not at work are void."""

    sender: str
    seq: int


@dataclass(frozen=True, slots=True)
class CloseAsked:
    """The customer wants the rest back."""

    sender: str
    seq: int


@dataclass(frozen=True, slots=True)
class Due:
    """Its time may be over."""

    at: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """The coins are ours; `net` is what arrived."""

    net: Msat


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """The mint says for certain that they cannot be claimed any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Returned:
    """The token for the customer is made."""

    sat: int


@dataclass(frozen=True, slots=True)
class ReturnRefused:
    """The mint refused to make it, for certain: it is tried anew."""


Event: TypeAlias = (
    VoucherShown | WorkEnded | StatusAsked | CloseAsked | Due | Claimed | ClaimRefused | Returned | ReturnRefused
)

# -- what the driver must do about it, in the same commit -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tell:
    """Send the customer our statement."""


@dataclass(frozen=True, slots=True)
class Settle:
    """End the effect."""

    ok: bool


Effect: TypeAlias = Tell | Settle
Move: TypeAlias = tuple[Custody, list[Effect]]


def fault(custody: Custody, event: VoucherShown) -> type[VoucherRefused] | None:
    """Why a voucher is not worked for; None if it is good. What it says is looked at once its signature is good."""
    shown = event.voucher
    if shown.deposit != custody.id or event.sender != custody.customer:
        return VoucherDeposit
    if not shown.is_signed(event.seller, custody.key):
        return VoucherSignature
    if custody.state is not State.OPEN or custody.closing:
        return VoucherDeposit
    if shown.request_id != event.request_id:
        return VoucherRequest
    if event.at >= custody.drawn_until:
        return VoucherExpired
    if shown.seq <= custody.seq:
        return VoucherReplayed
    if custody.busy:
        return VoucherBusy
    if shown.total > custody.amount:
        return VoucherExceeds
    if event.price <= ZERO or shown.total != custody.total + event.price:
        return VoucherTotal
    return None


# -- guards and actions -------------------------------------------------------------------------------------------


def _good(custody: Custody, event: VoucherShown) -> bool:
    return fault(custody, event) is None


def _is_customer(custody: Custody, event: Any) -> bool:
    return bool(event.sender == custody.customer)


def _their_busy(custody: Custody, event: CloseAsked) -> bool:
    return _is_customer(custody, event) and bool(custody.busy)


def _at_work(custody: Custody, event: WorkEnded) -> bool:
    return bool(custody.busy) and custody.busy == event.request_id


def _last_work(custody: Custody, event: WorkEnded) -> bool:
    return _at_work(custody, event) and custody.closing


def _over(custody: Custody, event: Due) -> bool:
    return event.at >= custody.due_at


def _over_busy(custody: Custody, event: Due) -> bool:
    return _over(custody, event) and bool(custody.busy)


def _over_earned(custody: Custody, event: Due) -> bool:
    return _over(custody, event) and bool(custody.total)


def _has_rest(custody: Custody, event: Claimed) -> bool:
    return replace(custody, claimed=event.net).rest_sat > 0


def _take(custody: Custody, event: VoucherShown) -> Move:
    shown = event.voucher
    held = replace(custody, seq=shown.seq, busy=event.request_id, held=shown.total, held_voucher=shown.signature)
    return held, []


def _end_work(custody: Custody, event: WorkEnded) -> Move:
    if event.ok:
        custody = replace(custody, total=custody.held, voucher=custody.held_voucher)
    return replace(custody, busy="", held=ZERO, held_voucher=""), []


def _void(custody: Custody, seq: int) -> Custody:
    return custody if custody.busy else replace(custody, seq=max(custody.seq, seq))


def _answer(custody: Custody, event: StatusAsked) -> Move:
    return _void(custody, event.seq), [Tell()]


def _repeat(custody: Custody, event: Any) -> Move:
    return custody, [Tell()]


def _mark(custody: Custody, event: Any) -> Move:
    return replace(custody, closing=True), []


def _close(custody: Custody, event: CloseAsked) -> Move:
    return replace(_void(custody, event.seq), closing=True), []


def _release(custody: Custody, event: Due) -> Move:
    return replace(custody, closing=True), [Tell(), Settle(ok=True)]


def _claimed(custody: Custody, event: Claimed) -> Move:
    return replace(custody, claimed=event.net), []


def _claimed_all(custody: Custody, event: Claimed) -> Move:
    return replace(custody, claimed=event.net), [Tell(), Settle(ok=True)]


def _lost(custody: Custody, event: ClaimRefused) -> Move:
    return replace(custody, error=event.reason[:200]), [Tell(), Settle(ok=False)]


def _returned(custody: Custody, event: Returned) -> Move:
    return replace(custody, returned_sat=event.sat), [Tell(), Settle(ok=True)]


def _return_again(custody: Custody, event: ReturnRefused) -> Move:
    return replace(custody, returns=custody.returns + 1), []


@dataclass(frozen=True, slots=True)
class Rule:
    """If `when` holds, do `do` and be in `to`."""

    to: State
    do: Callable[[Custody, Any], Move]
    when: Callable[[Custody, Any], bool] = lambda custody, event: True


S = State
TRANSITIONS: dict[tuple[State, type[Any]], tuple[Rule, ...]] = {
    (S.OPEN, VoucherShown): (Rule(S.OPEN, _take, _good),),
    (S.OPEN, WorkEnded): (Rule(S.CLAIMING, _end_work, _last_work), Rule(S.OPEN, _end_work, _at_work)),
    (S.OPEN, StatusAsked): (Rule(S.OPEN, _answer, _is_customer),),
    (S.OPEN, CloseAsked): (Rule(S.OPEN, _mark, _their_busy), Rule(S.CLAIMING, _close, _is_customer)),
    (S.OPEN, Due): (
        Rule(S.OPEN, _mark, _over_busy),
        Rule(S.CLAIMING, _mark, _over_earned),
        Rule(S.RELEASED, _release, _over),
    ),
    (S.CLAIMING, Claimed): (Rule(S.RETURNING, _claimed, _has_rest), Rule(S.CLOSED, _claimed_all)),
    (S.CLAIMING, ClaimRefused): (Rule(S.LOST, _lost),),
    (S.RETURNING, Returned): (Rule(S.CLOSED, _returned),),
    (S.RETURNING, ReturnRefused): (Rule(S.RETURNING, _return_again),),
    **{(place, StatusAsked): (Rule(place, _repeat, _is_customer),) for place in State if place is not S.OPEN},
    **{(place, CloseAsked): (Rule(place, _repeat, _is_customer),) for place in State if place is not S.OPEN},
}


def step(custody: Custody, event: Event) -> Move:
    """The deposit after an event, and what goes with it. What no rule allows changes nothing."""
    for rule in TRANSITIONS.get((custody.state, type(event)), ()):
        if rule.when(custody, event):
            after, effects = rule.do(custody, event)
            return replace(after, state=rule.to), effects
    return custody, []
