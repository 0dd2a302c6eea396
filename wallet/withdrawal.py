"""Pays Lightning invoices with coins: checks the invoice, then the mint's quote, and hands a plan to the teller."""

from collections.abc import Mapping
from dataclasses import dataclass

from core.clock import Clock
from core.effect import Permit
from core.error import NotFound, Unavailable
from core.identifier import OperationId
from wallet.amount import Amount
from wallet.cashu.book import KeysetBook
from wallet.cashu.port import MeltQuote
from wallet.debt import Debts
from wallet.engine import Then
from wallet.error import MintLied, MintRefused, MintRejected
from wallet.invoice import Invoice, payable_invoice
from wallet.melt import check_most, check_quote, exact
from wallet.payment import Kind, State
from wallet.planner import Planned, Planner
from wallet.purse import Purse, Stored
from wallet.record import Plan
from wallet.teller import Request, Teller


@dataclass(slots=True)
class _Asked:
    """What was found out before a plan is made."""

    invoice: Invoice
    quote: MeltQuote


class Withdrawal:
    """Between `Wallet.pay` and the teller.

    Args:
        teller: begins operations.
        planner: makes plans.
        purse: the rows.
        clock: says what has expired.
        currencies: networks whose invoices are paid.
        debts: keeps all ways to pay from paying the same invoice.
    """

    def __init__(
        self, teller: Teller, planner: Planner, purse: Purse, clock: Clock, currencies: frozenset[str], debts: Debts
    ) -> None:
        self._teller = teller
        self._planner = planner
        self._purse = purse
        self._clock = clock
        self._currencies = currencies
        self._debts = debts
        debts.add(self.pays)

    async def pay(
        self, wanted: Request, text: str, ceiling: Mapping[str, int], permit: Permit, then: Then | None
    ) -> Stored:
        """See `Wallet.pay`. One quote for one operation: it is asked for before the plan, and stored with it."""
        self._teller.book(wanted.mint, wanted.unit)
        if await self._teller.begun(wanted) is not None:
            # Whatever the time is now: what was begun is looked up, and what has ended is answered.
            return await self._teller.perform(wanted, permit, _gone, then)
        invoice = payable_invoice(text, self._clock.now(), currencies=self._currencies)
        async with self._debts.alone(invoice.payment_hash, wanted.op_id):
            return await self._begin(wanted, text, invoice, ceiling, permit, then)

    async def pays(self, payment_hash: str) -> OperationId | None:
        """The operation that pays an invoice with coins, has paid it, or may have; what was refused has not."""
        for stored in await self._purse.operations(kind=str(Kind.MELT)):
            if stored.op.state is not State.REFUSED and stored.plan.terms.get("hash") == payment_hash:
                return stored.op.id
        return None

    async def _begin(
        self,
        wanted: Request,
        text: str,
        invoice: Invoice,
        ceiling: Mapping[str, int],
        permit: Permit,
        then: Then | None,
    ) -> Stored:
        book = self._teller.book(wanted.mint, wanted.unit)
        asked: list[_Asked] = []

        async def ask() -> None:
            limit, known = (await book.limits()).withdrawal(book.unit), exact(invoice, book.unit)
            if known is not None:
                limit.check(known, book.unit, "withdrawals")
            quote = await self._quoted(book, invoice, text, permit)
            limit.check(quote.amount, book.unit, "withdrawals")
            if "most" in ceiling:  # before coins are looked for: the mint alone says what an invoice is in its unit
                check_most(quote, 0, Amount(ceiling["most"], book.unit))
            asked.append(_Asked(invoice, quote))

        async def make() -> Planned:
            plan = self._plan(wanted, text, asked[0], ceiling)
            return await self._planner.melt(plan, asked[0].quote, book)

        return await self._teller.perform(wanted, permit, make, then, ask)

    async def _quoted(self, book: KeysetBook, invoice: Invoice, text: str, permit: Permit) -> MeltQuote:
        try:
            quote = await book.mint.request_melt(text, book.unit, permit)
            check_quote(quote, invoice, text, book.unit, self._clock.now())
        except MintRejected as error:
            raise MintRefused("The mint would not pay this invoice.", mint_code=error.mint_code) from error
        except (Unavailable, MintLied) as error:
            raise MintRefused("The mint gives no usable quote for this invoice.", cause=error.code) from error
        return quote

    @staticmethod
    def _plan(wanted: Request, text: str, asked: _Asked, ceiling: Mapping[str, int]) -> Plan:
        invoice, quote = asked.invoice, asked.quote
        assert invoice.amount_msat is not None
        return Plan(
            wanted.digest,
            quote=quote.id,
            invoice=text,
            expires=invoice.expires_at,
            terms={
                "msat": invoice.amount_msat,
                "hash": invoice.payment_hash,
                "amount": quote.amount,
                "reserve": quote.fee_reserve,
                **ceiling,
            },
        )


async def _gone() -> Planned:
    raise NotFound("The payment's row was deleted meanwhile.")
