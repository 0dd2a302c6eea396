"""/logs: what the agent did. The trace is a log with a cursor: any number of watchers, from any place in it.

`ticks` lists them; in the directory of each recorded one stand what it read and did, and what `vendo replay` takes.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import orjson

from fs.protocol import Record
from fs.session import Session
from fs.tree import File, Folder, Tree, json_reader

RECENT = 500


class Logs(Protocol):
    """What the node's logs of one agent answer."""

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last records, oldest first: id, at_ms, type, data."""

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
        """Records past a cursor as they come; None is from now on. Does not end."""


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
                "trace": File("every record, one JSON object each", read=lines, watch=follow),
                "recent": File(f"the last {RECENT} records, as a JSON list", read=json_reader(recent)),
                "ticks": Folder(
                    f"The last {RECENT} ticks; read, a JSON list, newest first.",
                    read=json_reader(ticks),
                    names=names,
                    find=find,
                    pattern="<tick>/",
                    pattern_about="one tick, by its id or number",
                    found_are_folders=True,
                ),
                "recordings": File(
                    "recorded ticks from a number (the cursor) on, oldest first, until the newest", watch=recordings
                ),
            },
        )
    )


def _tick_folder(logs: Logs, tick: Mapping[str, Any]) -> Folder:
    async def show() -> Any:
        return tick

    async def recording(session: Session) -> bytes:
        return await logs.recording(str(tick["id"]))

    return Folder(
        "One tick; read, what it began with, read, did and left.",
        {"recording": File("all of that, as `vendo replay --recording` takes it", read=recording)},
        read=json_reader(show),
    )
