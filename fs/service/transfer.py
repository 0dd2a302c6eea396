"""/transfer, for the operator: archives of agents on their way in or out, as files of any length."""

import re
from collections.abc import Sequence
from typing import Protocol

from fs.protocol import Pieces
from fs.session import Session
from fs.tree import File, Folder, Tree

NAME = re.compile(r"[0-9a-f]{32}")


class Depot(Protocol):
    """The folder that archives pass through: `node.depot.Folder`."""

    async def names(self) -> Sequence[str]:
        """What lies in it, sorted."""

    async def is_there(self, name: str) -> bool:
        """Whether there is such a file."""

    def read(self, name: str) -> Pieces:
        """Its content.

        Raises:
            NoSuchFile: it has gone meanwhile.
        """

    async def store(self, name: str, body: Pieces) -> None:
        """Keep what comes under this name; nothing of it if it does not come to its end.

        Raises:
            FileExists: there is one already.
            Unavailable: it cannot be written, or there is no room.
        """

    async def remove(self, name: str) -> None:
        """Take one away."""


def transfer_service(depot: Depot) -> Tree:
    """The service at `/transfer`."""

    def file(name: str, *, absent: bool) -> File:
        def read(session: Session) -> Pieces:
            return depot.read(name)

        async def store(body: Pieces, session: Session) -> None:
            await depot.store(name, body)

        async def remove(session: Session) -> None:
            await depot.remove(name)

        about = "an archive, as `/agents/<name>/export` made it or `/agents/import` takes it"
        if absent:
            return File(about, store=store, absent=True)
        return File(about, pieces=read, store=store, remove=remove)

    async def names(session: Session) -> Sequence[str]:
        return await depot.names()

    async def find(name: str, session: Session) -> File | None:
        return file(name, absent=not await depot.is_there(name)) if NAME.fullmatch(name) else None

    about = (
        "Archives of agents on their way in or out. GET one that `/agents/<name>/export` has made; PUT one under a new "
        "name of 32 hex digits, and name it to `/agents/import`. What lies here for an hour is deleted."
    )
    one = "an archive (read, write once, remove)"
    return Tree(Folder(about, {}, names, find, "<transfer>", one, sample=lambda: file("0" * 32, absent=False)))
