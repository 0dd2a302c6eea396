"""What no two nodes could do without: a paid job's messages through the same relay, and its steps on the same disk.

Bare clients say signed words to each other through the market's relay, one after the other; one row after the other
becomes durable in a database of its own. Nobody verifies, plans, encrypts, or keeps books, and a mint is not asked.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from bench.target import quantile
from bench.wire import Client, offer, signed
from relays.event import Event
from relays.key import Key

MESSAGES = 4  # request, quote, payment, result
STEPS = 9  # of buyer and seller together, until the buyer has its result; tests/integration/settlement names them
_JOBS, _KIND, _ROW = 25, 7000, b"\0" * 2_000


async def messages_ms(relay: str) -> float:
    """The median time of a job's messages, each published when the one before was received."""
    keys = [Key.generate(), Key.generate()]
    sides = [await Client.connect(relay) for _ in keys]
    try:
        for own, other in zip(sides, reversed(keys), strict=True):
            await own.subscribe("floor", {"kinds": [_KIND], "authors": [other.pubkey], "limit": 0})
        said = [signed(_JOBS * MESSAGES // 2, _KIND, keys=[key]) for key in keys]
        took = [await _talk(sides, [side[job * 2 : job * 2 + 2] for side in said]) for job in range(_JOBS)]
    finally:
        for side in sides:
            side.close()
    return quantile(took, 0.5)


async def _talk(sides: Sequence[Client], said: Sequence[Sequence[Event]]) -> float:
    began = time.perf_counter()
    for number in range(MESSAGES):
        speaker, listener = sides[number % 2], sides[1 - number % 2]
        speaker.transport.write(offer(said[number % 2][number // 2]))
        await listener.wait_for(b'["EVENT"')
    return 1e3 * (time.perf_counter() - began)


def steps_ms(folder: Path) -> float:
    """The median time of a job's steps: transactions of one row each, durable before the next begins."""
    with closing(sqlite3.connect(folder / "floor.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE step (id INTEGER PRIMARY KEY, body BLOB)")
        took = []
        for _ in range(_JOBS):
            began = time.perf_counter()
            for _ in range(STEPS):
                db.execute("INSERT INTO step (body) VALUES (?)", (_ROW,))
            took.append(1e3 * (time.perf_counter() - began))
    return quantile(took, 0.5)
