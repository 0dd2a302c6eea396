"""The disk fails at each step of a tick's commit: refused, said by its code, nothing lost, and the node goes on."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import StoreUncertain
from core.unit import Insert
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from node.storage.error import StoreFailed, StoreFull
from tests.fsync_part import MAIN, WAL, Disk, watched_disk
from tests.integration.storage.tick_part import Agents, check

ENOSPC, EIO_WRITE, EIO_SYNC = sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC
EIO_MAP = sqlite3.SQLITE_IOERR_SHMMAP


@dataclass(frozen=True)
class Fault:
    """What fails: a write (perhaps in the middle of it), a sync or the log's index, after `sparing` that went well."""

    role: str
    write: int = 0
    sync: int = 0
    map: int = 0
    sparing: int = 0
    short: bool = False

    def strike(self, disk: Disk) -> None:
        disk.failing, disk.sparing, disk.short = self.role, self.sparing, self.short
        disk.failing_write, disk.failing_sync, disk.failing_map = self.write, self.sync, self.map


# A commit writes frames of two writes each (24 bytes of header, 4096 of a page) to the log, then syncs it.
IN_COMMIT = {
    f"{what} at the log's write {sparing}": Fault(WAL, write=code, sparing=sparing, short=short)
    for sparing in (0, 1, 9)
    for what, code, short in (
        ("ENOSPC", ENOSPC, False), ("EIO", EIO_WRITE, False), ("a short write", ENOSPC, True),
        ("a torn write", EIO_WRITE, True),
    )
} | {"EIO at the log's sync": Fault(WAL, sync=EIO_SYNC)}  # fmt: skip
IN_CHECKPOINT = {
    "ENOSPC at the file's first page": Fault(MAIN, write=ENOSPC),
    "EIO at a later page": Fault(MAIN, write=EIO_WRITE, sparing=3),
    "a short write of a page": Fault(MAIN, write=ENOSPC, sparing=2, short=True),
    "a torn page": Fault(MAIN, write=EIO_WRITE, short=True),
    "EIO at the file's sync": Fault(MAIN, sync=EIO_SYNC),
}


@pytest.fixture
def disk() -> Iterator[Disk]:
    with watched_disk() as watched:
        yield watched


@pytest.fixture
async def base(disk: Disk, tmp_path: Path) -> AsyncIterator[Database]:
    found = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
    yield found
    await found.aclose()


async def _ended(agents: Agents) -> None:
    """Closed, and read by a SQLite that knows nothing of it: what was acknowledged is there, and nothing in parts."""
    await agents.base.aclose()
    assert check(agents.base.path) == agents.acknowledged
    again = await open_database(agents.base.path, seal=unsigned_seal, clock=SystemClock())
    await again.aclose()


@pytest.mark.parametrize("fault", IN_COMMIT.values(), ids=IN_COMMIT)
async def test_a_fault_in_commit_is_uncertain_until_looked_up_and_loses_nothing(
    base: Database, disk: Disk, fault: Fault
) -> None:
    agents = Agents(base, 8, 8)
    await agents.make()
    await agents.round()
    fault.strike(disk)
    await agents.round()
    await agents.round()
    assert set(agents.codes) == {StoreUncertain.code}
    assert agents.codes[StoreUncertain.code] == 16
    disk.heal()
    for _ in range(3):
        await agents.round()
    assert agents.codes[StoreUncertain.code] == 16
    assert min(agents.acknowledged.values()) >= 4
    await _ended(agents)


@pytest.mark.parametrize(
    ("code", "short", "error"),
    [(ENOSPC, False, StoreFull), (ENOSPC, True, StoreFull), (EIO_WRITE, True, StoreFailed)],
)
async def test_a_fault_before_commit_is_certain_and_takes_the_whole_group_with_it(
    base: Database, disk: Disk, code: int, short: bool, error: type[StoreFull] | type[StoreFailed]
) -> None:
    agents = Agents(base, 8, 8)
    await agents.make()
    await agents.round()
    Fault(WAL, write=code, short=short, sparing=5).strike(disk)
    # more than the page cache holds, so that pages go to the log while rows are still being applied
    big = [Insert("log", {"agent": "a", "at_ms": 0, "type": "t", "data": "x" * 1_000_000}) for _ in range(24)]
    verdicts = await asyncio.gather(agents.round(), base.commit(big), return_exceptions=True)
    assert isinstance(verdicts[1], error)
    assert agents.codes == {error.code: 8}
    disk.heal()
    await agents.round()
    assert await base.count("log") == 0
    assert set(agents.acknowledged.values()) == {2}
    await _ended(agents)


