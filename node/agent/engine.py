"""The tick engine: wakes agents for whom something waits, one tick at a time each, many agents at once.

An idle agent has no task: it costs its row and nothing else. What wakes one is `notify` after a commit that queued
something, or the time at which a failed trigger is tried again.
"""

import asyncio
import heapq
import logging
from collections import deque

import orjson

from core.clock import Clock
from core.error import InvalidInput, VendoError
from core.identifier import PubKey
from core.unit import Insert, Row, UnitOfWork
from fs.feed import Feed
from node.agent.inbox import Waiting, envelope
from node.agent.program import Namespaces, Programs
from node.agent.tick import TickLimits, TickRunner

log = logging.getLogger(__name__)

_STORE_BACK_OFF_MS = 5_000
_LOOK_AGAIN_MS = (0, 25, 250, 2_500, 10_000)
_INITIALIZE = "initialize"


class Engine:
    """Runs the ticks of all agents of one process. A service: `run` owns every task."""

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        programs: Programs,
        namespaces: Namespaces,
        feed: Feed,
        limits: TickLimits | None = None,
    ) -> None:
        self._limits = limits or TickLimits()
        self._unit, self._clock, self._programs = unit, clock, programs
        self._runner = TickRunner(unit, clock, programs, namespaces, feed, self._limits)
        self._waiting = Waiting(unit)
        self._due: deque[str] = deque()
        self._queued: set[str] = set()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._later: list[tuple[int, str]] = []
        self._wake = asyncio.Event()
        self._stopping = False

    async def create(self, name: str, program: str, pubkey: PubKey) -> None:
        """See to it that an agent is there; a new one gets its first trigger, `initialize`.

        One that is there keeps its state.

        Raises:
            InvalidInput: it was made with another program or key, or there is no such program.
        """
        rows = await self._unit.select("agent", {"name": name})
        if rows and rows[0]["program"] == program and rows[0]["pubkey"] == pubkey:
            return
        if rows:
            raise InvalidInput(f"The agent {name!r} was made with another program or key; its state is not theirs.")
        code = self._programs.get(program)
        if code is None:
            raise InvalidInput(f"This node has no program called {program!r}.")
        now = self._clock.now()
        agent: Row = {
            "name": name,
            "program": program,
            "pubkey": pubkey,
            "status": "active",
            "state_version": code.version,
            "state": orjson.dumps(code.initial()).decode(),
            "created_at": now,
        }
        first = envelope(name, _INITIALIZE, cause=_INITIALIZE, source="node", sender="", payload="{}", at=now)
        await self._unit.commit([Insert("agent", agent), first])
        self.notify(name)

    def notify(self, agent: str) -> None:
        """Something was committed to an agent's inbox."""
        if agent not in self._queued:
            self._queued.add(agent)
            self._due.append(agent)
            self._wake.set()

    def notify_at(self, agent: str, at_ms: int) -> None:
        """Somebody else will commit something to an agent's inbox about then (Unix ms).

        A commit may take longer than was thought, so the engine looks a few times more; a look that finds nothing
        costs one question to the database, and a restart finds the envelope in any case.
        """
        for wait in _LOOK_AGAIN_MS:
            self._look_at(agent, at_ms + wait)

    def _look_at(self, agent: str, at_ms: int) -> None:
        heapq.heappush(self._later, (at_ms, agent))
        self._wake.set()

    @property
    def busy(self) -> int:
        """How many agents tick now."""
        return len(self._busy)

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Start with what waited over a restart, then run until `stop`; ticks that began are finished."""
        self._stopping = False
        for agent in await self._waiting.agents():
            self.notify(agent)
        stopping = asyncio.create_task(stop.wait())
        ready.set()
        try:
            while not stop.is_set():
                self._wake.clear()
                self._start_due()
                await self._rest(stopping)
        finally:
            self._stopping = True
            stopping.cancel()
            await self._finish()

    def _start_due(self) -> None:
        now = self._clock.millis()
        while self._later and self._later[0][0] <= now:
            self.notify(heapq.heappop(self._later)[1])
        waiting: list[str] = []
        while self._due and len(self._busy) < self._limits.parallel:
            agent = self._due.popleft()
            if agent in self._busy:
                waiting.append(agent)
                continue
            self._queued.discard(agent)
            task = asyncio.create_task(self._drain(agent), name=f"agent {agent}")
            self._busy[agent] = task
            task.add_done_callback(lambda _, agent=agent: self._ended(agent))  # type: ignore[misc]  # default of a lambda
        self._due.extend(waiting)

    def _ended(self, agent: str) -> None:
        task = self._busy.pop(agent)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an agent's task failed", exc_info=error, extra={"action": "agent_task_failed", "agent": agent})
            self._look_at(agent, self._clock.millis() + _STORE_BACK_OFF_MS)

    async def _rest(self, stopping: asyncio.Task[bool]) -> None:
        """Until something is due, an agent is done, or the end."""
        woken = asyncio.create_task(self._wake.wait())
        waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {woken, stopping}
        alarm: asyncio.Task[None] | None = None
        if self._later:
            seconds = max(0, self._later[0][0] - self._clock.millis()) / 1000
            alarm = asyncio.create_task(self._clock.sleep(seconds))
            waiting.add(alarm)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            if alarm is not None:
                alarm.cancel()

    async def _drain(self, agent: str) -> None:
        """Ticks of one agent, until nothing is due for it."""
        try:
            while not self._stopping:
                found = await self._waiting.next(agent, self._clock.millis())
                if found is None:
                    return
                if isinstance(found, int):
                    self._look_at(agent, found)
                    return
                if not await self._runner.run(found):
                    if not await self._unit.select("agent", {"name": agent, "status": "active"}):
                        return  # it was deleted, and what still comes for it waits for nobody
                    row = await self._waiting.find(found["n"])
                    if row is not None and row["state"] == "new" and row["tries"] == found["tries"]:
                        self._look_at(agent, max(row["next_at_ms"], self._clock.millis() + self._limits.pause_ms))
                        return
        except VendoError as error:
            log.error(
                "an agent waits for the database",
                extra={"action": "agent_waits", "agent": agent, "code": error.code},
            )
            self._look_at(agent, self._clock.millis() + _STORE_BACK_OFF_MS)

    async def _finish(self) -> None:
        tasks = list(self._busy.values())
        try:
            if tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
