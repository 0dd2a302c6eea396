"""Where a path of the mount leads: `agents/<name>/…` and `node/…` to the node, and a few files of the mount's own.

What a file is, is remembered for a second, so that `ls -l` and the kernel's own look-ups do not ask for each step.
"""

import errno
import json
import threading
import time
from collections.abc import Callable, Iterator

from cli.mount.entry import DIRECTORY, TEXT, Entry
from cli.mount.refusal import Refusal, Refusals, failed
from cli.mount.wire import Wire

FRESH_S = 1.0
README, REFUSED = "README", ".refused"
AGENTS, NODE = "agents", "node"
_MOST_KNOWN = 20_000
_ABOUT = """The files of a vendo node.

agents/<name>/: what an agent has and can do; in each directory a README says what is there
node/: the operator's own tree
.refused: what was refused last, with the reason; a program only gets an errno

Reading a file shows it as it is then. Writing replaces a file when it is closed; a file that is called (`new`, `ctl`)
takes one whole record per write, at once. `tail -f` follows a stream.
"""


class Tree:
    """The paths of one mount.

    Args:
        wire: the way to the node.
        agent: whose files stand right below the mount; None: all agents' and the operator's.
        refusals: what `.refused` shows.
        now: seconds that only rise.
    """

    def __init__(
        self, wire: Wire, agent: str | None, refusals: Refusals, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._wire, self._agent, self._refusals, self._now = wire, agent, refusals, now
        self._known: dict[str, tuple[float, Entry]] = {}
        self._guard = threading.Lock()

    def own(self, path: str) -> bytes | None:
        """The content of a file of the mount's own; None: the path is no such file."""
        if path == f"/{REFUSED}":
            return self._refusals.text()
        if path == f"/{README}" and self._agent is None:
            return _ABOUT.encode()
        return None

    def target(self, path: str) -> str:
        """The path on the node.

        Raises:
            OSError: EPERM, it is a place of the mount's own, where nothing can be made or changed.
        """
        if self._agent is not None:
            if path == f"/{REFUSED}":
                raise failed(errno.EPERM)
            return f"/agents/{self._agent}{path if path != '/' else ''}"
        names = path.split("/")[1:]
        if names[0] == NODE:
            return "/agents" + path
        if names[0] == AGENTS and names[1:] and names[1] != NODE:
            return path
        raise failed(errno.EPERM)

    def look(self, path: str, *, fresh: bool = False) -> Entry:
        """What stands at a path.

        Raises:
            OSError: ENOENT; or the node does not answer.
        """
        if self.own(path) is not None:
            return TEXT
        if path == "/" or (path == f"/{AGENTS}" and self._agent is None):
            return DIRECTORY
        now = self._now()
        with self._guard:
            until, entry = self._known.get(path, (0.0, DIRECTORY))
        if now < until and not fresh:
            return entry
        try:
            target = self.target(path)
        except OSError as error:
            raise failed(errno.ENOENT) from error
        try:
            entry = Entry.of(self._wire.head(target))
        except Refusal as refusal:  # HEAD has no body that would say more than the status
            raise failed(errno.ENOENT) if refusal.problem.status in (400, 404) else refusal from refusal
        with self._guard:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[path] = (now + FRESH_S, entry)
        return entry

    def forget(self) -> None:
        """Something was changed: whatever is asked next is asked of the node."""
        with self._guard:
            self._known.clear()

    def names(self, path: str) -> Iterator[tuple[str, bool]]:
        """What is in a directory as it comes: names, and whether they are directories."""
        if path == "/":
            yield REFUSED, False
        if self._agent is None and path == "/":
            yield from ((README, False), (AGENTS, True), (NODE, True))
        elif self._agent is None and path == f"/{AGENTS}":
            for line in self._wire.lines("/agents", "application/x-ndjson"):
                yield str(json.loads(line)["name"]), True
        else:
            for line in self._wire.lines(self.target(path) + "/", "text/plain"):
                name = line.decode("utf-8", "replace")
                yield name.rstrip("/"), name.endswith("/")
