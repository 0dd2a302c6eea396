"""The voucher of one open job: draws it from a deposit, and finds out whether it counts (ADR 27).

What is drawn and what the job is told are one commit. Of a job that brought no result the seller is asked, for ever,
and nothing is guessed (M5).
"""

import logging
from collections.abc import Sequence

from core.clock import Clock
from core.error import VendoError
from core.identifier import OperationId
from core.unit import Write
from dvm.buyer_event import LockFailed, VoucherCounted
from dvm.error import VoucherBusy, VoucherDeposit
from dvm.job import ENDED, Funds, Payment, State
from dvm.prepaid import Voucher
from dvm.prepaying import Prepaying
from dvm.till import Job
from wallet.model import Locked

log = logging.getLogger(__name__)

BUSY_S = 0.2
BUSY_TRIES = 150  # half a minute; a quote stands for about a minute
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
FIRST_ASK_S, LONGEST_ASK_S = 5.0, 3_600.0


class Drawer:
    """Draws vouchers for one job."""

    def __init__(self, prepaying: Prepaying, clock: Clock, owner: Job) -> None:
        self._prepaying, self._clock, self._owner = prepaying, clock, owner

    def _is(self, money: Funds, payment: Payment) -> bool:
        job = self._owner.job
        return job.money is money and job.payment is not None and job.payment.op_id == payment.op_id

    async def lock(self, payment: Payment) -> None:
        """Draw the voucher, or say that nothing was drawn. Another job's voucher is waited for."""
        wait, tries = FIRST_WAIT_S, 0
        while self._is(Funds.LOCKING, payment):
            try:
                if self._owner.job.state is not State.PAYING:
                    raise VoucherDeposit("The job has ended meanwhile.")
                return await self._drawn(payment)
            except VoucherBusy as error:
                tries += 1
                if tries > BUSY_TRIES:
                    return await self._owner.insist(LockFailed(self._clock.millis(), payment.op_id, error.message))
                await self._clock.sleep(BUSY_S)
            except VoucherDeposit as error:
                return await self._owner.insist(LockFailed(self._clock.millis(), payment.op_id, error.message))
            except VendoError as error:
                log.warning("A voucher was not drawn: %s", error.code, extra={"action": "voucher_waits"})
                await self._reload()
                await self._clock.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_S)

    async def _drawn(self, payment: Payment) -> None:
        job = self._owner.job

        def book(voucher: Voucher) -> Sequence[Write]:
            payload = {"id": payment.quote_id, "voucher": voucher.to_dict()}
            return self._owner.book(Locked(OperationId(payment.op_id), payload, (), payment.price, payment.price))

        await self._prepaying.draw(payment.deposit, job.job_id, job.request_id, payment.price, book)
        self._owner.booked()

    async def _reload(self) -> None:
        """What was to be committed may not have been: nothing is decided before that is known."""
        wait = FIRST_WAIT_S
        while True:
            try:
                return await self._owner.reload()
            except VendoError as error:
                log.warning("A job's row cannot be read: %s", error.code, extra={"action": "job_unread"})
                await self._clock.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_S)

    async def watch(self, payment: Payment) -> None:
        """Wait until the job has ended; if it brought no result, until the seller has said what it counts."""
        wait, asked, ask_at = FIRST_WAIT_S, FIRST_ASK_S, 0.0
        while self._is(Funds.LOCKED, payment):
            job = self._owner.job
            if job.state not in (State.PAYING, State.WORKING):
                try:
                    ok = await self._prepaying.verdict(payment.deposit, job.job_id)
                    if ok is not None:
                        counted = VoucherCounted(self._clock.millis(), payment.op_id, ok)
                        return await self._owner.insist(counted)
                    if self._clock.monotonic() >= ask_at:
                        await self._prepaying.ask(payment.deposit)
                        ask_at, asked = self._clock.monotonic() + asked, min(asked * 2, LONGEST_ASK_S)
                except VendoError as error:
                    log.warning("A voucher waits: %s", error.code, extra={"action": "voucher_waits"})
            await self._clock.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S if job.state in ENDED else 2.0)
