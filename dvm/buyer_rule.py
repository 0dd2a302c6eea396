"""The guards and actions of the buyer's rules, and what is learned from an answer whatever the state. Pure.

A guard is a question about the state and the event; an action returns the changed state and the effects. `dvm.buyer`
puts them together in its table.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

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
    Lock,
    LockDone,
    LockFailed,
    LocktimePassed,
    LockUnknown,
    Progress,
    PublishCancel,
    PublishPayment,
    PublishRequest,
    Refund,
    RefundDone,
    RefundFailed,
    Refuse,
    ResultArrived,
    RunFallback,
    SellerFailed,
    SpentSeen,
    Start,
    StartTimer,
    WatchSpent,
)
from dvm.job import MAX_OFFERS, Funds, Payment, Purchase, State, lock_id, refund_from_ms
from dvm.policy import BUILTIN, MARKET
from dvm.selection import Nature, Offer, in_hand, judge, least_useful, payable, reasons, usefulness

Move: TypeAlias = tuple[Purchase, list[Effect]]

# A price with fees is worked out for usual coins: a wallet in small change may pay a quarter more, and no seller more.
_CHANGE = 4

# -- what is learned whatever the state -------------------------------------------------------------------------


def learn(purchase: Purchase, event: Event) -> Purchase:
    """Record answers; what comes from the wrong key, too late or twice is written down and changes nothing else."""
    match event:
        case Answered():
            return _learn_offer(purchase, event)
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
    offer = judge(offer, purchase.limit.ceiling, event.at_ms // 1000, purchase.deadline)
    offers = purchase.offers
    if len(offers) >= MAX_OFFERS:
        least = least_useful(offers)
        if usefulness(offer) <= usefulness(least):
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
            kept = "" if event.fault or event.price or spare else event.content
            offer = replace(offer, price=event.price, content=kept, refusal=event.fault)
        elif isinstance(event, SellerFailed):
            offer = replace(offer, refusal=f"the seller declined: {event.reason}"[:200])
        return _learn_offer(purchase, Answered(event.at_ms, offer))
    if purchase.state is State.WORKING and purchase.payment is not None and purchase.payment.seller == event.seller:
        if isinstance(event, Progress):
            return purchase.noted(event.at_ms, event.word)
        return purchase
    if event.event_id == purchase.result_id or any(item.event_id == event.event_id for item in purchase.refused):
        return purchase
    reason = "it came too early" if purchase.state in (State.STAGED, State.PAYING) else "it came too late"
    if purchase.payment is not None and purchase.payment.seller != event.seller:
        reason = "it is not from the chosen seller"
    return purchase.refusing(event.event_id, event.seller, reason)


def _strike(purchase: Purchase, offer_id: str, reason: str) -> Purchase:
    offers = tuple(
        replace(item, refusal=reason[:200] or "it could not be paid") if item.event_id == offer_id else item
        for item in purchase.offers
    )
    return replace(purchase, offers=offers)


# -- guards -----------------------------------------------------------------------------------------------------


def can_pay(purchase: Purchase, event: Any) -> bool:
    """No money is out, and a firm quote may be accepted."""
    return purchase.money is Funds.NONE and bool(payable(purchase.offers, event.at_ms // 1000))


def free_in_hand(purchase: Purchase, event: Any) -> bool:
    """A good result that states the amount 0 is in hand; nothing can be cheaper."""
    return in_hand(purchase.offers, stated_free=True) is not None


def anything_in_hand(purchase: Purchase, event: Any) -> bool:
    """A good free result is in hand."""
    return in_hand(purchase.offers, stated_free=False) is not None


def always(purchase: Purchase, event: Any) -> bool:
    """No condition."""
    return True


def waiting(purchase: Purchase, event: Any) -> bool:
    """The window is over, and a seller that promised a free result is waited for."""
    return purchase.round > 0


def market_first(purchase: Purchase, event: Any) -> bool:
    """The market is the first part of the route."""
    return purchase.route[:1] == (MARKET,)


def builtin_first(purchase: Purchase, event: Any) -> bool:
    """A built-in provider is the first part of the route."""
    return bool(purchase.route) and not market_first(purchase, event)


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
    """The locktime has really passed."""
    return purchase.payment is not None and event.at_ms >= purchase.payment.locktime * 1000


def both(*guards: Callable[[Purchase, Any], bool]) -> Callable[[Purchase, Any], bool]:
    """All of these conditions."""
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
    """There is nobody to ask."""
    return replace(purchase, error="Nothing on the route serves this kind."), []


def wait(purchase: Purchase, event: Any) -> Move:
    """Give a seller that promised a free result some more time."""
    until = min(event.at_ms + purchase.patience_ms, purchase.deadline * 1000)
    purchase = replace(purchase, round=1).noted(event.at_ms, "waiting", "a seller works without having named a price")
    return purchase, [StartTimer("window", until, 1)]


def accept(purchase: Purchase, event: Any) -> Move:
    """Choose the best firm quote. The money track answers by beginning to lock."""
    offer = payable(purchase.offers, event.at_ms // 1000)[0]
    why = reasons(offer, purchase.offers, event.at_ms // 1000)
    purchase = replace(purchase, chosen=offer.event_id, seller=offer.seller, why=why)
    return purchase.noted(event.at_ms, "chosen", why[0]), [Chosen(event.at_ms, offer)]


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


def _why_not(purchase: Purchase, event: Any) -> str:
    match event:
        case DeadlinePassed():
            return "The seller's time is over." if purchase.payment else "No admissible offer came in time."
        case SellerFailed():
            return f"The seller failed: {event.reason}"
        case ResultArrived():
            return f"The seller's result is bad: {event.fault}"
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
    reason = _why_not(purchase, event)
    why = purchase.why or tuple(
        f"{item.seller}: refused, {item.refusal or 'nothing was delivered'}" for item in purchase.offers
    )
    line = f"{name}: the built-in provider, because: {reason}"
    purchase = replace(purchase, leg=purchase.leg + 1, why=(*why, line))
    return purchase.noted(event.at_ms, "fallback", line), [RunFallback(name)]


def give_up(purchase: Purchase, event: Any) -> Move:
    """End without a result."""
    reason = _why_not(purchase, event)
    return replace(purchase, error=reason).noted(event.at_ms, "failed", reason), []


def send_payment(purchase: Purchase, event: LockDone) -> Move:
    """The money is locked: hand the token to the seller."""
    assert purchase.payment is not None  # the guard found it
    detail = f"{purchase.payment.gross.value} msat with fees, to {purchase.payment.seller}"
    return purchase.noted(event.at_ms, "paid", detail), [PublishPayment(purchase.payment)]


def deliver(purchase: Purchase, event: ResultArrived) -> Move:
    """The chosen seller's result."""
    purchase = replace(purchase, provider=MARKET, result=event.content, result_id=event.event_id)
    return purchase.noted(event.at_ms, "delivered", f"by {event.seller}"), []


