"""The loop's side of the SQLite database, where the contract suite does not look."""

import asyncio
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import InvalidInput, NotFound
from core.unit import Append, Insert, Row
from node.storage.archive import read_entries
from node.storage.chain import Head, unsigned_seal
from node.storage.database import database_path, open_database
from node.storage.error import BadWrite, NotOurDatabase, StoreFailed


def test_a_path_or_an_sqlite_url_names_the_file() -> None:
    assert database_path("sqlite:////tmp/x.db") == Path("/tmp/x.db")
    assert database_path("x.db") == Path("x.db")
    with pytest.raises(InvalidInput):
        database_path("postgresql://user:secret@host/db")


async def test_a_seal_that_refuses_costs_only_its_own_unit(tmp_path: Path) -> None:
    def seal(head: Head, entry: Append) -> Row:
        if entry.body == "bad":
            raise BadWrite("no")
        return unsigned_seal(head, entry)

    base = await open_database(tmp_path / "n.db", seal=seal, clock=SystemClock())
    bodies = ["good", "bad", "good"]
    verdicts = await asyncio.gather(
        *(base.commit([Append("r", "begin", "e", body)]) for body in bodies), return_exceptions=True
    )
    assert [type(verdict) for verdict in verdicts] == [type(None), BadWrite, type(None)]
    assert [row["seq"] for row in await base.select("entry")] == [0, 1]
    await base.aclose()


async def test_a_fault_in_the_writer_is_told_and_the_writer_lives_on(tmp_path: Path) -> None:
    def seal(head: Head, entry: Append) -> Row:
        if entry.body == "bad":
            raise KeyError("a bug")
        return unsigned_seal(head, entry)

    base = await open_database(tmp_path / "n.db", seal=seal, clock=SystemClock())
    with pytest.raises(StoreFailed):
        await base.commit([Insert("seen", {"event_id": "a", "at": 0}), Append("r", "begin", "e", "bad")])
    await base.commit([Append("r", "begin", "e", "good")])
    assert await base.select("seen") == []
    assert [row["seq"] for row in await base.select("entry")] == [0]
    await base.aclose()


async def test_the_log_is_emptied_into_the_file_when_nothing_happens(tmp_path: Path) -> None:
    base = await open_database(tmp_path / "n.db", seal=unsigned_seal, clock=SystemClock())
    await base.commit([Insert("seen", {"event_id": "a", "at": 0})])
    log = tmp_path / "n.db-wal"
    assert log.stat().st_size > 0
    async with asyncio.timeout(10):
        while log.stat().st_size:
            await asyncio.sleep(0.1)
    await base.commit([Insert("seen", {"event_id": "b", "at": 0})])
    assert len(await base.select("seen")) == 2
    await base.aclose()


async def test_entries_are_read_beside_a_running_node_and_after_it(tmp_path: Path) -> None:
    base = await open_database(tmp_path / "n.db", seal=unsigned_seal, clock=SystemClock())
    await base.commit([Append("r", "root", "", "{}"), Append("r", "begin", "e", "{}")])
    beside = read_entries(tmp_path / "n.db")
    assert beside == await base.select("entry", order=["n"])
    await base.aclose()
    assert read_entries(tmp_path / "n.db") == beside
    assert [path.name for path in tmp_path.iterdir()] == ["n.db"]


def test_a_file_without_a_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_entries(tmp_path / "none.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(NotOurDatabase):
        read_entries(tmp_path / "empty.db")
