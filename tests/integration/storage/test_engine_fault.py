"""The same faults of the disk below the whole engine: each message is dealt with once, and whole."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from pydantic import BaseModel

from core.clock import SystemClock
from core.unit import Append, Insert
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.session import Session
from fs.tree import File, Folder, Tree
from node.agent.program import Context, Nothing, Program, Trigger
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from tests.fsync_part import MAIN, WAL, Disk, watched_disk
from tests.integration.storage.tick_part import RUN, Agents

ENOSPC, EIO_WRITE, EIO_SYNC = sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC
MESSAGES, PEOPLE = 12, 6
FAULTS = {
    "ENOSPC in the log": (WAL, {"failing_write": ENOSPC}),
    "ENOSPC in the middle of a page of the log": (WAL, {"failing_write": ENOSPC, "short": True, "sparing": 9}),
    "EIO in the log": (WAL, {"failing_write": EIO_WRITE, "sparing": 4}),
    "EIO at the log's sync": (WAL, {"failing_sync": EIO_SYNC}),
    "EIO in the file": (MAIN, {"failing_write": EIO_WRITE, "short": True}),
}


class Count(BaseModel):
    total: int = 0


class Counting(Program[Count, Nothing]):
    """Counts triggers, with one effect for each."""

    name = "p"
    state_type, config_type = Count, Nothing

    async def on_trigger(self, ctx: Context[Count, Nothing], trigger: Trigger) -> None:
        ctx.state.total += 1
        await ctx.fs.call("/effects/new", b"yes")


def effects(done: list[str]) -> Tree:
    async def call(_body: bytes, session: Session) -> bytes:
        key = session.effect_key()
        row = {"event_id": key, "relay": "ws://r", "raw": "y" * 500, "effect_id": key}
        await session.apply([Insert("outbox", row), Append(RUN, "begin", key, "{}")], lambda: done.append(key))
        return b""

    return Tree(Folder("effects", {"new": File("stages", call=call)}))


@pytest.fixture
def disk() -> Iterator[Disk]:
    with watched_disk() as watched:
        yield watched


@asynccontextmanager
async def running(base: Database, done: list[str]) -> AsyncIterator[Engine]:
    space = Namespace([Mount("/effects", effects(done), Access.WRITE)])
    limits = TickLimits(per_minute=0, back_off_ms=5)
    engine = Engine(base, SystemClock(), {"p": Counting()}, lambda _: space, Feed(), limits)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(engine.run(ready, stop))
    await ready.wait()
    try:
        yield engine
    finally:
        stop.set()
        await task


def _whole(path: Path) -> None:
    """Each agent has dealt with each of its messages, once, and every row of every tick is there."""
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ticks = Counter(dict(db.execute("SELECT agent, count(*) FROM tick WHERE error = '' GROUP BY agent")))
        assert ticks == Counter({f"a{number}": MESSAGES for number in range(PEOPLE)})
        assert db.execute("SELECT count(*) FROM inbox WHERE state != 'done'").fetchone() == (0,)
        for _, state, counted in db.execute("SELECT name, json_extract(state, '$.total'), ticks FROM agent"):
            assert (state, counted) == (MESSAGES, MESSAGES)
        effects = {name for (name,) in db.execute("SELECT event_id FROM outbox")}
        assert len(effects) == MESSAGES * PEOPLE
        entries = db.execute("SELECT seq, id, prev, effect_id FROM entry ORDER BY seq").fetchall()
        assert [seq for seq, *_ in entries] == list(range(len(effects)))
        assert [prev for _, _, prev, _ in entries] == ["", *(name for _, name, _, _ in entries[:-1])]
        assert {effect for *_, effect in entries} == effects


@pytest.mark.parametrize(("role", "how"), FAULTS.values(), ids=FAULTS)
async def test_an_engine_goes_on_when_the_disk_is_well_again_and_each_message_is_dealt_with_once(
    disk: Disk, tmp_path: Path, role: str, how: dict[str, int]
) -> None:
    base = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
    assert isinstance(base, Database)
    agents, done = Agents(base, PEOPLE, MESSAGES), list[str]()
    await agents.make("{}")
    async with running(base, done) as engine:
        async with asyncio.timeout(60):
            while len(done) < PEOPLE:
                await asyncio.sleep(0)
        disk.failing = role
        for name, value in how.items():
            setattr(disk, name, value)
        for name in agents.names:
            engine.notify(name)
        if role == MAIN:
            filler = {"agent": "a", "at_ms": 0, "type": "t", "data": "x" * 4_000}
            await base.commit([Insert("log", filler)] * 1_500)
        async with asyncio.timeout(60):
            while not disk.refused:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        disk.heal()
        for name in agents.names:
            engine.notify(name)  # it would look again by itself in seconds
        async with asyncio.timeout(60):
            while await base.count("inbox", {"state": "new"}):
                await asyncio.sleep(0.01)
    await base.aclose()
    _whole(tmp_path / "node.db")
    assert len(done) == len(set(done)) == MESSAGES * PEOPLE
