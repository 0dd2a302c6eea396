"""Open files of the mount. What is written to a value takes effect once; what is written to a call, in its write(2).

A value is replaced when it is synced, or closed by a process that does not have it open any more, or already in the
write that completes a JSON object or list: nothing that follows could belong to it, and a shell sees the refusal of a
write but not that of a close. A process that was killed in between has changed nothing, as far as the kernel tells.
"""

import errno
import json
import threading
from hashlib import sha256
from tempfile import SpooledTemporaryFile

from cli.mount.log import Log
from cli.mount.refusal import Refusal, failed
from cli.mount.wire import Wire
from cli.mount.writer import Writer, has_open

IN_MEMORY = 8 << 20  # longer contents go to a file that has no name
MOST = 1 << 30
_MOST_OBJECT = 1 << 20
_BLANK = b" \t\r\n"


class Handle:
    """What is open. Methods are called by any thread, for one handle one at a time; all raise OSError."""

    def extent(self) -> int | None:
        """How long the content is, for who wants to go to its end; None: it is not known, or has none."""
        return None

    def read(self, size: int, offset: int) -> bytes:
        """Bytes from a place on; fewer at the end."""
        raise failed(errno.EBADF)

    def write(self, data: bytes, offset: int, pid: int) -> int:
        """Take what a process wrote; how many bytes that were."""
        raise failed(errno.EBADF)

    def truncate(self, length: int) -> None:
        """Make the content as long as this."""
        raise failed(errno.EINVAL)

    def flush(self, pid: int = 0, place: str = "") -> None:
        """Have it take effect.

        Args:
            pid: the process that has closed a descriptor; 0: it takes effect whoever has it open.
            place: the file's path, as processes see it.
        """

    def close(self) -> None:
        """Give it up. Nothing takes effect any more."""


class Fixed(Handle):
    """A content that is known."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def extent(self) -> int:
        """See `Handle`."""
        return len(self._content)

    def read(self, size: int, offset: int) -> bytes:
        """See `Handle`."""
        return self._content[offset : offset + size]


class Reading(Handle):
    """A content of the node, fetched at the first read; from then on it stays as it was.

    What can be watched and not read is the records that are there.
    """

    def __init__(self, wire: Wire, path: str, *, is_watched: bool = False) -> None:
        self._wire, self._path, self._is_watched = wire, path, is_watched
        self._spool = SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed by `close`
        self._guard, self._is_there = threading.Lock(), False
        self.size = 0

    def extent(self) -> int:
        """See `Handle`."""
        with self._guard:
            self.load()
            return self.size

    def load(self) -> None:
        """Fetch it, if that was not done."""
        if self._is_there:
            return
        self._spool.seek(0)
        self._spool.truncate()
        try:
            self.size = self._wire.copy(self._path, self._spool)
        except Refusal as refusal:
            if not self._is_watched or refusal.problem.status != 405:
                raise
            log = Log(self._wire, self._path)
            log.load()
            self.size = self._spool.write(log.read(log.size, 0))
        self._is_there = True

    def read(self, size: int, offset: int) -> bytes:
        """See `Handle`."""
        with self._guard:
            self.load()
            self._spool.seek(offset)
            return self._spool.read(size)

    def close(self) -> None:
        """See `Handle`."""
        with self._guard:
            self._spool.close()


class Following(Handle):
    """A stream, shared with all who have it open."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def read(self, size: int, offset: int) -> bytes:
        """See `Handle`."""
        return self.log.read(size, offset)