def deliver_builtin(purchase: Purchase, event: FallbackDone) -> Move:
    """A built-in provider's result."""
    purchase = replace(purchase, provider=BUILTIN, result=event.content, seller=event.provider)
    return purchase.noted(event.at_ms, "delivered", f"by the built-in {event.provider}, at cost 0"), []


def cancel(purchase: Purchase, event: CancelAsked) -> Move:
    """Stop, and tell the sellers if they were asked."""
    effects: list[Effect] = [PublishCancel()] if purchase.request and purchase.state is not State.STAGED else []
    return replace(purchase, error="Cancelled.").noted(event.at_ms, "cancelled"), effects


# -- actions of the money's track -------------------------------------------------------------------------------


def begin_lock(purchase: Purchase, event: Chosen) -> Move:
    """Name the one payment of this job, and lock the money for it."""
    best = event.offer.best
    assert best is not None  # only payable offers are chosen
    assert event.offer.price is not None
    ceiling = min(purchase.limit.ceiling, best.gross + Msat(-(-best.gross.value // _CHANGE)))
    payment = Payment(
        op_id=lock_id(purchase.job_id, event.offer.event_id),
        offer_id=event.offer.event_id,
        quote_id=event.offer.quote_id,
        seller=event.offer.seller,
        mint=best.mint,
        wallet_key=best.wallet_key,
        price=event.offer.price,
        ceiling=ceiling,
        locktime=max(purchase.deadline, event.at_ms // 1000 + event.offer.eta_s) + purchase.lock_margin_s,
    )
    purchase = replace(purchase, payment=payment)
    return purchase, [Allocate(payment.op_id, payment.seller, ceiling), Lock(payment)]


def lock_done(purchase: Purchase, event: LockDone) -> Move:
    """The money is locked: watch it, and remember when it may be taken back."""
    assert purchase.payment is not None  # the guard found it
    payment = replace(purchase.payment, gross=event.gross, amount=event.amount, ys=event.ys)
    purchase = replace(purchase, payment=payment).noted(event.at_ms, "locked", f"{event.gross.value} msat with fees")
    return purchase, [WatchSpent(payment), StartTimer("locktime", refund_from_ms(payment))]


def lock_failed(purchase: Purchase, event: LockFailed | BudgetDenied) -> Move:
    """Nothing left us."""
    return purchase.noted(event.at_ms, "not_paid", event.reason), []


def lock_unknown(purchase: Purchase, event: LockUnknown) -> Move:
    """It may have left us."""
    return purchase.noted(event.at_ms, "payment_unknown", "it is looked up at the mint"), []


def claimed(purchase: Purchase, event: SpentSeen) -> Move:
    """The seller has the money."""
    return purchase.noted(event.at_ms, "claimed", "the mint shows the locked proofs spent"), []


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
