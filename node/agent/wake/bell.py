"""Watches the time of all alarms: one timer for the earliest, nothing in memory for the others.

Alarms are due by the clock on the wall. Ahead of a jump of that clock the timer would be wrong, so it is set for ten
seconds at most; that also finds alarms which another process has set. A clock that is set back fires nothing twice.
"""

import asyncio
import logging
from collections.abc import Callable

from core.clock import Clock
from core.error import Conflict, InvalidInput, VendoError
from core.unit import Condition, Delete, Row, UnitOfWork, Within, Write
from node.agent.inbox.row import NEW
from node.agent.wake.alarm import TABLE, envelope_id, envelope_ids, fire, ring

log = logging.getLogger(__name__)

LOOK_S = 10.0
_BATCH = 256
_BACK_OFF_S = 5.0


class Alarms:
    """Fires what is due. A service: `run` owns its only task.

    Args:
        unit: the database.
        clock: time.
        notify: wakes an agent for whom something was committed.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, notify: Callable[[str], None]) -> None:
        self._unit, self._clock, self._notify = unit, clock, notify
        self._touched = asyncio.Event()

    def touch(self) -> None:
        """An alarm was set or taken away: look at the earliest again. To be called after the commit."""
        self._touched.set()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Fire alarms until `stop`; first those whose time came while nobody watched."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._touched.clear()
                try:
                    rest = await self.look()
                except VendoError as error:
                    log.error("alarms wait for the database", extra={"action": "alarms_wait", "code": error.code})
                    rest = _BACK_OFF_S
                await self._rest(rest, stopping)
        finally:
            stopping.cancel()

    async def _rest(self, seconds: float, stopping: asyncio.Task[bool]) -> None:
        touched = asyncio.create_task(self._touched.wait())
        sleeping = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait({touched, sleeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            touched.cancel()
            sleeping.cancel()

    async def look(self) -> float:
        """Fire what is due; seconds until somebody should look again.

        Raises:
            VendoError: the database failed; what was fired is committed, and the rest is still due.
        """
        while True:
            now_ms = self._clock.millis()
            rows = await self._unit.select(TABLE, {"due_ms": Within(high=now_ms + 1)}, order=("due_ms",), limit=_BATCH)
            done = await asyncio.gather(*(self._fire(row, now_ms) for row in rows), return_exceptions=True)
            for error in done:
                if isinstance(error, BaseException):
                    raise error
            if len(rows) < _BATCH:
                break
        first = await self._unit.select(TABLE, order=("due_ms",), limit=1, columns=("due_ms",))
        if not first:
            return LOOK_S
        due_ms: int = first[0]["due_ms"]
        return min(LOOK_S, max(0, due_ms - self._clock.millis()) / 1000)

    async def _fire(self, row: Row, now_ms: int) -> None:
        waits = bool(row["fired_ms"]) and await self._waits(row)
        name = await self._name(row, now_ms)
        try:
            writes = fire(row, now_ms, waits=waits, name=name)
        except InvalidInput as error:
            log.error("an alarm fires for the last time", extra={"action": "alarm_broken", "code": error.code})
            writes = self._last(row, now_ms, name)
        try:
            await self._unit.commit(writes)
        except Conflict:  # it was fired by somebody else, or changed: whatever it is now is looked at again
            return
        if not waits:
            self._notify(row["agent"])

    async def _name(self, row: Row, now_ms: int) -> str:
        """What its envelope is called. One of its own time is known if it was set again for a time that has fired."""
        name, again = envelope_id(row["id"], row["due_ms"]), now_ms
        while await self._unit.count("inbox", {"agent": row["agent"], "envelope_id": name}, limit=1):
            name, again = envelope_id(row["id"], row["due_ms"], again), again + 1
        return name

    async def _waits(self, row: Row) -> bool:
        where: dict[str, Condition] = {
            "agent": row["agent"], "envelope_id": envelope_ids(row["id"], row["fired_ms"]), "state": NEW,
        }  # fmt: skip
        return bool(await self._unit.count("inbox", where, limit=1))

    @staticmethod
    def _last(row: Row, now_ms: int, name: str) -> tuple[Write, ...]:
        """For an alarm whose next time cannot be told any more."""
        where = {"agent": row["agent"], "id": row["id"], "due_ms": row["due_ms"]}
        return Delete(TABLE, where, rows=1), ring(row, now_ms, row["missed"], name)
