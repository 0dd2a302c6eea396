"""A file system that is really full: nothing is lost, what is open can still be written down, and it goes on after."""

from pathlib import Path

import pytest

from core.clock import SystemClock
from core.effect import Outcome, OutcomeState, Staged
from core.error import StoreUncertain
from core.unit import Insert
from node import disk as disks
from node.disk import Disk
from node.error import DiskLow
from node.gate.gate import NodeGate
from node.gate.ledger import ledger_seal
from node.storage.database import Database, open_database
from node.storage.error import StoreFull
from tests.disk_part import small_disk
from tests.gate_part import KEY, LIMITS, intent

pytestmark = pytest.mark.needs("mount")
MB = 1 << 20


def ballast(folder: Path, leave: int) -> None:
    """Fill the file system until so many bytes are free."""
    (folder / "ballast").write_bytes(bytes(max(0, disks.free_bytes(folder) - leave)))


async def fill(database: Database, said: list[str]) -> None:
    """Rows until one is refused; those that were acknowledged are in `said`."""
    for number in range(1_000):
        await database.commit([Insert("meta", {"key": f"k{number}", "value": "x" * 20_000})])
        said.append(f"k{number}")


async def test_work_stops_before_the_disk_is_full_and_open_effects_still_end(tmp_path):
    with small_disk(tmp_path / "small", 24) as folder:
        clock = SystemClock()
        database = await open_database(folder / "node.db", seal=ledger_seal(KEY), clock=clock)
        disk = Disk([folder], clock, 4 * MB)
        gate = NodeGate(database, clock, LIMITS, KEY.pubkey)
        gate.is_full = lambda: disk.low
        database.on_full(disk.full)
        await gate.load()
        await disk.look()
        opened = [await gate.begin(intent(f"open-{number}", 10)) for number in range(50)]
        ballast(folder, 3 * MB)
        await disk.look()
        with pytest.raises(DiskLow):
            await gate.begin(intent("new", 10))
        for one in opened:
            assert isinstance(one, Staged)
            await database.commit(await gate.settle(one.effect_id, Outcome(OutcomeState.FAIL)))
        assert await gate.open_effects() == []
        (folder / "ballast").unlink()
        await disk.look()
        assert not disk.low
        assert isinstance(await gate.begin(intent("new", 10)), Staged)
        await database.aclose()


async def test_a_write_that_finds_no_room_says_so_at_once_loses_nothing_and_the_database_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(disks, "REFUSED_S", 0.0)
    with small_disk(tmp_path / "small", 16) as folder:
        clock = SystemClock()
        database = await open_database(folder / "node.db", seal=ledger_seal(KEY), clock=clock)
        disk = Disk([folder], clock, 0)
        database.on_full(disk.full)
        ballast(folder, 64 << 10)
        said: list[str] = []
        with pytest.raises((StoreFull, StoreUncertain)):
            await fill(database, said)
        assert disk.low
        assert disk.refused == 1
        rows = {row["key"] for row in await database.select("meta")}
        assert set(said) <= rows, "what was acknowledged is there"
        assert len(rows) <= len(said) + 1, "and no more than the one whose end is not known"
        (folder / "ballast").unlink()
        await disk.look()
        assert not disk.low
        await database.commit([Insert("meta", {"key": "after", "value": "x" * 20_000})])
        await database.aclose()
        again = await open_database(folder / "node.db", seal=ledger_seal(KEY), clock=clock)
        assert {*said, "after"} <= {row["key"] for row in await again.select("meta")}
        await again.aclose()
