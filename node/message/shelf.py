"""Files of agents on disk: what contacts sent, and what waits to be uploaded. Bounded; the oldest go first."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path

from core.error import NotFound, Unavailable
from core.identifier import is_hex64
from node.message.error import FileRefused

_INCOMING, _OUTGOING = "in", "out"
_PIECE = 256 << 10


class Shelf:
    """A folder with one folder for each agent.

    Args:
        folder: where; it is made when the first file comes.
        quota: bytes of all incoming files together.
        check: raises if nothing is to be written now: the disk is nearly full.
    """

    def __init__(self, folder: Path, quota: int, check: Callable[[], None] = lambda: None) -> None:
        self._folder, self._quota, self.check = folder, quota, check
        self._lock = asyncio.Lock()

    async def put(self, agent: str, ox: str, data: bytes) -> None:
        """Keep what came for an agent, and let the oldest go if there is too much.

        Raises:
            FileRefused: it is larger than all that may be kept.
            Unavailable: the disk does not take it.
        """
        self.check()
        if len(data) > self._quota:
            raise FileRefused(f"At most {self._quota} bytes of files are kept.")
        async with self._lock:
            await self._kept(self._folder / _INCOMING / agent / ox, data)
            await asyncio.to_thread(self._prune)

    async def get(self, agent: str, ox: str) -> bytes | None:
        """A file that came for an agent, or None if it is not there (any more)."""
        return await _read(self._folder / _INCOMING / agent / ox) if is_hex64(ox) else None

    async def is_there(self, agent: str, ox: str) -> bool:
        """Whether there is such a file."""
        return is_hex64(ox) and await asyncio.to_thread((self._folder / _INCOMING / agent / ox).is_file)

    async def pieces(self, agent: str, ox: str) -> AsyncIterator[bytes]:
        """A file that came for an agent, in pieces of 256 KiB.

        Raises:
            NotFound: it is not there (any more).
        """
        try:
            handle = await asyncio.to_thread((self._folder / _INCOMING / agent / ox).open, "rb")
        except OSError as error:
            raise NotFound from error
        try:
            while piece := await asyncio.to_thread(handle.read, _PIECE):
                yield piece
        finally:
            handle.close()

    async def names(self, agent: str) -> list[str]:
        """The hashes of an agent's files, newest first."""
        return await asyncio.to_thread(_names, self._folder / _INCOMING / agent)

    async def hold(self, x: str, stored: bytes) -> None:
        """Keep what is to be uploaded.

        Raises:
            Unavailable: the disk does not take it.
        """
        self.check()
        await self._kept(self._folder / _OUTGOING / x, stored)

    async def held(self, x: str) -> bytes | None:
        """What is to be uploaded, or None if it is gone."""
        return await _read(self._folder / _OUTGOING / x)

    async def release(self, x: str) -> None:
        """It was uploaded, or never will be."""
        await asyncio.to_thread((self._folder / _OUTGOING / x).unlink, missing_ok=True)

    async def sweep(self, wanted: Collection[str], before: float) -> None:
        """Let go what lay there `before` (Unix seconds) to be uploaded and is not among these: it never began."""
        await asyncio.to_thread(_sweep, self._folder / _OUTGOING, wanted, before)

    async def _kept(self, path: Path, data: bytes) -> None:
        try:
            await asyncio.to_thread(_write, path, data)
        except OSError as error:
            raise Unavailable(f"The file cannot be kept: {error.strerror}.") from error

    def _prune(self) -> None:
        found = [(path.stat(), path) for path in (self._folder / _INCOMING).glob("*/*") if path.is_file()]
        found.sort(key=lambda one: one[0].st_mtime_ns, reverse=True)
        total = 0
        for facts, path in found:
            total += facts.st_size
            if total > self._quota:
                path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, for its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _sweep(folder: Path, wanted: Collection[str], before: float) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in wanted and path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


async def _read(path: Path) -> bytes | None:
    try:
        return await asyncio.to_thread(path.read_bytes)
    except OSError:
        return None


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if is_hex64(path.name)]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)]
