"""What a tick has asked for, as the writes of its commit: marks, kept values, alarms and interests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from core.unit import Among, Condition, Delete, Insert, UnitOfWork, Update, Write
from node.agent.tick.lap import Attempt, Lap
from node.agent.wake import alarm, interest

MAX_MARKS = 1_024
"""How many ids an agent remembers as seen; the oldest go."""


@dataclass(slots=True)
class Harvest:
    """Writes, and by how many bytes they change what the agent keeps. `elsewhere` is what some count themselves."""

    writes: list[Write] = field(default_factory=list)
    stored: int = 0
    elsewhere: int = 0


async def harvest(attempt: Attempt, lap: Lap, unit: UnitOfWork) -> Harvest:
    """The writes for all that a tick has asked for, but for its state.

    Raises:
        InvalidInput: it would have too many alarms or interests.
        VendoError: the database failed.
    """
    stage, found = attempt.stage, Harvest()
    if stage.marks:
        await _marks(found, list(stage.marks), lap, unit)
    if stage.items:
        await _items(found, stage.items, stage.known, lap.agent, unit)
    if stage.alarms:
        found.writes += await _asked(stage.alarms, alarm.TABLE, alarm.MAX_ALARMS, lap.agent, attempt.began_ms, unit)
    if stage.interests:
        found.writes += await _asked(
            stage.interests, interest.TABLE, interest.MAX_INTERESTS, lap.agent, attempt.began_ms, unit
        )
    if stage.batch is not None and stage.batch.writes:
        found.writes += stage.batch.writes
        found.elsewhere = sum(map(_stored, stage.batch.writes))
    return found


async def _marks(found: Harvest, marks: list[str], lap: Lap, unit: UnitOfWork) -> None:
    """Mark what is not marked yet; as many of the oldest go as are too many then."""
    where: dict[str, Condition] = {"agent": lap.agent, "id": Among(tuple(marks))}
    known = {row["id"] for row in await unit.select("mark", where, columns=("id",))}
    fresh = [mark for mark in marks if mark not in known][-MAX_MARKS:]
    if lap.marks is None:
        lap.marks = await unit.count("mark", {"agent": lap.agent})
    found.writes += [Insert("mark", {"agent": lap.agent, "id": mark}) for mark in fresh]
    over = lap.marks + len(fresh) - MAX_MARKS
    if over > 0:
        oldest = await unit.select("mark", {"agent": lap.agent}, order=("n",), limit=over, columns=("n",))
        found.writes.append(Delete("mark", {"n": Among(tuple(row["n"] for row in oldest))}))
    lap.marks = min(lap.marks + len(fresh), MAX_MARKS)


async def _items(
    found: Harvest, items: dict[str, str | None], known: dict[str, str | None], agent: str, unit: UnitOfWork
) -> None:
    where: dict[str, Condition] = {"agent": agent, "key": Among(tuple(items))}
    there: dict[str, str | None] = {row["key"]: row["value"] for row in await unit.select("item", where)}
    before = there | known
    for key, value in items.items():
        old = before.get(key)
        if old == value:
            continue
        found.stored += size(key, value) - size(key, old)
        if old is not None:  # somebody else may have written to it since: then the tick runs again
            found.writes.append(Delete("item", {"agent": agent, "key": key, "value": old}, rows=1))
        if value is not None:
            found.writes.append(Insert("item", {"agent": agent, "key": key, "value": value}))


class _Wish(Protocol):
    """An alarm or an interest that was asked for."""

    def writes(self, agent: str, name: str, now_ms: int, /) -> tuple[Write, ...]:
        """What sets it."""


async def _asked(
    asked: Mapping[str, _Wish | None], table: str, most: int, agent: str, now_ms: int, unit: UnitOfWork
) -> list[Write]:
    """Alarms or interests: those that are taken away make room for the others."""
    gone = tuple(one for one, wish in asked.items() if wish is None)
    coming = {one: wish for one, wish in asked.items() if wish is not None}
    if coming:
        freed = await unit.count(table, {"agent": agent, "id": Among(gone)}) if gone else 0
        await alarm.afford(unit, table, agent, coming, most + freed)
    taken: list[Write] = [Delete(table, {"agent": agent, "id": one}) for one in gone]
    return [*taken, *(write for one, wish in coming.items() for write in wish.writes(agent, one, now_ms))]


def size(key: str, value: str | None) -> int:
    """How many bytes a kept value counts for."""
    return 0 if value is None else text_size(key) + text_size(value)


def text_size(text: str) -> int:
    """UTF-8 bytes."""
    return len(text) if text.isascii() else len(text.encode())


def _stored(write: Write) -> int:
    """What a staged write adds to the agent's own count, as that of its goals does."""
    if isinstance(write, Update) and write.table == "agent":
        return write.add.get("stored", 0)
    return 0
