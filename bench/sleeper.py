"""A node whose agents hibernate, timed from within: `python -m bench.sleeper HOME NAMES`.

It is the real node of that home. Once it has said that it is ready and has come to rest, it wakes the agents that the
file NAMES lists, one after the other, and says how long each took, in ms: from before its trigger is committed
until its own code runs.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from node import app, launch
from node.agent.inbox.row import envelope

REST_S, WAIT_S, BETWEEN_S = 3.0, 5.0, 0.02

PROGRAM = '''
import sys
import time

from pydantic import BaseModel

from node.agent.program import Program


class Nothing(BaseModel):
    """No state."""


class Sleeper(Program):
    """Says when it is woken."""

    name = "sleeper"
    state_type = config_type = Nothing

    async def on_trigger(self, ctx, trigger):
        sys.modules["__main__"].runs(time.perf_counter())
'''

woken = asyncio.Event()
at: list[float] = []


def runs(now: float) -> None:
    """An agent's own code runs: it says when, since whoever waits for it hears of it later."""
    at.append(now)
    woken.set()


class Alarm:
    """A service beside the node's own: wakes agents."""

    def __init__(self, node: app.Node, names: list[str]) -> None:
        self._node, self._names = node, names

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Wake them all, once the node has been ready for a while."""
        ready.set()
        await asyncio.sleep(REST_S)
        print(json.dumps({"rested": time.monotonic()}), flush=True)
        took = []
        for name in self._names:
            took.append(1e3 * await self._wake(name))
            await asyncio.sleep(BETWEEN_S)
        print(json.dumps({"wakes": took}), flush=True)
        await stop.wait()

    async def _wake(self, name: str) -> float:
        woken.clear()
        began = time.perf_counter()
        now = self._node.clock.now()
        first = envelope(name, "wake", cause="manual", source="bench", sender="", payload='{"reason":""}', at=now)
        await self._node.database.commit([first])
        self._node.notify(name)
        await asyncio.wait_for(woken.wait(), WAIT_S)
        return at.pop() - began


def main() -> int:
    """Run the node."""
    home, names = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))

    class Woken(app.Node):
        @property
        def all_parts(self) -> list[tuple[str, Any]]:
            return [*super().all_parts, ("bench", Alarm(self, names))]

    return launch.serve(home, Woken)


if __name__ == "__main__":
    sys.exit(main())
