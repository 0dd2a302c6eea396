"""An agent's trace: rows with a rising number, the cursor of those who watch. And its ticks, with their recordings."""

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson

from core.unit import Among, Condition, Insert, Row, UnitOfWork, Within
from fs.feed import Feed
from fs.protocol import Record
from node.agent.error import NotRecorded, RecordingDamaged, RecordingNewer
from node.agent.replay import reel
from node.agent.replay.transcript import transcript

PAGE = 200
_LOOK_AGAIN_S = 15.0
_DIGITS = 18  # of a tick's number; an id has 32


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
        rows = await self._unit.select("tick", {"agent": self._agent}, order=("-n",), limit=limit)
        recorded = await self._recorded([row["id"] for row in rows])
        return [{**row, "recorded": row["id"] in recorded} for row in rows]

    async def _recorded(self, ids: Sequence[str]) -> set[str]:
        rows = await self._unit.select("recording", {"tick_id": Among(tuple(ids))}, columns=("tick_id",))
        return {row["tick_id"] for row in rows}

    async def tick(self, name: str) -> Mapping[str, Any] | None:
        """One tick by its id or number, with what was recorded of it; None if there is none."""
        by_number = name.isascii() and name.isdigit() and len(name) <= _DIGITS
        where: dict[str, Condition] = {"n": int(name)} if by_number else {"id": name}
        rows = await self._unit.select("tick", where)
        if not rows or rows[0]["agent"] != self._agent:
            return None
        try:
            found = transcript(await reel.load(self._unit, self._agent, rows[0]["id"]))
        except NotRecorded:
            return {**rows[0], "recorded": False}
        except (RecordingDamaged, RecordingNewer) as error:
            return {**rows[0], "recorded": False, "recording_error": {"code": error.code, "message": error.message}}
        return {**rows[0], "recorded": True, **found}

    async def recording(self, tick_id: str) -> bytes:
        """The recording of a tick, with its large bodies in it.

        Raises:
            NotRecorded: there is none.
            RecordingDamaged, RecordingNewer: as `node.agent.replay.reel.load`.
        """
        return reel.whole(await reel.load(self._unit, self._agent, tick_id))

    async def recordings(self, after: int) -> AsyncIterator[Record]:
        """The recordings of ticks with a number past a cursor, oldest first, as base64. Ends with the newest.

        One that cannot be read is told as its error, and does not hide the others.
        """
        while True:
            where: dict[str, Condition] = {"agent": self._agent, "n": Within(low=after + 1)}
            rows = await self._unit.select("tick", where, order=("n",), limit=PAGE, columns=("n", "id"))
            if not rows:
                return
            recorded = await self._recorded([row["id"] for row in rows])
            for row in rows:
                after = row["n"]
                if row["id"] in recorded:
                    yield Record(row["n"], *await self._packed(row["id"]))

    async def _packed(self, tick_id: str) -> tuple[bytes, str]:
        try:
            return b64encode(await self.recording(tick_id)), "recording"
        except (RecordingDamaged, RecordingNewer) as error:
            return orjson.dumps({"tick_id": tick_id, "code": error.code, "message": error.message}), "error"

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
