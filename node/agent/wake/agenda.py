"""One agent's alarms and interests as the file services see them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.error import InvalidInput
from core.unit import Row, UnitOfWork
from fs.session import Session
from node.agent.wake import alarm as alarms
from node.agent.wake import interest as interests
from node.agent.wake.event import WATCHER, grant

_ALARM = ("id", "kind", "due_ms", "every_ms", "cron", "fired_ms", "missed", "created_at")
_INTEREST = ("id", "event", "created_at")


class AgentAlarms:
    """One agent's alarms.

    Args:
        agent: its name.
        unit: the database.
        clock: time.
        touch: is told, after the commit, that an alarm was set.
    """

    def __init__(self, agent: str, unit: UnitOfWork, clock: Clock, touch: Callable[[], None]) -> None:
        self._agent, self._unit, self._clock, self._touch = agent, unit, clock, touch

    async def names(self) -> Sequence[str]:
        """Ids, sorted."""
        rows = await self._unit.select(alarms.TABLE, {"agent": self._agent}, order=("id",), columns=("id",))
        return [row["id"] for row in rows]

    async def find(self, alarm: str) -> dict[str, Any] | None:
        """One alarm, or None."""
        rows = await self._unit.select(alarms.TABLE, {"agent": self._agent, "id": alarm})
        return _alarm(rows[0]) if rows else None

    async def set(self, session: Session, alarm: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Set an alarm; one of this id is replaced.

        Raises:
            InvalidInput: it is not valid, or there are too many.
        """
        now_ms, at_ms, after_ms = self._clock.millis(), value.get("at_ms"), value.get("after_ms")
        if at_ms is not None and after_ms is not None:
            raise InvalidInput("An alarm has at_ms or after_ms.")
        writes = alarms.set_alarm(
            self._agent, alarm, now_ms, at_ms=at_ms if after_ms is None else now_ms + after_ms,
            every_ms=value.get("every_ms") or 0, cron=value.get("cron") or "",
            payload=orjson.dumps(value.get("payload") or {}).decode(),
        )  # fmt: skip
        coming = {alarm, *alarms.staged(session, alarms.TABLE)}
        await alarms.afford(self._unit, alarms.TABLE, self._agent, coming)
        await session.apply(writes, self._touch)
        return _alarm(alarms.row_of(writes))

    async def cancel(self, session: Session, alarm: str) -> None:
        """Take an alarm away."""
        await session.apply(alarms.no_alarm(self._agent, alarm), self._touch)


class AgentInterests:
    """One agent's interests.

    Args:
        agent: its name.
        unit: the database.
        clock: time.
    """

    def __init__(self, agent: str, unit: UnitOfWork, clock: Clock) -> None:
        self._agent, self._unit, self._clock = agent, unit, clock

    async def names(self) -> Sequence[str]:
        """Ids, sorted."""
        rows = await self._unit.select(interests.TABLE, {"agent": self._agent}, order=("id",), columns=("id",))
        return [row["id"] for row in rows]

    async def find(self, interest: str) -> dict[str, Any] | None:
        """One interest, or None."""
        rows = await self._unit.select(interests.TABLE, {"agent": self._agent, "id": interest})
        return _interest(rows[0]) if rows else None

    async def watch(self, session: Session, interest: str, event: str, pattern: Mapping[str, Any]) -> dict[str, Any]:
        """Set an interest; one of this id is replaced.

        Raises:
            InvalidInput: it is not valid, or there are too many.
        """
        text = orjson.dumps(dict(pattern)).decode()
        writes = interests.watch(self._agent, interest, self._clock.now(), event, text)
        coming = {interest, *alarms.staged(session, interests.TABLE)}
        await alarms.afford(self._unit, interests.TABLE, self._agent, coming, interests.MAX_INTERESTS)
        await session.apply(writes)
        return _interest(alarms.row_of(writes))

    async def unwatch(self, session: Session, interest: str) -> None:
        """Take an interest away."""
        await session.apply(interests.unwatch(self._agent, interest))

    async def sees_all(self) -> bool:
        """Whether it may be told of the events of the node and of all agents."""
        return bool(await self._unit.count("meta", {"key": WATCHER + self._agent}))

    async def grant(self, session: Session, sees_all: bool) -> None:
        """Let it see them, or not any more."""
        await session.apply(grant(self._agent, sees_all))


def _alarm(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: row.get(name, 0) for name in _ALARM}, "payload": orjson.loads(row["payload"])}


def _interest(row: Row) -> dict[str, Any]:
    return {**{name: row[name] for name in _INTEREST}, "pattern": orjson.loads(row["pattern"])}
