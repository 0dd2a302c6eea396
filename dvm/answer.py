"""From a verified event on the wire to what the buyer's machine is told: who it is from, for whom, and what it says.

Pure but for the prices of locking money, which are asked of the wallet.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from core.error import VendoError
from core.identifier import PubKey
from core.money import Msat
from dvm.acceptance import check_result
from dvm.buyer_event import Answered, Event, Progress, Refuse, ResultArrived, SealedArrived, SellerFailed
from dvm.error import BadResult
from dvm.invoice import Checkout, billed
from dvm.job import Purchase
from dvm.receipt import MAX_QUOTE_CHARS
from dvm.reputation import FRESH, Standing
from dvm.seal import check_sealed, is_key
from dvm.selection import Nature, Offer, Terms
from dvm.settlement import Method
from relays.blob import Pointer, is_pointer, read_pointer
from relays.error import MalformedEvent
from relays.event import Event as NostrEvent
from relays.event import parse_json
from relays.kind import result_of
from relays.nip90 import (
    ERROR,
    PARTIAL,
    PAYMENT_REQUIRED,
    PROCESSING,
    SUCCESS,
    Feedback,
    JobResult,
    PayMethod,
    Quote,
    read_answer,
    read_request,
)

_OTHER_KEYS = "it is not signed that it is sealed with the keys of this job, so that no fraud could be shown"
NOT_FETCHED = "It lies on a file server, and only what was ordered or paid for is fetched."
LockCost = Callable[[str, Msat], Msat]
Judge = Callable[[str, Msat], Standing]  # a seller's key, and what it asks
Proven = Callable[[str], bool]
Drawable = Callable[[PayMethod, Quote], bool]
Settle = Callable[[Sequence[Terms], Msat, str], tuple[tuple[Terms, ...], str]]


def _unknown(seller: str, price: Msat) -> Standing:
    return FRESH


def _unproven(mint: str) -> bool:
    return False


def undrawable(method: PayMethod, quote: Quote) -> bool:
    """No deposit is known."""
    return False


def translate(
    event: NostrEvent,
    job: Purchase,
    *,
    ourselves: PubKey,
    at_ms: int,
    lock_cost: LockCost,
    judge: Judge = _unknown,
    checkout: Checkout | None = None,
    proven: Proven = _unproven,
    settle: Settle | None = None,
    seal_key: str = "",
    drawable: Drawable = undrawable,
    parcel_bytes: int = 0,
) -> Event:
    """What an event that e-tags our request means for the job. Anything that is not an answer to it is a `Refuse`.

    Args:
        event: verified.
        job: as it stands.
        ourselves: our key.
        at_ms: now.
        lock_cost: what locking a price costs at most, fees included.
        judge: how a seller stands.
        checkout: reads invoices; without one none is read or paid.
        proven: whether a mint was found to show preimages.
        settle: chooses between ways to pay; all are kept if there is none.
        seal_key: our half of the job's seal, compressed hex.
        drawable: whether a quote can be drawn from the deposit that it names.
        parcel_bytes: of a result that would be fetched from file servers; 0 fetches none.
    """
    recipients = event.values("p")
    if recipients and ourselves not in recipients:  # ezdvm's feedback has no `p` at all
        return _refuse(event, at_ms, "it is for somebody else")
    if job.to and event.pubkey != job.to:
        return _refuse(event, at_ms, "this seller was not asked")
    try:
        answer = read_answer(event)
    except MalformedEvent as error:
        return _refuse(event, at_ms, error.message)
    if answer.request_id != job.request_id:
        return _refuse(event, at_ms, "it is for another request")
    if isinstance(answer, Quote):
        ways = _terms(answer, job, lock_cost, proven, drawable)
        offer = _offer(answer, ways, at_ms, settle)
        offer = replace(offer, standing=judge(answer.seller, answer.amount))
        if answer.invoice and checkout is not None:
            way = Method.INVOICE_BEFORE
            offer = billed(offer, checkout.bill(answer.invoice, answer.amount, job, at_ms // 1000, way))
        return Answered(at_ms, offer)
    if isinstance(answer, JobResult):
        sealed = answer.seal is not None and job.payment is not None and job.payment.atomic
        if sealed:
            return _sealed(answer, job, at_ms, seal_key, parcel_bytes)
        if is_pointer(event) and answer.kind == result_of(job.kind):
            return _parcel(answer, at_ms, parcel_bytes)
        return _result(answer, job, at_ms, checkout)
    return _feedback(answer, event, at_ms)


def _refuse(event: NostrEvent, at_ms: int, reason: str) -> Refuse:
    return Refuse(at_ms, event.id, event.pubkey, reason)


def _terms(quote: Quote, job: Purchase, lock_cost: LockCost, proven: Proven, drawable: Drawable) -> list[Terms]:
    sealed = any(method.mode for method in quote.methods)
    modes = read_request(parse_json(job.request)).modes if sealed and job.request else ()
    terms = []
    for method in quote.methods:
        if method.unit != "sat" or method.mint not in job.mints:
            continue
        if method.deposit:
            if drawable(method, quote):
                drawn = Terms(method.mint, method.pubkey, quote.amount, Method.PREPAID, deposit=method.deposit)
                terms.append(drawn)
            continue
        if method.mode and (method.mode not in modes or not is_key(method.seal_key) or not proven(method.mint)):
            continue
        try:
            gross = lock_cost(method.mint, quote.amount)
        except VendoError:  # a mint that we listed and cannot price now: no way to pay
            continue
        rail = Method.ATOMIC if method.mode else Method.LOCKED
        terms.append(Terms(method.mint, method.pubkey, gross, rail, method.mode, method.hash, method.seal_key))
    return terms


def _offer(quote: Quote, terms: Sequence[Terms], at_ms: int, settle: Settle | None) -> Offer:
    how = refusal = ""
    if settle is not None and terms:
        terms, how = settle(terms, quote.amount, quote.seller)
        refusal = "" if terms else how
    raw = quote.raw.to_json()
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
        raw="" if quote.implicit or len(raw) > MAX_QUOTE_CHARS else raw,
        refusal=refusal,
        how=how,
    )


def _sealed(answer: JobResult, job: Purchase, at_ms: int, ours: str, parcel_bytes: int) -> Event:
    if answer.kind != result_of(job.kind):
        return _refuse(answer.raw, at_ms, "it is a result of another kind")
    seal = answer.seal
    assert seal is not None  # the caller looked
    fault, content, pointer = "", answer.content, None
    try:
        if is_pointer(answer.raw):
            pointer = _pointer(content, parcel_bytes, sealed=True)
            fault, content = NOT_FETCHED, pointer.sealed
        check_sealed(content, seal.ct_hash)
        if job.payment is not None and seal.keys != (job.payment.seal_key, ours):
            raise BadResult(_OTHER_KEYS)
    except (BadResult, MalformedEvent) as error:
        fault, pointer = error.message, None
    whole = answer.raw.to_json()
    return SealedArrived(at_ms, answer.event_id, answer.seller, whole, seal.hash, seal.pt_hash, fault, pointer)


def _pointer(content: str, parcel_bytes: int, *, sealed: bool) -> Pointer:
    if not parcel_bytes:
        raise MalformedEvent("It lies on a file server, and this node fetches none.")
    pointer = read_pointer(content, parcel_bytes)
    if bool(pointer.sealed) is not sealed:
        raise MalformedEvent("Its key is missing." if pointer.sealed else "Its key is not sealed.")
    return pointer


def _parcel(answer: JobResult, at_ms: int, parcel_bytes: int) -> Event:
    """A result that lies elsewhere: a fault as long as it is not here."""
    fault, pointer = NOT_FETCHED, None
    try:
        if answer.encrypted:
            raise MalformedEvent("it is encrypted and cannot be read")
        pointer = _pointer(answer.content, parcel_bytes, sealed=False)
    except MalformedEvent as error:
        fault = error.message
    return ResultArrived(at_ms, answer.event_id, answer.seller, "", fault, answer.amount, parcel=pointer)


def _result(answer: JobResult, job: Purchase, at_ms: int, checkout: Checkout | None) -> Event:
    if answer.kind != result_of(job.kind):
        return _refuse(answer.raw, at_ms, "it is a result of another kind")
    fault = "it is encrypted and cannot be read" if answer.encrypted else ""
    try:
        check_result(job.ask, answer.content)
    except BadResult as error:
        fault = fault or error.message
    bill = None
    if answer.invoice and answer.amount and not fault and checkout is not None:
        bill = checkout.bill(answer.invoice, answer.amount, job, at_ms // 1000, Method.INVOICE_AFTER)
    return ResultArrived(at_ms, answer.event_id, answer.seller, answer.content, fault, answer.amount, bill)


def _feedback(answer: Feedback, event: NostrEvent, at_ms: int) -> Event:
    if answer.status == ERROR:
        return SellerFailed(at_ms, answer.event_id, answer.seller, (answer.info or answer.content)[:200])
    if answer.status == PAYMENT_REQUIRED:
        return Answered(at_ms, Offer(answer.event_id, answer.seller, Nature.IMPLICIT, at_ms))
    if answer.status in (PROCESSING, PARTIAL, SUCCESS):
        part = answer.content if answer.status == PARTIAL else ""
        return Progress(at_ms, answer.event_id, answer.seller, answer.status, part)
    return _refuse(event, at_ms, "its status is not one of NIP-90's")
