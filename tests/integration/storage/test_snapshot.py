"""A copy of the database while it is written: whole, of one moment, on the disk, or not there at all."""

import asyncio
import itertools
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import InvalidInput, Unavailable
from core.unit import Insert
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from node.storage.error import StoreFull
from node.storage.snapshot import copy
from tests.fsync_part import MAIN, watched_disk
from tests.integration.storage.tick_part import Agents, check, message


@pytest.fixture
async def base(tmp_path: Path) -> AsyncIterator[Database]:
    found = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
    yield found
    await found.aclose()


def log(size: int) -> Insert:
    return Insert("log", {"agent": "a", "at_ms": 0, "type": "t", "data": "x" * size})


async def test_a_copy_under_load_is_of_one_moment_and_holds_all_that_was_durable_before_it(
    base: Database, tmp_path: Path
) -> None:
    agents = Agents(base, 30, 60)
    await agents.make()
    await base.commit([log(1_000_000) for _ in range(24)])  # so that a copy takes many steps
    copied = False

    async def load() -> None:
        for number in itertools.count(60):
            await base.commit([message(name, number) for name in agents.names])
            await agents.round()
            if copied:
                return

    async def copies() -> list[tuple[int, int, int]]:
        nonlocal copied
        found = []
        for turn in range(3):
            was = sum(agents.acknowledged.values())
            while turn and sum(agents.acknowledged.values()) == was:
                await asyncio.sleep(0.01)
            before = sum(agents.acknowledged.values())
            await base.snapshot(tmp_path / f"copy{turn}.db")
            after = sum(agents.acknowledged.values())
            ticks = await asyncio.to_thread(check, tmp_path / f"copy{turn}.db")
            found.append((before, sum(ticks.values()), after))
        copied = True
        return found

    found, _ = await asyncio.gather(copies(), load())
    assert all(before <= there <= after + 30 for before, there, after in found)
    assert found[2][0] > found[0][0]
    assert any(after > before for before, _, after in found)  # nobody waited for the copy
    again = await open_database(tmp_path / "copy0.db", seal=unsigned_seal, clock=SystemClock())
    later = Agents(again, 30, 60)
    await later.round()
    assert sum(later.acknowledged.values()) == 30
    await again.aclose()


async def test_a_copy_is_one_file_for_its_owner_alone_and_is_synced(tmp_path: Path) -> None:
    with watched_disk() as disk:
        base = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
        await base.commit([log(10)])
        before = disk.syncs[MAIN]
        (tmp_path / "copies").mkdir()
        await base.snapshot(tmp_path / "copies" / "one.db")
        assert disk.syncs[MAIN] > before
        await base.aclose()
    assert [one.name for one in (tmp_path / "copies").iterdir()] == ["one.db"]
    assert stat.S_IMODE((tmp_path / "copies" / "one.db").stat().st_mode) == 0o600


async def test_what_is_there_is_never_written_over(base: Database, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    for target in (tmp_path / "there", tmp_path / "no" / "folder", base.path):
        with pytest.raises(InvalidInput):
            await base.snapshot(target)
    assert (tmp_path / "there").read_text() == "mine"


async def test_a_copy_for_which_there_is_no_room_leaves_nothing(tmp_path: Path) -> None:
    with watched_disk() as disk:
        base = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
        await base.commit([log(1_000_000) for _ in range(10)])
        disk.failing, disk.failing_write, disk.sparing, disk.short = MAIN, sqlite3.SQLITE_FULL, 5, True
        (tmp_path / "copies").mkdir()
        with pytest.raises(StoreFull):
            await base.snapshot(tmp_path / "copies" / "one.db")
        disk.heal()
        assert list((tmp_path / "copies").iterdir()) == []
        await base.snapshot(tmp_path / "copies" / "one.db")
        await base.aclose()
    with closing(sqlite3.connect(tmp_path / "copies" / "one.db")) as db:
        assert db.execute("SELECT count(*) FROM log").fetchone() == (10,)


async def test_a_copy_that_nobody_waits_for_is_removed(base: Database, tmp_path: Path) -> None:
    await base.commit([log(1_000_000) for _ in range(40)])
    given_up = threading.Event()
    given_up.set()
    await asyncio.to_thread(copy, base.path, tmp_path / "one.db", given_up)
    assert not (tmp_path / "one.db").exists()
    task = asyncio.create_task(base.snapshot(tmp_path / "two.db"))
    deadline = time.monotonic() + 10
    while not (tmp_path / "two.db").exists() and time.monotonic() < deadline:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while (tmp_path / "two.db").exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert not (tmp_path / "two.db").exists()


async def test_a_closed_database_is_not_copied(base: Database, tmp_path: Path) -> None:
    await base.aclose()
    with pytest.raises(Unavailable):
        await base.snapshot(tmp_path / "one.db")
