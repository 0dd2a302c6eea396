"""Operations of coins and of Lightning under one roof: found by their id, and deposits that Lightning pays for.

Such a deposit is a chain of two operations under one effect: the mint's invoice is written down with the wish that it
be paid from the Lightning wallet, and the payment's own id derives from the deposit's. So whatever ends in between,
`run` goes on with it, and nothing is paid twice. If the payment fails, the deposit waits: its invoice can still be paid
by hand until it expires.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from core.clock import Clock
from core.effect import Permit
from core.error import VendoError
from core.identifier import EffectId, OperationId, derived_id
from core.unit import UnitOfWork
from wallet.lightning import ENDED, Direction, Stage
from wallet.lightning_error import InvoiceUnpayable, WalletUnreachable
from wallet.lightning_record import LightningBook, LightningView, view_of
from wallet.model import Deposit, OperationView
from wallet.payment import State
from wallet.waiver import waivable, waive

log = logging.getLogger(__name__)

PURPOSE = "deposit"
_LOOK_S = 1.0
_SPARE_S = 60


class Coins(Protocol):
    """What is asked of `wallet.wallet.Wallet`."""

    async def find(self, op_id: str) -> OperationView | None:
        """One of its operations."""

    async def deposits_to_fund(self) -> Sequence[tuple[Deposit, EffectId]]:
        """Deposits that wait for Lightning."""


class Payer(Protocol):
    """What is asked of `wallet.lightning_wallet.Lightning`."""

    @property
    def is_up(self) -> bool:
        """Whether its wallet can be asked."""

    async def pay(
        self, op_id: str, invoice: str, effect_id: EffectId, permit: Permit, *, purpose: str = "", until: int = 0
    ) -> LightningView:
        """Pay an invoice once."""

    async def give_up(self, op_id: str) -> LightningView:
        """Count a payment as paid of which the wallet, asked once more, says nothing any more."""


def payment_of(deposit: str) -> OperationId:
    """The id of the payment that a deposit waits for."""
    return OperationId(derived_id("lightning", deposit))


class Funding:
    """One per node, also without a Lightning wallet. A service: `run` pays what deposits wait for.

    Args:
        unit: the database.
        coins: the wallet of coins.
        book: rows of Lightning.
        clock: the pace.
        payer: the Lightning wallet, if one is connected.
        permit_for: the gate's permit for an effect that has begun.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        coins: Coins,
        book: LightningBook,
        clock: Clock,
        payer: Payer | None,
        permit_for: Callable[[EffectId], Permit],
    ) -> None:
        self._unit, self._coins, self._book, self._clock = unit, coins, book, clock
        self._payer, self._permit_for = payer, permit_for
        self._tried: set[str] = set()

    # ------------------------------------------------------------------ what became of an operation

    async def find(self, op_id: str) -> OperationView | LightningView | None:
        """An operation of either kind. A deposit has not failed while its payment may have left us."""
        found = await self._coins.find(op_id)
        if found is None:
            order = await self._book.find(op_id)
            return None if order is None else view_of(order)
        if found.state is State.REFUSED:
            order = await self._book.find(payment_of(op_id))
            if order is not None and order.payment.stage is not Stage.FAILED:
                return replace(found, state=State.UNKNOWN, reason="paid over Lightning, and the mint gave nothing")
        return found

    async def latest(self, limit: int = 100) -> list[LightningView]:
        """The newest payments and invoices, newest first, of this wallet and of those before it."""
        return [view_of(order) for order in await self._book.latest(limit)]

    async def give_up(self, op_id: str) -> LightningView:
        """Wait no longer for a wallet's word on a payment: it counts as paid. Its wallet may not be connected any more.

        Raises:
            NotFound: there is no such payment.
            NotGivenUp: as `Lightning.give_up`, which is asked where a wallet is connected.
        """
        if self._payer is not None:
            return await self._payer.give_up(op_id)
        order = waivable(await self._book.find(op_id), self._clock.now())
        return view_of(await waive(order, self._unit, self._book, self._clock))

    # ------------------------------------------------------------------ deposits

    async def fund(self, deposit: Deposit, effect_id: EffectId, permit: Permit) -> LightningView:
        """Pay a deposit's invoice, if the mint is sure to take it. The same call again goes on with it.

        Raises:
            InvoiceUnpayable: the mint's quote has ended, or is about to.
            VendoError: as `Lightning.pay`.
        """
        assert self._payer is not None, "who asks has looked"
        self._tried.add(deposit.op_id)
        id_ = payment_of(deposit.op_id)
        if self._is_late(deposit) and await self._book.find(id_) is None:
            raise InvoiceUnpayable("The mint's quote has ended, or is about to.")
        until = deposit.pay_until - _SPARE_S  # a payment takes its time
        try:
            return await self._payer.pay(id_, deposit.invoice, effect_id, permit, purpose=PURPOSE, until=until)
        except WalletUnreachable:
            self._tried.discard(deposit.op_id)  # nothing was begun: `run` tries it when the wallet is there
            raise

    def _is_late(self, deposit: Deposit) -> bool:
        return deposit.pay_until <= self._clock.now() + _SPARE_S

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Take up deposits whose payment a crash has cut off."""
        ready.set()
        while not stop.is_set():
            try:
                await self.look()
            except VendoError as error:
                log.warning("deposits wait for Lightning", extra={"action": "funding_waits", "code": error.code})
            await self._clock.sleep(_LOOK_S)

    async def look(self) -> None:
        """One round of `run`: each deposit is taken up once in a process; what was begun is the driver's.

        Raises:
            VendoError: the rows cannot be read.
        """
        if self._payer is None or not self._payer.is_up:
            return
        for deposit, effect_id in await self._coins.deposits_to_fund():
            if deposit.op_id in self._tried or self._is_late(deposit):
                continue
            if await self._book.find(payment_of(deposit.op_id)) is not None:
                self._tried.add(deposit.op_id)
                continue
            try:
                await self.fund(deposit, effect_id, self._permit_for(effect_id))
            except VendoError as error:
                about = {"action": "funding_failed", "operation": deposit.op_id, "code": error.code}
                log.warning("a deposit was not paid over Lightning", extra=about)

    # ------------------------------------------------------------------ after a restore from an old copy

    async def adopt_copy(self) -> int:
        """Before `run`, if the rows are an old copy's: what was being paid is looked up, and never sent. How many."""
        count = 0
        for order in await self._book.open():
            if order.payment.direction is Direction.PAY and order.payment.stage not in ENDED:
                new = replace(order, payment=replace(order.payment, copied=True))
                await self._unit.commit([self._book.change(order, new)[0]])
                count += 1
        return count

    async def nothing_was_paid(self) -> int:
        """Mints know nothing of Lightning payments: these are looked up in any case."""
        return 0
