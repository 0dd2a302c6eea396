"""A node with very many agents, timed from within: `python -m bench.crowd HOME FILE`.

It is the real node of that home. Its agents only take messages in and do nothing else. When it ends, FILE gets one JSON
object: when each message was durable in an inbox (seconds of the system's monotonic clock, and the text), and how many
REQs were open from when on, counted where frames leave for the socket. A message that begins with `PROBE` is
told at once, on standard output.
"""

import gc
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp

from core.unit import Insert, Write
from node import app, launch
from node.agent.buyer import Buyer
from node.agent.load import library
from node.storage.database import Database

arrived: list[tuple[float, str]] = []
requests: list[tuple[float, int]] = []
pauses: list[tuple[float, float]] = []
PROBE = "are you there"
_open: dict[int, set[str]] = {}


class Quiet(Buyer):
    """The usual program, but it answers nobody: what is timed is the way in."""

    async def on_trigger(self, ctx: Any, trigger: Any) -> None:
        """Nothing to do."""


def watch(database: Database) -> None:
    """Note when a message is durable in an inbox."""
    commit = database.commit

    async def watched(writes: Iterable[Write]) -> None:
        kept = list(writes)
        await commit(kept)
        now = time.monotonic()
        letters = [one.row for one in kept if type(one) is Insert and one.table == "inbox"]
        texts = [str(json.loads(str(row["payload"]))["text"]) for row in letters if row["cause"] == "message"]
        arrived.extend((now, text) for text in texts)
        for text in texts:
            if text.startswith(PROBE):
                print(json.dumps({"arrived": text}), flush=True)

    database.commit = watched  # of this one database, from outside


def count_requests() -> None:
    """See each frame that leaves, whichever part of the node sends it."""
    send = aiohttp.ClientWebSocketResponse.send_str

    async def counted(self: aiohttp.ClientWebSocketResponse, data: str, compress: int | None = None) -> None:
        if data.startswith(('["REQ"', '["CLOSE"')):
            verb, sub_id = json.loads(data)[:2]
            mine = _open.setdefault(id(self), set())
            (mine.add if verb == "REQ" else mine.discard)(sub_id)
            requests.append((time.monotonic(), sum(map(len, _open.values()))))
        await send(self, data, compress)

    aiohttp.ClientWebSocketResponse.send_str = counted  # of all sockets, from outside


def time_collections() -> None:
    """The garbage collector stops everything, for the longer the more objects there are."""
    began = [0.0]

    def seen(phase: str, _facts: dict[str, int]) -> None:
        if phase == "start":
            began[0] = time.monotonic()
        else:
            pauses.append((began[0], 1e3 * (time.monotonic() - began[0])))

    gc.callbacks.append(seen)


def main() -> int:
    """Run the node."""
    home, file = map(Path, sys.argv[1:])

    class Watched(app.Node):
        def __init__(self, config: Any, keyring: Any, database: Database, *rest: Any, **named: Any) -> None:
            watch(database)
            super().__init__(config, keyring, database, *rest, **named)

    library.Buyer = Quiet  # agents that cost nothing: buying is not measured
    count_requests()
    time_collections()
    code = launch.serve(home, Watched)
    file.write_text(json.dumps({"arrived": arrived, "requests": requests, "pauses": pauses}), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
