"""The loop's side of the SQLite database, where the contract suite does not look."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import Conflict, InvalidInput, NotFound
from core.unit import Append, Insert, Row
from node.gate.ledger import ledger_seal
from node.storage.archive import read_entries
from node.storage.chain import Head, unsigned_seal
from node.storage.database import Database, database_path, open_database
from node.storage.error import BadWrite, NotOurDatabase, StoreFailed
from relays.event import parse_json, verify
from relays.key import Key


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


async def test_the_owners_of_a_large_group_are_told_in_parts_and_in_order(tmp_path: Path) -> None:
    base = await open_database(tmp_path / "n.db", seal=unsigned_seal, clock=SystemClock())
    assert isinstance(base, Database)
    base._writer.largest = 512
    turn, told = 0, list[tuple[int, int]]()

    async def owner(number: int) -> None:
        await base.commit([Insert("seen", {"event_id": f"{number}", "at": number})])
        told.append((turn, number))

    owners = asyncio.gather(*map(owner, range(300)))
    while not owners.done():
        turn += 1
        await asyncio.sleep(0)
    assert base.stats()["groups"] == 1
    assert [number for _, number in told] == list(range(300))
    assert max(Counter(when for when, _ in told).values()) <= 16
    await base.aclose()


async def test_a_group_with_one_that_conflicts_is_applied_again_without_it_and_the_next_ones_with_care(
    tmp_path: Path,
) -> None:
    base = await open_database(tmp_path / "n.db", seal=unsigned_seal, clock=SystemClock())
    assert isinstance(base, Database)

    async def group(first: int) -> list[BaseException | None]:
        rows = [Insert("seen", {"event_id": f"{first + number % 9}", "at": 0}) for number in range(10)]
        units = [base.commit([row, Append("r", "begin", row.row["event_id"], "{}")]) for row in rows]  # texts
        return await asyncio.gather(*units, return_exceptions=True)

    assert base._writer._careful == 0
    verdicts = await group(0)
    assert [type(verdict) for verdict in verdicts] == [type(None)] * 9 + [Conflict]
    assert base._writer._careful == 16
    for number in range(1, 20):
        assert sum(verdict is None for verdict in await group(100 * number)) == 9
    entries = await base.select("entry", order=["seq"])
    assert [entry["seq"] for entry in entries] == list(range(180))
    assert [entry["prev"] for entry in entries] == ["", *(entry["id"] for entry in entries[:-1])]
    assert base.stats() == {"groups": 20, "units": 180, "conflicts": 20}
    await base.aclose()


async def test_entries_that_are_signed_beside_the_rows_are_whole_and_in_order_whatever_conflicts(
    tmp_path: Path,
) -> None:
    key = Key(b"\x07" * 32)
    base = await open_database(tmp_path / "n.db", seal=ledger_seal(key), clock=SystemClock())

    async def one(number: int) -> None:
        row = Insert("seen", {"event_id": f"{number % 80}", "at": number})
        body = "\ud800" if number == 41 else "{}"  # cannot be signed
        await base.commit([Append("r", "begin", f"{number}", body), row, Append("q", "begin", f"{number}", "{}")])

    verdicts = await asyncio.gather(*map(one, range(100)), return_exceptions=True)
    kept = [number for number, verdict in enumerate(verdicts) if verdict is None]
    assert kept == [number for number in range(80) if number != 41]
    assert {type(verdict) for verdict in verdicts[80:]} == {Conflict}
    for run in ("r", "q"):
        entries = await base.select("entry", {"run": run}, order=["seq"])
        events = [parse_json(entry["raw"]) for entry in entries]
        for event in events:
            verify(event)
        assert [event.id for event in events] == [entry["id"] for entry in entries]
        assert [event.value("e") for event in events] == [None, *(event.id for event in events[:-1])]
        assert [event.value("k") for event in events] == [str(number) for number in kept]
        assert [event.value("s") for event in events] == [str(seq) for seq in range(len(kept))]
    await base.aclose()
