"""The buyer's side of one job, without I/O: `step(purchase, event) -> (purchase, effects)`.

`TRANSITIONS` holds both tracks as data. A rule fires if its guard holds; the first that fires wins; no rule means that
the event changes nothing but what is recorded. The job's track may raise `Chosen`, which only the money's track
answers, and only while no money is out: that is why there is never a second payment (M1).

An event runs first on the money's track, then on the job's, then what was raised runs on the money's. A job is closed
when it has ended *and* its money is final (M4): only then does `Finish` book the cost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from core.change import replace
from dvm import buyer_rule as r
from dvm import seal_rule as sealing
from dvm import voucher_rule as prepaid
from dvm.buyer_event import (
    Answered,
    BudgetDenied,
    CancelAsked,
    Chosen,
    DeadlinePassed,
    Effect,
    Event,
    FallbackDone,
    FallbackFailed,
    Finish,
    InvoicePaid,
    KeyHeld,
    KeyShown,
    Lock,
    LockDone,
    LockFailed,
    LocktimePassed,
    LockUnknown,
    Notify,
    Pay,
    Refund,
    RefundDone,
    RefundFailed,
    ResultArrived,
    RevealPassed,
    RunFallback,
    SealedArrived,
    SellerFailed,
    SpentSeen,
    Start,
    StartTimer,
    VoucherCounted,
    WindowClosed,
)
from dvm.conduct import observed
from dvm.error import NotNow
from dvm.job import ENDED, FINAL, Funds, Purchase, State

Guard: TypeAlias = Callable[[Purchase, Any], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """If `when` holds, do `do` and be in `to`."""

    to: State | Funds
    do: Callable[[Purchase, Any], r.Move]
    when: Guard = r.always


def _give_way(*only_if: Guard) -> tuple[Rule, ...]:
    """The seller is out of it: a built-in provider, or nothing."""
    return (
        Rule(State.FALLBACK, r.fall_back, r.both(*only_if, r.builtin_next)),
        Rule(State.FAILED, r.give_up, r.both(*only_if)),
    )


def _next_best(*only_if: Guard) -> tuple[Rule, ...]:
    """Nothing was paid: the best of what is there, in the order of the policy."""
    return (
        Rule(State.DELIVERED, r.take(stated_free=True), r.both(*only_if, r.free_in_hand)),
        Rule(State.ORDERED, r.accept, r.both(*only_if, r.can_order)),
        Rule(State.PAYING, r.accept, r.both(*only_if, r.can_pay)),
        Rule(State.DELIVERED, r.take(stated_free=False), r.both(*only_if, r.anything_in_hand)),
    )


S, F = State, Funds
TRANSITIONS: dict[tuple[State | Funds, type[Any]], tuple[Rule, ...]] = {
    # the job
    (S.STAGED, Start): (
        Rule(S.QUOTING, r.ask_market, r.market_first),
        Rule(S.FALLBACK, r.start_builtin, r.builtin_first),
        Rule(S.FAILED, r.nobody),
    ),
    (S.STAGED, CancelAsked): (Rule(S.CANCELLED, r.cancel),),
    (S.QUOTING, Answered): (
        Rule(S.ORDERED, r.accept, r.both(r.waiting, r.can_order)),
        Rule(S.PAYING, r.accept, r.both(r.waiting, r.can_pay)),
    ),
    (S.QUOTING, ResultArrived): (
        Rule(S.DELIVERED, r.take(stated_free=True), r.free_in_hand),
        Rule(S.DELIVERED, r.take(stated_free=False), r.both(r.waiting, r.anything_in_hand)),
        Rule(S.ORDERED, r.accept, r.both(r.waiting, r.can_order)),
        Rule(S.PAYING, r.accept, r.both(r.waiting, r.can_pay)),
    ),
    (S.QUOTING, WindowClosed): (
        *_next_best(r.this_round),
        Rule(S.QUOTING, r.wait, r.both(r.this_round, r.worth_waiting)),
        *_give_way(r.this_round),
    ),
    (S.QUOTING, DeadlinePassed): (
        Rule(S.DELIVERED, r.take(stated_free=False), r.anything_in_hand),
        *_give_way(),
    ),
    (S.QUOTING, CancelAsked): (Rule(S.CANCELLED, r.cancel),),
    (S.PAYING, BudgetDenied): (*_next_best(r.not_paid), *_give_way(r.not_paid)),
    (S.PAYING, LockFailed): (*_next_best(r.not_paid), *_give_way(r.not_paid)),
    # A token that comes too late is nothing to an honest seller and a present to any other: it is not handed out.
    (S.PAYING, LockDone): (
        Rule(S.SEALED, r.send_payment, r.both(r.locked, sealing.in_hand)),
        Rule(S.WORKING, r.send_payment, r.both(r.locked, r.in_time, sealing.nothing_ordered)),
        *_give_way(r.locked),
    ),
    (S.PAYING, InvoicePaid): (
        Rule(S.DELIVERED, r.deliver_paid, r.both(r.paid_out, r.came_first)),
        Rule(S.WORKING, r.await_work, r.paid_out),
    ),
    (S.PAYING, DeadlinePassed): _give_way(),
    (S.PAYING, CancelAsked): (Rule(S.CANCELLED, r.cancel),),
    # Nothing is paid yet: what goes wrong goes on to the next offer.
    (S.ORDERED, SealedArrived): (
        Rule(S.PAYING, sealing.pay_for_sealed, sealing.good_order),
        *_next_best(r.from_chosen),
        *_give_way(r.from_chosen),
    ),
    (S.ORDERED, BudgetDenied): (*_next_best(r.not_paid), *_give_way(r.not_paid)),
    (S.ORDERED, ResultArrived): (
        Rule(S.DELIVERED, r.deliver, r.good),
        *_next_best(r.from_chosen),
        *_give_way(r.from_chosen),
    ),
    (S.ORDERED, SellerFailed): (*_next_best(r.from_chosen), *_give_way(r.from_chosen)),
    (S.ORDERED, DeadlinePassed): _give_way(),
    (S.ORDERED, CancelAsked): (Rule(S.CANCELLED, r.cancel),),
    (S.WORKING, ResultArrived): (Rule(S.DELIVERED, r.deliver, r.good), *_give_way(r.from_chosen)),
    (S.WORKING, SealedArrived): (Rule(S.SEALED, sealing.keep_sealed, sealing.good_seal), *_give_way(r.from_chosen)),
    (S.WORKING, SellerFailed): _give_way(r.from_chosen),
    (S.WORKING, DeadlinePassed): _give_way(),
    (S.WORKING, CancelAsked): (Rule(S.CANCELLED, r.cancel),),
    # The seller can take the money from here on: the job waits for the key, or until the money is back.
    (S.SEALED, KeyShown): (Rule(S.DELIVERED, sealing.deliver_opened, sealing.opened_well), *_give_way()),
    (S.SEALED, RefundDone): _give_way(),
    (S.SEALED, KeyHeld): (Rule(S.SEALED, sealing.hold_on),),
    (S.SEALED, RevealPassed): _give_way(sealing.over),
    (S.SEALED, CancelAsked): (Rule(S.CANCELLED, r.cancel),),
    (S.FALLBACK, FallbackDone): (Rule(S.DELIVERED, r.deliver_builtin, r.our_leg),),
    (S.FALLBACK, FallbackFailed): (
        Rule(S.QUOTING, r.ask_market, r.both(r.our_leg, r.market_next)),
        *_give_way(r.our_leg),
    ),
    (S.FALLBACK, CancelAsked): (Rule(S.CANCELLED, r.cancel),),
    # its money
    (F.NONE, Chosen): (Rule(F.LOCKING, r.begin_pay, r.by_invoice), Rule(F.LOCKING, r.begin_lock)),
    (F.LOCKING, InvoicePaid): (Rule(F.CLAIMED, r.pay_done, r.our_lock),),
    (F.LOCKING, BudgetDenied): (Rule(F.NONE, r.lock_failed, r.our_lock),),
    (F.LOCKING, LockFailed): (Rule(F.NONE, r.lock_failed, r.our_lock),),
    (F.LOCKING, LockUnknown): (Rule(F.LOCKING, r.lock_unknown, r.our_lock),),
    (F.LOCKING, LockDone): (Rule(F.LOCKED, r.lock_done, r.our_lock),),
    (F.LOCKED, SpentSeen): (Rule(F.CLAIMED, r.claimed),),
    (F.LOCKED, ResultArrived): (Rule(F.CLAIMED, prepaid.charge, prepaid.earned),),
    (F.LOCKED, VoucherCounted): (
        Rule(F.CLAIMED, prepaid.charge, prepaid.counts),
        Rule(F.REFUNDED, prepaid.release, prepaid.void),
    ),
    (F.LOCKED, LocktimePassed): (Rule(F.REFUNDING, r.refund, r.due),),
    (F.REFUNDING, RefundDone): (Rule(F.REFUNDED, r.refunded),),
    (F.REFUNDING, RefundFailed): (Rule(F.REFUNDING, r.refund_again),),
    (F.REFUNDING, SpentSeen): (Rule(F.CLAIMED, r.claimed),),
}


def _fire(purchase: Purchase, place: State | Funds, event: Event) -> r.Move | None:
    for rule in TRANSITIONS.get((place, type(event)), ()):
        if rule.when(purchase, event):
            purchase, effects = rule.do(purchase, event)
            if rule.to is purchase.state or rule.to is purchase.money:
                return purchase, effects
            if isinstance(rule.to, State):
                return replace(purchase, state=rule.to), effects
            return replace(purchase, money=rule.to), effects
    return None


def step(purchase: Purchase, event: Event) -> tuple[Purchase, list[Effect]]:
    """The job after an event, and what the driver must do.

    Raises:
        NotNow: a choice while money is out. Our own fault; nothing may be committed.
    """
    if isinstance(event, Chosen):
        raise NotNow("A choice is raised by the job's own rules, never told from outside.")
    before = purchase
    purchase = r.learn(purchase, event)
    if purchase.closed:
        return purchase, []
    purchase, effects = _fire(purchase, purchase.money, event) or (purchase, [])
    purchase, more = _fire(purchase, purchase.state, event) or (purchase, [])
    effects += more
    out: list[Effect] = []
    for effect in effects:
        if not isinstance(effect, Chosen):
            out.append(effect)
            continue
        moved = _fire(purchase, purchase.money, effect)
        if moved is None:
            raise NotNow(f"A second payment was chosen while the first is {purchase.money.value}.")
        purchase, more = moved
        out += more
    purchase = observed(before, purchase, event)
    if purchase.state in ENDED:
        if before.state not in ENDED:
            out.append(Notify())
        if purchase.money in FINAL:
            purchase = replace(purchase, closed=True)
            out.append(Finish(purchase.cost))
    return purchase, out


def resumed(purchase: Purchase, now_ms: int) -> list[Effect]:
    """What a restart must do again. Everything here is harmless if it was already done."""
    if purchase.closed:
        return []
    effects: list[Effect] = []
    payment = purchase.payment
    if purchase.state is State.QUOTING:
        effects.append(StartTimer("window", now_ms + purchase.window_ms, purchase.round))
    if purchase.state in (State.QUOTING, State.ORDERED, State.PAYING, State.WORKING):
        # What was paid for may wait at a relay since the seller's time ended: it gets a moment to arrive. An invoice
        # may have been paid without our being told.
        paying = purchase.state is State.PAYING and payment is not None and payment.method.by_invoice
        grace = now_ms + purchase.patience_ms if paying or purchase.state is State.WORKING else 0
        effects.append(StartTimer("deadline", max(purchase.deadline * 1000, grace)))
    if purchase.state is State.FALLBACK:
        effects.append(RunFallback(purchase.route[purchase.leg]))
    if purchase.money is Funds.CLAIMED:
        effects += sealing.seek_key(purchase, now_ms)
    if payment is not None and purchase.money is Funds.LOCKING:
        effects.append(Pay(payment) if payment.method.by_invoice else Lock(payment))
    if payment is not None and purchase.money is Funds.LOCKED:
        effects += prepaid.watched(payment)
    if payment is not None and purchase.money is Funds.REFUNDING:
        effects.append(Refund(payment))
    return effects
