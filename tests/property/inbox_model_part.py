"""A simple model of inbox and engine: lists, one agent at a time, and no database. And a database that dies."""

import asyncio
import selectors
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from core.unit import UnitOfWork, Write

TRIES, QUARANTINE, BACK_OFF_MS = 2, 5, 1_000
FAILING = ("fail", "slow")


@dataclass
class Entry:
    """One envelope. `do` is what its program does with it."""

    n: int
    id: str
    line: tuple[int, str]  # priority, sender
    do: str
    seq: int | None = None
    expires_at: int | None = None
    state: str = "new"
    tries: int = 0
    next_ms: int = 0

    @property
    def priority(self) -> int:
        return self.line[0]

    @property
    def stays(self) -> bool:
        """Whether it is never dropped for want of room: it is said once."""
        return self.id == "initialize" or self.id.startswith("alarm:")


@dataclass
class Overflowed(Exception):
    """The inbox refuses it."""


@dataclass
class ModelAgent:
    """One agent: what came for it, and what became of that."""

    max_depth: int
    policy: str
    dead_max: int
    entries: dict[str, Entry] = field(default_factory=dict)
    status: str = "active"
    failures: int = 0
    served: list[str] = field(default_factory=list)
    ticks: int = 0
    lost: int = 0  # ticks that failed
    left: int | None = None  # how many ticks it may still have; None: no end

    def where(self, *states: str) -> list[Entry]:
        """In the order in which they came."""
        return sorted((one for one in self.entries.values() if one.state in states), key=lambda one: one.n)

    # ---- arrivals

    def arrive(self, entry: Entry, now_ms: int) -> None:
        """Something comes, if there is room for it."""
        waiting = self.where("new")
        if len(waiting) >= self.max_depth:
            self.expire(now_ms)
            waiting = self.where("new")
        if entry.id in self.entries:
            return
        if len(waiting) >= self.max_depth:
            if self.policy == "reject_new":
                raise Overflowed
            if self.policy == "drop_oldest":
                least = max(one.priority for one in waiting)
                droppable = [one for one in waiting if one.priority == least and not one.stays]
                others = [one for one in waiting if not one.stays]
                if not droppable and others:
                    least = max(one.priority for one in others)
                    droppable = [one for one in others if one.priority == least]
                if droppable:
                    droppable[0].state = "dropped"
                else:
                    entry.state = "dropped"
            else:
                entry.state = "dead" if len(self.where("dead")) < self.dead_max else "dropped"
        self.entries[entry.id] = entry

    def expire(self, now_ms: int) -> None:
        """What came too late is never handed out."""
        for one in self.where("new"):
            if one.expires_at is not None and one.expires_at * 1_000 <= now_ms:
                one.state = "expired"

    # ---- ticks

    def due(self, now_ms: int) -> list[Entry]:
        """What may be dealt with now: each line in its own order, in the places that it has in the queue."""
        queue = sorted(self.where("new"), key=lambda one: (one.priority, one.n))
        order: list[Entry | None] = [None] * len(queue)
        for line in {one.line for one in queue}:
            places = [place for place, one in enumerate(queue) if one.line == line]
            own = sorted((queue[place] for place in places), key=lambda one: (one.seq or 0, one.n))
            for place, one in zip(places, own, strict=True):
                if one.next_ms > now_ms:
                    break
                order[place] = one
        return [one for one in order if one is not None]

    def run(self, now_ms: int, broken: bool) -> None:
        """Ticks, until nothing is due, the agent may not, or `left` have been."""
        while self.status in ("active", "dormant") and self.left != 0:
            self.expire(now_ms)
            due = self.due(now_ms)
            if not due:
                return
            for one in due:
                if self.left == 0 or not self.tick(one, now_ms, broken):
                    break

    def tick(self, one: Entry, now_ms: int, broken: bool) -> bool:
        """One try; whether it was committed."""
        if self.left is not None:
            self.left -= 1
        if one.do in FAILING or (one.do == "fragile" and broken):
            self.fail(one, now_ms)
            return False
        one.state, self.failures = "done", 0
        self.served.append(one.id)
        self.ticks += 1
        self.status = "dormant" if one.do == "hibernate" else "active"
        return True

    def fail(self, one: Entry, now_ms: int) -> None:
        one.tries += 1
        self.failures += 1
        self.lost += 1
        one.next_ms = now_ms + BACK_OFF_MS * 2 ** (one.tries - 1)
        if one.tries >= TRIES:
            too_many = len(self.where("dead")) + 1 - self.dead_max
            for old in self.where("dead")[: max(0, too_many)]:
                old.state = "dropped"
            one.state = "dead"
        if self.failures >= QUARANTINE:
            self.status = "quarantined"

    # ---- the operator

    def turn(self, to: str, allowed: Iterable[str]) -> bool:
        """Another status; whether that is allowed."""
        if self.status == to:
            return True
        if self.status not in allowed:
            return False
        self.status, self.failures = to, 0
        return True

    def replay(self, name: str) -> None:
        one = self.entries[name]
        if one.state == "dead":
            one.state, one.tries, one.next_ms, one.expires_at = "new", 0, 0, None

    def discard(self, name: str) -> None:
        if self.entries[name].state == "dead":
            self.entries[name].state = "discarded"


class Mortal:
    """A database whose process dies at a commit: the one that kills it may have been made or not.

    To the engine it is a `UnitOfWork`; after the death no commit returns.
    """

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit
        self.select, self.count = unit.select, unit.count
        self.commits = 0
        self.dies_at: int | None = None
        self.made = False  # whether the last commit is made
        self.dead = asyncio.Event()

    async def commit(self, writes: Iterable[Write]) -> None:
        self.commits += 1
        dying = self.dies_at is not None and self.commits >= self.dies_at
        if not dying:
            await self._unit.commit(writes)
            return
        first = not self.dead.is_set()
        self.dead.set()
        if first and self.made:
            await self._unit.commit(writes)
        await asyncio.Event().wait()


class StepClock:
    """Time that the test moves, in whole milliseconds. Who sleeps wakes when it has passed."""

    def __init__(self) -> None:
        self.ms = 1_767_225_600_000
        self._sleeping: list[tuple[int, asyncio.Event]] = []

    def now(self) -> int:
        return self.ms // 1_000

    def millis(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1_000

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return await asyncio.sleep(0)
        woken = asyncio.Event()
        self._sleeping.append((self.ms + round(seconds * 1_000), woken))
        await woken.wait()

    def advance(self, ms: int) -> None:
        self.ms += ms
        due = [one for one in self._sleeping if one[0] <= self.ms]
        self._sleeping = [one for one in self._sleeping if one[0] > self.ms]
        for _, woken in due:
            woken.set()


class _Jump(selectors.SelectSelector):
    """Moves the loop's time on instead of waiting for a timer; waits for threads where there is none."""

    loop: "HastyLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(10 if timeout is None else 0)
        if not events:
            assert timeout is not None, "everybody waits for something that nobody will do"
            self.loop.moved += max(timeout, 0.0)
        return events


class HastyLoop(asyncio.SelectorEventLoop):
    """Time limits pass at once when every task waits."""

    def __init__(self) -> None:
        jump = _Jump()
        super().__init__(jump)
        jump.loop = self
        self.moved = 0.0

    def time(self) -> float:
        return getattr(self, "moved", 0.0)


def numbers() -> Iterator[int]:
    n = 0
    while True:
        n += 1
        yield n
