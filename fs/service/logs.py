"""/logs: what the agent did. The trace is a log with a cursor: any number of watchers, from any place in it."""

from collections.abc import AsyncIterator
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
        """The last ticks, newest first."""

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

    return Tree(
        Folder(
            "What the agent did.",
            {
                "trace": File("every record, one JSON object each", read=lines, watch=follow),
                "recent": File(f"the last {RECENT} records, as a JSON list", read=json_reader(recent)),
                "ticks": File(f"the last {RECENT} ticks, newest first, as a JSON list", read=json_reader(ticks)),
            },
        )
    )
