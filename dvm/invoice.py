"""What a seller's Lightning invoice means for a job of ours: how it could be paid, or why it is not. Pure.

An invoice gives no money back (DESIGN §6, methods 3 and 4), so all that can be checked is checked before: it is decoded
here, and what the seller says of it counts for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass

from core.change import replace
from core.error import VendoError
from core.identifier import OperationId, derived_id
from core.money import Msat
from dvm.job import Purchase
from dvm.selection import ACCEPT_MARGIN_S, Bill, Offer, Terms
from dvm.settlement import Method
from wallet.error import InvoiceRejected
from wallet.invoice import MAINNET, plain_invoice, read_invoice

MAX_CHARS = 1_500  # a mint's or wallet's invoice has a few hundred; offers are kept with the job
MAX_READ = 128  # invoices that are read for one job: each takes some milliseconds

PayCost = Callable[[str, Msat], Msat]


def pay_id(payment_hash: str) -> OperationId:
    """The wallet's name for paying this hash: the same for every job, so that an invoice is never paid twice."""
    return OperationId(derived_id("invoice", payment_hash))


@dataclass(frozen=True, slots=True)
class Checkout:
    """How this node pays invoices.

    Attributes:
        pay_cost: at most what paying so much at a mint costs with all fees; raises if it cannot be paid there.
        most: what a seller may ask for before the work, without our fees.
        currencies: networks whose invoices are paid.
    """

    pay_cost: PayCost
    most: Msat
    currencies: frozenset[str] = frozenset({MAINNET})

    def bill(self, text: str, price: Msat, job: Purchase, now: int, method: Method) -> Bill:
        """The invoice as a way to pay `price`, or with the reason why it is none.

        Args:
            text: the invoice.
            price: what the seller asks for: the invoice is for exactly that.
            job: the job that it is for; only its mints are asked to pay.
            now: Unix seconds.
            method: before or after the work.
        """
        if price > job.limit.ceiling:
            return Bill(fault=f"{price.value} msat is above the reserved maximum of {job.limit.ceiling.value} msat")
        if method is Method.INVOICE_BEFORE and price > self.most:
            return Bill(fault=f"it is to be paid before the work, and {self.most.value} msat is the most for that")
        if len(text) > MAX_CHARS:
            return Bill(fault="its invoice is too long")
        text = plain_invoice(text)
        try:
            found = read_invoice(text)
        except InvoiceRejected:
            return Bill(fault="its invoice cannot be read")
        if found.amount_msat != price.value:
            return Bill(fault=f"its invoice is for {found.amount_msat} msat, not for the {price.value} that it asks")
        if found.currency not in self.currencies:
            return Bill(fault="its invoice is for another network")
        if found.expires_at <= now + ACCEPT_MARGIN_S:
            return Bill(fault="its invoice has expired or is about to")
        terms = self._terms(price, job, method)
        if not terms:
            return Bill(fault="no mint of ours can pay its invoice")
        return Bill(text, found.payment_hash, found.expires_at, terms)

    def _terms(self, price: Msat, job: Purchase, method: Method) -> tuple[Terms, ...]:
        terms = []
        for mint in job.mints:
            try:
                terms.append(Terms(mint, "", self.pay_cost(mint, price), method))
            except VendoError:
                continue
        return tuple(terms)


def billed(offer: Offer, bill: Bill) -> Offer:
    """The offer, payable by its invoice; refused for the invoice's fault if there is no other way."""
    if bill.fault:
        return offer if offer.terms else replace(offer, content="", refusal=offer.refusal or bill.fault)
    until = min(offer.expires_at or bill.expires_at, bill.expires_at)
    return replace(
        offer,
        terms=(*offer.terms, *bill.terms),
        invoice=bill.invoice,
        payment_hash=bill.payment_hash,
        expires_at=offer.expires_at if offer.terms else until,
    )
