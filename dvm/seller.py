"""The seller's side of one job, without I/O: `step(sale, event) -> (sale, effects)`, with `TRANSITIONS` as data.

A rule fires if its guard holds; the first that fires wins; no rule means that nothing changes. A paid job is worked
only once its payment was verified (M7), and claimed only after its result is on the way. A result that is sold sealed
(ADR 25) is claimed only with the customer's signatures, which it gives when it has the sealed result; in mode A its
payment comes only then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from core.change import replace
from core.money import Msat
from dvm.parcel import Packed
from dvm.seller_event import (
    Admitted,
    AskedAgain,
    AwaitInvoice,
    AwaitSignatures,
    Cancelled,
    Claim,
    Claimed,
    ClaimRefused,
    Cosigned,
    CountVoucher,
    CreditSpent,
    CreditTaken,
    Effect,
    Event,
    InvoiceFailed,
    InvoiceLapsed,
    InvoicePaid,
    InvoiceWanted,
    Lent,
    LookAtInvoice,
    MakeInvoice,
    Ordered,
    PaymentRefused,
    PaymentVerified,
    Quoted,
    QuoteLapsed,
    Send,
    SendReceipt,
    SendWord,
    Settle,
    Ship,
    Unsigned,
    VoucherTaken,
    Work,
    WorkDone,
    WorkFailed,
    WorkPacked,
)
from dvm.settlement import MODE_A, MODE_B

ZERO = Msat(0)
CREDIT = "paid, and not delivered; {sat} sat are kept for you, and your next request here is served for them"
UNSIGNED_S = 60  # after the locktime: so long the customer's signatures still help, if the money is not taken back


class State(StrEnum):
    """Where the sale is."""

    SEEN = "seen"  # admitted, nothing written yet
    INVOICING = "invoicing"  # admitted; a mint of ours is asked for the invoice that goes into the quote
    QUOTED = "quoted"  # a firm quote stands
    LAPSED = "lapsed"  # the quote is over or not wanted any more, and its invoice may still be paid
    WORKING = "working"  # for free, or the payment is verified and ours to claim
    STORING = "storing"  # the work is done, and its result is too large for an event: it goes to our file servers
    SEALED = "sealed"  # the sealed result is out; the customer's signatures are waited for
    BILLED = "billed"  # the result is out with an invoice in it, which is not paid yet
    DELIVERED = "delivered"  # the result is out; the payment is not claimed yet
    DONE = "done"  # claimed, or delivered for free
    EXPIRED = "expired"  # nobody paid in time
    FAILED = "failed"  # the work did not succeed; a payment is left for its sender to take back
    LOST = "lost"  # delivered, and the payment could not be claimed
    CANCELLED = "cancelled"  # by the customer, before the work
    OWED = "owed"  # its invoice was paid and nothing was delivered: the customer's next request is served for it
    REPAID = "repaid"  # what was owed has gone into later requests


ENDED = frozenset({State.DONE, State.EXPIRED, State.FAILED, State.LOST, State.CANCELLED, State.OWED, State.REPAID})


@dataclass(frozen=True)  # no slots: copied by core.change
class Sale:
    """One job that we sell. `request`, `answer` and `payment` are whole signed events as JSON.

    `answer` is the quote, later the result: what is sent again, in the same bytes, if the request comes again.
    `payment` is the gift wrap that brought the money: it stays encrypted to our key, also in the database.
    A quote with an `invoice` names no mints: it can be paid in one way only. `invoice_id` is the wallet's name of the
    deposit behind it. `owed` is what is kept for the customer in state `owed`.
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
    invoice: str = ""
    invoice_id: str = ""
    by_invoice: bool = False  # its money is ours already: a paid invoice, or what was owed to the customer
    by_credit: bool = False  # of these the latter
    cancelled: bool = False  # by the customer, while its invoice may still be paid
    owed: Msat = ZERO
    mode: str = ""  # in which a sealed result is offered
    hash: str = ""  # of the preimage that opens it
    paid_by: str = ""  # the mode in which it was paid; empty for a lock to our key alone
    lent: bool = False  # served before it is paid: its invoice goes out with the result
    cosigned: tuple[str, ...] = ()  # the customer's signatures, by coin
    deposit: str = ""  # of the customer's, on which its voucher draws
    packed: Packed | None = None  # a large result on its way to our file servers

    @property
    def paid(self) -> bool:
        """Whether a verified payment came."""
        return bool(self.payment) or self.by_invoice or bool(self.deposit)

    @property
    def earned(self) -> Msat:
        """What it has brought for good. What a customer was owed is earned by the sale that it paid for at last."""
        if self.state is not State.DONE:
            return ZERO
        return self.price if self.by_credit else self.claimed


