"""A file service that keeps what it is given: files and directories in memory, by the rules of `FileService`."""

from collections.abc import AsyncIterator

from fs.error import DirectoryInUse, FileExists, IsDirectory, NoSuchFile, NotDirectory, Unsupported
from fs.protocol import Content, Path, Record, Stat
from fs.session import Session
from fs.tree import whole

MOST = 1_000


class Keep:
    """Bytes by path; a directory is a path with None."""

    def __init__(self) -> None:
        self.files: dict[Path, bytes | None] = {(): None}

    def _at(self, path: Path) -> bytes | None:
        if path not in self.files:
            raise NoSuchFile
        return self.files[path]

    async def stat(self, path: Path, session: Session) -> Stat:
        body = self._at(path)
        name = path[-1] if path else ""
        if body is None:
            return Stat(name, True, removable=bool(path))
        return Stat(
            name, False, size=len(body), readable=True, writable=True, callable=True, removable=True, max_bytes=MOST
        )

    async def list(self, path: Path, session: Session) -> AsyncIterator[Stat]:
        if self._at(path) is not None:
            raise NotDirectory
        for one in list(self.files):
            if len(one) == len(path) + 1 and one[:-1] == path:
                yield await self.stat(one, session)

    async def read(self, path: Path, session: Session, *, plain: bool = False) -> Content:
        body = self._at(path)
        if body is None:
            raise IsDirectory
        return body

    async def write(self, path: Path, body: Content, session: Session) -> None:
        if self.files.get(path, b"") is None:
            raise IsDirectory
        self._parent(path)
        self.files[path] = await whole(body, MOST)

    def _parent(self, path: Path) -> None:
        if self.files.get(path[:-1], b"") is not None:
            raise NoSuchFile

    async def call(self, path: Path, body: bytes, session: Session) -> bytes:
        if self._at(path) is None:
            raise Unsupported
        return (self.files[path] or b"") + body

    async def watch(self, path: Path, session: Session, after: int | None) -> AsyncIterator[Record]:
        self._at(path)
        for number in range((after or 0) + 1, 4):
            yield Record(number, str(number).encode(), "count")

    async def remove(self, path: Path, session: Session) -> None:
        self._at(path)
        if not path:
            raise Unsupported
        if any(one[:-1] == path for one in self.files if one):
            raise DirectoryInUse
        del self.files[path]

    async def rename(self, path: Path, to: Path, session: Session) -> None:
        self._at(path)
        if not path or to[: len(path)] == path:
            raise Unsupported
        if to in self.files:
            raise FileExists
        self._parent(to)
        for one in [one for one in self.files if one[: len(path)] == path]:
            self.files[to + one[len(path) :]] = self.files.pop(one)

    async def mkdir(self, path: Path, session: Session) -> None:
        if path in self.files:
            raise FileExists
        self._parent(path)
        self.files[path] = None
