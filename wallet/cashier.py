"""Deposits, tokens and invoices in whichever unit: what the wallet of sat and the one of other units have in common.

Each call is for one mint and one unit, and whatever it plans comes from that book alone. The teller begins it, the
engine drives it; here is only what is checked before.
"""

from collections.abc import Callable, Sequence

from core.clock import Clock
from core.effect import Permit
from core.error import InvalidInput
from core.identifier import EffectId, OperationId, derived_id
from relays.key import Keyring
from wallet.amount import MOST, MSAT, SAT, Amount
from wallet.cashu.address import canonical_url
from wallet.cashu.book import KeysetBook
from wallet.cashu.curve import is_point
from wallet.cashu.lock import condition, read_key_lock
from wallet.cashu.port import MintQuote
from wallet.cashu.proof import Proof
from wallet.cashu.select import split
from wallet.cashu.token import Payment
from wallet.engine import Engine, Then
from wallet.error import InvoiceRejected, MintRefused, MintUnlisted, TokenLock, TokenMint, UnitAbsent
from wallet.invoice import Invoice, check_invoice, fresh_invoice, plain_invoice
from wallet.keeper import UNTIL
from wallet.payment import Kind
from wallet.planner import Planned, Planner
from wallet.purse import Stored
from wallet.record import Plan
from wallet.teller import Request, Teller, settled
from wallet.verification import check_coins
from wallet.withdrawal import Withdrawal

_SLOWEST_S = 86_400  # from an invoice's end until the last payment of it that was under way has arrived


def _ends_at(invoice: Invoice, expiry: int | None) -> int:
    """Until when (Unix seconds) the mint may see it paid: not long after nobody can pay it, whatever the mint says."""
    return min(max(invoice.expires_at, expiry or 0), invoice.expires_at + _SLOWEST_S)


def _pay_until(invoice: Invoice, quote_expiry: int | None) -> int:
    """Until when a payment still becomes coins: what comes after the quote's end a mint may keep."""
    return min(invoice.expires_at, quote_expiry or invoice.expires_at)


def request(op_id: str, kind: Kind, book: KeysetBook, effect_id: EffectId, body: str) -> Request:
    """An operation at one mint, in one unit. The digest names both, so that no id stands for two units."""
    digest = derived_id(str(kind), book.mint.url, book.unit, body)
    return Request(OperationId(op_id), kind, book.mint.url, book.unit, effect_id, digest)


