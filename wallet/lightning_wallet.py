"""Pays and makes Lightning invoices at a wallet over NWC: persists, then acts (DESIGN §4.4). The saga is `lightning`.

What leaves was written down before, with its own bytes; what came is booked in the commit that ends the operation. A
limit counts everything that may have left in the last day, all of what is in doubt included.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from core.clock import Clock
from core.effect import Permit
from core.error import Conflict, InvalidInput
from core.identifier import EffectId, OperationId
from core.unit import UnitOfWork
from relays.nip47 import Method
from wallet.debt import Debts
from wallet.error import InvoiceRejected, OperationReused, PaymentUnknown
from wallet.invoice import MAINNET, Invoice, read_invoice
from wallet.lightning import (
    ENDED,
    Begun,
    Direction,
    Found,
    LightningLimits,
    LookedUp,
    Payment,
    Restarted,
    Stage,
    paid_in,
)
from wallet.lightning_audit import LightningAudit, audit
from wallet.lightning_engine import Client, LightningEngine
from wallet.lightning_error import (
    InvoiceKnown,
    InvoiceUnpayable,
    LightningFailed,
    LightningLimit,
    NotGivenUp,
)
from wallet.lightning_keeper import LightningKeeper
from wallet.lightning_record import LightningBook, LightningView, Order, view_of
from wallet.waiver import count_silence, waivable, waive

DAY_S = 86_400
REQUEST_S = 600
"""For so long a request may be taken by the wallet; the invoice's own expiry ends it earlier."""
_LEAST_S = 15
# The payee may hold a payment for so long: until then nobody knows how it ends.
_MOST_S = 7 * 86_400
_MOST_BLOCKS = 144
_MAX_NOTE = 200


