"""The guards and actions of the buyer's rules, and what is learned from an answer whatever the state. Pure.

A guard is a question about the state and the event; an action returns the changed state and the effects. `dvm.buyer`
puts them together in its table.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from core.change import replace
from core.money import Msat
from dvm.buyer_event import (
    Allocate,
    Answered,
    BudgetDenied,
    CancelAsked,
    Chosen,
    DeadlinePassed,
    Effect,
    Event,
    FallbackDone,
    FallbackFailed,
    InvoicePaid,
    KeyHeld,
    KeyShown,
    Lock,
    LockDone,
    LockFailed,
    LocktimePassed,
    LockUnknown,
    Pay,
    Progress,
    PublishCancel,
    PublishOrder,
    PublishPayment,
    PublishRequest,
    Refund,
    RefundDone,
    RefundFailed,
    Refuse,
    ResultArrived,
    RevealPassed,
    RunFallback,
    SealedArrived,
    SellerFailed,
    SpentSeen,
    Start,
    StartTimer,
)
from dvm.invoice import billed, pay_id
from dvm.job import MAX_OFFERS, Funds, Payment, Purchase, State, lock_id
from dvm.policy import BUILTIN, MARKET
from dvm.preference import Prefer
from dvm.seal_rule import AWAITED, mode_of, ordered_badly, sealed_why_not, seek_key
from dvm.selection import Nature, Offer, any_payable, in_hand, judge, least_useful, payable, reasons, usefulness
from dvm.settlement import ATOMIC_MARGIN_S, MODE_A, Method
from dvm.voucher_rule import watched

Move: TypeAlias = tuple[Purchase, list[Effect]]

# A price with fees is worked out for usual coins: a wallet in small change may pay a quarter more, and no seller more.
_CHANGE = 4

# -- what is learned whatever the state -------------------------------------------------------------------------


def learn(purchase: Purchase, event: Event) -> Purchase:
    """Record answers; what comes from the wrong key, too late or twice is written down and changes nothing else."""
    match event:
        case Answered():
            return _learn_offer(purchase, event)
        case SealedArrived() if event.event_id == purchase.sealed_id:
            return purchase
        case SealedArrived() | SellerFailed() | ResultArrived() if ordered_badly(purchase, event):
            return _strike(purchase, purchase.chosen, why_not(purchase, event))
        case SealedArrived() if purchase.state not in AWAITED or not from_chosen(purchase, event):
            return purchase.refusing(event.event_id, event.seller, "a sealed result was not waited for")
        case KeyShown() | KeyHeld() if not purchase.preimage:
            return replace(purchase, preimage=event.preimage)
        case ResultArrived() | SellerFailed() | Progress():
            return _learn_word(purchase, event)
        case Refuse():
            return purchase.refusing(event.event_id, event.seller, event.reason)
        case BudgetDenied() | LockFailed() if purchase.payment and purchase.payment.op_id == event.op_id:
            return _strike(purchase, purchase.payment.offer_id, event.reason)
    return purchase


def _learn_offer(purchase: Purchase, event: Answered) -> Purchase:
    offer = event.offer
    if purchase.offer(offer.event_id) is not None:
        return purchase
    if purchase.state is not State.QUOTING:
        return purchase.refusing(offer.event_id, offer.seller, "it came after the choice")
    earlier = [item for item in purchase.offers if item.seller == offer.seller and item.nature is not Nature.PROMISE]
    if any(not item.refusal and item.expires_at * 1000 > event.at_ms for item in earlier):
        return purchase.refusing(offer.event_id, offer.seller, "this seller has a quote that still stands")
    if offer.payment_hash and any(item.payment_hash == offer.payment_hash for item in purchase.offers):
        return purchase.refusing(offer.event_id, offer.seller, "its invoice came with another offer")
    offer = judge(offer, purchase.limit.ceiling, event.at_ms // 1000, purchase.deadline)
    offers = purchase.offers
    if len(offers) >= MAX_OFFERS:
        least = least_useful(offers, purchase.prefer)
        if usefulness(offer, purchase.prefer) <= usefulness(least, purchase.prefer):
            return purchase.refusing(offer.event_id, offer.seller, offer.refusal or "too many offers")
        offers = tuple(item for item in offers if item.event_id != least.event_id)
        purchase = purchase.refusing(least.event_id, least.seller, least.refusal or "it made room for a better one")
    price = "" if offer.price is None else f" {offer.price.value} msat"
    return replace(purchase, offers=(*offers, offer)).noted(
        event.at_ms, "offer", f"{offer.nature.value}{price} from {offer.seller} {offer.refusal}".strip()
    )


def _learn_word(purchase: Purchase, event: ResultArrived | SellerFailed | Progress) -> Purchase:
    if purchase.state is State.QUOTING:
        nature = {ResultArrived: Nature.DELIVERED, SellerFailed: Nature.DECLINED, Progress: Nature.PROMISE}[type(event)]
        offer = Offer(event.event_id, event.seller, nature, event.at_ms)
        if isinstance(event, ResultArrived):
            spare = in_hand(purchase.offers, stated_free=event.price is not None) is not None
            bill = event.bill if event.price and not event.fault else None
            kept = "" if event.fault or (event.price and bill is None) or (spare and not event.price) else event.content
            offer = replace(offer, price=event.price, content=kept, refusal=event.fault)
            if bill is not None:
                offer = billed(offer, bill)
        elif isinstance(event, SellerFailed):
            offer = replace(offer, refusal=f"the seller declined: {event.reason}"[:200])
        elif event.content and event.seller == purchase.to:  # a stranger's parts are kept only of who was asked alone
            purchase = purchase.streamed(event.at_ms, event.event_id, event.content)
        return _learn_offer(purchase, Answered(event.at_ms, offer))
    if purchase.state in AWAITED and purchase.payment is not None and purchase.payment.seller == event.seller:
        if isinstance(event, Progress) and event.content:
            return purchase.streamed(event.at_ms, event.event_id, event.content)
        if isinstance(event, Progress):
            return purchase.noted(event.at_ms, event.word)
        return purchase
    if isinstance(event, ResultArrived) and _paid_meanwhile(purchase, event):
        return _kept_for_payment(purchase, event)
    if event.event_id == purchase.result_id or any(item.event_id == event.event_id for item in purchase.refused):
        return purchase
    reason = "it came too early" if purchase.state in (State.STAGED, State.PAYING) else "it came too late"
    if purchase.payment is not None and purchase.payment.seller != event.seller:
        reason = "it is not from the chosen seller"
    return purchase.refusing(event.event_id, event.seller, reason)


def _paid_meanwhile(purchase: Purchase, event: ResultArrived) -> bool:
    """A good result of whom we are paying over Lightning: it may see its money before our wallet has told us."""
    paid = purchase.payment
    if paid is None or purchase.state is not State.PAYING or paid.method is not Method.INVOICE_BEFORE:
        return False
    return paid.seller == event.seller and not event.fault and not purchase.result_id


def _kept_for_payment(purchase: Purchase, event: ResultArrived) -> Purchase:
    offers = tuple(
        replace(item, content=event.content) if item.event_id == purchase.chosen else item for item in purchase.offers
    )
    return replace(purchase, offers=offers, result_id=event.event_id)


def _strike(purchase: Purchase, offer_id: str, reason: str) -> Purchase:
    offers = tuple(
        replace(item, refusal=reason[:200] or "it could not be paid") if item.event_id == offer_id else item
        for item in purchase.offers
    )
    return replace(purchase, offers=offers)


# -- guards -----------------------------------------------------------------------------------------------------


def can_pay(purchase: Purchase, event: Any) -> bool:
    """No money is out, and a firm quote may be accepted."""
    return purchase.money is Funds.NONE and any_payable(purchase.offers, event.at_ms // 1000)


def _payable(purchase: Purchase, event: Any) -> list[Offer]:
    return payable(purchase.offers, event.at_ms // 1000, purchase.prefer, purchase.luck)


def free_in_hand(purchase: Purchase, event: Any) -> bool:
    """A good result that states the amount 0 is in hand; nothing can be cheaper.

    Who prefers quality or reputation is not content with what anybody gives away: it is taken if there is no quote.
    """
    if purchase.prefer in (Prefer.QUALITY, Prefer.REPUTATION):
        return False
    return in_hand(purchase.offers, stated_free=True) is not None


def anything_in_hand(purchase: Purchase, event: Any) -> bool:
    """A good free result is in hand."""
    return in_hand(purchase.offers, stated_free=False) is not None


def can_order(purchase: Purchase, event: Any) -> bool:
    """The quote that may be accepted is for a sealed result that comes before the money (mode A)."""
    if not any(way.mode == MODE_A for offer in purchase.offers for way in offer.terms):  # the rest takes much longer
        return False
    return can_pay(purchase, event) and mode_of(_payable(purchase, event)[0]) == MODE_A


def always(purchase: Purchase, event: Any) -> bool:
    """No condition."""
    return True


def waiting(purchase: Purchase, event: Any) -> bool:
    """The window is over, and a seller that promised a free result is waited for."""
    return purchase.round > 0


def market_first(purchase: Purchase, event: Any) -> bool:
    """The market is the first part of the route, and the request for it could be made."""
    return purchase.route[:1] == (MARKET,) and not event.fault


def builtin_first(purchase: Purchase, event: Any) -> bool:
    """A built-in provider is the first part of the route, and the request for the market could be made."""
    return bool(purchase.route) and purchase.route[0] != MARKET and not event.fault


def worth_waiting(purchase: Purchase, event: Any) -> bool:
    """A seller promised work, and the wait for it has not begun."""
    return purchase.round == 0 and any(item.nature is Nature.PROMISE for item in purchase.offers)


def this_round(purchase: Purchase, event: Any) -> bool:
    """The timer belongs to the present round."""
    return bool(event.round == purchase.round)


def market_next(purchase: Purchase, event: Any) -> bool:
    """The market comes next on the route, and was not asked yet."""
    return purchase.next_leg == MARKET and not purchase.chosen


def builtin_next(purchase: Purchase, event: Any) -> bool:
    """A built-in provider comes next on the route."""
    return purchase.next_leg is not None and purchase.next_leg != MARKET


def from_chosen(purchase: Purchase, event: Any) -> bool:
    """It is from the seller that was chosen and paid."""
    return purchase.payment is not None and purchase.payment.seller == event.seller


def good(purchase: Purchase, event: Any) -> bool:
    """It is from the chosen seller and passed the check for its kind."""
    return from_chosen(purchase, event) and not event.fault


def our_lock(purchase: Purchase, event: Any) -> bool:
    """It is about the payment that we know of."""
    return purchase.payment is not None and purchase.payment.op_id == event.op_id


def by_invoice(purchase: Purchase, event: Chosen) -> bool:
    """What was chosen is paid over Lightning."""
    return event.offer.best is not None and event.offer.best.method.by_invoice


def paid_out(purchase: Purchase, event: Any) -> bool:
    """It is about our payment, and its money is the seller's."""
    return purchase.money is Funds.CLAIMED and our_lock(purchase, event)