class Cashier:
    """One per wallet.

    Args:
        teller: begins operations.
        planner: makes plans.
        engine: drives them.
        withdrawal: pays invoices.
        keyring: keys for quotes, and the wallet's own.
        clock: time.
        check: the gate's check of permits.
        currencies: networks whose invoices count.
    """

    def __init__(
        self,
        teller: Teller,
        planner: Planner,
        engine: Engine,
        withdrawal: Withdrawal,
        keyring: Keyring,
        clock: Clock,
        check: Callable[[Permit], None],
        currencies: frozenset[str],
    ) -> None:
        self._teller, self._planner, self._engine, self._withdrawal = teller, planner, engine, withdrawal
        self._keyring, self._clock, self._check, self._currencies = keyring, clock, check, currencies

    def book(self, mint: str, unit: str) -> KeysetBook:
        """The keysets of a mint that may be asked, in one unit.

        Raises:
            MintUnlisted: it is none of ours.
            UnitAbsent: no such unit is handled.
        """
        return self._teller.book(canonical_url(mint), unit)

    async def offered(self, book: KeysetBook, amount: Amount) -> None:
        """Whether the mint sells coins of this unit now, and has all that make up the amount.

        Raises:
            UnitAbsent: it does not.
            Unavailable, MintLied, MintRejected: it does not say.
        """
        await book.known()
        try:
            keys = (await book.active()).keys
        except MintRefused as error:
            raise UnitAbsent(f"This mint sells no coins in {book.unit} with an acceptable fee.") from error
        if any(part not in keys for part in split(amount.value)):
            raise UnitAbsent(f"This mint has no coins large enough for {amount}.")

    # ------------------------------------------------------------------ money in

    async def deposit(
        self, op_id: str, mint: str, amount: Amount, effect_id: EffectId, permit: Permit, *, until: int, lightning: bool
    ) -> Stored:
        """See `Wallet.deposit`."""
        book = self.book(mint, amount.unit)
        if not 0 < amount.value < MOST:
            raise InvalidInput(f"A deposit is a positive number of {amount.unit}, below {MOST}.")
        wanted = request(op_id, Kind.DEPOSIT, book, effect_id, str(amount.value))
        async with self._engine.driving(op_id):
            stored = await self._teller.begun(wanted)
            if stored is not None:
                return stored
            self._check(permit)
            self._teller.admit(wanted)
            if amount.unit != SAT:
                await self.offered(book, amount)
            (await book.limits()).deposit(amount.unit).check(amount.value, amount.unit, "deposits")
            key = ("quote", op_id)
            pubkey = self._keyring.key(*key).compressed
            quote = await book.mint.request_quote(amount.value, amount.unit, pubkey, permit)
            invoice = self._sold(quote, amount, pubkey)
            plan = Plan(
                wanted.digest,
                key=key,
                quote=quote.id,
                invoice=quote.request,
                expires=_ends_at(invoice, quote.expiry),
                terms={"amount": amount.value}
                | ({} if amount.unit == SAT else {"msat": invoice.amount_msat or 0})
                | ({"lightning": 1, "pay_until": _pay_until(invoice, quote.expiry)} if lightning else {})
                | ({UNTIL: until} if until else {}),
            )
            return await self._teller.await_payment(wanted, plan, amount.value)

    def _sold(self, quote: MintQuote, amount: Amount, pubkey: str) -> Invoice:
        """The invoice of a quote that is for what was asked for. In units of states only the payer can judge its price.

        Raises:
            InvoiceRejected: it is for something else.
        """
        said, now = (quote.amount, quote.unit), self._clock.now()
        # Mints from before quotes named them had sat alone.
        silent = amount.unit == SAT and said == (None, None)
        if (said != (amount.value, amount.unit) and not silent) or quote.pubkey not in (pubkey, None):
            raise InvoiceRejected("The mint's quote is not for what was asked for.")
        if amount.unit == SAT:
            return check_invoice(quote.request, amount.value, now, currencies=self._currencies)
        invoice = fresh_invoice(quote.request, now, currencies=self._currencies)
        if amount.unit == MSAT and invoice.amount_msat != amount.value:
            raise InvoiceRejected("The invoice is for another amount than was asked for.")
        return invoice

    async def receive(self, op_id: str, token: str, payment: Payment, effect_id: EffectId, permit: Permit) -> Stored:
        """See `Wallet.receive`; `payment` is what the token says, of a mint and unit that may be asked."""
        book = self.book(payment.mint, payment.unit)
        wanted = request(op_id, Kind.RECEIVE, book, effect_id, token.strip())

        async def make() -> Planned:
            coins = await check_coins(payment, book, needs_dleq=False)
            return await self._planner.take(Plan(wanted.digest, coins, self.spending_key(coins)), book)

        try:
            return settled(await self._teller.perform(wanted, permit, make))
        except MintUnlisted as error:
            raise TokenMint from error

    def spending_key(self, coins: Sequence[Proof]) -> tuple[str, ...]:
        """The key that a token's coins need: none, or ours for all of them.

        Raises:
            TokenLock: any other condition.
        """
        locked = [condition(coin.secret) is not None for coin in coins]
        if not any(locked):
            return ()
        if not all(locked):
            raise TokenLock("Some of the coins are locked and others are not.")
        own = self._keyring.key("wallet").compressed
        if not all(read_key_lock(coin.secret).opens_to(own) for coin in coins):
            raise TokenLock("A coin is locked to another key.")
        return ("wallet",)

    # ------------------------------------------------------------------ money out

    async def send(
        self, op_id: str, mint: str, amount: Amount, effect_id: EffectId, permit: Permit, pubkey: str
    ) -> Stored:
        """See `Wallet.send`."""
        book = self.book(mint, amount.unit)
        if not 0 < amount.value < MOST:
            raise InvalidInput(f"A token is a positive number of {amount.unit}, below {MOST}.")
        if pubkey and not is_point(pubkey):
            raise InvalidInput("A token is locked to a public key: 66 hex digits that begin with 02 or 03, or 64.")
        wanted = request(op_id, Kind.SEND, book, effect_id, f"{amount.value} {pubkey}".rstrip())
        terms: dict[str, str | int] = {"amount": amount.value} | ({"pubkey": pubkey} if pubkey else {})

        async def make() -> Planned:
            return await self._planner.send(op_id, Plan(wanted.digest, terms=terms), book)

        return settled(await self._teller.perform(wanted, permit, make))

    async def pay(
        self,
        op_id: str,
        mint: str,
        unit: str,
        invoice: str,
        ceiling: dict[str, int],
        effect_id: EffectId,
        permit: Permit,
        then: Then | None = None,
    ) -> Stored:
        """See `Wallet.pay`; `ceiling` is the plan's term that bounds it: `ceiling` in msat, or `most` in the unit."""
        text = plain_invoice(invoice)
        wanted = request(op_id, Kind.MELT, self.book(mint, unit), effect_id, text)
        return settled(await self._withdrawal.pay(wanted, text, ceiling, permit, then))
