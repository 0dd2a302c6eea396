"""/logs: what the agent did. The trace is a log with a cursor: any number of watchers, from any place in it.

A watcher whose cursor is older than what is kept gets a record of type `gap` first, so that nobody takes a hole for
silence. `ticks` lists them; in the directory of each recorded one stand what it read and did, and what `vendo replay`
takes.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import orjson
from pydantic import RootModel

from fs.body import Fact
from fs.protocol import Pieces, Record
from fs.session import Session
from fs.tree import File, Folder, Tree, json_reader

RECENT = 500


class TraceRecord(Fact):
    """One record of the trace. Ids rise; `tick_id` and `envelope_id` are there as far as they are known."""

    id: int
    at_ms: int
    type: str
    tick_id: str | None = None
    envelope_id: str | None = None
    data: Any


class TickRecord(Fact):
    """One tick. `usage` is JSON: what it used; `error` is empty if it was committed."""

    n: int
    id: str
    agent: str
    envelope_id: str
    cause: str
    at_ms: int
    duration_ms: int
    error: str
    tries: int
    version: int
    code: str
    usage: str
    recorded: bool


class Logs(Protocol):
    """What the node's logs of one agent answer."""

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last records, oldest first, as `TraceRecord`."""

    def lines(self) -> Pieces:
        """All records that are kept now, oldest first, a JSON object a line."""

    async def ticks(self, limit: int) -> list[dict[str, Any]]:
        """The last ticks, newest first, each with `recorded`."""

    async def tick(self, name: str) -> Mapping[str, Any] | None:
        """One tick by its id or number, with what was recorded of it; None if there is none."""

    async def recording(self, tick_id: str) -> bytes:
        """The recording of a tick, whole.

        Raises:
            NotFound: there is none.
        """

    def recordings(self, after: int) -> AsyncIterator[Record]:
        """The recordings of ticks with a number past a cursor, oldest first. Ends with the newest."""

    def follow(self, after: int | None) -> AsyncIterator[Record]:
        """Records past a cursor as they come; None is from now on, 0 from the oldest that is kept. Does not end."""


def logs_service(logs: Logs) -> Tree:
    """The service at `/logs`."""

    async def recent() -> list[dict[str, Any]]:
        return await logs.recent(RECENT)

    async def ticks() -> list[dict[str, Any]]:
        return await logs.ticks(RECENT)

    async def lines(session: Session) -> bytes:
        return b"".join(orjson.dumps(row) + b"\n" for row in await logs.recent(RECENT))

    def follow(session: Session, after: int | None) -> AsyncIterator[Record]:
        return logs.follow(after)

    def trajectory(session: Session) -> Pieces:
        return logs.lines()

    def recordings(session: Session, after: int | None) -> AsyncIterator[Record]:
        return logs.recordings(after or 0)

    async def names(session: Session) -> Sequence[str]:
        return [str(row["id"]) for row in await logs.ticks(RECENT)]

    async def find(name: str, session: Session) -> Folder | None:
        found = await logs.tick(name)
        return None if found is None else _tick_folder(logs, found)

    return Tree(
        Folder(
            "What the agent did.",
            {
                "trace": File(
                    f"every record as it comes, one JSON object each; read, the last {RECENT}, one a line",
                    read=lines, watch=follow, stream=True, gives=TraceRecord,
                ),
                "recent": File(
                    f"the last {RECENT} records, as a JSON list",
                    read=json_reader(recent), gives=RootModel[list[TraceRecord]],
                ),
                "trajectory": File(
                    "all records that are kept, oldest first, one JSON object a line; watched, from the cursor on",
                    pieces=trajectory, watch=follow, gives=TraceRecord,
                ),
                "ticks": Folder(
                    f"The last {RECENT} ticks; read, a JSON list, newest first.",
                    read=json_reader(ticks),
                    names=names,
                    find=find,
                    pattern="<tick>/",
                    pattern_about="one tick, by its id or number",
                    found_are_folders=True,
                    gives=RootModel[list[TickRecord]],
                    sample=lambda: _tick_folder(logs, {}),
                ),
                "recordings": File(
                    "recorded ticks from a number (the cursor) on, oldest first, until the newest",
                    watch=recordings, stream=True,
                ),
            },
        )
    )  # fmt: skip


def _tick_folder(logs: Logs, tick: Mapping[str, Any]) -> Folder:
    async def show() -> Any:
        return tick

    async def recording(session: Session) -> bytes:
        return await logs.recording(str(tick["id"]))

    return Folder(
        "One tick; read, what it began with, read, did and left.",
        {"recording": File("all of that, as `vendo replay --recording` takes it", read=recording)},
        read=json_reader(show),
        gives=TickRecord,
    )
