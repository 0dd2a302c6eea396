"""Durable means on the disk before it is acknowledged: syncs are counted, disks fail, processes are killed."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import StoreUncertain, Unavailable
from core.unit import Append, Insert, Write
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from node.storage.error import StoreFailed, StoreFull
from node.storage.writer import connect
from tests.fsync_part import WAL, Disk, watched_disk

ROOT = Path(__file__).parents[3]


@pytest.fixture
def disk() -> Iterator[Disk]:
    with watched_disk() as watched:
        yield watched


@pytest.fixture
async def base(disk: Disk, tmp_path: Path) -> AsyncIterator[Database]:
    found = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
    yield found
    await found.aclose()


def seen(name: object) -> Insert:
    return Insert("seen", {"event_id": str(name), "at": 0})


def test_connections_ask_for_the_full_promise(tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    db = connect(tmp_path / "x.db")
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


async def test_every_lone_commit_is_synced_before_it_returns(base: Database, disk: Disk) -> None:
    for k in range(20):
        before = disk.syncs[WAL]
        await base.commit([seen(k), Append("r", "begin", str(k), "{}")])
        assert disk.syncs[WAL] > before


async def test_units_of_one_group_share_their_sync(base: Database, disk: Disk) -> None:
    await base.commit([seen("first")])
    before, groups = disk.syncs[WAL], base.stats()["groups"]
    await asyncio.gather(*(base.commit([seen(k)]) for k in range(60)))
    assert base.stats()["groups"] - groups == disk.syncs[WAL] - before == 1
    assert base.stats()["units"] == 61


async def test_under_load_each_group_is_synced(base: Database, disk: Disk) -> None:
    async def client(name: int) -> None:
        for k in range(30):
            await base.commit([seen(f"{name}-{k}")])

    before = disk.syncs[WAL]
    await asyncio.gather(*(client(name) for name in range(16)))
    assert len(await base.select("seen")) == 480
    assert disk.syncs[WAL] - before >= base.stats()["groups"]
    assert base.stats()["groups"] < 480


def test_the_count_would_show_a_store_that_does_not_sync(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "x.db").touch()
    db = connect(tmp_path / "x.db")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE t(x)")
    before = disk.syncs[WAL]
    db.execute("INSERT INTO t VALUES (1)")
    assert disk.syncs[WAL] == before
    db.close()


@pytest.mark.parametrize("fault", ["sync", "write"])
async def test_a_failure_in_commit_is_uncertain_and_the_node_goes_on_after_it(
    base: Database, disk: Disk, fault: str
) -> None:
    await base.commit([seen("before"), Append("r", "root", "", "{}")])
    setattr(disk, f"failing_{fault}", sqlite3.SQLITE_IOERR_FSYNC if fault == "sync" else sqlite3.SQLITE_FULL)
    verdicts = await asyncio.gather(
        *(base.commit([seen(k), Append("r", "begin", str(k), "{}")]) for k in range(3)), return_exceptions=True
    )
    assert [type(verdict) for verdict in verdicts] == [StoreUncertain] * 3
    disk.failing_sync = disk.failing_write = 0
    found = {row["event_id"] for row in await base.select("seen")}  # what an uncertain caller must do
    await base.commit([*(seen(k) for k in range(3) if str(k) not in found), Append("r", "begin", "again", "{}")])
    assert {row["event_id"] for row in await base.select("seen")} == {"before", "0", "1", "2"}
    entries = await base.select("entry", order=["seq"])
    assert [entry["seq"] for entry in entries] == list(range(len(entries)))
    assert [entry["prev"] for entry in entries] == ["", *(entry["id"] for entry in entries[:-1])]


@pytest.mark.parametrize(
    ("code", "error"), [(sqlite3.SQLITE_FULL, StoreFull), (sqlite3.SQLITE_IOERR_WRITE, StoreFailed)]
)
async def test_a_failure_before_commit_is_certain(
    base: Database, disk: Disk, code: int, error: type[Unavailable]
) -> None:
    await base.commit([seen("before")])
    disk.failing_write = code
    big = [  # more than the page cache holds, so that pages go to the disk while rows are still being written
        Insert("log", {"agent": "a", "at_ms": 0, "type": "t", "data": "x" * 1_000_000}) for _ in range(24)
    ]
    with pytest.raises(error):
        await base.commit(big)
    disk.failing_write = 0
    await base.commit([seen("after")])
    assert await base.select("log") == []
    assert len(await base.select("seen")) == 2


async def test_a_file_that_was_removed_is_an_error_and_not_an_empty_database(base: Database, disk: Disk) -> None:
    disk.failing_sync = sqlite3.SQLITE_IOERR_FSYNC
    with pytest.raises(StoreUncertain):  # the writer drops its connection
        await base.commit([seen("a")])
    disk.failing_sync = 0
    base.path.rename(base.path.with_name("away.db"))
    with pytest.raises(StoreFailed):
        await base.commit([seen("b")])
    base.path.with_name("away.db").rename(base.path)
    await base.commit([seen("c")])
    assert {"event_id": "c", "at": 0} in await base.select("seen")


CHILD = """
import asyncio, os, sys
from core.clock import SystemClock
from core.error import Conflict
from core.unit import Append, Insert
from node.storage.chain import unsigned_seal
from node.storage.database import open_database

async def client(base, name):
    for k in range(1_000_000):
        key = f"{sys.argv[2]}-{name}-{k}"
        unit = [Insert("seen", {"event_id": key, "at": k}), Append("r", "begin", key, "{}"),
                Insert("outbox", {"event_id": key, "relay": "ws://r", "raw": "", "effect_id": key})]
        if k % 5 == 4:
            try:
                await base.commit([*unit, unit[0]])
            except Conflict:
                continue
        await base.commit(unit)
        os.write(1, f"{key}\\n".encode())

async def main():
    base = await open_database(sys.argv[1], seal=unsigned_seal, clock=SystemClock())
    await asyncio.gather(*(client(base, name) for name in range(8)))

asyncio.run(main())
"""


def _killed(path: Path, turn: int, lines: int) -> list[str]:
    """Run a child that commits, kill it after so many acknowledgements, and say which it gave."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(turn)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    ) as child:
        assert child.stdout is not None
        told = [child.stdout.readline().strip() for _ in range(lines)]
        child.kill()
        told += [line.strip() for line in child.stdout if line.endswith("\n")]
    assert all(told)
    return told


async def test_kill_9_loses_no_acknowledged_unit_and_tears_none(tmp_path: Path) -> None:
    path, told = tmp_path / "node.db", []
    for turn in range(4):
        told += _killed(path, turn, random.randint(50, 800))
    base = await open_database(path, seal=unsigned_seal, clock=SystemClock())
    there = {row["event_id"] for row in await base.select("seen")}
    assert there >= set(told)
    assert there == {row["event_id"] for row in await base.select("outbox")}
    entries = await base.select("entry", order=["seq"])
    assert there == {entry["effect_id"] for entry in entries}
    assert [entry["seq"] for entry in entries] == list(range(len(there)))
    assert [entry["prev"] for entry in entries] == ["", *(entry["id"] for entry in entries[:-1])]
    await base.aclose()


async def test_what_was_submitted_before_closing_is_durable(tmp_path: Path) -> None:
    base = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
    units: list[list[Write]] = [[seen(k)] for k in range(500)]
    tasks = [asyncio.create_task(base.commit(unit)) for unit in units]
    await asyncio.sleep(0)
    await base.aclose()
    await asyncio.gather(*tasks)
    again = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
    assert len(await again.select("seen")) == 500
    await again.aclose()
