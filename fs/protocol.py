"""The file protocol: what every service of a namespace answers (DESIGN §1, idea 1).

Paths given to a service are tuples of names below its mount. A `write` replaces, a `call` sends one complete record and
reads the answer, and a `watch` is a log with a cursor: two watchers see the same, a late one can ask for the past.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from fs.session import Session

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stat:
    """What a file is, and what can be done with it. `size` is bytes, 0 where it is made when read."""

    name: str
    is_dir: bool
    about: str = ""
    size: int = 0
    readable: bool = False
    writable: bool = False
    callable: bool = False
    watchable: bool = False

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
            "about": self.about,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a stream; `id` is the cursor to go on from, `type` names it (`end` is the last one)."""

    id: int
    data: bytes
    type: str


class FileService(Protocol):
    """Files under one mount.

    Every method raises `NoSuchFile` for a name that is not there, and `Unsupported` where a file cannot do it.
    """

    async def stat(self, path: Path, session: Session) -> Stat:
        """What is at this path."""

    async def list(self, path: Path, session: Session) -> list[Stat]:
        """What is in this directory.

        Raises:
            NotDirectory: it is a file.
        """

    async def read(self, path: Path, session: Session) -> bytes:
        """The whole content.

        Raises:
            IsDirectory: it is a directory.
        """

    async def write(self, path: Path, body: bytes, session: Session) -> None:
        """Replace the content; a body that is refused changes nothing.

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
