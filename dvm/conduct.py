"""What a seller did with a job that was handed to it: noted while the machine moves, read for its reputation. Pure."""

from core.change import replace
from dvm.buyer_event import (
    DeadlinePassed,
    Event,
    InvoicePaid,
    KeyShown,
    RefundDone,
    ResultArrived,
    RevealPassed,
    SealedArrived,
    SellerFailed,
)
from dvm.job import Funds, Purchase, State
from dvm.reputation import Deed, Verdict

_AT_WORK = (State.ORDERED, State.WORKING, State.SEALED)


def observed(before: Purchase, after: Purchase, event: Event) -> Purchase:
    """The job after a step, with what that step says about the seller at work.

    An ordered job is at work before it is paid, and a sealed result is none before its key is shown.
    """
    if after.state is before.state and after.chosen == before.chosen:
        return after
    if after.state in _AT_WORK and before.state not in (*_AT_WORK, State.PAYING):
        return replace(after, began_ms=event.at_ms)
    if after.chosen != before.chosen:  # nothing was paid to whoever was at work: the job is another's now
        return replace(after, began_ms=event.at_ms if after.state in _AT_WORK else 0)
    if after.state in _AT_WORK:
        return after if after.began_ms else replace(after, began_ms=event.at_ms)
    if isinstance(event, InvoicePaid) and after.state is State.DELIVERED:
        return replace(after, verdict=Verdict.DELIVERED, took_ms=_took_unpaid(after))
    if before.state not in _AT_WORK or after.state is State.PAYING:
        return after
    return replace(after, verdict=_verdict(after, event), took_ms=max(0, event.at_ms - after.began_ms))


def _took_unpaid(job: Purchase) -> int:
    """How long a result took that came before its payment: from the request on."""
    offer = job.offer(job.chosen)
    return 0 if offer is None else max(1, offer.at_ms - job.created_at * 1000)


def _verdict(after: Purchase, event: Event) -> Verdict:
    match event:
        case ResultArrived() | SealedArrived() if event.ours:
            return Verdict.NONE  # it was our disk that did not take it
        case RevealPassed() if after.unkept:
            return Verdict.NONE
        case ResultArrived() | KeyShown():
            return Verdict.DELIVERED if after.state is State.DELIVERED else Verdict.BAD
        case SealedArrived():
            return Verdict.BAD if event.fault or not after.payment or event.hash != after.payment.hash else Verdict.LATE
        case SellerFailed():
            return Verdict.FAILED
        case RevealPassed():
            return Verdict.BAD  # it has the money, and its key was never seen
        case DeadlinePassed() | RefundDone():
            return Verdict.LATE
    return Verdict.NONE  # cancelled, or set aside: no fault of the seller's


def deed_of(job: Purchase) -> Deed | None:
    """What a job tells of its seller; None as long as it tells nothing, and of jobs that were handed to nobody."""
    paid = job.payment
    if paid is None or job.verdict is Verdict.NONE:
        return None
    claimed = job.money is Funds.CLAIMED
    at = job.created_at
    return Deed(job.job_id, paid.seller, job.kind, at, job.verdict, paid.price.value, job.took_ms, claimed)
