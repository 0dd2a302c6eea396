"""The file that a backup is: a tar of small plain parts in gzip. Written as a stream, read without trust.

Only the oldest tar format (USTAR) is written, and only regular files; so nothing else is read. `tarfile` would follow
extended headers, whose sizes a stranger chooses. Nothing is ever unpacked under a name that the archive gives:
whoever reads a part decides where it goes. Parts are as large as they say, and nobody is made to hold one in memory.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from node.backup.error import BackupDamaged, BackupMoved, BackupRoom, BackupUnsafe

BLOCK = 512
PIECE = 1 << 18
MAX_NAME = 250
MAX_PARTS = 500_000
MAX_SIZE = 1 << 33  # what eleven octal digits can say
LEVEL = 4  # of gzip: most of the gain at a third of the time
_SEGMENT = re.compile(r"[^/\\\x00-\x1f\x7f]+")


def is_plain(name: str) -> bool:
    """Whether a name is relative, in one form, and stays below where it begins."""
    parts = name.split("/")
    return 0 < len(name.encode(errors="replace")) <= MAX_NAME and all(
        _SEGMENT.fullmatch(part) and part not in (".", "..") for part in parts
    )


class Pack:
    """Writes an archive. Whoever made it closes what it writes to.

    Args:
        out: takes the bytes; it need not be seekable.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._gzip = gzip.GzipFile("", "wb", LEVEL, out, mtime=0)
        self.parts = 0

    def add(self, name: str, size: int, pieces: Iterable[bytes], *, runs: bool = False) -> None:
        """One part. `runs`: its owner may execute it.

        Raises:
            BackupMoved: the pieces are not as many bytes as was said.
            ValueError: the name has no place in the format (`fits`).
        """
        self._gzip.write(_header(name, size, runs))
        left = size
        for piece in pieces:
            left -= len(piece)
            if left < 0:
                break
            self._gzip.write(piece)
        if left:
            raise BackupMoved(f"{name} changed while it was read.")
        self._gzip.write(bytes(-size % BLOCK))
        self.parts += 1

    def close(self) -> None:
        """The end of the archive."""
        self._gzip.write(bytes(2 * BLOCK))
        self._gzip.close()


def fits(name: str, size: int) -> bool:
    """Whether a part of this name and size can be written."""
    try:
        _header(name, size, False)
    except ValueError:
        return False
    return True


def _header(name: str, size: int, runs: bool) -> bytes:
    if not is_plain(name) or not 0 <= size < MAX_SIZE:
        raise ValueError(f"{name!r} is no name for a part")
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o700 if runs else 0o600
    return info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")


class Part:
    """One part of an archive that is being read. Its bytes come once, in pieces, and are counted."""

    def __init__(self, name: str, size: int, runs: bool, source: "Source") -> None:
        self.name, self.size, self.runs = name, size, runs
        self._source, self._left = source, size

    def pieces(self) -> Iterator[bytes]:
        """What is left of it.

        Raises:
            BackupDamaged: the archive ends before it does.
        """
        while self._left:
            piece = self._source.exactly(min(PIECE, self._left))
            self._left -= len(piece)
            yield piece

    def read(self, most: int) -> bytes:
        """All of it, if that is not more than `most`.

        Raises:
            BackupUnsafe: it is larger.
        """
        if self.size > most:
            raise BackupUnsafe(f"{self.name} has {self.size} bytes, more than {most}.")
        return b"".join(self.pieces())

    def skip(self) -> None:
        """Go to its end, and over what fills its last block."""
        for _ in self.pieces():
            pass
        if any(self._source.exactly(-self.size % BLOCK)):
            raise BackupUnsafe(f"There is something behind {self.name} that belongs to nothing.")


class Source:
    """Reads an archive from its beginning.

    Args:
        file: the archive.
        most: bytes in all, unpacked; more is not read.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._gzip, self._left = gzip.GzipFile("", "rb", fileobj=file), most

    def parts(self) -> Iterator[Part]:
        """Every part in its order. One that was not read to its end is passed over.

        Raises:
            BackupDamaged: it is no archive, or is cut off, or its checksums do not hold.
            BackupUnsafe: it holds something else than regular files with plain names.
            BackupRoom: it holds too much.
        """
        seen: set[str] = set()
        while (header := self.exactly(BLOCK)) != bytes(BLOCK):
            part = self._part(header)
            if part.name in seen:
                raise BackupUnsafe(f"{part.name} is in it twice.")
            if len(seen) == MAX_PARTS:
                raise BackupUnsafe(f"It has more than {MAX_PARTS} parts.")
            seen.add(part.name)
            yield part
            part.skip()
        if any(self.exactly(BLOCK)):
            raise BackupDamaged("The archive does not end as it should.")
        self._end()

    def _part(self, header: bytes) -> Part:
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError) as error:
            raise BackupDamaged("The archive is not a tar, or is damaged.") from error
        if info.type != tarfile.REGTYPE or info.linkname or header[257:263] != b"ustar\0":
            raise BackupUnsafe(f"{info.name[:100]!r} is not a regular file in the plain format.")
        if not is_plain(info.name):
            raise BackupUnsafe(f"{info.name[:100]!r} is no name for a part of a backup.")
        if not 0 <= info.size < MAX_SIZE:
            raise BackupUnsafe(f"{info.name} says that it has {info.size} bytes.")
        return Part(info.name, info.size, bool(info.mode & 0o100), self)

    def exactly(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            BackupDamaged: there are fewer.
            BackupRoom: there are more in all than may be.
        """
        self._left -= count
        if self._left < 0:
            raise BackupRoom("Unpacked, the archive is larger than the room on this disk.")
        read = b""
        try:
            while len(read) < count and (more := self._gzip.read(count - len(read))):
                read += more
        except (OSError, EOFError, zlib.error) as error:
            raise BackupDamaged(f"The archive cannot be read: {error}.") from error
        if len(read) != count:
            raise BackupDamaged("The archive is cut off.")
        return read

    def _end(self) -> None:
        """Nothing may come after the end; reading it is what checks the whole archive's checksum."""
        try:
            if self._gzip.read(1):
                raise BackupUnsafe("There is something behind the end of the archive.")
        except (OSError, EOFError, zlib.error) as error:
            raise BackupDamaged(f"The archive cannot be read: {error}.") from error