class Value(Reading):
    """A content that is replaced.

    Args:
        wire: the way to the node.
        path: the file on the node.
        keeps: what is there now is kept, and changed; else it begins empty.
        is_appended: each write goes to the end.
        is_readable: what is there can be read.
    """

    def __init__(self, wire: Wire, path: str, *, keeps: bool, is_appended: bool, is_readable: bool) -> None:
        super().__init__(wire, path)
        self._is_there = self._began_empty = not keeps
        self._is_appended, self._is_readable = is_appended, is_readable
        self._is_dirty = False
        self._judged = b""
        self._writer = Writer()

    def load(self) -> None:
        """See `Reading`. What cannot be read can be replaced as a whole, but not changed."""
        if self._is_there:
            return
        if self._is_readable:
            super().load()
        elif self._is_appended:
            raise failed(errno.EACCES)
        self._is_there = True

    def write(self, data: bytes, offset: int, pid: int) -> int:
        """See `Handle`. What is refused at once was not written."""
        with self._guard:
            self.load()
            self._writer.note(pid)
            at = self.size if self._is_appended else offset
            if at + len(data) > MOST:
                raise failed(errno.EFBIG)
            before = min(at, self.size)
            self._extend(at)
            self._spool.seek(at)
            self._spool.write(data)
            self.size = max(self.size, at + len(data))
            self._is_dirty = True
            if self._began_empty and self.size == at + len(data) and self._is_whole():
                self._put(before)
            return len(data)

    def truncate(self, length: int) -> None:
        """See `Handle`."""
        if length > MOST:
            raise failed(errno.EFBIG)
        with self._guard:
            if length > 0:
                self.load()
            self._is_there = True
            self._began_empty = self._began_empty or length == 0
            self._extend(length)
            self._cut(length)
            self._is_dirty = True

    @property
    def is_pending(self) -> bool:
        """Whether it is about to take effect: it was written, and who wrote it has gone."""
        return self._is_dirty and self._writer.is_gone

    def flush(self, pid: int = 0, place: str = "") -> None:
        """See `Handle`. Nothing happens if nothing was written, who wrote was killed, or who closed goes on with it."""
        with self._guard:
            if self._is_dirty and self._writer.was_killed():
                self._is_dirty = False
            if self._is_dirty and not (pid and has_open(pid, place)):
                self._put(self.size)

    def close(self) -> None:
        """See `Handle`."""
        self._writer.close()
        super().close()

    def _extend(self, length: int) -> None:
        if length > self.size:
            self._spool.seek(self.size)
            self._spool.write(bytes(length - self.size))
            self.size = length

    def _cut(self, length: int) -> None:
        self._spool.seek(length)
        self._spool.truncate()
        self.size = length

    def _content(self) -> bytes:
        self._spool.seek(0)
        return self._spool.read(self.size)

    def _is_whole(self) -> bool:
        if not 0 < self.size <= _MOST_OBJECT:
            return False
        content = self._content().strip(_BLANK)
        if content[:1] + content[-1:] not in (b"{}", b"[]"):
            return False
        try:
            json.loads(content)
        except (ValueError, RecursionError):
            return False
        return True

    def _put(self, before: int) -> None:
        """Replace the file, once for each content; if that is refused, go back to so many bytes."""
        self._is_dirty = False
        content = self._content().strip(_BLANK) if self.size <= _MOST_OBJECT else b""
        mark = sha256(content).digest() if content else b""
        if mark and mark == self._judged:  # only white space came after it
            return
        try:
            self._wire.put(self._path, self._spool, self.size)
        except OSError:
            self._cut(before)
            raise
        self._judged = mark


class Call(Handle):
    """A file that is called: each write(2) is one record, judged at once, and then its answer can be read here.

    Args:
        wire: the way to the node.
        path: the file on the node.
        most: longer records are refused, as the kernel may have cut them.
        content: what is read before anything was written, if there is such.
    """

    def __init__(self, wire: Wire, path: str, most: int, content: Reading | None) -> None:
        self._wire, self._path, self._most, self._first = wire, path, most, content
        self._guard = threading.Lock()
        self._answer: bytes | None = None
        self._at = 0
        self._is_open_line = False

    def write(self, data: bytes, offset: int, pid: int) -> int:
        """See `Handle`. One newline at the end belongs to the shell, also when it comes in a write of its own."""
        with self._guard:
            if len(data) > self._most:
                raise failed(errno.EFBIG)
            if data == b"\n" and self._is_open_line:
                self._is_open_line = False
                return len(data)
            self._is_open_line = not data.endswith(b"\n")
            self._answer, self._at = b"", 0
            self._answer = self._wire.call(self._path, data.removesuffix(b"\n"))
            return len(data)

    def read(self, size: int, offset: int) -> bytes:
        """See `Handle`: the answer, from where the last read ended; the place where the record was written is none."""
        with self._guard:
            if self._answer is None:
                return self._first.read(size, offset) if self._first is not None else b""
            piece = self._answer[self._at : self._at + size]
            self._at += len(piece)
            return piece

    def truncate(self, length: int) -> None:
        """See `Handle`. A shell empties what it writes to; there is nothing in it."""
        if length > 0:
            raise failed(errno.EINVAL)

    def close(self) -> None:
        """See `Handle`."""
        if self._first is not None:
            self._first.close()
