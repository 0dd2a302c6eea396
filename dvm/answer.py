"""From a verified event on the wire to what the buyer's machine is told: who it is from, for whom, and what it says.

Pure but for the prices of locking money, which are asked of the wallet.
"""

from collections.abc import Callable

from core.error import VendoError
from core.identifier import PubKey
from core.money import Msat
from dvm.acceptance import check_result
from dvm.buyer_event import Answered, Event, Progress, Refuse, ResultArrived, SellerFailed
from dvm.error import BadResult
from dvm.job import Purchase
from dvm.selection import Nature, Offer, Terms
from relays.error import MalformedEvent
from relays.event import Event as NostrEvent
from relays.kind import result_of
from relays.nip90 import ERROR, PAYMENT_REQUIRED, Feedback, JobResult, Quote, read_answer

LockCost = Callable[[str, Msat], Msat]


def translate(event: NostrEvent, job: Purchase, *, ourselves: PubKey, at_ms: int, lock_cost: LockCost) -> Event:
    """What an event that e-tags our request means for the job. Anything that is not an answer to it is a `Refuse`."""
    recipients = event.values("p")
    if recipients and ourselves not in recipients:  # ezdvm's feedback has no `p` at all
        return _refuse(event, at_ms, "it is for somebody else")
    try:
        answer = read_answer(event)
    except MalformedEvent as error:
        return _refuse(event, at_ms, error.message)
    if answer.request_id != job.request_id:
        return _refuse(event, at_ms, "it is for another request")
    if isinstance(answer, Quote):
        return Answered(at_ms, _offer(answer, job, at_ms, lock_cost))
    if isinstance(answer, JobResult):
        return _result(answer, job, at_ms)
    return _feedback(answer, event, at_ms)


def _refuse(event: NostrEvent, at_ms: int, reason: str) -> Refuse:
    return Refuse(at_ms, event.id, event.pubkey, reason)


def _offer(quote: Quote, job: Purchase, at_ms: int, lock_cost: LockCost) -> Offer:
    terms = []
    for method in quote.methods:
        if method.unit == "sat" and method.mint in job.mints:
            try:
                terms.append(Terms(method.mint, method.pubkey, lock_cost(method.mint, quote.amount)))
            except VendoError:  # a mint that we listed and cannot price now: no way to pay
                continue
    return Offer(
        event_id=quote.event_id,
        seller=quote.seller,
        nature=Nature.IMPLICIT if quote.implicit else Nature.QUOTE,
        at_ms=at_ms,
        price=quote.amount,
        quote_id=quote.quote_id,
        expires_at=quote.expires_at,
        eta_s=min(quote.eta_s, 86_400),
        terms=() if quote.implicit else tuple(terms),
    )


def _result(answer: JobResult, job: Purchase, at_ms: int) -> Event:
    if answer.kind != result_of(job.kind):
        return _refuse(answer.raw, at_ms, "it is a result of another kind")
    fault = "it is encrypted, which was not asked for" if answer.encrypted else ""
    try:
        check_result(job.ask, answer.content)
    except BadResult as error:
        fault = fault or error.message
    return ResultArrived(at_ms, answer.event_id, answer.seller, answer.content, fault, answer.amount)


def _feedback(answer: Feedback, event: NostrEvent, at_ms: int) -> Event:
    if answer.status == ERROR:
        return SellerFailed(at_ms, answer.event_id, answer.seller, (answer.info or answer.content)[:200])
    if answer.status == PAYMENT_REQUIRED:
        return Answered(at_ms, Offer(answer.event_id, answer.seller, Nature.IMPLICIT, at_ms))
    if answer.status in ("processing", "partial", "success"):
        return Progress(at_ms, answer.event_id, answer.seller, answer.status)
    return _refuse(event, at_ms, "its status is not one of NIP-90's")
