"""An agent's goals, as rows; in a tick, as the tick would leave them."""

from collections.abc import AsyncIterator, Sequence

from core.clock import Clock
from core.unit import Condition, Delete, Insert, UnitOfWork, Within, Write
from fs.session import Session
from node.agent.room import Room
from node.agent.tick.harvest import text_size
from node.agent.tick.limit import TickLimits

TABLE = "goal"
_MARK, _READ = "goal/", "goal.read/"
_PAGE = 100


class AgentGoals:
    """One agent's goals, as the file services see them.

    Args:
        agent: its name.
        unit: the database.
        clock: time.
        limits: those of an agent that has no others; None asks for none.
    """

    def __init__(self, agent: str, unit: UnitOfWork, clock: Clock, limits: TickLimits | None = None) -> None:
        self._agent, self._unit, self._clock = agent, unit, clock
        self._room = Room(agent, unit, limits)

    def now_ms(self) -> int:
        """Unix ms."""
        return self._clock.millis()

    async def names(self, session: Session) -> Sequence[str]:
        """Ids, sorted."""
        rows = await self._unit.select(TABLE, {"agent": self._agent}, columns=("id",))
        found, staged = {row["id"] for row in rows}, _staged(session)
        return sorted((found - staged.keys()) | {goal for goal, text in staged.items() if text is not None})

    async def find(self, goal: str, session: Session) -> str | None:
        """The JSON that is kept, or None."""
        staged = _staged(session)
        if goal in staged:
            return staged[goal]
        rows = await self._unit.select(TABLE, {"agent": self._agent, "id": goal}, columns=("body",))
        found = str(rows[0]["body"]) if rows else None
        if session.batch is not None:  # what the tick has read first it replaces, or conflicts
            return session.batch.marks.setdefault(_READ + goal, found or "") or None
        return found

    async def each(self, session: Session) -> AsyncIterator[tuple[str, str]]:
        """Ids with their JSON, those that the tick has changed at the end."""
        staged, low = _staged(session), ""
        while True:
            where: dict[str, Condition] = {"agent": self._agent, "id": Within(low)}
            rows = await self._unit.select(TABLE, where, order=("id",), limit=_PAGE, columns=("id", "body"))
            for row in rows:
                if row["id"] not in staged:
                    yield row["id"], row["body"]
            if len(rows) < _PAGE:
                break
            low = rows[-1]["id"] + "\0"
        for goal, text in sorted(staged.items()):
            if text is not None:
                yield goal, text

    async def replace(self, goal: str, before: str | None, after: str | None, session: Session) -> None:
        """Put one JSON in the place of another; None is none.

        Raises:
            Conflict: what is there is not `before`. In a tick that shows at its commit.
            StorageFull: the agent keeps too much. In a tick that shows at its commit.
        """
        more = text_size(after or "") - text_size(before or "")
        if not session.staged:
            await self._room.check(more)
        await session.apply(self.writes(goal, before, after))
        if session.batch is not None:
            session.batch.marks[_MARK + goal] = after or ""

    def writes(self, goal: str, before: str | None, after: str | None) -> tuple[Write, ...]:
        """The same as writes; what the agent keeps is counted."""
        writes: list[Write] = []
        if before is not None:  # another one is a conflict: else the count would go wrong
            writes.append(Delete(TABLE, {"agent": self._agent, "id": goal, "body": before}, rows=1))
        if after is not None:
            now = self._clock.now()
            writes.append(Insert(TABLE, {"agent": self._agent, "id": goal, "body": after, "updated_at": now}))
        more = text_size(after or "") - text_size(before or "")
        return (*writes, *self._room.counted(more))


def _staged(session: Session) -> dict[str, str | None]:
    """What the same tick has written already; None is taken away."""
    if session.batch is None:
        return {}
    found = session.batch.marks.items()
    return {name.removeprefix(_MARK): text or None for name, text in found if name.startswith(_MARK)}