Move: TypeAlias = tuple[Sale, list[Effect]]


@dataclass(frozen=True, slots=True)
class Rule:
    """If `when` holds, do `do` and be in `to`."""

    to: State
    do: Callable[[Sale, Any], Move]
    when: Callable[[Sale, Any], bool] = lambda sale, event: True


def _quote(sale: Sale, event: Quoted) -> Move:
    sale = replace(
        sale,
        quote_id=event.quote_id,
        expires_at=event.expires_at,
        answer=event.answer,
        invoice=event.invoice,
        invoice_id=event.invoice_id,
        mints=() if event.invoice else sale.mints,
        mode=event.mode,
        hash=event.hash,
    )
    return sale, [Send()]


def _make_invoice(sale: Sale, event: InvoiceWanted) -> Move:
    return sale, [MakeInvoice()]


def _take_invoice(sale: Sale, event: InvoicePaid) -> Move:
    return replace(sale, by_invoice=True, claimed=event.amount, answer=""), [SendWord("processing"), Work()]


def _take_credit(sale: Sale, event: CreditTaken) -> Move:
    sale = replace(sale, by_invoice=True, by_credit=True, claimed=event.fresh, answer="")
    sale = replace(sale, quote_id=sale.quote_id or event.quote_id)
    return sale, [SendWord("processing"), Work()]


def _keep(sale: Sale, event: InvoicePaid) -> Move:
    """The money came too late for a result. It cannot be sent back over an invoice, and is not simply kept."""
    why = "the request was cancelled" if sale.cancelled else "it came too late"
    return _owe(replace(sale, by_invoice=True, claimed=event.amount), event.amount, why)


def _lend(sale: Sale, event: Lent) -> Move:
    return replace(sale, lent=True, quote_id=event.quote_id), [SendWord("processing"), Work()]


def _bill(sale: Sale, event: WorkDone) -> Move:
    sale = replace(sale, answer=event.answer, invoice=event.invoice, invoice_id=event.invoice_id)
    return sale, [Send(), AwaitInvoice()]


def _paid_after(sale: Sale, event: InvoicePaid) -> Move:
    return replace(sale, by_invoice=True, claimed=event.amount), [Settle(ok=True)]


def _credited_after(sale: Sale, event: CreditTaken) -> Move:
    """The result is out already, and stays as it was sent."""
    return replace(sale, by_invoice=True, by_credit=True, claimed=event.fresh), [Settle(ok=True)]


def _never_paid(sale: Sale, event: InvoiceLapsed) -> Move:
    """It is remembered: this customer is not served so any more."""
    return replace(sale, error="its invoice was not paid"), [Settle(ok=False)]


def _fail_paid(sale: Sale, event: WorkFailed) -> Move:
    return _owe(sale, sale.price, event.reason)


def _owe(sale: Sale, amount: Msat, why: str) -> Move:
    sale = replace(sale, owed=amount, error=why, answer="")
    return sale, [SendWord("error", f"{CREDIT.format(sat=amount.sat_down())}: {why}"), Settle(ok=False)]


def _spend(sale: Sale, event: CreditSpent) -> Move:
    return replace(sale, owed=sale.owed - event.amount), []


