"""What the kernel is told when the node says no: an errno for each code, and where the whole reason can be read.

An errno is all that a program gets to see, so the last refusals are kept as text, with code and remedy, for `.refused`.
"""

import errno
import json
import os
import threading
import time
from collections import deque
from collections.abc import Mapping

from cli.output import Problem, printable

KEPT = 100

# The longest prefix of a code decides; without one, the HTTP status; docs/how-to/mount-the-tree.md has the table.
_BY_CODE: Mapping[str, int] = {
    "budget.": errno.EDQUOT,
    "fs.access_denied": errno.EACCES,
    "fs.bad_path": errno.EINVAL,
    "fs.exists": errno.EEXIST,
    "fs.is_directory": errno.EISDIR,
    "fs.not_directory": errno.ENOTDIR,
    "fs.not_empty": errno.ENOTEMPTY,
    "fs.not_found": errno.ENOENT,
    "fs.too_large": errno.EFBIG,
    "fs.unsupported": errno.EPERM,
    "gate.": errno.EACCES,
    "gate.key_reused": errno.EINVAL,
    "node.paused": errno.EBUSY,
    "store.uncertain": errno.EIO,
}
_BY_STATUS: Mapping[int, int] = {
    400: errno.EINVAL,
    401: errno.EACCES,
    402: errno.EDQUOT,
    403: errno.EACCES,
    404: errno.ENOENT,
    405: errno.EPERM,
    408: errno.ETIMEDOUT,
    409: errno.EBUSY,
    413: errno.EFBIG,
    415: errno.EINVAL,
    422: errno.EINVAL,
    425: errno.EAGAIN,
    429: errno.EAGAIN,
    501: errno.EOPNOTSUPP,
    503: errno.EBUSY,
    507: errno.ENOSPC,
}


def errno_of(problem: Problem) -> int:
    """The errno that a program gets for an error of the node; EIO if nothing fits better."""
    prefixes = [prefix for prefix in _BY_CODE if problem.code.startswith(prefix)]
    if prefixes:
        return _BY_CODE[max(prefixes, key=len)]
    return _BY_STATUS.get(problem.status, errno.EIO)


def failed(number: int) -> OSError:
    """An error of the system, with its own words."""
    return OSError(number, os.strerror(number))


class Refusal(OSError):
    """The node answered with an error."""

    def __init__(self, problem: Problem, number: int | None = None) -> None:
        number = errno_of(problem) if number is None else number
        super().__init__(number, os.strerror(number))
        self.problem = problem

    @classmethod
    def read(cls, status: int, body: bytes) -> "Refusal":
        """A refusal out of problem JSON (RFC 9457), or out of a bare status."""
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            said = {}
        message = said.get("detail") or said.get("title") or f"The node answered {status}."
        code, unchanged, remedy = (str(said.get(name, "")) for name in ("code", "unchanged", "remedy"))
        return cls(Problem(code or "http.error", str(message), unchanged, remedy, status))


class Refusals:
    """The last things that were refused, as lines of text; any thread may add to them."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._guard = threading.Lock()

    def add(self, verb: str, path: str, refusal: Refusal) -> str:
        """Keep one; its line without the time."""
        line = refusal.problem.line().removeprefix("vendo: ")
        line = printable(f"{verb} {path}: {errno.errorcode.get(refusal.errno or 0, '?')}: {line}")
        with self._guard:
            self._lines.append(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")
        return line

    def text(self) -> bytes:
        """All of them, oldest first."""
        with self._guard:
            return "".join(self._lines).encode("utf-8", "replace")
