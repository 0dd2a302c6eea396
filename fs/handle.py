"""Open files: read, write, seek, flush and close over any service, in one place.

A handle opened for reading shows the content as it was when it was opened. What is written takes effect once, when the
handle is flushed or closed: a handle that is dropped, aborted, or left by an exception has changed nothing. A file that
is called takes one complete record: the first read or flush hands it over, and what is read then is the answer. A
stream is read record by record, and a read waits for the next one.
"""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Flag, auto
from types import TracebackType
from typing import Protocol, Self

from fs.error import BadPath, BodyTooLarge, HandleClosed, IsDirectory, NoSuchFile, Unsupported
from fs.namespace import MAX_WHOLE, Namespace, Verb
from fs.protocol import Record, Stat, let_go
from fs.session import Session


class Open(Flag):
    """What a handle is for."""

    READ = auto()
    WRITE = auto()
    APPEND = auto()  # every write goes to the end
    TRUNCATE = auto()  # what was there before is not kept; nothing happens to it before something is written
    CREATE = auto()  # it need not be there yet
    CALL = auto()  # hand over one record, then read the answer


class Ground(Protocol):
    """The files of one caller, on which handles stand: a namespace (`Seen`), or those of a tick (`ctx.fs`)."""

    async def stat(self, path: str) -> Stat:
        """What a file is. Raises as `Namespace.stat`; so do the others."""

    async def check(self, path: str, verb: Verb) -> None:
        """Whether this may be done there."""

    async def read(self, path: str) -> bytes:
        """A whole content."""

    async def write(self, path: str, body: bytes) -> None:
        """Replace a content."""

    async def call(self, path: str, body: bytes) -> bytes:
        """Hand over a record; its answer."""

    def watch(self, path: str) -> AsyncIterator[Record]:
        """Records of a stream, from the oldest that is kept."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A namespace as one caller sees it."""

    namespace: Namespace
    session: Session

    async def stat(self, path: str) -> Stat:
        """As `Namespace.stat`."""
        return await self.namespace.stat(path, self.session)

    async def check(self, path: str, verb: Verb) -> None:
        """As `Namespace.check`."""
        await self.namespace.check(path, verb, self.session)

    async def read(self, path: str) -> bytes:
        """As `Namespace.read`."""
        return await self.namespace.read(path, self.session)

    async def write(self, path: str, body: bytes) -> None:
        """As `Namespace.write`."""
        await self.namespace.write(path, body, self.session)

    async def call(self, path: str, body: bytes) -> bytes:
        """As `Namespace.call`."""
        return await self.namespace.call(path, body, self.session)

    def watch(self, path: str) -> AsyncIterator[Record]:
        """As `Namespace.watch`."""
        return self.namespace.watch(path, self.session, 0)


