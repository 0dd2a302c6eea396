"""An agent's trace: rows with a rising number, the cursor of those who watch. And its ticks, with their recordings.

A record says in which tick it was written and what for, as far as that is known: the records of a tick are committed
together, and the last of them names it.
"""

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import orjson

from core.unit import Among, Condition, Insert, Row, UnitOfWork, Within
from fs.feed import Feed
from fs.protocol import Record
from fs.tail import Following, Page, Tail
from node.agent.error import NotRecorded, RecordingDamaged, RecordingNewer
from node.agent.replay import reel
from node.agent.replay.transcript import transcript

PAGE = 500
_DIGITS = 18  # of a tick's number; an id has 32
_NAMES_TICK = ("tick", "error", "waits")  # the last record of a tick, which says which one it was
_OUTSIDE = ("status", "limit_reached", "quarantined")  # written by nobody's tick
_OF_A_TICK = 256  # records that one tick writes at most, and some of the node's
_TOGETHER_MS = 5_000  # between what a failed tick said and the record of its failure


def topic(agent: str) -> str:
    """The feed's name for an agent's trace."""
    return f"log:{agent}"


def record(agent: str, at_ms: int, kind: str, data: str) -> Insert:
    """The write that adds a record; `data` is JSON."""
    return Insert("log", {"agent": agent, "at_ms": at_ms, "type": kind, "data": data})


def shown(row: Row, tick_id: str | None = None, envelope_id: str | None = None) -> dict[str, Any]:
    """A record as files show it."""
    known = {"tick_id": tick_id, "envelope_id": envelope_id}
    return {
        "id": row["n"],
        "at_ms": row["at_ms"],
        "type": row["type"],
        **{name: value for name, value in known.items() if value is not None},
        "data": orjson.loads(row["data"]),
    }


def ticks_of(rows: Sequence[Row], after: Row | None = None) -> list[str | None]:
    """For each record the id of the tick in which it was written, or None.

    Args:
        rows: records of one agent, one after the other.
        after: the next record that names a tick, where the last of `rows` may belong to it.
    """
    found: list[str | None] = []
    last, at_ms, slack = (_names(after), after["at_ms"], _slack(after)) if after is not None else (None, 0, 0)
    for row in reversed(rows):
        if (own := _names(row)) is not None:
            last, at_ms, slack = own, row["at_ms"], _slack(row)
        elif row["type"] in _OUTSIDE or not 0 <= at_ms - row["at_ms"] <= slack:
            last = None
        found.append(last)
    return found[::-1]


def _names(row: Row) -> str | None:
    """The tick that a record names."""
    if row["type"] not in _NAMES_TICK:
        return None
    data = orjson.loads(row["data"])
    name = data.get("tick_id") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


def _slack(row: Row) -> int:
    return 0 if row["type"] == "tick" else _TOGETHER_MS


class Trace:
    """The records of one agent, as `fs.tail.Source`."""

    def __init__(self, agent: str, unit: UnitOfWork) -> None:
        self._agent, self._unit = agent, unit

    async def span(self) -> tuple[int, int]:
        """The oldest number that is kept of all agents' records, and the newest of this one's.

        Numbers are given before they are committed: of another agent's newest one nobody can tell what comes before it.
        """
        oldest = await self._unit.select("log", order=("n",), limit=1, columns=("n",))
        newest = await self._unit.select("log", {"agent": self._agent}, order=("-n",), limit=1, columns=("n",))
        return oldest[0]["n"] if oldest else 1, newest[0]["n"] if newest else 0

    async def page(self, after: int) -> Page:
        """The next records past a number."""
        rows, more = await self.rows(after)
        records = [Record(one["id"], orjson.dumps(one), one["type"]) for one in await self.told(rows, more=more)]
        return Page(records, rows[-1]["n"] if rows else after, more)

    async def rows(self, after: int) -> tuple[list[Row], bool]:
        """The next rows past a number, and whether there may be more."""
        where: dict[str, Condition] = {"agent": self._agent, "n": Within(low=after + 1)}
        rows = await self._unit.select("log", where, order=("n",), limit=PAGE)
        return rows, len(rows) == PAGE

    async def told(self, rows: Sequence[Row], *, more: bool) -> list[dict[str, Any]]:
        """Records with the tick and the envelope to which each belongs. `more`: others may follow."""
        ticks = ticks_of(rows, await self._next_named(rows[-1]["n"]) if more and _names(rows[-1]) is None else None)
        names = tuple({tick for tick in ticks if tick is not None})
        envelopes: dict[str, str] = {}
        if names:
            where: dict[str, Condition] = {"id": Among(names), "agent": self._agent}
            found = await self._unit.select("tick", where, columns=("id", "envelope_id"))
            envelopes = {row["id"]: row["envelope_id"] for row in found}
        return [
            shown(row, tick, envelopes.get(tick) if tick is not None else None)
            for row, tick in zip(rows, ticks, strict=True)
        ]

    async def _next_named(self, after: int) -> Row | None:
        where: dict[str, Condition] = {
            "agent": self._agent, "n": Within(low=after + 1, high=after + 1 + _OF_A_TICK), "type": Among(_NAMES_TICK),
        }  # fmt: skip
        rows = await self._unit.select("log", where, order=("n",), limit=1)
        return rows[0] if rows else None


class AgentLog:
    """One agent's trace and ticks, as the file services see them."""

    def __init__(self, agent: str, unit: UnitOfWork, feed: Feed) -> None:
        self._agent, self._unit, self._feed = agent, unit, feed
        self._trace = Trace(agent, unit)

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last records, oldest first."""
        rows = await self._unit.select("log", {"agent": self._agent}, order=("-n",), limit=limit)
        return await self._trace.told(rows[::-1], more=False)

    async def lines(self) -> AsyncIterator[bytes]:
        """All records that are kept now, oldest first, a JSON object a line; many lines at a time."""
        _, newest = await self._trace.span()
        after, more = 0, True
        while more and after < newest:
            records, after, more = await self._trace.page(after)
            if records:
                yield b"".join(record.data + b"\n" for record in records)

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

    def follow(self, after: int | None) -> Following:
        """Records past a cursor as they come; None is from now on, 0 from the oldest that is kept."""
        name = topic(self._agent)
        return self._feed.shared(name, lambda: Tail(self._feed, name, self._trace)).follow(after)
