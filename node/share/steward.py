"""What one process does for all that share a database: it drives whatever talks to relays, mints and the market.

Who becomes the steward begins as after a restart: it reads what is open, looks up what may have happened, and goes on.
From then on it also finds what the ticks of other processes have committed, by the bell or within a second. A process
stays the steward as long as it lives; one that was put out ends, and forgets everything by that.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from core.clock import Clock
from core.error import VendoError
from node.service import Service, serve
from node.share.bell import CHANGE, WORK
from node.storage.seat import Roll

if TYPE_CHECKING:
    from node.share.company import Company  # a node on a file does without the driver

log = logging.getLogger(__name__)

LOOK_S = 1.0
FOLLOW_S = 30.0  # what the bell did not say is found then
_PACE_S = 0.1  # between two looks, however often the bell rings

Task = Callable[[], Awaitable[None]]


class Steward:
    """A service. On the steward it is ready when all of its parts are, on others at once.

    Args:
        company: who leads.
        clock: time.
        prepare: reads what is open; called when this process becomes the steward.
        parts: what it runs, in the order of their start.
        adopt: find what other processes have committed; called again and again.
        bury: end what a process has left behind that was put out.
        follow: agents, their keys or whom they hear were changed by another process; on every member.
    """

    def __init__(
        self,
        company: "Company",
        clock: Clock,
        *,
        prepare: Task,
        parts: Callable[[], Sequence[tuple[str, Service]]],
        adopt: Sequence[Task],
        bury: Sequence[Task],
        follow: Task,
    ) -> None:
        self._company, self._clock, self._prepare, self._parts = company, clock, prepare, parts
        self._adopt, self._bury, self._follow = adopt, bury, follow
        self.is_ready = False
        self._failing: set[Task] = set()
        self._wake = asyncio.Event()
        self._someone_died = self._something_changed = False
        self._members: frozenset[str] = frozenset()
        self._followed = clock.monotonic()
        company.bell.on(WORK, lambda _: self._wake.set())
        company.bell.on(CHANGE, lambda _: self._changed())
        company.member.on_roll(self._called)

    def _called(self, roll: Roll) -> None:
        members = frozenset(seat.place.id for seat in roll.members)
        if roll.put_out or self._members - members:  # also one whom another put out, or who left
            self._someone_died = True
            self._wake.set()
        self._members = members

    def _changed(self) -> None:
        self._something_changed = True
        self._wake.set()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Wait until this process leads, then do what is to be done until `stop`.

        Raises:
            ExceptionGroup: a part failed.
        """
        leading = self._company.member.leading
        if not leading.is_set():
            ready.set()
        while not leading.is_set() and not stop.is_set():
            await self._rest(leading, stop)
            self._wake.clear()
            await self._follow_others()
        if stop.is_set():
            return
        await self._prepare()
        started = asyncio.Event()
        looking = asyncio.create_task(self._look(started, ready), name="steward looks")
        looking.add_done_callback(lambda _: stop.set())  # a fault of our own: better no steward than one that is blind
        try:
            await serve(self._parts(), stop, started=started)
        finally:
            self.is_ready = False
            looking.cancel()
            await asyncio.wait((looking,))
        if not looking.cancelled():
            looking.result()

    async def _look(self, started: asyncio.Event, ready: asyncio.Event) -> None:
        await started.wait()
        log.info("the steward's parts are ready", extra={"action": "steward_ready"})
        self.is_ready = True
        ready.set()
        self._wake.set()  # something may have been committed while they started
        while True:
            await self._rest()
            tasks = [*self._adopt] if self._company.member.others() or self._wake.is_set() else []
            self._wake.clear()
            if self._someone_died:
                self._someone_died, tasks = False, [*self._adopt, *self._bury]
            for task in tasks:
                await self._guarded(task)
            await self._follow_others()

    async def _follow_others(self) -> None:
        now = self._clock.monotonic()
        if self._something_changed or (self._company.member.others() and now - self._followed > FOLLOW_S):
            self._something_changed, self._followed = False, now
            await self._guarded(self._follow)

    async def _guarded(self, task: Task) -> None:
        try:
            await task()
            self._failing.discard(task)
        except VendoError as error:  # what is not found now is found a second later
            if task not in self._failing:
                log.warning("others' work is not looked at", extra={"action": "steward_waits", "code": error.code})
            self._failing.add(task)

    async def _rest(self, *events: asyncio.Event) -> None:
        """Until the next look: a second later, when the bell rings, or at one of these events."""
        await self._clock.sleep(_PACE_S)
        waiting = [asyncio.create_task(one.wait()) for one in (self._wake, *events)]
        sleeping = asyncio.create_task(self._clock.sleep(LOOK_S))
        try:
            await asyncio.wait([*waiting, sleeping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (*waiting, sleeping):
                one.cancel()
