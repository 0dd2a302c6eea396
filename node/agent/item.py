"""What an agent keeps beside its state, as the files in its `/memory` see it: the rows that `ctx.memory` has, too."""

from collections.abc import Mapping, Sequence

from core.error import InvalidInput
from core.unit import Condition, Delete, Insert, UnitOfWork, Within, Write
from fs.session import Session
from node.agent.room import Room
from node.agent.tick.harvest import size
from node.agent.tick.limit import TickLimits
from node.agent.tick.stage import ask, named

TABLE = "item"
MAX_ITEMS = 100_000
_PAGE = 64  # of at most 64 KiB each


class AgentItems:
    """One agent's kept values. A tick's changes are gathered where `ctx.memory` gathers its own: they are one thing.

    Args:
        agent: its name.
        unit: the database.
        limits: those of an agent that has no others; None asks for none.
    """

    def __init__(self, agent: str, unit: UnitOfWork, limits: TickLimits | None = None) -> None:
        self._agent, self._unit = agent, unit
        self._room = Room(agent, unit, limits)

    async def find(self, key: str, session: Session) -> str | None:
        """The JSON under a key, or None."""
        batch = session.batch
        if batch is not None and key in batch.kept:
            return batch.kept[key]
        rows = await self._unit.select(TABLE, {"agent": self._agent, "key": key}, columns=("value",))
        found = str(rows[0]["value"]) if rows else None
        return found if batch is None else batch.known.setdefault(key, found)

    async def page(
        self, low: str, high: str | None, session: Session, most: int = _PAGE
    ) -> tuple[Sequence[tuple[str, str]], str | None]:
        """Keys from `low` on and below `high`, sorted, with their JSON; and where to go on, None at the end."""
        while True:
            where: dict[str, Condition] = {"agent": self._agent, "key": Within(low, high)}
            columns = ("key", "value")
            rows = await self._unit.select(TABLE, where, order=("key",), limit=most, columns=columns)
            found: dict[str, str | None] = {row["key"]: row["value"] for row in rows}
            further = rows[-1]["key"] + "\0" if len(rows) >= most else None
            if session.batch is not None:
                end = high if further is None else further
                staged = session.batch.kept.items()
                found |= {key: text for key, text in staged if low <= key and (end is None or key < end)}
            there = [(key, text) for key, text in sorted(found.items()) if text is not None]
            if there or further is None:
                return there, further
            low = further

    async def change(self, before: Mapping[str, str | None], after: Mapping[str, str | None], session: Session) -> None:
        """Put one JSON in the place of another under each of these keys; None is none.

        Raises:
            Conflict: what is there is not as `before` says. In a tick that shows at its commit.
            InvalidInput: a key is too long, or there are too many.
            StorageFull: the agent keeps too much. In a tick that shows at its commit.
        """
        for key in after:
            named(key, "path")
        if fresh := sum(after[key] is not None and before[key] is None for key in after):
            await self._check_count(fresh - sum(text is None for text in after.values()))
        if session.batch is not None:
            staged = dict(session.batch.kept)
            for key, text in after.items():
                ask(staged, key, text)
            await session.apply(())  # what tells of it is only staged if it is
            for key, old in before.items():
                if key not in session.batch.kept:  # else what was there before is known already
                    session.batch.known.setdefault(key, old)
            session.batch.kept.update(after)
            return
        more = sum(size(key, after[key]) - size(key, before[key]) for key in after)
        await self._room.check(more)
        await session.apply((*self._writes(before, after), *self._room.counted(more)))

    async def _check_count(self, more: int) -> None:
        if more > 0 and await self._unit.count(TABLE, {"agent": self._agent}, limit=MAX_ITEMS) + more > MAX_ITEMS:
            raise InvalidInput(f"An agent remembers at most {MAX_ITEMS} things.")

    def _writes(self, before: Mapping[str, str | None], after: Mapping[str, str | None]) -> list[Write]:
        writes: list[Write] = []
        for key, text in after.items():
            where: dict[str, Condition] = {"agent": self._agent, "key": key}
            if (old := before[key]) is not None:  # another one is a conflict: else the count would go wrong
                writes.append(Delete(TABLE, where | {"value": old}, rows=1))
            if text is not None:
                writes.append(Insert(TABLE, {"agent": self._agent, "key": key, "value": text}))
        return writes
