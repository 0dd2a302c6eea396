"""The floor of durable ticks on SQLite: the same rows in the same tables by hand, with no store and no engine.

Statements are prepared once (the module keeps them), nothing is signed and nothing is checked. What it prints is what
this disk and this SQLite can do at the utmost, with one transaction for each tick or for so many.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Protocol

from bench.tick_row import EVENT, LETTER, NOW, RELAY, STATE, fill, mark, messages, names
from bench.tick_row import agent as agent_row
from core.clock import Clock, SystemClock
from core.unit import Append, UnitOfWork
from node.storage.chain import Seal, unsigned_seal
from node.storage.database import open_database
from tests.fsync_part import watched_disk

_LOAD = """SELECT a.version, a.epoch, a.state, i.n, i.envelope_id, i.payload FROM agent a JOIN inbox i ON i.n =
    (SELECT n FROM inbox WHERE agent = a.name AND state = 'new' ORDER BY priority, n LIMIT 1) WHERE a.name = ?"""
_AGENT = """UPDATE agent SET state = ?, state_version = 1, last_tick_at = ?, last_cause = 'message',
    version = version + 1, ticks = ticks + 1 WHERE name = ? AND version = ? AND epoch = ?"""
_INBOX = "UPDATE inbox SET state = 'done', payload = '', ended_at = ? WHERE n = ? AND state = 'new'"
_TICK = """INSERT INTO tick (id, agent, envelope_id, cause, at_ms, duration_ms, error, tries, version, code, usage)
    VALUES (?, ?, ?, 'message', ?, 1, '', 0, ?, '', '{}')"""
_OUTBOX = """INSERT INTO outbox (event_id, relay, raw, effect_id, state, tries, next_at_ms, reason)
    VALUES (?, ?, ?, 'bench', 'pending', 0, 0, '')"""
_ENTRY = """INSERT INTO entry (run, seq, id, prev, type, effect_id, raw) VALUES ('floor', ?, ?, ?, 'begin', ?, ?)"""


class Store(UnitOfWork, Protocol):
    """A node's database, of whatever kind."""

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        """As `Database.on_entry`."""

    def stats(self) -> dict[str, int]:
        """As `Database.stats`."""

    async def aclose(self) -> None:
        """As `Database.aclose`."""


class Ground(Protocol):
    """What ticks are measured on: one kind of database, and its own floor."""

    name: str
    short: str  # its durability in a word
    durability: str
    grouped: float  # how much of its own floor in groups the store must reach

    def slowed(self, seconds: float) -> AbstractContextManager[object] | None:
        """Every fsync of what is opened within takes so much longer; None where that cannot be done."""

    async def open(self, seal: Seal, clock: Clock) -> Store:
        """An empty database, opened as a node opens it."""

    def floor(self, ticks: int, group: int, agents: int) -> list[float]:
        """Seconds that each transaction took, for so many ticks of so many agents, `group` in each. In a thread."""

    async def prepare(self, ticks: int, agents: int) -> None:
        """The rows for `floor`, on an empty database."""


class SqliteGround:
    """A file, through Python's own `sqlite3`, in the mode in which a node opens it."""

    name, short = "SQLite", "WAL, FULL"
    durability = "WAL, synchronous=FULL: one fsync before a commit returns"
    grouped = 0.35

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tick.db"

    @contextmanager
    def slowed(self, seconds: float) -> Iterator[None]:
        """As `Ground.slowed`: a shim between SQLite and its disk, for the floor and the node alike."""
        with watched_disk() as disk:
            disk.slow_s = seconds
            yield

    async def open(self, seal: Seal, clock: Clock) -> Store:
        """As `Ground.open`."""
        for left in self._path.parent.glob(f"{self._path.name}*"):
            left.unlink()
        return await open_database(self._path, seal=seal, clock=clock)

    async def prepare(self, ticks: int, agents: int) -> None:
        """As `Ground.prepare`."""
        store = await self.open(unsigned_seal, SystemClock())
        every = names(agents)
        await fill(store, map(agent_row, every))
        await fill(store, messages(every, ticks))
        await store.aclose()

    def floor(self, ticks: int, group: int, agents: int) -> list[float]:
        """As `Ground.floor`."""
        every, took = names(agents), []
        with closing(sqlite3.connect(self._path, isolation_level=None, cached_statements=32)) as db:
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-16384"):
                db.execute(f"PRAGMA {pragma}")
            for first in range(0, ticks, group):
                begun = time.perf_counter()
                mine = [every[number % agents] for number in range(first, min(first + group, ticks))]
                loaded = [(name, db.execute(_LOAD, (name,)).fetchone()) for name in mine]
                db.execute("BEGIN IMMEDIATE")
                for number, (name, row) in enumerate(loaded, first):
                    _tick(db, number, name, *row)
                db.execute("COMMIT")
                took.append(time.perf_counter() - begun)
        return took


def _tick(
    db: sqlite3.Connection, number: int, name: str, version: int, epoch: int, state: str, n: int, envelope: str, _: str
) -> None:
    assert state == STATE
    if db.execute(_AGENT, (STATE, NOW, name, version, epoch)).rowcount != 1:
        raise RuntimeError("the floor lost an agent")
    if db.execute(_INBOX, (NOW, n)).rowcount != 1:
        raise RuntimeError("the floor lost a message")
    db.execute(_TICK, (mark("tick", number), name, envelope, NOW * 1_000, version))
    db.execute(_OUTBOX, (mark("event", number), RELAY, LETTER))
    db.execute(_ENTRY, (number, mark("entry", number), mark("entry", number - 1), mark("effect", number), EVENT))
