"""Writing an archive part by part: bytes, lines of tables, files of folders. What was written is listed."""

import base64
import os
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from node.backup.archive import MAX_NAME, PIECE, Pack, fits
from node.backup.manifest import MANIFEST, SIGNATURE, PartFacts

CHUNK = 4 << 20
TABLES = "db"


class Parts:
    """What is written so far.

    Args:
        out: takes the bytes.
        left_out: what is not in it, in words; more is added to it.
    """

    def __init__(self, out: BinaryIO, left_out: Iterable[str]) -> None:
        self._pack = Pack(out)
        self.listed: list[PartFacts] = []
        self.left_out: list[str] = list(left_out)

    def add(self, name: str, body: bytes) -> None:
        """A part from memory."""
        self._pack.add(name, len(body), (body,))
        self.listed.append(PartFacts(name=name, size=len(body), sha256=sha256(body).hexdigest()))

    def add_file(self, name: str, handle: int) -> None:
        """A file that is open.

        Raises:
            BackupMoved: it changed meanwhile.
        """
        facts, digest = os.fstat(handle), sha256()

        def pieces() -> Iterator[bytes]:
            left = facts.st_size
            while left and (piece := os.read(handle, min(PIECE, left))):
                left -= len(piece)
                digest.update(piece)
                yield piece

        self._pack.add(name, facts.st_size, pieces(), runs=bool(facts.st_mode & 0o100))
        self.listed.append(PartFacts(name=name, size=facts.st_size, sha256=digest.hexdigest()))

    def add_folder(self, folder: Path, name: str, unfinished: str | None = None) -> None:
        """Every regular file below a folder. What is none is noted as left out; one that is gone by now is not.

        Args:
            folder: where.
            name: what the names of its parts begin with.
            unfinished: how the names of files end that nobody will miss.
        """
        for path, inner in _walk(folder, name):
            if unfinished is None or not inner.endswith(unfinished):
                self._file(path, inner)

    def _file(self, path: Path, name: str) -> None:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return
        except OSError as error:
            self.left_out.append(f"{name}: {error.strerror}"[:500])
            return
        try:
            facts = os.fstat(handle)
            if stat.S_ISREG(facts.st_mode) and fits(name, facts.st_size):
                self.add_file(name, handle)
            else:
                self.left_out.append(f"{name}: no regular file, or its name is too long"[:500])
        finally:
            os.close(handle)

    def close(self, manifest: bytes, seal: bytes) -> None:
        """The end of the archive."""
        for name, body in ((MANIFEST, manifest), (SIGNATURE, seal)):
            self._pack.add(name, len(body), (body,))
        self._pack.close()


def _walk(folder: Path, name: str) -> Iterable[tuple[Path, str]]:
    if len(name) > MAX_NAME:
        return
    try:
        found = sorted(os.scandir(folder), key=lambda one: one.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for one in found:
        path, inner = folder / one.name, f"{name}/{one.name}"
        if one.is_dir(follow_symlinks=False):
            if one.name != "__pycache__":
                yield from _walk(path, inner)
        else:
            yield path, inner


def row_line(row: Sequence[Any]) -> bytes:
    """A row as a line of JSON; bytes as base64."""
    plain = [base64.b64encode(value).decode() if isinstance(value, bytes) else value for value in row]
    return orjson.dumps(plain) + b"\n"


def read_row(line: bytes, kinds: Sequence[str]) -> tuple[Any, ...]:
    """The same back; `kinds` as in a manifest.

    Raises:
        ValueError: it is no such row.
    """
    values = orjson.loads(line)
    if not isinstance(values, list) or len(values) != len(kinds):
        raise ValueError("a line is no row")
    return tuple(
        base64.b64decode(value, validate=True) if kind == "bytes" and isinstance(value, str) else value
        for kind, value in zip(kinds, values, strict=True)
    )


async def chunks(lines: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Lines together, as parts of a few megabytes, counted from one."""
    held, size, number = [], 0, 0
    async for line in lines:
        held.append(line)
        size += len(line)
        if size >= CHUNK:
            number += 1
            yield number, b"".join(held)
            held, size = [], 0
    if held:
        yield number + 1, b"".join(held)