def _lapse(sale: Sale, event: Any) -> Move:
    """The quote is not sent any more. What was asked is kept: who pays the invoice yet still gets it."""
    return replace(sale, answer="", cancelled=isinstance(event, Cancelled)), []


def _look(sale: Sale, event: AskedAgain) -> Move:
    return sale, [LookAtInvoice()]


def _refuse_invoice(sale: Sale, event: InvoiceFailed) -> Move:
    return replace(sale, error=event.reason), [SendWord("error", event.reason), Settle(ok=False)]


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
        paid_by=event.mode,
    )
    return sale, [SendWord("processing"), Work()]


def _take_voucher(sale: Sale, event: VoucherTaken) -> Move:
    sale = replace(sale, deposit=event.deposit, mint=event.mint, locktime=event.locktime, answer="")
    return sale, [SendWord("processing"), Work()]


def _take_order(sale: Sale, event: Ordered) -> Move:
    return replace(sale, paid_by=MODE_A, answer=""), [SendWord("processing"), Work()]


def _pay_order(sale: Sale, event: PaymentVerified) -> Move:
    answer = sale.answer
    sale, _ = _take_payment(sale, event)
    return replace(sale, answer=answer), [Claim()]


def _refuse_payment(sale: Sale, event: PaymentRefused) -> Move:
    return sale, [SendWord("error", f"the payment is not accepted: {event.reason}")]


def _pack(sale: Sale, event: WorkPacked) -> Move:
    return replace(sale, packed=event.packed), [Ship()]


def _deliver_free(sale: Sale, event: WorkDone) -> Move:
    return replace(sale, answer=event.answer), [Send(), Settle(ok=True)]


def _deliver_paid(sale: Sale, event: WorkDone) -> Move:
    """Its money is ours: nothing is left to claim."""
    return replace(sale, answer=event.answer), [Send(), Settle(ok=True)]


def _deliver_drawn(sale: Sale, event: WorkDone) -> Move:
    """The deposit is ours to claim: the price is counted, and nothing is claimed for this job alone."""
    return replace(sale, answer=event.answer, claimed=sale.price), [Send(), CountVoucher(ok=True), Settle(ok=True)]


def _fail_drawn(sale: Sale, event: WorkFailed) -> Move:
    sale, effects = _fail(sale, event)
    return sale, [CountVoucher(ok=False), *effects]


def _deliver(sale: Sale, event: WorkDone) -> Move:
    return replace(sale, answer=event.answer), [Send(), Claim()]


def _show_sealed(sale: Sale, event: WorkDone) -> Move:
    # An ordered result is not paid yet: its customer has until a while after now.
    locktime = sale.locktime if sale.paid else event.at
    return replace(sale, answer=event.answer, locktime=locktime), [Send(), AwaitSignatures()]


def _cosigned(sale: Sale, event: Cosigned) -> Move:
    return replace(sale, cosigned=event.signatures), [Claim()]


def _unsigned(sale: Sale, event: Unsigned) -> Move:
    return replace(sale, error="unsigned"), [Settle(ok=False)]


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
    in_time = _is_customer(sale, event) and event.at < sale.expires_at and event.net >= sale.price
    return in_time and not sale.invoice  # which may be paid as well: one quote is paid in one way


def _over(sale: Sale, event: QuoteLapsed) -> bool:
    return event.at >= sale.expires_at


def _stands(sale: Sale, event: AskedAgain) -> bool:
    return event.at < sale.expires_at


def _is_paid(sale: Sale, event: Any) -> bool:
    return bool(sale.payment)


def _not_drawn(sale: Sale, event: Any) -> bool:
    return not sale.deposit


def _is_sealed(sale: Sale, event: Any) -> bool:
    return bool(sale.paid_by)


def _may_order(sale: Sale, event: Ordered) -> bool:
    return _is_customer(sale, event) and sale.mode == MODE_A and event.at < sale.expires_at


