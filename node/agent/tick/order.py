"""Whose turn it is: agents for whom something waits, in order, those that have ticks now, and who is looked at when.

Nothing is here of an agent for whom nothing waits.
"""

import asyncio
import heapq
from collections import deque

from node.agent.tick.lap import Lap

PATIENT_S = 0.05
"""A tick that is open for longer than this waits for something outside: it takes no room."""
_MOST_KEPT = 256


class Work:
    """An agent that has ticks now, or is about to."""

    __slots__ = ("_ended", "lap", "task")

    def __init__(self, lap: Lap) -> None:
        self.lap = lap
        self.task: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[None] | None = None  # if somebody waits for its end

    async def end(self) -> None:
        """Until it has ended; it ends after the tick that runs."""
        self.lap.leave = True
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._ended)

    def tell(self) -> None:
        """It has ended."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


class Hold:
    """Whoever keeps an agent from having ticks, one after the other."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock, self.users = asyncio.Lock(), 0


class Order:
    """Who is next.

    Args:
        parallel: how many agents compute at once.
        open_: how many have ticks at once, with those that wait for something outside.
    """

    def __init__(self, parallel: int, open_: int) -> None:
        self._parallel, self._open = parallel, open_
        self.busy: dict[str, Work] = {}
        self._due: deque[str] = deque()
        self._queued: set[str] = set()
        self._kept: dict[str, Lap] = {}
        self._held: dict[str, Hold] = {}
        self._parked: set[str] = set()
        self._later: list[tuple[int, str]] = []
        self._looks: dict[str, int] = {}

    def __len__(self) -> int:
        """How much is kept, of all agents together."""
        tables = (self.busy, self._due, self._queued, self._kept, self._held, self._parked, self._later, self._looks)
        return sum(map(len, tables))

    # ---- now

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for a turn."""
        return bool(self._due)

    def put(self, agent: str) -> bool:
        """Something is to be done for an agent; whether that is news."""
        work = self.busy.get(agent)
        if work is not None:
            work.lap.again = True
        elif agent not in self._queued:
            self._queued.add(agent)
            self._due.append(agent)
            return True
        return False

    def take(self) -> Work | None:
        """Whoever is next, if there is room; it has ticks from now on, until `drop`."""
        while self._due and self._room():
            agent = self._due.popleft()
            self._queued.discard(agent)
            lap = self._kept.pop(agent, None)
            if agent not in self._held:
                work = self.busy[agent] = Work(lap or Lap(agent))
                return work
            self._parked.add(agent)
        return None

    def _room(self) -> bool:
        busy = len(self.busy)
        if busy < self._parallel or busy >= self._open:
            return busy < self._parallel
        before = asyncio.get_running_loop().time() - PATIENT_S
        patient = sum(1 for work in self.busy.values() if 0 < work.lap.since < before)
        return busy - patient < self._parallel

    def drop(self, work: Work) -> None:
        """It has no more ticks."""
        del self.busy[work.lap.agent]
        work.tell()

    def put_back(self, work: Work) -> bool:
        """It had its share, and is behind all others that wait; what is known of it is kept, of some at a time."""
        self.drop(work)
        if work.lap.page and not work.lap.leave and len(self._kept) < _MOST_KEPT:
            self._kept[work.lap.agent] = work.lap
        return self.put(work.lap.agent)

    # ---- held

    def hold(self, agent: str) -> Hold:
        """Keep an agent from having ticks, as long as somebody wants that; `free` as often."""
        hold = self._held.setdefault(agent, Hold())
        hold.users += 1
        return hold

    def free(self, agent: str) -> bool:
        """One fewer wants that; whether something waited for it meanwhile."""
        hold = self._held[agent]
        hold.users -= 1
        if hold.users:
            return False
        del self._held[agent]
        waited = agent in self._parked
        self._parked.discard(agent)
        return waited

    # ---- later

    @property
    def next_ms(self) -> int | None:
        """When somebody is to be looked at next (Unix ms)."""
        return self._later[0][0] if self._later else None

    def look_at(self, agent: str, at_ms: int) -> bool:
        """Look at an agent then; the earliest of such times is enough, for a look finds the next one.

        Returns:
            Whether this is the next of all.
        """
        if self._looks.get(agent, at_ms + 1) <= at_ms:
            return False
        self._looks[agent] = at_ms
        return self.look_once_more(agent, at_ms)

    def look_once_more(self, agent: str, at_ms: int) -> bool:
        """The same, besides other times."""
        heapq.heappush(self._later, (at_ms, agent))
        return self._later[0] == (at_ms, agent)

    def promote(self, now_ms: int) -> None:
        """Those whose time has come are due."""
        while self._later and self._later[0][0] <= now_ms:
            at_ms, agent = heapq.heappop(self._later)
            if self._looks.get(agent) == at_ms:
                del self._looks[agent]
            self.put(agent)
