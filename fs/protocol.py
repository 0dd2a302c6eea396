"""The file protocol: what every service of a namespace answers (DESIGN §1, idea 1).

Paths given to a service are tuples of names below its mount. A `write` replaces, a `call` sends one complete record and
reads the answer, and a `watch` is a log with a cursor: two watchers see the same, a late one can ask for the past. What
opens, seeks and flushes is one thing for all services, `fs.handle`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fs.session import Session

Path: TypeAlias = tuple[str, ...]
Pieces: TypeAlias = AsyncIterator[bytes]
Content: TypeAlias = bytes | Pieces
"""A file's content; in pieces where it is too long to be held at once."""


@dataclass(frozen=True, slots=True)
class Stat:
    """What a file is, and what can be done with it.

    Attributes:
        name: the last part of its path.
        is_dir: whether it can be listed.
        about: what it is, in a line.
        size: bytes; 0 where it is made when it is read.
        stream: a log without an end: it is watched; read, it gives what is there now.
        removable: it can be removed.
        max_bytes: the most that it takes when it is written or called; None if that is not bounded.
    """

    name: str
    is_dir: bool
    about: str = ""
    size: int = 0
    readable: bool = False
    writable: bool = False
    callable: bool = False
    watchable: bool = False
    stream: bool = False
    removable: bool = False
    max_bytes: int | None = 0

    def to_dict(self) -> dict[str, str | int | bool]:
        """As it is shown in listings."""
        return {
            "name": self.name,
            "is_dir": self.is_dir,
            "size": self.size,
            "readable": self.readable,
            "writable": self.writable,
            "callable": self.callable,
            "watchable": self.watchable,
            "stream": self.stream,
            "removable": self.removable,
            "about": self.about,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a stream; `id` is the cursor to go on from, `type` names it (`end` is the last one)."""

    id: int
    data: bytes
    type: str


async def let_go(records: AsyncIterator[object]) -> None:
    """End an iterator that is not followed to its end, now and not when its memory is collected."""
    if (close := getattr(records, "aclose", None)) is not None:
        await close()


class FileService(Protocol):
    """Files under one mount.

    Every method raises `NoSuchFile` for a name that is not there, and `Unsupported` where a file cannot do it.
    """

    async def stat(self, path: Path, session: Session) -> Stat:
        """What is at this path."""

    def list(self, path: Path, session: Session) -> AsyncIterator[Stat]:
        """What is in this directory, one after the other: it may be long.

        Raises:
            NotDirectory: it is a file.
        """

    async def read(self, path: Path, session: Session, *, plain: bool = False) -> Content:
        """The whole content as it is now.

        Raises:
            IsDirectory: it is a directory.
            IsStream: it is a stream, and a plain file is wanted.
        """

    async def write(self, path: Path, body: Content, session: Session) -> None:
        """Replace the content. A body that is refused, or whose pieces end in an error, changes nothing.

        Raises:
            InvalidInput: the body is not what this file takes.
        """

    async def call(self, path: Path, body: bytes, session: Session) -> bytes:
        """Hand over one record and read the answer.

        Raises:
            InvalidInput: the body is not what this file takes.
            Refused: the gate said no.
        """

    def watch(self, path: Path, session: Session, after: int | None) -> AsyncIterator[Record]:
        """Records from the cursor on (None: from now on; 0: from the beginning). May end."""

    async def remove(self, path: Path, session: Session) -> None:
        """Take a file away; a directory only if nothing is in it."""

    async def rename(self, path: Path, to: Path, session: Session) -> None:
        """Give a file another path of this service, where nothing is yet.

        Raises:
            FileExists: something is there.
        """

    async def mkdir(self, path: Path, session: Session) -> None:
        """Make a directory.

        Raises:
            FileExists: something is there.
        """
