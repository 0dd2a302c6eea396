"""An agent's trace: rows with a rising number, which is the cursor of those who watch."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from core.unit import Condition, Insert, Row, UnitOfWork, Within
from fs.feed import Feed
from fs.protocol import Record

PAGE = 200
_LOOK_AGAIN_S = 15.0


def topic(agent: str) -> str:
    """The feed's name for an agent's trace."""
    return f"log:{agent}"


def record(agent: str, at_ms: int, kind: str, data: str) -> Insert:
    """The write that adds a record; `data` is JSON."""
    return Insert("log", {"agent": agent, "at_ms": at_ms, "type": kind, "data": data})


def _shown(row: Row) -> dict[str, Any]:
    return {"id": row["n"], "at_ms": row["at_ms"], "type": row["type"], "data": orjson.loads(row["data"])}


class AgentLog:
    """One agent's trace and ticks, as the file services see them."""

    def __init__(self, agent: str, unit: UnitOfWork, feed: Feed) -> None:
        self._agent, self._unit, self._feed = agent, unit, feed

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last records, oldest first."""
        rows = await self._unit.select("log", {"agent": self._agent}, order=("-n",), limit=limit)
        return [_shown(row) for row in reversed(rows)]

    async def ticks(self, limit: int) -> list[dict[str, Any]]:
        """The last ticks, newest first."""
        return await self._unit.select("tick", {"agent": self._agent}, order=("-at_ms",), limit=limit)

    async def _page(self, after: int) -> Sequence[Row]:
        where: dict[str, Condition] = {"agent": self._agent, "n": Within(low=after + 1)}
        return await self._unit.select("log", where, order=("n",), limit=PAGE)

    async def follow(self, after: int | None) -> AsyncIterator[Record]:
        """Records past a cursor as they come; None is from now on."""
        if after is None:
            newest = await self._unit.select("log", {"agent": self._agent}, order=("-n",), limit=1)
            after = newest[0]["n"] if newest else 0
        while True:
            count = self._feed.count(topic(self._agent))
            rows = await self._page(after)
            for row in rows:
                after = row["n"]
                yield Record(row["n"], orjson.dumps(_shown(row)), row["type"])
            if not rows:
                await self._feed.wait(topic(self._agent), count, _LOOK_AGAIN_S)