def came_first(purchase: Purchase, event: Any) -> bool:
    """The result came before its payment, or before our wallet told us of that."""
    offer = purchase.offer(purchase.chosen)
    return offer is not None and (offer.nature is Nature.DELIVERED or bool(purchase.result_id and offer.content))


def locked(purchase: Purchase, event: Any) -> bool:
    """It is about our payment, and its money is locked."""
    return purchase.money is Funds.LOCKED and our_lock(purchase, event)


def in_time(purchase: Purchase, event: Any) -> bool:
    """The seller's time and its quote have not run out, so that handing it the money can still bring a result."""
    offer = purchase.offer(purchase.chosen)
    until = purchase.deadline if offer is None else min(purchase.deadline, offer.expires_at)
    return bool(event.at_ms < until * 1000)


def not_paid(purchase: Purchase, event: Any) -> bool:
    """It is about our payment, and its money is proven not to have left."""
    return purchase.money is Funds.NONE and our_lock(purchase, event)


def our_leg(purchase: Purchase, event: Any) -> bool:
    """It is from the built-in provider that is at work."""
    return purchase.leg < len(purchase.route) and purchase.route[purchase.leg] == event.provider


def due(purchase: Purchase, event: Any) -> bool:
    """The locktime has really passed of what was locked for this job alone."""
    payment = purchase.payment
    locked_alone = payment is not None and payment.method is not Method.PREPAID
    return locked_alone and payment is not None and event.at_ms >= payment.locktime * 1000


