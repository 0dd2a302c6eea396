"""A stream as a file that grows: what is there when it is opened, and from then on each record as a line.

All who have it open share it, so they see the same bytes at the same places. It is followed only once somebody asks
again after reading it, as `tail -f` does and `cat` and `grep` do not; and no longer than somebody has it open.
"""

import errno
import json
import threading
import time
from contextlib import closing

from cli.mount.refusal import Refusal, failed
from cli.mount.wire import Events, Wire
from cli.wire import END

WINDOW = 16 << 20
"""So many bytes are held; who reads further behind gets ESTALE."""
_QUIET_S = 0.3
_SOON_S = 0.05
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0


class Log:
    """One stream of the node. Methods may be called by any thread.

    Attributes:
        changed_ns: when it grew last, Unix time.
    """

    def __init__(self, wire: Wire, path: str) -> None:
        self._wire, self._path = wire, path
        self._guard = threading.Lock()
        self._data, self._base = bytearray(), 0
        self._cursor: int | str | None = 0
        self._readers = 0
        self._was_read = self._is_followed = False
        self._since = time.monotonic()
        self._stopped = threading.Event()
        self._events: Events | None = None
        self.changed_ns = time.time_ns()

    @property
    def size(self) -> int:
        """Bytes so far, those that are not held any more included."""
        with self._guard:
            return self._base + len(self._data)

    def hold(self) -> None:
        """One more reader."""
        with self._guard:
            self._readers += 1

    def load(self) -> None:
        """Look up what is there, unless it is followed anyway.

        Raises:
            OSError: the node does not answer, or says no.
        """
        self._since = time.monotonic()
        with self._guard:
            is_followed = self._is_followed
        if not is_followed:
            self._look()

    def close(self) -> bool:
        """One reader less. Whether it was the last one: then it is followed no more."""
        with self._guard:
            self._readers -= 1
            if self._readers > 0:
                return False
            self._stopped.set()
            events = self._events
        if events is not None:
            events.close()
        return True

    def read(self, size: int, offset: int) -> bytes:
        """Bytes from a place on; none at the end, as of now.

        Raises:
            OSError: ESTALE, they are not held any more.
        """
        with self._guard:
            if offset < self._base:
                raise failed(errno.ESTALE)
            piece = bytes(self._data[offset - self._base : offset - self._base + size])
        if not piece:
            self.ask()  # at its end for the second time
        self.skip()
        return piece

    def skip(self) -> None:
        """Somebody has read, or gone to the end without reading."""
        self._was_read = True

    def ask(self) -> None:
        """Somebody wants to know whether there is more: not right after opening it, which is nobody's question yet."""
        waits = self._was_read or time.monotonic() - self._since > _SOON_S
        with self._guard:
            if not waits or self._is_followed or self._stopped.is_set():
                return
            self._is_followed = True
        threading.Thread(target=self._follow, name="vendo-mount-stream", daemon=True).start()

    # -- what is there

    def _look(self) -> None:
        try:
            text = self._wire.read(self._path, "?watch=0")
        except Refusal as refusal:
            if refusal.problem.status != 405:
                raise
            self._gather()
            return
        if text and not text.endswith(b"\n"):
            text += b"\n"
        self._merge(text)

    def _merge(self, text: bytes) -> None:
        """What is there now, after what was there before."""
        lines = text.splitlines(keepends=True)
        with self._guard:
            last = bytes(self._data[:-1]).rpartition(b"\n")[2] + b"\n" if self._data else b""
            if last in lines:
                lines = lines[len(lines) - lines[::-1].index(last) :]
            if lines:
                self._append(b"".join(lines))
                self._cursor = _cursor(lines[-1])

    def _gather(self) -> None:
        """The records that are there, of a stream that can only be watched: until it ends, or is quiet."""
        try:
            with closing(self._wire.events(self._path, self._cursor, _QUIET_S)) as events:
                for record in events:
                    if record.type == END:
                        return
                    self._take(record.id, record.data)
        except TimeoutError:
            return

    def _take(self, cursor: str, data: str) -> None:
        with self._guard:
            self._append(data.encode() + b"\n")
            self._cursor = cursor or self._cursor

    def _append(self, text: bytes) -> None:
        self._data += text
        self.changed_ns = time.time_ns()
        if (over := len(self._data) - WINDOW) > 0:
            del self._data[:over]
            self._base += over

    # -- what comes

    def _follow(self) -> None:
        pause = _FIRST_PAUSE_S
        while not self._stopped.is_set():
            before = self.size
            try:
                if not self._listen():
                    return
            except Refusal as refusal:
                if refusal.problem.status in (404, 405):
                    return  # what it was about is gone
            except OSError:
                pass  # the node is away, and may come back
            pause = _FIRST_PAUSE_S if self.size > before else min(pause * 2, _LONGEST_PAUSE_S)
            self._stopped.wait(pause)

    def _listen(self) -> bool:
        """Take records from one connection. Whether there may be more on another one."""
        with closing(self._wire.events(self._path, self._cursor)) as events:
            with self._guard:
                self._events = events
                if self._stopped.is_set():
                    return False
            for record in events:
                if record.type == END:
                    return _reason(record.data) != "complete"
                self._take(record.id, record.data)
        return True


def _reason(data: str) -> str:
    """Why a connection's stream has ended; `complete` is the end of all of it."""
    try:
        value = json.loads(data)
    except ValueError:
        return ""
    return str(value.get("reason", "")) if isinstance(value, dict) else ""


def _cursor(line: bytes) -> int | None:
    """The number of the record in a line; None where it tells none: then what comes is followed from now on."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    found = value.get("id") if isinstance(value, dict) else None
    return found if type(found) is int else None
