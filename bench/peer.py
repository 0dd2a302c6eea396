"""The relays that are measured side by side, each in a process of its own, with what an OK of theirs is worth."""

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.process import Children

VENDO, LOCAL, NOSTR_RELAY, CORE, MONSTR, KHATRU = (
    "vendo", "localrelay", "nostr-relay", "nostr-relay-core", "monstr", "khatru",
)  # fmt: skip
NAMES = (VENDO, LOCAL, NOSTR_RELAY, CORE, MONSTR, KHATRU)
FSYNC = "SQLite, WAL, synchronous=FULL: fsync before OK"
MEMORY = "memory only: an OK does not survive the process"


@dataclass(frozen=True, slots=True)
class Peer:
    """A running relay. `pid` is the process that listens, 0 if it could not be found."""

    name: str
    url: str
    durability: str
    pid: int

    def cpu_s(self) -> float:
        """User and system time of the process and its children so far, in seconds; 0 if unknown."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def open_peer(name: str, stack: AsyncExitStack, children: Children, folder: Path, *argv: str) -> Peer:
    """Start one; the stack ends it. `argv` goes to vendo's own relay.

    Raises:
        ChildFailed: it did not start.
        OSError: it is not installed (`make test-deps` installs it).
    """
    if name == VENDO:
        home = folder / f"vendo-{len(list(folder.iterdir()))}"
        child = await children.start(home.name, "cli.relay", "--home", str(home), "--port", "0", *argv)
        return Peer(name, str(child.said["url"]), FSYNC, child.pid)
    child = await children.start(f"localrelay-{len(list(folder.iterdir()))}", "bench.local_relay")
    return Peer(name, str(child.said["url"]), MEMORY, child.pid)
