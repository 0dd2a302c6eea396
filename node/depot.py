"""The folder of the home that archives of agents pass through, as files: written whole or not at all."""

import asyncio
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from core.error import Unavailable
from fs.error import FileExists, NoSuchFile
from fs.protocol import Pieces
from fs.service.transfer import NAME
from node.transit import FOLDER, Space

_PIECE = 256 << 10
_LOOK_EACH = 16 << 20  # bytes between two looks at the disk


class Depot:
    """As `fs.service.transfer.Depot`.

    Args:
        home: the home directory; None if there is none.
        space: the disk.
    """

    def __init__(self, home: Path | None, space: Space) -> None:
        self._home, self._space = home, space

    def _folder(self) -> Path:
        if self._home is None:
            raise Unavailable("This node has no home directory.")
        folder = self._home / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    async def names(self) -> Sequence[str]:
        """What lies in it, sorted."""
        return await asyncio.to_thread(self._names)

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._folder().iterdir() if NAME.fullmatch(path.name) and _is_plain(path))

    async def is_there(self, name: str) -> bool:
        """Whether there is such a file."""
        return await asyncio.to_thread(lambda: _is_plain(self._folder() / name))

    async def read(self, name: str) -> Pieces:
        """Its content, in pieces of 256 KiB.

        Raises:
            NoSuchFile: it has gone meanwhile.
        """
        try:
            handle = await asyncio.to_thread(os.open, self._folder() / name, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise NoSuchFile from error
        try:
            while piece := await asyncio.to_thread(os.read, handle, _PIECE):
                yield piece
        finally:
            os.close(handle)

    async def store(self, name: str, body: Pieces) -> None:
        """Keep what comes under this name; nothing of it if it does not come to its end.

        Raises:
            FileExists: there is one already.
            Unavailable: it cannot be written, or there is no room.
        """
        path = self._folder() / name
        if await self.is_there(name):
            raise FileExists
        coming = path.with_name(secrets.token_hex(16) + ".part")
        try:
            await self._take(coming, body)
            await asyncio.to_thread(os.link, coming, path)  # unlike a rename it replaces nothing
        except FileExistsError as error:
            raise FileExists from error
        except OSError as error:
            raise Unavailable(f"The archive cannot be written: {error.strerror}.") from error
        finally:
            coming.unlink(missing_ok=True)

    async def _take(self, coming: Path, body: Pieces) -> None:
        handle = await asyncio.to_thread(os.open, coming, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        since = _LOOK_EACH
        try:
            async for piece in body:
                since += len(piece)
                if since >= _LOOK_EACH:
                    self._space.check()
                    since = 0
                await asyncio.to_thread(_write_all, handle, piece)
            await asyncio.to_thread(os.fsync, handle)
        finally:
            os.close(handle)

    async def remove(self, name: str) -> None:
        """Take one away."""
        try:
            await asyncio.to_thread((self._folder() / name).unlink)
        except FileNotFoundError as error:
            raise NoSuchFile from error


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _write_all(handle: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(handle, left) :]
