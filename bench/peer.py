"""The relays that are measured side by side, each in a process of its own, with what an OK of theirs is worth."""

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.process import ChildFailed, Children
from tests.foreign_part import SORTS, DidNotStart, foreign_process

VENDO, LOCAL, NOSTR_RELAY, CORE, MONSTR, KHATRU = (
    "vendo", "localrelay", "nostr-relay", "nostr-relay-core", "monstr", "khatru",
)  # fmt: skip
NAMES = (VENDO, *(name for name in SORTS if name != "ours"))  # vendo's own is started with what it promises by default
FSYNC = "SQLite, WAL, synchronous=FULL: synced before each OK"


@dataclass(frozen=True, slots=True)
class Peer:
    """A running relay. `pid` leads a process group if the relay is foreign."""

    name: str
    url: str
    durability: str
    pid: int

    def cpu_s(self) -> float:
        """User and system time so far of the process, and of what it started, in seconds."""
        return sum(map(_spent_s, [self.pid] if self.name == VENDO else _group(self.pid)))


def _fields(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return []
    return text.rsplit(")", 1)[1].split()


def _spent_s(pid: int) -> float:
    fields = _fields(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _group(leader: int) -> list[int]:
    pids = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    return [pid for pid in pids if (fields := _fields(pid)) and int(fields[2]) == leader]


async def open_peer(name: str, stack: AsyncExitStack, folder: Path, *argv: str) -> Peer:
    """Start one in a folder of its own; the stack ends it. `argv` goes to vendo's own relay.

    Raises:
        ChildFailed: it is not installed (`make test-deps` installs it), or did not start.
    """
    home = folder / f"{name}-{len(list(folder.iterdir()))}"
    home.mkdir()
    if name == VENDO:
        children = await stack.enter_async_context(Children(home))
        child = await children.start("relay", "cli.relay", "--home", str(home), "--port", "0", *argv)
        return Peer(name, str(child.said["url"]), FSYNC, child.pid)
    try:
        foreign = await stack.enter_async_context(foreign_process(name, home))
    except DidNotStart as error:
        raise ChildFailed(str(error)) from error
    return Peer(name, foreign.url, SORTS[name].durability, foreign.pid)
