"""Units that are committed together: the loop's side of every database that writes.

There is no timer: a flush runs after every task that is ready now has had its turn, and while a group is on its
way to the disk the next one fills. So a lone unit waits for nobody, and groups grow by themselves under load.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from core.error import Conflict, StoreUncertain, Unavailable, VendoError
from core.unit import Append
from node.storage.error import StoreFull

Unit: TypeAlias = tuple[Any, ...]
"""What a writer takes: a step for each write, ledger entries as they are."""
Verdicts: TypeAlias = list[VendoError | None]
"""For each unit of a group None, or what is wrong with it."""
Landed: TypeAlias = Callable[[Verdicts, bool], None]
"""Told, in the loop, what became of a group, and whether the writer has taken the next one already."""

_AT_ONCE = 4  # units whose owners hear of them before others get a turn, however large their group was


class _Waiting(NamedTuple):
    unit: Any
    done: "asyncio.Future[None]"


class Taken(NamedTuple):
    """A group that is the writer's now."""

    units: list[Any]  # as `Grouped._ready` made them
    landed: Landed


class Grouped(ABC):
    """Gathers units and hands them to a writer, one group at a time. Made in the loop in which it is used."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Waiting] = deque()
        self._landing: deque[tuple[_Waiting, VendoError | None]] = deque()
        self._busy = self._armed = self._closed = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._watchers: list[Callable[[Append], None]] = []
        self._when_full: list[Callable[[], None]] = []
        self._groups = self._units = self._conflicts = 0

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        """Have every ledger entry told once it is durable, before the `commit` that brought it returns."""
        self._watchers.append(watcher)

    def on_full(self, watcher: Callable[[], None]) -> None:
        """Have it called whenever a group met a full disk, before its COMMIT or in it."""
        self._when_full.append(watcher)

    def stats(self) -> dict[str, int]:
        """Counts since it was opened: groups that reached the disk, units in them, units that conflicted."""
        return {"groups": self._groups, "units": self._units, "conflicts": self._conflicts}

    @property
    @abstractmethod
    def _largest(self) -> int:
        """How many units the next group may have."""

    @abstractmethod
    def _send(self, group: Taken) -> None:
        """Hand a group to the writer, which tells by `landed`, in the loop, what became of it."""

    def _ready(self, unit: Unit) -> Any:
        """What the writer is given for a unit, made as soon as that waits; iterable as the unit is."""
        return unit

    async def _committed(self, unit: Unit) -> None:
        """Wait until the unit is durable, or refused. A waiter that is cancelled does not undo it."""
        if self._closed:
            raise Unavailable("The database is closed.")
        if not unit:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(_Waiting(self._ready(unit), done))
        self._quiet.clear()
        self._arm()
        await done

    async def _drained(self) -> None:
        """Take no more units; returns when those under way are durable or refused."""
        self._closed = True
        await self._quiet.wait()

    def _arm(self) -> None:
        if self._waiting and not self._busy and not self._armed:
            self._armed = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._armed = False
        if self._busy:
            return
        group = self._take()
        if group is not None:
            self._busy = True
            self._send(group)

    def _take(self) -> Taken | None:
        """The next group; None if nobody waits. For the loop, and for a writer's thread while that is busy.

        A writer that takes it itself need not wait until the loop gets round to handing it over.
        """
        waiting = self._waiting
        group = [waiting.popleft() for _ in range(min(len(waiting), self._largest))]
        if not group:
            return None
        return Taken([one.unit for one in group], partial(self._landed, group))

    def _landed(self, group: Sequence[_Waiting], verdicts: Verdicts, busy: bool) -> None:
        self._busy = busy
        self._flush()  # the disk gets its next group first, then the owners of this one hear of it
        done = verdicts.count(None)
        self._units += done
        self._groups += bool(done)
        if done < len(group):
            self._conflicts += sum(isinstance(verdict, Conflict) for verdict in verdicts)
            if any(map(_is_full, verdicts)):
                for watcher in self._when_full:
                    watcher()
        settling = bool(self._landing)
        self._landing.extend(zip(group, verdicts, strict=True))
        if not settling:
            self._settle()

    def _settle(self) -> None:
        """Some owners hear of their units now, the others when these have had their turn."""
        for _ in range(min(_AT_ONCE, len(self._landing))):
            (unit, done), verdict = self._landing.popleft()
            if verdict is None:
                if self._watchers:
                    self._tell(unit)  # before its owner runs, which is only made ready here
                if not done.done():
                    done.set_result(None)
            elif not done.done():
                done.set_exception(verdict)
        if self._landing:
            self._loop.call_soon(self._settle)
            return
        self._arm()
        if not self._busy and not self._waiting:
            self._quiet.set()

    def _tell(self, unit: Unit) -> None:
        for step in unit:
            if isinstance(step, Append):
                for watcher in self._watchers:
                    watcher(step)


def _is_full(verdict: VendoError | None) -> bool:
    return isinstance(verdict, StoreFull) or (isinstance(verdict, StoreUncertain) and "full" in verdict.context)
