"""A node that makes a payment's commit every ten milliseconds and times it: `python -m bench.payer HOME FILE`.

It is the real node of that home with one more part: units as the wallet's are (a saga's row, its postings, an entry of
the ledger) go to its database by the way that all others go. FILE gets `[when, ms]` a line, `when` in seconds of the
system's monotonic clock, which its parent reads too.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from core.identifier import derived_id
from core.unit import Append, Insert, Update, Write
from node import app, launch
from wallet.journal import Account, postings

HZ = 100


class Payer:
    """The part that pays."""

    def __init__(self, node: app.Node, file: Path) -> None:
        self._database, self._file = node.database, file
        self._took: list[tuple[float, float]] = []

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Pay until stopped, then write down how long each took."""
        ready.set()
        number, started = 0, time.monotonic()
        while not stop.is_set():
            await asyncio.sleep(max(0.0, started + number / HZ - time.monotonic()))
            number += 1
            began = time.monotonic()
            await self._database.commit(_payment(number))
            self._took.append((began, 1e3 * (time.monotonic() - began)))
            started = max(started, time.monotonic() - number / HZ - 1.0)  # after a stall it does not make up for it
        self._file.write_text("".join(f"[{at},{ms}]\n" for at, ms in self._took), encoding="utf-8")


def _payment(number: int) -> list[Write]:
    name, now = derived_id("bench", str(number), str(time.time_ns())), int(time.time())
    row: dict[str, Any] = {
        "id": name, "kind": "lock", "state": "planned", "mint": "https://mint.example", "unit": "sat",
        "effect_id": name, "amount": 21, "fee": 1, "plan": b"p" * 600, "result": b"", "reason": "",
        "created_at": now, "updated_at": now,
        "version": 0,
    }  # fmt: skip
    moves = {Account.WALLET: -22, Account.LOCKED: 21, Account.FEES: 1}
    return [
        Insert("operation", row),
        Update("operation", {"id": name, "version": 0}, {"state": "done", "result": b"r" * 600}, {"version": 1}),
        *postings(name, "https://mint.example", "sat", now, moves),
        Append("bench", "commit", name, json.dumps({"cost": 22, "unit": "sat"})),
    ]


def main() -> int:
    """Run the node."""
    home, file = map(Path, sys.argv[1:])

    class Paying(app.Node):
        @property
        def parts(self) -> list[tuple[str, Any]]:
            return [*super().parts, ("payer", Payer(self, file))]

    return launch.serve(home, Paying)


if __name__ == "__main__":
    sys.exit(main())