def both(*guards: Callable[[Purchase, Any], bool]) -> Callable[[Purchase, Any], bool]:
    """All of these conditions, in this order."""
    if len(guards) == 1:
        return guards[0]
    if len(guards) == 2:
        first, second = guards
        return lambda purchase, event: first(purchase, event) and second(purchase, event)
    return lambda purchase, event: all(guard(purchase, event) for guard in guards)


# -- actions of the job's track ---------------------------------------------------------------------------------


def ask_market(purchase: Purchase, event: Any) -> Move:
    """Publish the request and collect answers."""
    if isinstance(event, Start):
        purchase = replace(purchase, request=event.request, request_id=event.request_id, deadline=event.deadline)
    else:
        purchase = replace(purchase, leg=purchase.leg + 1)
    purchase = purchase.noted(event.at_ms, "requested", f"bid {purchase.bid.value} msat")
    return purchase, [
        PublishRequest(),
        StartTimer("window", event.at_ms + purchase.window_ms),
        StartTimer("deadline", purchase.deadline * 1000),
    ]


def start_builtin(purchase: Purchase, event: Start) -> Move:
    """Begin with the built-in provider that is first on the route."""
    purchase = replace(purchase, request=event.request, request_id=event.request_id, deadline=event.deadline)
    return purchase.noted(event.at_ms, "fallback", purchase.route[0]), [RunFallback(purchase.route[0])]


