"""The guards and actions of the buyer's rules for jobs that are drawn from a deposit (ADR 27). Pure.

The voucher goes out in the commit in which its money counts as locked. It is the seller's with a good result, in the
commit that keeps that; without one it is so only if the seller says so, and else it is void.
"""

from dataclasses import replace
from typing import Any, TypeAlias

from dvm.buyer_event import CountVoucher, Effect, ResultArrived, StartTimer, VoucherCounted, WatchSpent
from dvm.job import Payment, Purchase, State, refund_from_ms
from dvm.settlement import Method

Move: TypeAlias = tuple[Purchase, list[Effect]]


def watched(payment: Payment) -> list[Effect]:
    """What follows from money that is out: it is watched, and what was locked for this job alone is taken back."""
    if payment.method is Method.PREPAID:
        return [WatchSpent(payment)]
    return [WatchSpent(payment), StartTimer("locktime", refund_from_ms(payment))]


def earned(purchase: Purchase, event: ResultArrived) -> bool:
    """It is the good result for which a voucher is out."""
    payment = purchase.payment
    if payment is None or payment.method is not Method.PREPAID or purchase.state is not State.WORKING:
        return False
    return payment.seller == event.seller and not event.fault


def counts(purchase: Purchase, event: VoucherCounted) -> bool:
    """The seller has earned it."""
    return void(purchase, event) and event.ok


def void(purchase: Purchase, event: VoucherCounted) -> bool:
    """It is about the voucher that is out."""
    payment = purchase.payment
    return payment is not None and payment.method is Method.PREPAID and payment.op_id == event.op_id


def charge(purchase: Purchase, event: Any) -> Move:
    """The voucher is the seller's."""
    payment = purchase.payment
    assert payment is not None  # the guard found it
    purchase = purchase.noted(event.at_ms, "charged", f"{payment.price.value} msat of the deposit at {payment.seller}")
    return purchase, [CountVoucher(payment, ok=True)]


def release(purchase: Purchase, event: VoucherCounted) -> Move:
    """The voucher is void: nothing was paid."""
    payment = purchase.payment
    assert payment is not None  # the guard found it
    purchase = replace(purchase, payment=replace(payment, received=payment.gross))
    return purchase.noted(event.at_ms, "not_charged", "the voucher is void"), [CountVoucher(payment, ok=False)]
