"""What becomes of the process that wrote to a file: it was killed, or goes on with the file. As far as Linux tells.

FUSE tells of each descriptor that is closed, not whether it was the last one, nor why. A shell closes several for one
`>`: as long as it has the file open itself, more may come. What a killed process leaves is closed by the kernel, and
looks like any other close. Before Linux 6.2 that comes from the dying process; since then from the kernel, when the
process may be gone: then only a descriptor that was opened while it lived can be asked how it ended (PIDFD_GET_INFO,
Linux 6.15).
"""

import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

_GET_INFO = 0xC040FF0B  # _IOWR(0xFF, 11, struct pidfd_info), its first version of 64 bytes
_INFO = struct.Struct("=QQ11Ii")
_HAS_EXIT = 1 << 3
_SIGNAL = 0x7F  # of a wait status: what it was ended by
_EXITING = 0x4  # PF_EXITING
_FLAGS, _EXIT_CODE = 6, 49  # fields of /proc/PID/stat after the name, from 0; proc(5) counts from 1, with two before


class Writer:
    """The process that wrote last."""

    def __init__(self) -> None:
        self._pid = 0
        self._descriptor = -1

    def note(self, pid: int) -> None:
        """It writes, so it lives. 0 is a process that cannot be seen from here."""
        if pid == self._pid:
            return
        self.close()
        self._pid = pid
        with suppress(OSError):  # also for what is not a process but a thread of one
            self._descriptor = os.pidfd_open(pid) if pid else -1

    def was_killed(self) -> bool:
        """Whether a signal has ended it."""
        if not self._pid:
            return False
        code = _code_in_proc(self._pid)
        if code is None and self._descriptor >= 0:
            code = _code_of(self._descriptor)
        return code is not None and code & _SIGNAL != 0

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, or is just ending: what it had open is being closed."""
        flags = _field(self._pid, _FLAGS) if self._pid else 0
        return flags is None or flags & _EXITING != 0

    def close(self) -> None:
        """Give up what is held of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._pid, self._descriptor = 0, -1


def has_open(pid: int, place: str) -> bool:
    """Whether a process has a file open to write. Only the kernel's own tables are read, never the file itself."""
    with suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - a path object for each is not needed
            with suppress(OSError, ValueError, IndexError):
                if os.readlink(f"/proc/{pid}/fd/{name}") == place:  # noqa: PTH115
                    text = Path(f"/proc/{pid}/fdinfo/{name}").read_text(encoding="ascii")
                    if int(text.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE != os.O_RDONLY:
                        return True
    return False


def _field(pid: int, number: int) -> int | None:
    """A number out of what the kernel says of a process; None if there is no such process any more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[number])
    except (OSError, ValueError, IndexError):
        return None


def _code_in_proc(pid: int) -> int | None:
    """The wait status of a process that is ending or has not been waited for; 0 if it lives, None if it is gone."""
    flags, code = _field(pid, _FLAGS), _field(pid, _EXIT_CODE)
    return None if flags is None or code is None else code if flags & _EXITING else 0


def _code_of(descriptor: int) -> int | None:
    """The wait status of a process that was waited for, if the kernel tells."""
    try:
        answer = fcntl.ioctl(descriptor, _GET_INFO, _INFO.pack(_HAS_EXIT, *([0] * 12), 0))
    except OSError:
        return None
    mask, *_, code = _INFO.unpack(answer)
    return int(code) if mask & _HAS_EXIT else None