class Handle:
    """One open file. Made by `open_file`; an async context manager, which aborts if it is left by an exception.

    Attributes:
        path: what was opened.
    """

    def __init__(self, ground: Ground, path: str, flags: Open, stat: Stat) -> None:
        self.path = path
        self._ground, self._flags, self._stat = ground, flags, stat
        self._most = MAX_WHOLE if stat.max_bytes is None else stat.max_bytes
        self._body = bytearray()
        self._at = 0
        self._is_dirty = self._is_closed = False
        self._answer: bytes | None = None
        self._records: AsyncIterator[Record] | None = None
        self._left = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.close() if error is None else self.abort())

    async def load(self) -> None:
        """Take the content as it is now. Called by `open_file`."""
        keeps = Open.WRITE not in self._flags or (Open.TRUNCATE not in self._flags and self._stat.readable)
        if keeps and not (self._is_call or self._is_stream):
            self._body = bytearray(await self._ground.read(self.path))

    @property
    def _is_call(self) -> bool:
        return Open.CALL in self._flags

    @property
    def _is_stream(self) -> bool:
        return self._stat.stream and Open.WRITE not in self._flags and not self._is_call

    def _check(self, flag: Open) -> None:
        if self._is_closed:
            raise HandleClosed("This handle is closed.")
        if not self._flags & flag:
            raise HandleClosed("The file was not opened for this.")

    def tell(self) -> int:
        """Where the next read or write is, in bytes from the beginning."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go elsewhere: from the beginning, from here (1), or from the end (2). Returns where that is.

        Raises:
            Unsupported: a stream, or a call without its answer yet.
            BadPath: that is before the beginning.
            HandleClosed: it is closed.
        """
        self._check(Open.READ | Open.WRITE | Open.CALL)
        if self._is_stream or (self._is_call and self._answer is None):
            raise Unsupported("A stream, and a call that has no answer yet, have no places to go to.")
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._content)}.get(whence)
        if start is None or start + offset < 0:
            raise BadPath("There is nothing before the beginning of a file.")
        self._at = start + offset
        return self._at

    @property
    def _content(self) -> bytes | bytearray:
        return self._body if self._answer is None else self._answer

    async def read(self, size: int = -1) -> bytes:
        """At most so many bytes from here on, all there are by default; nothing at the end.

        A call hands its record over first. A stream waits for a record and gives it, with a newline; nothing when it
        has ended.

        Raises:
            HandleClosed: it is closed, or only open for writing.
            VendoError: what the call was refused with.
        """
        self._check(Open.READ | Open.CALL)
        if self._is_stream:
            return await self._next(size)
        if self._is_call:
            await self._hand_over()
        end = len(self._content) if size < 0 else self._at + size
        piece = bytes(self._content[self._at : end])
        self._at += len(piece)
        return piece

    async def _next(self, size: int) -> bytes:
        if not self._left:
            if self._records is None:
                self._records = self._ground.watch(self.path)
            record = await anext(self._records, None)
            if record is None:
                return b""
            self._left = record.data + b"\n"
        size = len(self._left) if size < 0 else size
        piece, self._left = self._left[:size], self._left[size:]
        return piece

    async def write(self, piece: bytes) -> int:
        """Put bytes here. Nothing of it takes effect before `flush` or `close`. Returns how many.

        Raises:
            HandleClosed: it is closed, only open for reading, or its record was handed over already.
            BodyTooLarge: the file takes no more.
        """
        self._check(Open.WRITE | Open.CALL)
        if self._answer is not None:
            raise HandleClosed("One handle takes one record, and this one's was handed over.")
        if Open.APPEND in self._flags or self._is_call:
            self._at = len(self._body)
        end = self._at + len(piece)
        if end > self._most:
            raise BodyTooLarge(f"The file takes at most {self._most} bytes.")
        if self._at > len(self._body):
            self._body.extend(bytes(self._at - len(self._body)))
        self._body[self._at : end] = piece
        self._at, self._is_dirty = end, True
        return len(piece)

    async def flush(self) -> None:
        """Have what was written take effect, now and once; nothing to do if nothing was written.

        Raises:
            VendoError: it is refused, and nothing has changed; a later flush does not try again.
        """
        self._check(Open.READ | Open.WRITE | Open.CALL)
        if not self._is_dirty:
            return
        if self._is_call:
            await self._hand_over()
            return
        self._is_dirty = False
        await self._ground.write(self.path, bytes(self._body))

    async def _hand_over(self) -> None:
        if self._answer is not None:
            return
        self._answer, self._at, self._is_dirty = b"", 0, False
        self._answer = await self._ground.call(self.path, bytes(self._body))

    async def close(self) -> None:
        """Flush, and give the handle up; a second time does nothing.

        Raises:
            VendoError: as `flush`; the handle is closed all the same.
        """
        if self._is_closed:
            return
        try:
            await self.flush()
        finally:
            await self.abort()

    async def abort(self) -> None:
        """Give the handle up; what was not flushed is as if it had not been written."""
        self._is_closed = True
        self._body.clear()
        records, self._records = self._records, None
        if records is not None:
            await let_go(records)


async def open_file(ground: Ground, path: str, flags: Open) -> Handle:
    """Open a file.

    `READ | WRITE` on a file that is called and not written to means `CALL`.

    Raises:
        BadPath, NoSuchFile, AccessDenied: as `Namespace.stat`.
        IsDirectory: it is a directory that cannot be called.
        Unsupported: the file cannot do what the flags ask for.
        HandleClosed: the flags ask for nothing.
    """
    if not flags & (Open.READ | Open.WRITE | Open.CALL):
        raise HandleClosed("A file is opened to read, to write, or to call.")
    stat = await _stat(ground, path, flags)
    if Open.WRITE in flags and stat.callable and not stat.writable:
        flags |= Open.CALL
    if stat.is_dir and not (Open.CALL in flags and stat.callable):
        raise IsDirectory
    if Open.CALL in flags and not stat.callable:
        raise Unsupported("This file cannot be called.")
    if Open.CALL not in flags and Open.WRITE in flags and not stat.writable:
        raise Unsupported("This file cannot be written.")
    if flags & (Open.CALL | Open.WRITE | Open.READ) == Open.READ and not (stat.readable or stat.stream):
        raise Unsupported("This file cannot be read.")
    if flags & (Open.WRITE | Open.CALL):
        await ground.check(path, Verb.CALL if Open.CALL in flags else Verb.WRITE)
    handle = Handle(ground, path, flags, stat)
    await handle.load()
    return handle


async def _stat(ground: Ground, path: str, flags: Open) -> Stat:
    try:
        return await ground.stat(path)
    except NoSuchFile:
        if Open.CREATE not in flags or Open.WRITE not in flags:
            raise
    await ground.check(path, Verb.WRITE)
    return Stat(path.rpartition("/")[2], False, writable=True, max_bytes=None)