@pytest.mark.parametrize("fault", IN_CHECKPOINT.values(), ids=IN_CHECKPOINT)
async def test_a_fault_in_a_checkpoint_holds_up_no_tick_since_the_log_has_it_all(
    base: Database, disk: Disk, fault: Fault
) -> None:
    agents = Agents(base, 8, 12)
    await agents.make()
    fault.strike(disk)
    before = disk.writes[WAL]
    filler = [Insert("log", {"agent": "a", "at_ms": 0, "type": "t", "data": "x" * 4_000}) for _ in range(300)]
    for _ in range(8):
        await asyncio.gather(agents.round(), base.commit(filler))
    assert disk.writes[WAL] - before > 2 * 2 * 1_000  # twice what begins a checkpoint
    assert disk.refused
    assert not agents.codes
    disk.heal()
    await agents.round()
    assert set(agents.acknowledged.values()) == {9}
    await _ended(agents)
    assert disk.syncs[MAIN] > 0


async def test_a_fault_in_the_index_of_the_log_is_refused_and_passes(base: Database, disk: Disk) -> None:
    agents = Agents(base, 8, 12)
    await agents.make()
    # the index grows by a part for every 4,096 pages of the log, which whoever reads for long keeps from being emptied
    filler = [Insert("log", {"agent": "a", "at_ms": 0, "type": "t", "data": "x" * 4_000}) for _ in range(900)]
    verdicts = []
    with closing(sqlite3.connect(base.path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM agent").fetchone()
        Fault(MAIN, map=EIO_MAP).strike(disk)
        for _ in range(6):
            verdicts += await asyncio.gather(agents.round(), base.commit(filler), return_exceptions=True)
    refused = [verdict for verdict in verdicts if verdict is not None]
    assert disk.refused
    assert refused
    assert all(isinstance(verdict, StoreFailed | StoreUncertain) for verdict in refused)
    disk.heal()
    await agents.round()
    await _ended(agents)


async def test_a_full_disk_is_told_to_whoever_asked(base: Database, disk: Disk) -> None:
    told: list[bool] = []
    base.on_full(lambda: told.append(True))
    agents = Agents(base, 4, 4)
    await agents.make()
    Fault(WAL, write=EIO_WRITE).strike(disk)
    await agents.round()
    assert told == []
    Fault(WAL, write=ENOSPC, short=True).strike(disk)
    await agents.round()
    assert told == [True]  # once for the group
    disk.heal()
    await agents.round()
    await _ended(agents)


async def test_every_acknowledged_group_of_many_ticks_was_synced_and_no_more_than_that(
    base: Database, disk: Disk
) -> None:
    agents = Agents(base, 200, 10)
    await agents.make()
    before, groups, copied = disk.syncs.copy(), base.stats()["groups"], disk.checkpoints

    async def one(name: str) -> None:
        for _ in range(10):
            synced = disk.syncs[WAL]
            await agents.tick(name)
            assert disk.syncs[WAL] > synced

    await asyncio.gather(*map(one, agents.names))
    groups = base.stats()["groups"] - groups
    checkpoints = disk.checkpoints - copied
    restarts = disk.syncs[MAIN] - before[MAIN] + 1  # after a whole checkpoint, the log's first frame syncs its header
    assert sum(agents.acknowledged.values()) == 2_000
    assert 2_000 / 512 <= groups <= 2_000 / 4
    assert groups <= disk.syncs[WAL] - before[WAL] <= groups + checkpoints + restarts
    await _ended(agents)
