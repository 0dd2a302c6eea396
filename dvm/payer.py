"""Pays the invoice of one open job, or learns for certain that nothing left. It only asks and reports.

The wallet names its operation after the payment hash, so one invoice is paid once however often it is offered. What
it cannot say for certain is asked again, for ever, and never guessed (M5).
"""

import logging
from typing import Protocol

from core.clock import Clock
from core.effect import Gate
from core.error import Conflict, StoreUncertain, VendoError
from core.identifier import EffectId
from dvm.buyer_event import Event, InvoicePaid, LockFailed, LockUnknown
from dvm.job import Funds, Payment, Purchase
from wallet.model import OperationView, Paid
from wallet.payment import State as OperationState
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_OTHERS = "its invoice was paid for something else"


class Job(Protocol):
    """The open job, as its payer sees it."""

    @property
    def job(self) -> Purchase:
        """As it stands."""

    async def insist(self, event: Event) -> None:
        """Tell it something, until that is written."""


class Payer:
    """Pays over Lightning for one job."""

    def __init__(self, gate: Gate, wallet: Wallet, clock: Clock, owner: Job) -> None:
        self._gate, self._wallet, self._clock, self._owner = gate, wallet, clock, owner

    async def pay(self, payment: Payment) -> None:
        """Until it is certain. The same id is asked for again after any doubt."""
        wait = _FIRST_WAIT_S
        while self._open(payment):
            doubt = await self._try(payment)
            if doubt is None:
                return
            if wait == _FIRST_WAIT_S:
                await self._owner.insist(LockUnknown(self._clock.millis(), payment.op_id))
            log.warning("A payment is unknown: %s", doubt, extra={"action": "payment_unknown", "op": payment.op_id})
            await self._clock.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_S)

    def _open(self, payment: Payment) -> bool:
        job = self._owner.job
        return job.money is Funds.LOCKING and job.payment is not None and job.payment.op_id == payment.op_id

    async def _try(self, payment: Payment) -> str | None:
        """None when it is certain and told; else the code of the doubt."""
        effect = EffectId(self._owner.job.effect_id)
        failure: VendoError | None = None
        try:
            before = await self._wallet.find(payment.op_id)
            if before is None or before.effect_id == effect:
                permit = self._gate.permit(effect)
                await self._wallet.pay(payment.op_id, payment.mint, payment.invoice, payment.ceiling, effect, permit)
        except VendoError as error:
            failure = error
        try:
            found = await self._wallet.find(payment.op_id)
        except VendoError as error:
            return error.code
        return await self._tell(payment, effect, found, failure)

    async def _tell(
        self, payment: Payment, effect: EffectId, found: OperationView | None, failure: VendoError | None
    ) -> str | None:
        """The wallet's own record decides: only what it never began, or knows refused, has failed."""
        now = self._clock.millis()
        if found is not None and found.effect_id != effect:
            await self._owner.insist(LockFailed(now, payment.op_id, _OTHERS))
            return None
        if found is not None and found.state is OperationState.DONE and isinstance(found.result, Paid):
            paid = found.result
            await self._owner.insist(InvoicePaid(now, payment.op_id, paid.gross, paid.amount))
            return None
        code = "wallet.payment_unknown" if failure is None else failure.code
        if found is not None and found.state is not OperationState.REFUSED:
            return code
        if found is None and (failure is None or isinstance(failure, Conflict | StoreUncertain)):
            return code
        reason = "the mint refused it" if failure is None else failure.message
        await self._owner.insist(LockFailed(now, payment.op_id, reason))
        return None
