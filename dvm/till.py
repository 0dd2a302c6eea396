"""The money of one open job: locks it, watches it at the mint, takes it back. It only asks and reports.

A lock, a refund and their ids are the wallet's; whatever it cannot say for certain is asked again, for ever, and never
guessed (M5).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from core.clock import Clock
from core.effect import Gate
from core.error import Conflict, NotFound, StoreUncertain, VendoError
from core.identifier import EffectId
from core.money import Msat
from core.unit import UnitOfWork, Write
from dvm.buyer_event import Event, LockDone, LockFailed, LockUnknown, RefundDone, RefundFailed, SpentSeen
from dvm.job import ENDED, Funds, Payment, Purchase, State, refund_id
from dvm.settlement import MODE_B
from wallet.cashu.lock import revealed
from wallet.error import MintRefused, TokenSpent
from wallet.model import Locked, LockTerms, SpentState, Watch
from wallet.payment import State as OperationState
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
FIRST_LOOK_S = 0.25
LONGEST_LOOK_S = 15.0
HEARD_LOOK_S = 3.0
LONGEST_KEEP_S = 120.0  # between two tries to keep what a known key opens


class Job(Protocol):
    """The open job, as its till sees it."""

    @property
    def job(self) -> Purchase:
        """As it stands."""

    async def insist(self, event: Event) -> None:
        """Tell it something, until that is written."""

    async def reload(self) -> None:
        """Take the committed row for the truth."""

    def book(self, locked: Locked) -> Sequence[Write]:
        """What is committed with the booking of a lock."""

    def booked(self) -> bool:
        """Act on what was."""

    async def show(self, preimage: str) -> None:
        """Tell what follows from the preimage that the mint shows."""


class Till:
    """Locks, watches and takes back the money of one job."""

    def __init__(self, unit: UnitOfWork, gate: Gate, wallet: Wallet, clock: Clock, owner: Job) -> None:
        self.payload: Mapping[str, Any] | None = None
        self._unit, self._gate, self._wallet, self._clock, self._owner = unit, gate, wallet, clock, owner
        self._wake = asyncio.Event()
        self._hurried = self._expects = False  # why it was woken

    def hurry(self) -> None:
        """Something suggests that the money moved: look now."""
        self._hurried = True
        self._wake.set()

    def expect(self) -> None:
        """The money is about to move: look soon, if the mint does not tell before."""
        self._expects = True
        self._wake.set()

    def _is(self, money: Funds, payment: Payment) -> bool:
        job = self._owner.job
        return job.money is money and job.payment is not None and job.payment.op_id == payment.op_id

    async def _pause(self, seconds: float) -> None:
        """Sleep, but wake early on `hurry` and `expect`."""
        sleeping = asyncio.ensure_future(self._clock.sleep(seconds))
        waking = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            waking.cancel()
        self._wake.clear()

    # ---- locking

    async def lock(self, payment: Payment) -> None:
        """Lock the money, or learn for certain that nothing left. The same id is asked for again after any doubt."""
        wait = FIRST_WAIT_S
        while self._is(Funds.LOCKING, payment):
            doubt = await self._try_lock(payment)
            if doubt is None:
                return
            if wait == FIRST_WAIT_S:
                await self._owner.insist(LockUnknown(self._clock.millis(), payment.op_id))
            log.warning("A payment is unknown: %s", doubt, extra={"action": "payment_unknown", "op": payment.op_id})
            await self._clock.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)

    async def _try_lock(self, payment: Payment) -> str | None:
        """None when it is certain and told; else the code of the doubt."""
        effect = EffectId(self._owner.job.effect_id)
        terms = LockTerms(
            mint=payment.mint,
            price=payment.price,
            seller_pubkey=payment.wallet_key,
            locktime=payment.locktime,
            refund_key=self._wallet.refund_pubkey(payment.op_id),
            quote_id=payment.quote_id,
            hash=payment.hash,
            cosigner=self._owner.job.job_id if payment.mode == MODE_B else "",
        )
        try:
            locked = await self._wallet.lock(
                payment.op_id, terms, payment.ceiling, effect, self._gate.permit(effect), self._owner.book
            )
        except VendoError as error:
            await self._reload()
            return await self._look_up(payment, error)
        await self._locked(locked)
        return None

    async def _reload(self) -> None:
        """What was to be committed with the booking may not have been: nothing is decided before that is known."""
        wait = FIRST_WAIT_S
        while True:
            try:
                return await self._owner.reload()
            except VendoError as error:
                log.warning("A job's row cannot be read: %s", error.code, extra={"action": "job_unread"})
                await self._clock.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_S)

    async def _locked(self, locked: Locked) -> None:
        self.payload = locked.payload
        if not self._owner.booked():
            now = self._clock.millis()
            await self._owner.insist(LockDone(now, locked.op_id, locked.gross, locked.amount, locked.ys))

    async def _look_up(self, payment: Payment, error: VendoError) -> str | None:
        """After any failure the wallet's own record decides: only what it never began or knows refused has failed."""
        try:
            found = await self._wallet.find(payment.op_id)
        except VendoError as again:
            return again.code
        if found is not None and found.state is OperationState.DONE and isinstance(found.result, Locked):
            await self._locked(found.result)
            return None
        if found is not None and found.state is not OperationState.REFUSED:
            return error.code
        if isinstance(error, Conflict | StoreUncertain):
            return error.code
        await self._owner.insist(LockFailed(self._clock.millis(), payment.op_id, error.message))
        return None

    # ---- watching

    async def watch(self, payment: Payment) -> None:
        """Ask the mint until the coins are spent, or it is time to take them back."""
        with self._wallet.watching(payment.mint, payment.ys, self.hurry) as watch:
            await self._watch(payment, watch)

    async def _watch(self, payment: Payment, watch: Watch) -> None:
        wait, quiet = FIRST_LOOK_S, True
        while self._is(Funds.LOCKED, payment):
            # A mint that has promised to tell is not asked all the time: each look takes it as long as part of a swap.
            await self._pause(max(wait, HEARD_LOOK_S) if watch.heard and quiet else wait)
            hurried, expects = self._hurried, self._expects
            self._hurried = self._expects = False
            if hurried or expects:
                wait, quiet = FIRST_LOOK_S, not hurried
            if expects and not hurried:
                continue
            if not self._is(Funds.LOCKED, payment):
                return
            state = await self._look(payment)
            # The answer may be about our own refund, if that began while the mint was asked: then its outcome tells.
            if state == "SPENT" and self._is(Funds.LOCKED, payment):
                await self._owner.insist(SpentSeen(self._clock.millis()))
                return
            most = LONGEST_LOOK_S if self._owner.job.state in ENDED else LONGEST_LOOK_S / 3
            wait = min(wait * 1.5, most)

    async def seek(self, payment: Payment) -> None:
        """Ask the mint for the preimage with which the money was taken, until the job has what it opens or ends."""
        wait = FIRST_LOOK_S
        while (job := self._owner.job).state is State.SEALED:
            if job.preimage:  # the mint need not be there any more
                await self._owner.show(job.preimage)
            else:
                await self._look(payment)
            await self._pause(wait)
            wait = min(wait * 1.5, LONGEST_KEEP_S if job.preimage else LONGEST_LOOK_S)

    async def _look(self, payment: Payment) -> str:
        """As `_state`; if a coin's witness shows the preimage that the job waits for, it is told."""
        seen = await self._seen(payment)
        if seen is None:
            return ""
        if payment.hash and self._owner.job.state is State.SEALED:
            found = (revealed(coin.witness, payment.hash) for coin in seen.coins.values())
            preimage = next((one for one in found if one is not None), None)
            if preimage is not None:
                await self._owner.show(preimage)
        return str(seen.state).upper()

    async def _state(self, payment: Payment) -> str:
        seen = await self._seen(payment)
        return "" if seen is None else str(seen.state).upper()

    async def _seen(self, payment: Payment) -> SpentState | None:
        try:
            return await self._wallet.spent(payment.mint, payment.ys)
        except VendoError as error:
            log.info("The mint was not asked: %s", error.code, extra={"action": "watch_failed", "mint": payment.mint})
            return None

    # ---- taking back

    async def refund(self, payment: Payment) -> None:
        """Take the money back after the locktime, for ever tried again; or learn that the seller was first."""
        await self._clock.sleep(min(2.0 * payment.refunds, LONGEST_WAIT_S))
        effect = EffectId(self._owner.job.effect_id)
        wait = 1.0
        while self._is(Funds.REFUNDING, payment):
            try:
                received = await self._wallet.refund(
                    refund_id(payment.op_id), payment.op_id, effect, self._gate.permit(effect)
                )
            except (TokenSpent, MintRefused, NotFound) as error:
                # this refund did not happen, for certain: only now does "spent" mean that it was the seller
                if await self._state(payment) == "SPENT":
                    await self._owner.insist(SpentSeen(self._clock.millis()))
                else:
                    await self._owner.insist(RefundFailed(self._clock.millis(), error.message))
                return
            except VendoError as error:
                log.warning("A refund waits: %s", error.code, extra={"action": "refund_waits", "op": payment.op_id})
                await self._clock.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT_S)
                continue
            await self._owner.insist(RefundDone(self._clock.millis(), Msat.of_sat(received.amount_sat)))
            return