def nobody(purchase: Purchase, event: Any) -> Move:
    """There is nobody to ask, or nothing that could be sent."""
    reason = f"The request cannot be made: {event.fault}" if event.fault else "Nothing on the route serves this kind."
    return replace(purchase, error=reason), []


def wait(purchase: Purchase, event: Any) -> Move:
    """Give a seller that promised a free result some more time."""
    until = min(event.at_ms + purchase.patience_ms, purchase.deadline * 1000)
    purchase = replace(purchase, round=1).noted(event.at_ms, "waiting", "a seller works without having named a price")
    return purchase, [StartTimer("window", until, 1)]


def accept(purchase: Purchase, event: Any) -> Move:
    """Choose the best offer. The money track answers by beginning to pay, unless the work comes first."""
    offer = _payable(purchase, event)[0]
    drawn = purchase.luck is not None
    why = reasons(offer, purchase.offers, event.at_ms // 1000, purchase.prefer, drawn=drawn)
    purchase = replace(purchase, chosen=offer.event_id, seller=offer.seller, why=why, sealed="", sealed_id="")
    purchase = replace(purchase, result_id="")  # of a seller whose invoice could not be paid
    purchase = purchase.noted(event.at_ms, "chosen", why[0])
    if mode_of(offer) != MODE_A:
        return purchase, [Chosen(event.at_ms, offer)]
    payment = payment_for(purchase, offer, event.at_ms)
    # Counted now: work that could not be paid for is not ordered.
    return replace(purchase, payment=payment), [
        Allocate(payment.op_id, payment.seller, payment.ceiling),
        PublishOrder(payment),
    ]


def take(*, stated_free: bool) -> Callable[[Purchase, Any], Move]:
    """Take the free result that is in hand."""

    def act(purchase: Purchase, event: Any) -> Move:
        offer = in_hand(purchase.offers, stated_free=stated_free)
        assert offer is not None  # the guard found it
        purchase = replace(
            purchase,
            chosen=offer.event_id,
            seller=offer.seller,
            provider=MARKET,
            result=offer.content,
            result_id=offer.event_id,
            why=reasons(offer, purchase.offers, event.at_ms // 1000),
        )
        return purchase.noted(event.at_ms, "delivered", f"free, by {offer.seller}"), []

    return act


def why_not(purchase: Purchase, event: Any) -> str:
    """Why this event ended what the job was at."""
    match event:
        case DeadlinePassed():
            return "The seller's time is over." if purchase.payment else "No admissible offer came in time."
        case SellerFailed():
            return f"The seller failed: {event.reason}"
        case ResultArrived():
            return event.fault if event.ours else f"The seller's result is bad: {event.fault}"
        case SealedArrived() | KeyShown() | RevealPassed() | RefundDone():
            return sealed_why_not(purchase, event)
        case FallbackFailed():
            return f"{event.provider}: {event.reason}"
        case LockDone():
            return "The money was locked too late for the quote."
        case LockFailed() | BudgetDenied():
            return f"The quote could not be paid: {event.reason}"
    return "No admissible offer." if purchase.offers else "No seller answered."


def fall_back(purchase: Purchase, event: Any) -> Move:
    """Go on to the next built-in provider, under the same job."""
    name = purchase.next_leg
    assert name is not None  # the guard found it
    reason, purchase = why_not(purchase, event), _blamed(purchase, event)
    why = purchase.why or tuple(
        f"{item.seller}: refused, {item.refusal or 'nothing was delivered'}" for item in purchase.offers
    )
    line = f"{name}: the built-in provider, because: {reason}"
    purchase = replace(purchase, leg=purchase.leg + 1, why=(*why, line))
    return purchase.noted(event.at_ms, "fallback", line), [RunFallback(name)]


def give_up(purchase: Purchase, event: Any) -> Move:
    """End without a result."""
    reason, purchase = why_not(purchase, event), _blamed(purchase, event)
    return replace(purchase, error=reason).noted(event.at_ms, "failed", reason), []


def send_payment(purchase: Purchase, event: LockDone) -> Move:
    """The money is locked: hand the token to the seller."""
    assert purchase.payment is not None  # the guard found it
    detail = f"{purchase.payment.gross.value} msat with fees, to {purchase.payment.seller}"
    return purchase.noted(event.at_ms, "paid", detail), [PublishPayment(purchase.payment)]


def deliver(purchase: Purchase, event: ResultArrived) -> Move:
    """The chosen seller's result."""
    purchase = replace(purchase, provider=MARKET, result=event.content, result_id=event.event_id, kept=event.kept)
    return purchase.noted(event.at_ms, "delivered", f"by {event.seller}"), []


def await_work(purchase: Purchase, event: InvoicePaid) -> Move:
    """The seller sees its invoice paid, and works; its time began with the request."""
    return purchase, []


def deliver_paid(purchase: Purchase, event: InvoicePaid) -> Move:
    """The result that came before its payment."""
    offer = purchase.offer(purchase.chosen)
    assert offer is not None  # the guard found it
    result_id = purchase.result_id or offer.event_id
    purchase = replace(purchase, provider=MARKET, result=offer.content, result_id=result_id)
    return purchase.noted(event.at_ms, "delivered", f"by {offer.seller}, and paid for"), []


def _blamed(purchase: Purchase, event: Any) -> Purchase:
    return replace(purchase, fault="fraud") if isinstance(event, KeyShown) and event.fraud else purchase


def deliver_builtin(purchase: Purchase, event: FallbackDone) -> Move:
    """A built-in provider's result."""
    purchase = replace(purchase, provider=BUILTIN, result=event.content, seller=event.provider)
    return purchase.noted(event.at_ms, "delivered", f"by the built-in {event.provider}, at cost 0"), []


def cancel(purchase: Purchase, event: CancelAsked) -> Move:
    """Stop, and tell the sellers if they were asked."""
    effects: list[Effect] = [PublishCancel()] if purchase.request and purchase.state is not State.STAGED else []
    return replace(purchase, error="Cancelled.").noted(event.at_ms, "cancelled"), effects


# -- actions of the money's track -------------------------------------------------------------------------------


def payment_for(purchase: Purchase, offer: Offer, now_ms: int) -> Payment:
    """The one payment of this job, if this offer is taken."""
    best = offer.best
    assert best is not None  # only payable offers are chosen
    assert offer.price is not None
    margin = max(purchase.lock_margin_s, ATOMIC_MARGIN_S) if best.mode else purchase.lock_margin_s
    ceiling = min(purchase.limit.ceiling, best.gross + Msat(-(-best.gross.value // _CHANGE)))
    return Payment(
        op_id=lock_id(purchase.job_id, offer.event_id),
        offer_id=offer.event_id,
        quote_id=offer.quote_id,
        seller=offer.seller,
        mint=best.mint,
        wallet_key=best.wallet_key,
        price=offer.price,
        ceiling=ceiling,
        locktime=max(purchase.deadline, now_ms // 1000 + offer.eta_s) + margin,
        method=best.method,
        quote=offer.raw,
        mode=best.mode,
        hash=best.hash,
        seal_key=best.seal_key,
        deposit=best.deposit,
    )


def begin_lock(purchase: Purchase, event: Chosen) -> Move:
    """Name the one payment of this job, and lock the money for it."""
    payment = payment_for(purchase, event.offer, event.at_ms)
    purchase = replace(purchase, payment=payment)
    counted: list[Effect] = [] if payment.mode == MODE_A else [Allocate(payment.op_id, payment.seller, payment.ceiling)]
    return purchase, [*counted, Lock(payment)]


def begin_pay(purchase: Purchase, event: Chosen) -> Move:
    """Name the one payment of this job, and pay the invoice."""
    offer, best = event.offer, event.offer.best
    assert best is not None  # only payable offers are chosen
    assert offer.price is not None
    payment = Payment(
        op_id=pay_id(offer.payment_hash),
        offer_id=offer.event_id,
        quote_id=offer.quote_id,
        seller=offer.seller,
        mint=best.mint,
        wallet_key="",
        price=offer.price,
        ceiling=min(purchase.limit.ceiling, best.gross + Msat(-(-best.gross.value // _CHANGE))),
        locktime=0,
        method=best.method,
        invoice=offer.invoice,
    )
    return replace(purchase, payment=payment), [Allocate(payment.op_id, payment.seller, payment.ceiling), Pay(payment)]


def pay_done(purchase: Purchase, event: InvoicePaid) -> Move:
    """The money is the seller's."""
    assert purchase.payment is not None  # the guard found it
    payment = replace(purchase.payment, gross=event.gross, amount=event.amount)
    detail = f"{event.gross.value} msat with fees, to {payment.seller}, by its invoice"
    return replace(purchase, payment=payment).noted(event.at_ms, "paid", detail), []


def lock_done(purchase: Purchase, event: LockDone) -> Move:
    """The money is locked: watch it, and remember when it may be taken back."""
    assert purchase.payment is not None  # the guard found it
    payment = replace(purchase.payment, gross=event.gross, amount=event.amount, ys=event.ys)
    purchase = replace(purchase, payment=payment).noted(event.at_ms, "locked", f"{event.gross.value} msat with fees")
    return purchase, watched(payment)


def lock_failed(purchase: Purchase, event: LockFailed | BudgetDenied) -> Move:
    """Nothing left us."""
    return purchase.noted(event.at_ms, "not_paid", event.reason), []


def lock_unknown(purchase: Purchase, event: LockUnknown) -> Move:
    """It may have left us."""
    return purchase.noted(event.at_ms, "payment_unknown", "it is looked up at the mint"), []


def claimed(purchase: Purchase, event: SpentSeen) -> Move:
    """The seller has the money."""
    purchase = purchase.noted(event.at_ms, "claimed", "the mint shows the locked proofs spent")
    return purchase, seek_key(purchase, event.at_ms)


def refund(purchase: Purchase, event: LocktimePassed) -> Move:
    """Take the money back."""
    assert purchase.payment is not None  # the guard found it
    return purchase.noted(event.at_ms, "refunding"), [Refund(purchase.payment)]


def refund_again(purchase: Purchase, event: RefundFailed) -> Move:
    """Take the money back, once more."""
    assert purchase.payment is not None  # money is out only with a payment
    payment = replace(purchase.payment, refunds=purchase.payment.refunds + 1)
    purchase = replace(purchase, payment=payment)
    return purchase.noted(event.at_ms, "refund_refused", event.reason), [Refund(payment)]


def refunded(purchase: Purchase, event: RefundDone) -> Move:
    """The money is back."""
    assert purchase.payment is not None  # money is out only with a payment
    purchase = replace(purchase, payment=replace(purchase.payment, received=event.received))
    return purchase.noted(event.at_ms, "refunded", f"{event.received.value} msat"), []
