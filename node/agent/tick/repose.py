"""Lays down agents that were idle for long: of each only its row is left, until the next trigger wakes it.

While few agents are awake nobody is laid down: their keys are few, and their relays are heard all the time. Of more
than that, those who have had no tick for a while hibernate, the longest idle first; `node/agent/doorman.py` hears for
them. Nobody is laid down for whom something waits, or who fails. Who serves strangers in public stays awake, for its
heartbeat says that it is there; only where there is no room left at all does it have to make some.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Protocol

from core.clock import Clock
from core.error import VendoError
from core.unit import Among, Condition, UnitOfWork, Within
from node.agent.inbox.row import NEW, TABLE
from node.agent.tick.lap import ACTIVE
from node.config import AgentSection

log = logging.getLogger(__name__)

KEEP = 500
"""So many are left awake, however idle: those whom the doorman would hear all the time in any case."""
LOOK_S = 60.0
ROOM = 1_000
_AT_ONCE = 64


class House(Protocol):
    """Who is awake in this process: `node.agent.roster.Roster`."""

    @property
    def awake(self) -> int:
        """How many."""

    @property
    def room(self) -> int:
        """How many more may be."""

    def is_awake(self, name: str) -> bool:
        """Whether this one is."""

    def find(self, name: str) -> AgentSection | None:
        """An agent's settings, or None."""


class Lives(Protocol):
    """What puts agents to sleep: `node.agent.tick.engine.Engine`.

    Attributes:
        crowded: set when an agent could not be woken because too many are awake.
        roused: agents that were woken without a trigger, and when (Unix seconds).
    """

    crowded: asyncio.Event
    roused: dict[str, int]

    async def hibernate(self, name: str) -> str:
        """Keep nothing of it but its row, until a trigger wakes it."""


class Repose:
    """Looks once a minute who is idle. A service: `run` owns its only task.

    Args:
        unit: the database.
        clock: time.
        lives: puts them to sleep.
        house: who is awake.
        idle_minutes: how long an agent must have had no tick; 0 lays down nobody as long as there is room.
        keep: so many are left awake, however idle.
        room: for so many more there is to be room.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        lives: Lives,
        house: House,
        idle_minutes: int,
        *,
        keep: int = KEEP,
        room: int = ROOM,
    ) -> None:
        self._unit, self._clock, self._lives, self._house = unit, clock, lives, house
        self._idle_s, self._keep, self._room = 60 * idle_minutes, keep, room
        self._begun = 0  # Unix seconds; who is awake at the start may have letters that nobody has fetched yet

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Lay down who is idle until `stop`; nobody is idle for longer than this has run."""
        self._begun = self._clock.now()
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._lives.crowded.clear()
                try:
                    await self.look()
                except VendoError as error:
                    log.warning("nobody is laid down", extra={"action": "repose_failed", "code": error.code})
                await self._rest(stopping)
        finally:
            stopping.cancel()

    async def _rest(self, stopping: asyncio.Task[bool]) -> None:
        slept, crowded = asyncio.create_task(self._clock.sleep(LOOK_S)), asyncio.create_task(self._lives.crowded.wait())
        try:
            await asyncio.wait({slept, crowded, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            slept.cancel()
            crowded.cancel()

    async def look(self) -> int:
        """Lay down those who are idle, and as many more as there is need of room; how many those were.

        Raises:
            VendoError: the database failed.
        """
        now, laid = self._clock.now(), 0
        if self._idle_s and now - self._begun >= self._idle_s and self._house.awake > self._keep:
            idle = await self._idle(now - self._idle_s)
            quiet = [name for name in idle if not self._serves(name)]
            laid = await self._lay_down(quiet, self._house.awake - self._keep)
        needed = self._room - self._house.room
        if needed > 0:
            idle = await self._idle(now)
            laid += await self._lay_down(sorted(idle, key=self._serves), needed)  # those who serve come last
        if laid:
            log.info("idle agents hibernate", extra={"action": "agents_laid_down", "count": laid})
        return laid

    async def _idle(self, before: int) -> list[str]:
        """Who is awake here and has had no tick since then (Unix seconds), the longest idle first."""
        where: dict[str, Condition] = {"status": ACTIVE, "failures": 0, "last_tick_at": Within(high=before)}
        rows = await self._unit.select("agent", where, order=("last_tick_at", "name"), columns=("name", "last_tick_at"))
        for name in [name for name, at in self._lives.roused.items() if at < before]:
            del self._lives.roused[name]
        return [
            row["name"] for row in rows if self._house.is_awake(row["name"]) and row["name"] not in self._lives.roused
        ]

    def _serves(self, name: str) -> bool:
        """Whether it says in public that it is there."""
        section = self._house.find(name)
        return section is not None and section.public and section.strangers != "none"

    async def _lay_down(self, names: list[str], most: int) -> int:
        """Lay down so many of these, but for those for whom something waits."""
        laid = begin = 0
        while laid < most and begin < len(names):
            page = names[begin : begin + min(_AT_ONCE, most - laid)]
            begin += len(page)
            laid += await self._hibernate(await self._free(page))
        return laid

    async def _free(self, names: list[str]) -> list[str]:
        where: dict[str, Condition] = {"agent": Among(tuple(names)), "state": NEW}
        rows = await self._unit.select(TABLE, where, columns=("agent",), distinct=True)
        waits = {row["agent"] for row in rows}
        return [name for name in names if name not in waits]

    async def _hibernate(self, names: Iterable[str]) -> int:
        found = await asyncio.gather(*map(self._lives.hibernate, names), return_exceptions=True)
        for error in found:
            if isinstance(error, BaseException) and not isinstance(error, VendoError):
                raise error
        return sum(not isinstance(one, BaseException) for one in found)  # another was stopped, deleted, taken over
