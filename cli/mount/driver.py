"""What the kernel asks, and who answers it: the operations of FUSE, as mfusepy calls them.

Each raises OSError for what the program is to see. Nothing here is kept by the kernel but names, for a second: contents
are read with direct I/O, since most of them are made when they are read and have no size before.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

from cli.mount.entry import DIRECTORY, NEW, TEXT, Entry
from cli.mount.handle import Call, Fixed, Following, Handle, Reading, Value
from cli.mount.log import Log
from cli.mount.refusal import Refusal, Refusals, failed
from cli.mount.tree import Tree
from cli.mount.wire import Wire

_PAGE = 4_096
_LEAST_WRITE = 128 << 10
_SETTLED_S, _LOOK_S = 10.0, 0.005
_Attributes = dict[str, int]


class Driver:
    """The file system. Names are those of FUSE's operations.

    Args:
        place: where it is mounted, as other processes see it.
        tree: what stands where.
        wire: the way to the node.
        refusals: where refusals are kept.
        ready: called once it is mounted.
        note: is told of a refusal, in a line.
        caller: the process that asks now.
    """

    use_ns = True

    def __init__(
        self,
        place: str,
        tree: Tree,
        wire: Wire,
        refusals: Refusals,
        ready: Callable[[], None],
        note: Callable[[str], None],
        caller: Callable[[], int],
    ) -> None:
        self._place, self._tree, self._wire, self._refusals = place, tree, wire, refusals
        self._ready, self._note, self._caller = ready, note, caller
        self._handles: dict[int, tuple[str, Handle]] = {}
        self._logs: dict[str, Log] = {}
        self._new: dict[str, int] = {}
        self._numbers = count(1)
        self._guard = threading.Lock()
        self._most = _LEAST_WRITE - _PAGE
        self._owner, self._since_ns = (os.getuid(), os.getgid()), time.time_ns()
        self.was_ready = False

    # -- the mount itself

    def init_with_config(self, connection: Any, config: Any) -> None:
        """The kernel answers. A write(2) longer than it hands over at once comes in several, and is no record."""
        most = int(getattr(connection, "max_write", 0))
        self._most = max(most, _LEAST_WRITE) - _PAGE  # of a piece that is not aligned, it hands over a page less
        self.was_ready = True
        self._ready()

    def destroy(self, path: str) -> None:
        """It is unmounted."""
        with self._guard:
            handles, self._handles = [handle for _, handle in self._handles.values()], {}
        for handle in handles:
            handle.close()
        for log in list(self._logs.values()):
            while not log.close():
                pass
        self._wire.close()

    # -- looking

    def getattr(self, path: str, fi: Any = None) -> _Attributes:
        """What stands at a path; every other call begins with it."""
        if (content := self._tree.own(path)) is not None:
            return TEXT.attributes(self._owner, time.time_ns(), len(content))
        log = self._logs.get(path)
        if log is not None:
            log.skip() if fi else log.ask()  # with its handle the kernel asks only for who goes to the end
            return Entry(readable=True, stream=True).attributes(self._owner, log.changed_ns, log.size)
        size = self._of(fi).extent() if fi else None
        try:
            return self._tree.look(path).attributes(self._owner, self._since_ns, size)
        except OSError as error:
            if error.errno == errno.ENOENT and path in self._new:
                return NEW.attributes(self._owner, self._since_ns, size)
            raise

    def access(self, path: str, mode: int) -> int:
        """Whether something may be done, for who asks before doing it."""
        bits = self.getattr(path)["st_mode"] >> 6
        if mode & ~bits & 0o7:
            raise failed(errno.EACCES)
        return 0

    def readdir(self, path: str, number: int) -> Iterator[tuple[str, _Attributes, int]]:
        """What is in a directory."""
        for name in (".", ".."):
            yield name, {"st_mode": DIRECTORY.mode}, 0
        for name, is_dir in self._tree.names(path):
            yield name, {"st_mode": DIRECTORY.mode if is_dir else TEXT.mode}, 0

    # -- open files

    def open(self, path: str, fi: Any) -> int:
        """Open what is there."""
        return self._hold(path, self._opened(path, fi.flags), fi)

    def create(self, path: str, mode: int, fi: Any) -> int:
        """Open what is not there yet. Whether it can be is judged when it is written; before, there is nothing."""
        target = self._tree.target(path)
        if not self._tree.look(os.path.dirname(path)).is_dir:  # noqa: PTH120 - a path of the mount
            raise failed(errno.ENOTDIR)
        value = Value(self._wire, target, keeps=False, is_appended=False, is_readable=False)
        with self._guard:
            self._new[path] = self._new.get(path, 0) + 1
        return self._hold(path, value, fi)

    def _opened(self, path: str, flags: int) -> Handle:
        kind = flags & os.O_ACCMODE
        if (content := self._tree.own(path)) is not None:
            if kind != os.O_RDONLY:
                raise failed(errno.EACCES)
            return Fixed(content)
        try:
            entry = self._tree.look(path, fresh=kind != os.O_RDONLY)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            self._tree.forget()
            raise failed(errno.ESTALE) from error  # it has gone since the kernel looked, which then looks again
        if entry.is_dir:
            raise failed(errno.EISDIR)
        target = self._tree.target(path)
        self._settle(path)
        if kind == os.O_RDONLY:
            return self._readable(path, target, entry)
        if entry.takes_records:
            first = Reading(self._wire, target) if entry.readable and kind == os.O_RDWR else None
            return Call(self._wire, target, self._most, first)
        if not entry.writable:
            raise failed(errno.EACCES)
        return Value(
            self._wire,
            target,
            keeps=not flags & os.O_TRUNC,
            is_appended=bool(flags & os.O_APPEND),
            is_readable=entry.readable,
        )

    def _settle(self, path: str) -> None:
        """Wait for what a process has written that has ended: the kernel closes it after the shell has gone on."""
        until = time.monotonic() + _SETTLED_S
        while time.monotonic() < until:
            with self._guard:
                values = [one for at, one in self._handles.values() if at == path and isinstance(one, Value)]
            if not any(value.is_pending for value in values):
                return
            time.sleep(_LOOK_S)

    def _readable(self, path: str, target: str, entry: Entry) -> Handle:
        if not entry.readable:
            raise failed(errno.EACCES)
        if entry.stream:
            return self._following(path, target)
        return Reading(self._wire, target, is_watched=entry.watchable)

    def _following(self, path: str, target: str) -> Handle:
        with self._guard:
            log = self._logs.get(path)
            if log is None:
                log = self._logs[path] = Log(self._wire, target)
            log.hold()
        try:
            log.load()
        except OSError:
            self._leave(path, log)
            raise
        return Following(log)

    def _leave(self, path: str, log: Log) -> None:
        with self._guard:
            if log.close() and self._logs.get(path) is log:
                del self._logs[path]

    def _hold(self, path: str, handle: Handle, fi: Any) -> int:
        with self._guard:
            fi.fh = next(self._numbers)
            self._handles[fi.fh] = path, handle
        fi.direct_io = 1
        return 0

    def _of(self, fi: Any) -> Handle:
        with self._guard:
            found = self._handles.get(fi.fh)
        if found is None:
            raise failed(errno.EBADF)
        return found[1]

    def read(self, path: str, size: int, offset: int, fi: Any) -> bytes:
        """Bytes from a place on."""
        return self._of(fi).read(size, offset)

    def write(self, path: str, data: bytes, offset: int, fi: Any) -> int:
        """What one write hands over, or the first piece of a long one."""
        handle, pid = self._of(fi), self._caller()
        with self._judged("write", path):
            return handle.write(data, offset, pid)

    def flush(self, path: str, fi: Any) -> int:
        """A descriptor is closed; there may be others for the same open file."""
        handle = self._of(fi)
        if isinstance(handle, Value):
            with self._judged("write", path):
                handle.flush(self._caller(), self._place + path)
        return 0

    def fsync(self, path: str, only_data: int, fi: Any) -> int:
        """Have it take effect now."""
        with self._judged("write", path):
            self._of(fi).flush()
        return 0

    def release(self, path: str, fi: Any) -> int:
        """Nobody has it open any more."""
        with self._guard:
            path, handle = self._handles.pop(fi.fh, (path, Handle()))
            if path in self._new:
                self._new[path] -= 1
                if not self._new[path]:
                    del self._new[path]
        if isinstance(handle, Value):
            with suppress(OSError), self._judged("write", path):
                handle.flush()  # if no close was seen to be the last one; nobody hears of an error but `.refused`
        handle.close()
        if isinstance(handle, Following):
            self._leave(path, handle.log)
        return 0

    def truncate(self, path: str, length: int, fi: Any = None) -> int:
        """By path or by descriptor, which are told apart by whether somebody has it open to write."""
        with self._guard:
            found = [one for at, one in self._handles.values() if at == path and isinstance(one, (Value, Call))]
        if found:
            found[-1].truncate(length)
            return 0
        handle = self._opened(path, os.O_WRONLY)
        try:
            handle.truncate(length)
            with self._judged("write", path):
                handle.flush()
        finally:
            handle.close()
        return 0

    # -- changing what is there

    def unlink(self, path: str) -> int:
        """Remove a file."""
        return self._change("remove", path, "DELETE", self._tree.target(path))

    def rmdir(self, path: str) -> int:
        """Remove a directory."""
        return self._change("remove", path, "DELETE", self._tree.target(path))

    def mkdir(self, path: str, mode: int) -> int:
        """Make a directory."""
        return self._change("mkdir", path, "MKCOL", self._tree.target(path))

    def rename(self, old: str, new: str) -> int:
        """Give another path, within one agent's files."""
        source, to = self._tree.target(old), self._tree.target(new)
        if source.split("/")[:3] != to.split("/")[:3]:
            raise failed(errno.EXDEV)
        return self._change("rename", old, "MOVE", source, to)

    def _change(self, verb: str, path: str, method: str, target: str, to: str | None = None) -> int:
        with self._judged(verb, path):
            self._wire.change(method, target, to)
        return 0

    def chmod(self, path: str, mode: int) -> int:
        """Refused, unless it changes nothing: what may be done is the node's to say."""
        if mode & 0o777 != self.getattr(path)["st_mode"] & 0o777:
            raise failed(errno.EPERM)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        """Refused, unless it changes nothing."""
        if uid not in (-1, self._owner[0]) or gid not in (-1, self._owner[1]):
            raise failed(errno.EPERM)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Times are not kept, and nothing that copies files need fail for it."""
        return 0

    def mknod(self, path: str, mode: int, device: int) -> int:
        """Refused."""
        raise failed(errno.EPERM)

    def symlink(self, target: str, source: str) -> int:
        """Refused."""
        raise failed(errno.EPERM)

    def link(self, target: str, source: str) -> int:
        """Refused."""
        raise failed(errno.EPERM)

    @contextmanager
    def _judged(self, verb: str, path: str) -> Iterator[None]:
        """Keep what the node says to a change; whatever it says, what was known before may not be true any more."""
        try:
            yield
        except Refusal as refusal:
            if refusal.errno != errno.ENOENT or verb != "remove":  # what is not there is not worth a word
                self._note(self._refusals.add(verb, path, refusal))
            raise
        finally:
            self._tree.forget()