class Lightning:
    """One per node, if a wallet is connected. A service: `run` looks up what is in doubt, and what waits to be paid.

    Args:
        unit: the database.
        book: its rows.
        clock: time.
        client: asks the wallet.
        check: the gate's check of permits.
        permit_for: the gate's permit for an effect that has begun.
        standing: the gate's leave for look-ups that belong to no effect.
        limits: what may be paid.
        currencies: networks whose invoices are paid (`bc` is the Bitcoin main network).
        debts: keeps all ways to pay from paying the same invoice.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        book: LightningBook,
        clock: Clock,
        client: Client,
        check: Callable[[Permit], None],
        *,
        permit_for: Callable[[EffectId], Permit],
        standing: Callable[[], Permit],
        limits: LightningLimits,
        currencies: frozenset[str] = frozenset({MAINNET}),
        debts: Debts | None = None,
    ) -> None:
        self._unit, self._book, self._clock, self._client = unit, book, clock, client
        self._check, self.limits, self._currencies = check, limits, currencies
        self._debts = debts or Debts()
        self._choosing = asyncio.Lock()
        self._engine = LightningEngine(unit, book, clock, client, standing)
        self._keeper = LightningKeeper(book, self._engine, clock, permit_for)

    # ------------------------------------------------------------------ reading

    @property
    def name(self) -> str:
        """How rows and journal call the wallet."""
        return self._client.name

    @property
    def is_up(self) -> bool:
        """Whether a relay of the wallet is connected."""
        return self._client.is_up

    async def find(self, op_id: str) -> LightningView | None:
        """An operation of this wallet."""
        order = await self._book.find(op_id)
        return None if order is None else view_of(order)

    async def latest(self, limit: int = 100) -> list[LightningView]:
        """The newest payments and invoices, newest first."""
        return [view_of(order) for order in await self._book.latest(limit)]

    async def balance(self) -> int:
        """What the wallet says it has, in msat. It may be shared with others, and hold money that is not for us.

        Raises:
            WalletUnreachable, WalletLacks, WalletSilent, WalletRejected: it does not say.
        """
        return await self._engine.balance()

    async def received(self, payment_hash: str) -> int | None:
        """What came in, in msat, for an invoice that somebody else made for this wallet, an LNURL server say.

        None if nothing did, or if the invoice is one of ours: that was made for something, and counts for that.

        Raises:
            WalletUnreachable, WalletLacks, WalletSilent, WalletRejected: the wallet does not say.
        """
        if await self._book.of_hash(payment_hash) is not None:
            return None
        found = await self._engine.transaction(payment_hash)
        if found is None or paid_in(found, payment_hash) is not Found.SETTLED:
            return None
        return found.amount

    async def audit(self) -> LightningAudit:
        """Whether rows, journal and wallet agree."""
        return await audit(self._book, self._engine)

    async def status(self) -> dict[str, Any]:
        """What is known of the wallet without asking it, and what of the limits is left, in msat."""
        spent = await self._book.spent_since(self._clock.now() - DAY_S)
        return {
            "wallet": self.name,
            "up": self._client.is_up,
            "day_msat": self.limits.per_day,
            "used_msat": spent,
            "payment_msat": self.limits.per_payment,
            "open": len(await self._book.open()),
        }

    # ------------------------------------------------------------------ paying

    async def pay(
        self, op_id: str, invoice: str, effect_id: EffectId, permit: Permit, *, purpose: str = "", until: int = 0
    ) -> LightningView:
        """Pay an invoice once. The same call again goes on with it, or says how it ended.

        The wallet takes the request until `until` (Unix seconds) at the latest, if that is given.

        Raises:
            InvoiceUnpayable: it is none, names no amount, has expired or nearly so, or is for another network.
            InvoiceKnown: another operation has it. OperationReused: this operation has another.
            LightningLimit: it is above a limit.
            WalletUnreachable, WalletLacks: nothing was begun.
            LightningFailed: looked up: nothing left us.
            PaymentUnknown: it may have happened; `run` looks it up.
        """
        text = invoice.strip().lower().removeprefix("lightning:")
        read = _read(text, self._currencies)
        async with self._engine.driving(op_id):
            order = await self._book.find(op_id)
            if order is None:
                self._check(permit)
                async with self._debts.alone(read.payment_hash, op_id):
                    order = await self._begin(op_id, text, read, effect_id, purpose, until or read.expires_at)
                order = await self._engine.drive(order, Begun(self._clock.now()), permit)
            elif order.payment_hash != read.payment_hash:
                raise OperationReused
            elif order.payment.stage not in ENDED and order.wallet == self.name:
                order = await self._engine.drive(order, Restarted(self._clock.now()), permit)
        return settled(order)

    async def _begin(
        self, op_id: str, text: str, read: Invoice, effect_id: EffectId, purpose: str, until: int
    ) -> Order:
        now = self._clock.now()
        until = min(read.expires_at, now + REQUEST_S, until)
        if until - now < _LEAST_S:
            raise InvoiceUnpayable("The invoice has expired, or is about to.")
        if read.expires_at - now > _MOST_S or read.min_final_cltv > _MOST_BLOCKS:
            raise InvoiceUnpayable("The invoice's payee could hold the payment for too long.")
        amount = read.amount_msat or 0
        if amount > self.limits.per_payment:
            most = self.limits.per_payment
            raise LightningLimit(f"{amount} msat is more than the {most} of [lightning] max_payment_sat.")
        if (known := await self._book.of_hash(read.payment_hash)) is not None:
            raise InvoiceKnown(operation=known.id)
        await self._client.ready(Method.PAY_INVOICE, Method.LOOKUP_INVOICE)
        request = await self._client.request(Method.PAY_INVOICE, {"invoice": text}, until)
        payment = Payment(
            OperationId(op_id), Direction.PAY, Stage.PREPARED, read.expires_at, until, relays=self._client.relays
        )
        order = Order(
            payment, self.name, read.payment_hash, effect_id, amount, self.limits.fee(amount), text,
            request.to_json(), note=read.description[:_MAX_NOTE], purpose=purpose,
        )  # fmt: skip
        async with self._choosing:  # nobody else takes the same room meanwhile
            free = self.limits.per_day - await self._book.spent_since(now - DAY_S)
            if order.most > free:
                raise LightningLimit(
                    f"{order.most} msat with its fee is more than the {max(0, free)} left of [lightning] max_day_sat."
                )
            insert, order = self._book.begin(order)
            try:
                await self._unit.commit([insert])
            except Conflict as error:
                raise InvoiceKnown from error
        return order

    async def give_up(self, op_id: str) -> LightningView:
        """Wait no longer for the wallet's word on a payment: it counts as paid with all of its fee, since it may be.

        The wallet is asked once more. What it says then ends the payment as ever, and nothing is given up; that it
        cannot be asked counts only after `waiver.SILENT_TRIES` tries, with `waiver.SILENT_GAP_S` between them.

        Raises:
            NotFound: there is no such payment.
            NotGivenUp: it has ended, its invoice has not expired for long, or the wallet still answers, or may.
        """
        async with self._engine.driving(op_id):
            order = waivable(await self._book.find(op_id), self._clock.now())
            if order.wallet == self.name:  # another wallet, that is not connected any more, cannot be asked
                order = await self._asked_last(order)
            order = await waive(order, self._unit, self._book, self._clock)
        return view_of(order)

    async def _asked_last(self, order: Order) -> Order:
        """Ask the wallet once more about a payment that is to be given up.

        Raises:
            NotGivenUp: it has just said how it ended, still answers about it, or cannot be asked just now.
        """
        standing = self._engine.standing()
        order, said = await self._engine.look_up(order, standing)
        order, _ = await self._engine.move(order, said, standing)
        if order.payment.stage in ENDED:
            raise NotGivenUp(f"The wallet has just said how it ended: it is {order.payment.stage.value}.")
        if not isinstance(said, LookedUp):
            await count_silence(order, self._unit, self._book, self._clock.now())
            return order
        await self._unit.commit([self._book.heard(order.id)])
        if said.found not in (Found.UNSURE, Found.UNPROVEN):
            raise NotGivenUp(f"The wallet still answers about it: {said.found.value}.")
        return order

    # ------------------------------------------------------------------ being paid

    async def invoice(
        self, op_id: str, amount: int, note: str, effect_id: EffectId, permit: Permit, *, expiry_s: int = 3_600
    ) -> LightningView:
        """An invoice of the wallet for so many msat; `run` watches it. The same call again gives the same one.

        Raises:
            InvalidInput: the amount is not positive.
            WalletUnreachable, WalletLacks, WalletSilent, WalletRejected: there is no invoice, and nobody has one.
            InvoiceRejected: the wallet's invoice is not for what was asked.
        """
        if not 0 < amount < 1 << 50:
            raise InvalidInput("An invoice is for a positive number of msat.")
        async with self._engine.driving(op_id):
            order = await self._book.find(op_id)
            if order is None:
                self._check(permit)
                await self._client.ready(Method.MAKE_INVOICE, Method.LOOKUP_INVOICE)
                params = {"amount": amount, "description": note[:_MAX_NOTE], "expiry": expiry_s}
                result = await self._client.call(Method.MAKE_INVOICE, params, permit)
                order = self._made(op_id, result, amount, note, effect_id)
                insert, order = self._book.begin(order)
                try:
                    await self._unit.commit([insert])
                except Conflict as error:
                    raise InvoiceRejected("The Lightning wallet gave an invoice that it gave before.") from error
            elif order.amount != amount or order.payment.direction is not Direction.INVOICE:
                raise OperationReused
        return view_of(order)

    def _made(self, op_id: str, result: Mapping[str, Any], amount: int, note: str, effect_id: EffectId) -> Order:
        text = result.get("invoice")
        if type(text) is not str:
            raise InvoiceRejected("The Lightning wallet gave no invoice.")
        read = read_invoice(text)
        if read.amount_msat != amount or read.currency not in self._currencies:
            raise InvoiceRejected("The Lightning wallet's invoice is for another amount or network.")
        if read.expires_at <= self._clock.now():
            raise InvoiceRejected("The Lightning wallet's invoice has expired.")
        payment = Payment(OperationId(op_id), Direction.INVOICE, Stage.WAITING, read.expires_at)
        return Order(payment, self.name, read.payment_hash, effect_id, amount, 0, text, note=note[:_MAX_NOTE])

    async def poll(self, op_id: str) -> LightningView | None:
        """Look at an operation now instead of at `run`'s pace."""
        await self._keeper.resume(op_id)
        return await self.find(op_id)

    # ------------------------------------------------------------------ background

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Look things up until told to stop."""
        await self._keeper.run(ready, stop)

    async def look(self) -> None:
        """One round of `run`.

        Raises:
            VendoError: the rows cannot be read.
        """
        await self._keeper.look()


def _read(text: str, currencies: frozenset[str]) -> Invoice:
    """An invoice that may be paid from here, its time aside."""
    try:
        read = read_invoice(text)
    except InvoiceRejected as error:
        raise InvoiceUnpayable(error.message) from error
    if not read.amount_msat:
        raise InvoiceUnpayable("The invoice names no amount.")
    if read.currency not in currencies:
        raise InvoiceUnpayable("The invoice is for another network.")
    return read


def settled(order: Order) -> LightningView:
    """The operation, if it is paid.

    Raises:
        LightningFailed: looked up: nothing left us.
        PaymentUnknown: not yet known.
    """
    if order.payment.stage is Stage.FAILED:
        raise LightningFailed(f"The payment failed: {order.reason}.", operation=order.id)
    if order.payment.stage is not Stage.PAID:
        raise PaymentUnknown(operation=order.id)
    return view_of(order)