def _pays_order(sale: Sale, event: PaymentVerified) -> bool:
    right = sale.paid_by == event.mode == MODE_A and event.net >= sale.price
    return right and _is_customer(sale, event)


def _pays_first(sale: Sale, event: PaymentVerified) -> bool:
    return event.mode != MODE_A and _in_time(sale, event)


def _signed_for_this(sale: Sale, event: Cosigned) -> bool:
    right = sale.paid_by == MODE_B and len(event.signatures) == len(sale.ys)
    return right and _is_customer(sale, event)


def _too_late(sale: Sale, event: Unsigned) -> bool:
    return event.at >= sale.locktime + UNSIGNED_S


def _is_free(sale: Sale, event: Any) -> bool:
    return not sale.price


def _is_priced(sale: Sale, event: Any) -> bool:
    return not _is_free(sale, event) and not sale.lent  # what is lent is not paid yet


def _by_invoice(sale: Sale, event: Any) -> bool:
    return sale.by_invoice


def _by_voucher(sale: Sale, event: Any) -> bool:
    return bool(sale.deposit)


def _voucher_in_time(sale: Sale, event: VoucherTaken) -> bool:
    return _is_customer(sale, event) and event.at < sale.expires_at and not sale.invoice and bool(sale.price)


def _has_bill(sale: Sale, event: WorkDone) -> bool:
    return sale.lent and bool(event.invoice)


def _covers(sale: Sale, event: CreditTaken) -> bool:
    return event.amount >= sale.price > ZERO


def _covers_in_time(sale: Sale, event: CreditTaken) -> bool:
    in_time = not event.until or event.at < event.until
    return in_time and not sale.cancelled and _covers(sale, event)


def _wanted(sale: Sale, event: InvoicePaid) -> bool:
    in_time = not event.until or event.at < event.until
    return in_time and event.amount >= sale.price and not sale.cancelled


def _invoiced_over(sale: Sale, event: QuoteLapsed) -> bool:
    return bool(sale.invoice) and _over(sale, event)


def _invoiced_theirs(sale: Sale, event: Cancelled) -> bool:
    return bool(sale.invoice) and _is_customer(sale, event)


def _was_cancelled(sale: Sale, event: Any) -> bool:
    return sale.cancelled


def _all_of_it(sale: Sale, event: CreditSpent) -> bool:
    return event.amount == sale.owed


def _part_of_it(sale: Sale, event: CreditSpent) -> bool:
    return ZERO < event.amount < sale.owed


