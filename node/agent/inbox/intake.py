"""What may come into an inbox: as much as there is room for, and what becomes of the rest (`overflow.py`).

How many wait is counted when it must be, not at each arrival: a count grants a share of the room that is left, and only
near the bound is it taken again and again. In one process the bound holds exactly, whatever arrives at once; where
several share a database each may hold a share that the others do not see, so the inbox may pass its bound by at most
1/8 of it for each other process. What an agent's own tick stages for itself comes on top, tick by tick.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from core.clock import Clock
from core.unit import Among, Condition, Insert, UnitOfWork, Update, Value, Within, Write
from node.agent.error import InboxFull
from node.agent.inbox.overflow import EXEMPT, Overflow, Policy
from node.agent.inbox.row import DEAD, DROPPED, EXPIRED, NEW, TABLE

log = logging.getLogger(__name__)

NO_ROOM = f"{InboxFull.code}: There was no room."
_SHARE = 8
_KEPT = 4_096
_PAGE = 64


@dataclass(slots=True)
class _Room:
    """What is known of one inbox: how many more may come before they are counted again, and what is on its way.

    `open` are newcomers that were let in and whose commit has not ended. `doomed` are rows that are about to be
    dropped, `dying` is how many are about to go to the dead letter.
    """

    left: int = 0
    open: int = 0
    dying: int = 0
    full: bool = False
    doomed: set[int] = field(default_factory=set)
    counting: asyncio.Lock = field(default_factory=asyncio.Lock)
    landed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Verdict:
    writes: tuple[Write, ...]
    let_in: bool = False
    dropped: int | None = None
    dead: bool = False


class Intake:
    """The door of all inboxes of a process.

    Args:
        unit: the database.
        clock: time.
        overflow: the bound of an inbox whose operator has said nothing else.

    Attributes:
        counts: what became of what had no room, since the start: rejected, dropped, dead, expired.
        check: raises if nothing is taken from outside at present: the disk is nearly full.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, overflow: Overflow | None = None) -> None:
        self._unit, self._clock, self._overflow = unit, clock, overflow or Overflow()
        self._rooms: dict[str, _Room] = {}
        self.counts: Counter[str] = Counter()
        self.check: Callable[[], None] = lambda: None

    # ---- the policy

    async def policy(self, agent: str) -> Overflow:
        """The bound of an agent's inbox."""
        return self._overflow.changed(orjson.loads(await self._own(agent)))

    async def _own(self, agent: str) -> str:
        rows = await self._unit.select("agent", {"name": agent}, columns=("inbox",))
        return str(rows[0]["inbox"]) if rows else "{}"

    async def set_policy(self, agent: str, value: Mapping[str, Any]) -> Sequence[Write]:
        """Writes that change an agent's bound; what is not named stays. Call `forget` when they are committed.

        Raises:
            InvalidInput: it is not valid.
        """
        before = await self._own(agent)
        own = orjson.loads(before) | dict(value)
        self._overflow.changed(own)
        return (Update("agent", {"name": agent, "inbox": before}, set={"inbox": orjson.dumps(own).decode()}),)

    def forget(self, agent: str) -> None:
        """Count anew: the policy was changed, or the inbox was emptied by other ways."""
        if (room := self._rooms.get(agent)) is not None:
            room.left = 0

    # ---- arrivals

    @asynccontextmanager
    async def room(self, row: Insert, *, strict: bool = False) -> AsyncIterator[tuple[Write, ...]]:
        """What to commit for a trigger, within the block: it may be the trigger, or what the policy makes of it.

        Nothing else may be waited for in the block, another room least of all: others wait for its end.

        Args:
            row: made by `node.agent.inbox.row.envelope`.
            strict: whoever sends it waits for the answer: it is refused where there is no room.

        Raises:
            InboxFull: there is no room, and the policy refuses newcomers.
            DiskLow: the disk is nearly full; whoever sends it may try again.
        """
        agent = str(row.row["agent"])
        if row.row["source"] in EXEMPT:
            yield (row,)
            return
        self.check()
        room = self._rooms.pop(agent, None) or _Room()
        self._rooms[agent] = room  # as the newest
        verdict = await self._judge(room, agent, row, strict=strict)
        try:
            yield verdict.writes
        finally:
            room.open -= verdict.let_in
            room.dying -= verdict.dead
            room.doomed.discard(verdict.dropped or 0)
            room.landed.set()
            self._tidy()

    async def staged(self, row: Insert) -> tuple[Write, ...]:
        """The same for what a tick stages: nobody knows when, or whether, that is committed.

        Raises:
            InboxFull: there is no room, and the policy refuses newcomers.
        """
        async with self.room(row) as writes:
            return writes

    def _tidy(self) -> None:
        while len(self._rooms) > _KEPT:
            idle = next(
                (name for name, room in self._rooms.items() if not room.counting.locked() and not room.open), None
            )
            if idle is None:
                return
            del self._rooms[idle]

    async def _judge(self, room: _Room, agent: str, row: Insert, *, strict: bool) -> _Verdict:
        """The newcomer's fate; the room knows of it from here on."""
        async with room.counting:
            overflow = None
            if room.left <= 0:
                overflow = await self._count(room, agent)
            if overflow is None:
                room.left -= 1
                room.open += 1
                return _Verdict((row,), let_in=True)
            verdict = await self._overflown(room, agent, row, overflow, strict=strict)
            room.dying += verdict.dead
            room.doomed |= set() if verdict.dropped is None else {verdict.dropped}
            return verdict

    async def _count(self, room: _Room, agent: str) -> Overflow | None:
        """Count what waits; the policy if there is no room. Those on their way count as if they had come."""
        overflow, before = await self.policy(agent), room.open
        free = await self._free(agent, overflow) - before
        if free <= 0 and before:  # some of them may have been counted twice
            while room.open:
                room.landed.clear()
                await room.landed.wait()
            free = await self._free(agent, overflow)
        if free <= 0 and await self._put_away(agent):
            free = await self._free(agent, overflow)
        if free <= 0:
            return overflow
        room.left, room.full = max(1, free // _SHARE), False
        return None

    async def _free(self, agent: str, overflow: Overflow) -> int:
        where: dict[str, Condition] = {"agent": agent, "state": NEW}
        return overflow.max_depth - await self._unit.count(TABLE, where, limit=overflow.max_depth)

    async def _put_away(self, agent: str) -> bool:
        """Make room where something waits that has expired. Whether there was any."""
        now = self._clock.now()
        late: dict[str, Condition] = {"agent": agent, "state": NEW, "expires_at": Within(high=now + 1)}
        count = await self._unit.count(TABLE, late)
        if count:
            await self._unit.commit([Update(TABLE, late, set={"state": EXPIRED, "ended_at": now}, rows=None)])
            self.counts[EXPIRED] += count
        return bool(count)

    # ---- no room

    async def _overflown(self, room: _Room, agent: str, row: Insert, overflow: Overflow, *, strict: bool) -> _Verdict:
        known = {"agent": agent, "envelope_id": row.row["envelope_id"]}
        if await self._unit.count(TABLE, known, limit=1):
            return _Verdict((row,))  # it came before: it takes no room
        if strict or overflow.policy is Policy.REJECT_NEW:
            self.counts["rejected"] += 1
            raise InboxFull(agent=agent)
        self._say_full(room, agent, overflow)
        # Before the database is asked: who lands while it answers is not in the answer, and would not be here any more
        doomed, dying = frozenset(room.doomed), room.dying
        if overflow.policy is Policy.DROP_OLDEST and (oldest := await self._oldest(agent, doomed)) is not None:
            self.counts[DROPPED] += 1
            drop = Update(TABLE, {"n": oldest, "state": NEW}, set=self._dropped(), rows=None)
            return _Verdict((drop, row), dropped=oldest)
        if overflow.policy is Policy.DEAD_LETTER and await self._dead(agent) + dying < overflow.dead_letter_max:
            self.counts[DEAD] += 1
            return _Verdict((Insert(TABLE, {**row.row, "state": DEAD, "error": NO_ROOM}, row.or_ignore),), dead=True)
        self.counts[DROPPED] += 1
        return _Verdict((Insert(TABLE, {**row.row, **self._dropped(), "payload": ""}, row.or_ignore),))

    @staticmethod
    def _say_full(room: _Room, agent: str, overflow: Overflow) -> None:
        if not room.full:
            room.full = True
            told = {"action": "inbox_full", "agent": agent, "policy": overflow.policy.value}
            log.warning("an inbox is full", extra=told)

    def _dropped(self) -> dict[str, Value]:
        return {"state": DROPPED, "ended_at": self._clock.now(), "error": NO_ROOM}

    async def _oldest(self, agent: str, but: frozenset[int]) -> int | None:
        """The one that has waited longest among the least urgent, of those that may be dropped."""
        below: int | None = None
        while True:
            where: dict[str, Condition] = {"agent": agent, "state": NEW, "priority": Within(high=below)}
            least = await self._unit.select(TABLE, where, order=("-priority",), limit=1, columns=("priority",))
            if not least:
                return None
            below = int(least[0]["priority"])
            if (found := await self._first(agent, below, but)) is not None:
                return found

    async def _first(self, agent: str, priority: int, but: frozenset[int]) -> int | None:
        after = 0
        while True:
            where: dict[str, Condition] = {"agent": agent, "state": NEW, "priority": priority, "n": Within(after + 1)}
            rows = await self._unit.select(TABLE, where, order=("n",), limit=_PAGE, columns=("n", "source"))
            for row in rows:
                after = int(row["n"])
                if row["source"] not in EXEMPT and after not in but:
                    return after
            if len(rows) < _PAGE:
                return None

    async def _dead(self, agent: str) -> int:
        return await self._unit.count(TABLE, {"agent": agent, "state": DEAD})

    async def bury(self, agent: str) -> Sequence[Write]:
        """Writes that make room in the dead letter for one that the agent has failed at: the oldest goes."""
        overflow = await self.policy(agent)
        where: dict[str, Condition] = {"agent": agent, "state": DEAD}
        many = await self._unit.count(TABLE, where) - overflow.dead_letter_max + 1
        if many <= 0:
            return ()
        rows = await self._unit.select(TABLE, where, order=("n",), limit=many, columns=("n",))
        self.counts[DROPPED] += len(rows)
        oldest: dict[str, Condition] = {"n": Among(tuple(row["n"] for row in rows)), "state": DEAD}
        return (Update(TABLE, oldest, set={"state": DROPPED, "ended_at": self._clock.now()}, rows=None),)
