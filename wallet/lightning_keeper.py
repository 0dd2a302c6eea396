"""Background work of Lightning: looks up what is in doubt and what waits to be paid, hears what the wallet tells."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from core.clock import Clock
from core.effect import Permit
from core.error import Unpermitted, VendoError
from core.identifier import EffectId
from relays.event import parse_json
from relays.nip47 import Method, Notification, Response
from wallet.lightning import ENDED, Direction, Found, LookedUp, Proven, Restarted, Stage
from wallet.lightning_engine import LightningEngine
from wallet.lightning_record import LightningBook, Order

log = logging.getLogger(__name__)

_TICK_S = 0.5
_SLOWEST_S = 60.0
_SLOWEST_WAIT_S = 20.0
_LATE_WAIT_S = 3_600.0
_MAX_HEARD = 256


@dataclass(slots=True)
class _Pace:
    due: float
    delay: float


class LightningKeeper:
    """Owned by `wallet.lightning_wallet.Lightning`; see `run`.

    Args:
        book: the rows.
        engine: drives operations.
        clock: the pace.
        permit_for: the gate's permit for an effect that has begun.
    """

    def __init__(
        self, book: LightningBook, engine: LightningEngine, clock: Clock, permit_for: Callable[[EffectId], Permit]
    ) -> None:
        self._book, self._engine, self._clock, self._permit_for = book, engine, clock, permit_for
        self._pace: dict[str, _Pace] = {}
        self._nudged: set[str] = set()
        self._late: dict[str, Response] = {}
        engine.client.told, engine.client.late = self._was_told, self._came_late

    def _was_told(self, said: Notification) -> None:
        if len(self._nudged) < _MAX_HEARD:
            self._nudged.add(said.payment_hash)

    def _came_late(self, response: Response) -> None:
        if response.method == Method.PAY_INVOICE and len(self._late) < _MAX_HEARD:
            self._late[response.request] = response

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Look things up until told to stop. A failure of one operation never ends it."""
        ready.set()
        while not stop.is_set():
            try:
                await self.look()
            except VendoError as error:
                log.warning("Lightning waits", extra={"action": "lightning_round", "code": error.code})
            await self._clock.sleep(_TICK_S)

    async def look(self) -> None:
        """One round of `run`: look up whatever is due.

        Raises:
            VendoError: the rows cannot be read.
        """
        if not self._engine.client.is_up:
            return
        # What another wallet was asked for is its business: this one not knowing of it proves nothing.
        found = [order for order in await self._book.open() if order.wallet == self._engine.name]
        ids = {order.id for order in found}
        self._pace = {id_: pace for id_, pace in self._pace.items() if id_ in ids}
        nudged, self._nudged = self._nudged, set()
        if self._late:  # what came for operations that have ended is of no use
            asked = {_request_id(order) for order in found}
            self._late = {id_: said for id_, said in self._late.items() if id_ in asked}
        async with asyncio.TaskGroup() as group:  # a look-up that gets no answer keeps none of the others waiting
            for order in found:
                if order.payment_hash in nudged or (self._late and _request_id(order) in self._late):
                    self._pace.pop(order.id, None)
                if not self._engine.is_driven(order.id) and self._due(order):
                    group.create_task(self._guarded(order.id))
        for payment_hash in nudged - {order.payment_hash for order in found}:
            await self._lied(payment_hash)

    def _due(self, order: Order) -> bool:
        now = self._clock.monotonic()
        waits = order.payment.stage is Stage.WAITING
        slowest = _SLOWEST_S
        if waits:
            slowest = _LATE_WAIT_S if self._clock.now() > order.payment.expires_at else _SLOWEST_WAIT_S
        pace = self._pace.setdefault(order.id, _Pace(now, _TICK_S))
        if pace.due > now:
            return False
        pace.delay = min(pace.delay * 2, slowest)
        pace.due = now + pace.delay
        return True

    async def _guarded(self, op_id: str) -> None:
        try:
            await self.resume(op_id)
        except VendoError as error:
            about = {"action": "lightning_background", "operation": op_id, "code": error.code}
            log.warning("a Lightning operation waits", extra=about)

    async def resume(self, op_id: str) -> None:
        """Take up an operation once, if it is open and this wallet's."""
        async with self._engine.driving(op_id):
            order = await self._book.find(op_id)
            if order is None or order.payment.stage in ENDED or order.wallet != self._engine.name:
                return
            order, permit = await self._permitted(order)
            if order.payment.stage is Stage.WAITING:
                order, event = await self._engine.look_up(order, permit)
                await self._engine.move(order, event, permit)
                return
            late = self._late.pop(_request_id(order), None)
            if late is not None and order.payment.stage is not Stage.PREPARED:
                order, event = self._engine.heard(order, late)
                await self._engine.drive(order, event, permit)
                return
            await self._engine.drive(order, Restarted(self._clock.now()), permit)

    async def _permitted(self, order: Order) -> tuple[Order, Permit]:
        """Its effect's permit. A payment can outlive its effect: then it is looked up, and never sent.

        Raises:
            Unpermitted: the effect is open, and another process's.
        """
        try:
            return order, self._permit_for(order.effect_id)
        except Unpermitted:
            if not await self._book.has_ended(order.effect_id):
                raise
            return replace(order, payment=replace(order.payment, copied=True)), self._engine.standing()

    async def _lied(self, payment_hash: str) -> None:
        """The wallet tells of a payment that has ended here: if that was called failed, its word was wrong."""
        order = await self._book.of_hash(payment_hash)
        if order is None or order.wallet != self._engine.name:
            return
        if order.payment.stage is not Stage.FAILED or order.payment.direction is not Direction.PAY:
            return
        async with self._engine.driving(order.id):
            found, event = await self._engine.look_up(order, self._engine.standing())
            if isinstance(event, LookedUp) and event.found is Found.SETTLED:
                await self._engine.move(found, Proven(), self._engine.standing())


def _request_id(order: Order) -> str:
    return parse_json(order.request).id if order.request else ""