S = State
_DELIVERY = (
    Rule(S.SEALED, _show_sealed, _is_sealed),
    Rule(S.DONE, _deliver_paid, _by_invoice),
    Rule(S.DELIVERED, _deliver, _is_paid),
    Rule(S.DONE, _deliver_drawn, _by_voucher),
    Rule(S.DONE, _deliver_free, _is_free),
    Rule(S.BILLED, _bill, _has_bill),
)
_FAILURE = (
    Rule(S.OWED, _fail_paid, _by_invoice),
    Rule(S.FAILED, _fail, _not_drawn),
    Rule(S.FAILED, _fail_drawn, _by_voucher),
)
TRANSITIONS: dict[tuple[State, type[Any]], tuple[Rule, ...]] = {
    (S.SEEN, Quoted): (Rule(S.QUOTED, _quote),),
    (S.SEEN, Admitted): (Rule(S.WORKING, _serve, _is_free),),
    (S.SEEN, InvoiceWanted): (Rule(S.INVOICING, _make_invoice),),
    (S.SEEN, Lent): (Rule(S.WORKING, _lend),),
    (S.SEEN, CreditTaken): (Rule(S.WORKING, _take_credit, _covers),),
    (S.INVOICING, Quoted): (Rule(S.QUOTED, _quote),),
    (S.INVOICING, InvoiceFailed): (Rule(S.FAILED, _refuse_invoice),),
    (S.INVOICING, Cancelled): (Rule(S.CANCELLED, _end, _is_customer),),
    (S.QUOTED, InvoicePaid): (Rule(S.WORKING, _take_invoice, _wanted), Rule(S.OWED, _keep)),
    (S.QUOTED, CreditTaken): (Rule(S.WORKING, _take_credit, _covers_in_time),),
    (S.LAPSED, CreditTaken): (Rule(S.WORKING, _take_credit, _covers_in_time),),
    (S.LAPSED, InvoicePaid): (Rule(S.WORKING, _take_invoice, _wanted), Rule(S.OWED, _keep)),
    (S.LAPSED, InvoiceLapsed): (Rule(S.CANCELLED, _end, _was_cancelled), Rule(S.EXPIRED, _end)),
    (S.LAPSED, Cancelled): (Rule(S.LAPSED, _lapse, _is_customer),),
    (S.LAPSED, AskedAgain): (Rule(S.LAPSED, _look),),
    (S.OWED, CreditSpent): (Rule(S.REPAID, _spend, _all_of_it), Rule(S.OWED, _spend, _part_of_it)),
    (S.QUOTED, PaymentVerified): (Rule(S.WORKING, _take_payment, _pays_first),),
    (S.QUOTED, Ordered): (Rule(S.WORKING, _take_order, _may_order),),
    (S.QUOTED, VoucherTaken): (Rule(S.WORKING, _take_voucher, _voucher_in_time),),
    (S.QUOTED, PaymentRefused): (Rule(S.QUOTED, _refuse_payment, _is_customer),),
    (S.QUOTED, QuoteLapsed): (Rule(S.LAPSED, _lapse, _invoiced_over), Rule(S.EXPIRED, _end, _over)),
    (S.QUOTED, Cancelled): (Rule(S.LAPSED, _lapse, _invoiced_theirs), Rule(S.CANCELLED, _end, _is_customer)),
    (S.QUOTED, AskedAgain): (Rule(S.QUOTED, _again, _stands),),
    (S.WORKING, WorkDone): _DELIVERY,
    (S.WORKING, WorkFailed): _FAILURE,
    (S.WORKING, WorkPacked): (Rule(S.STORING, _pack, _is_priced),),  # nobody fills our servers for nothing (M7)
    (S.STORING, WorkDone): _DELIVERY[:-2],
    (S.STORING, WorkFailed): _FAILURE,
    (S.BILLED, InvoicePaid): (Rule(S.DONE, _paid_after),),
    (S.BILLED, CreditTaken): (Rule(S.DONE, _credited_after, _covers),),  # whatever the hour: nothing is left to do
    (S.BILLED, InvoiceLapsed): (Rule(S.LOST, _never_paid),),
    (S.BILLED, AskedAgain): (Rule(S.BILLED, _again),),
    (S.SEALED, Cosigned): (Rule(S.DELIVERED, _cosigned, _signed_for_this),),
    (S.SEALED, PaymentVerified): (Rule(S.DELIVERED, _pay_order, _pays_order),),
    (S.SEALED, PaymentRefused): (Rule(S.SEALED, _refuse_payment, _is_customer),),
    (S.SEALED, Unsigned): (Rule(S.LOST, _unsigned, _too_late),),
    (S.SEALED, AskedAgain): (Rule(S.SEALED, _again),),
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
            return after if after.state is rule.to else replace(after, state=rule.to), effects
    return sale, []


def resumed(sale: Sale) -> list[Effect]:
    """What a restart must do again. Everything here is harmless if it was already done."""
    if sale.state is State.INVOICING:
        return [MakeInvoice()]
    if sale.state is State.WORKING:
        return [Work()]
    if sale.state is State.STORING:
        return [Ship()]
    if sale.state is State.BILLED:
        return [AwaitInvoice()]
    if sale.state is State.SEALED:
        return [AwaitSignatures()]
    if sale.state is State.DELIVERED:
        return [Claim()]
    return []
