"""A node for the bench of its control plane: `python -m bench.http_node HOME`.

It is the real node of that home. On a line of standard input it also adds records to the trace of the agent `a`
(`say HZ`, `quiet`), and its operator sees a directory of as many entries as are asked for at `/many-<count>`.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fs.namespace import Access, Mount, Namespace
from fs.protocol import Stat
from fs.session import Session
from fs.tree import Folder, Tree
from node import app, launch
from node.agent.log import record, topic

AGENT, MANY = "a", 100_000


class Talker:
    """A part beside the node's own: adds records as it is told."""

    def __init__(self, node: app.Node) -> None:
        self._node = node
        self._hz = 0

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Until stopped."""
        ready.set()
        listening = asyncio.create_task(self._listen())
        number, begun = 0, time.monotonic()
        try:
            while not stop.is_set():
                if not self._hz:
                    number, begun = 0, time.monotonic()
                    await asyncio.sleep(0.05)
                    continue
                await asyncio.sleep(max(0.0, begun + number / self._hz - time.monotonic()))
                number += 1
                at = time.monotonic()
                said = json.dumps({"at": at, "number": number, "text": "what an agent might have to say"})
                await self._node.database.commit([record(AGENT, int(at * 1e3), "said", said)])
                self._node.feed.grew(topic(AGENT))
        finally:
            listening.cancel()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            word, _, value = line.decode().strip().partition(" ")
            self._hz = int(value) if word == "say" else 0


def shelf(count: int) -> Tree:
    """A directory of so many entries, each made when it is its turn."""

    async def entries(session: Session) -> AsyncIterator[Stat]:
        for number in range(count):
            if number % 100 == 0:
                await asyncio.sleep(0)
            yield Stat(f"entry-{number:06d}", False, f"the entry of number {number}", size=number, readable=True)

    return Tree(Folder("Many.", entries=entries, pattern="<name>", pattern_about="one of many"))


class Told(app.Node):
    """The node with more to it."""

    @property
    def all_parts(self) -> list[tuple[str, Any]]:
        return [*super().all_parts, ("bench", Talker(self))]

    def namespace(self, name: str) -> Namespace:
        found = super().namespace(name)
        if name != "node":
            return found
        mounts = [Mount(f"/many-{count}", shelf(count), Access.ADMIN, "for the bench") for count in (100, MANY)]
        return Namespace([*found.mounts, *mounts])


def main() -> int:
    """Run the node."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return launch.serve(Path(sys.argv[1]), Told)


if __name__ == "__main__":
    sys.exit(main())
