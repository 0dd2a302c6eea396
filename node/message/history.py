"""What was said, as files show it: the latest messages, one conversation, and a stream with a cursor."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson

from core.identifier import PubKey
from core.unit import Condition, Row, UnitOfWork, Within
from fs.feed import Feed
from fs.protocol import Record
from node.message.record import TABLE, WRAPPED, shown, topic
from relays.kind import FILE

PAGE = 200
_LOOK_AGAIN_S = 15.0


def _shown(row: Row) -> dict[str, Any]:
    out = shown(row)
    if row["kind"] == FILE:
        facts = orjson.loads(row["text"] or "{}")
        facts.pop("draft", None)  # it holds the file's key
        out["file"], out["text"] = ({} if "rumor" in facts else facts), ""
    return out


class History:
    """One agent's messages."""

    def __init__(self, agent: str, unit: UnitOfWork, feed: Feed) -> None:
        self._agent, self._unit, self._feed = agent, unit, feed

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The messages that changed last, oldest first."""
        rows = await self._unit.select(TABLE, {"agent": self._agent}, order=("-changed_ms",), limit=limit)
        return [_shown(row) for row in reversed(rows) if row["kind"] != WRAPPED]

    async def talk(self, peer: PubKey, limit: int) -> list[dict[str, Any]]:
        """The last messages from and to one person, oldest first."""
        where: dict[str, Condition] = {"agent": self._agent, "peer": peer}
        rows = await self._unit.select(TABLE, where, order=("-created_at", "-changed_ms"), limit=limit)
        return [_shown(row) for row in reversed(rows)]

    async def _page(self, after: int) -> Sequence[Row]:
        where: dict[str, Condition] = {"agent": self._agent, "changed_ms": Within(low=after + 1)}
        return await self._unit.select(TABLE, where, order=("changed_ms",), limit=PAGE)

    async def follow(self, after: int | None) -> AsyncIterator[Record]:
        """Messages as they come and as their state changes; None is from now on. Does not end."""
        if after is None:
            newest = await self._unit.select(TABLE, {"agent": self._agent}, order=("-changed_ms",), limit=1)
            after = newest[0]["changed_ms"] if newest else 0
        while True:
            count = self._feed.count(topic(self._agent))
            rows = await self._page(after)
            for row in rows:
                after = row["changed_ms"]
                if row["kind"] == WRAPPED:
                    continue
                yield Record(row["changed_ms"], orjson.dumps(_shown(row)), row["state"])
            if not rows:
                await self._feed.wait(topic(self._agent), count, _LOOK_AGAIN_S)
