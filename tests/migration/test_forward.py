"""Forward from every released schema, on both engines: rows survive, and what comes afterwards has its place."""

from pathlib import Path

import pytest

from core.clock import SystemClock
from core.unit import Insert
from node.storage.chain import unsigned_seal
from node.storage.database import Store, open_database
from node.storage.migration import revisions
from tests.migration.old_part import make_postgres, make_sqlite, old_rows, read_postgres, read_sqlite
from tests.postgres_part import fresh_database

OLD = revisions()[:-1]


async def write_one_more(where: Path | str, revision: str) -> None:
    base: Store = await open_database(where, seal=unsigned_seal, clock=SystemClock())
    trigger = {"agent": "b", "envelope_id": "1", "cause": "message", "source": "", "sender": "", "payload": "", "at": 5}
    await base.commit(
        [Insert("inbox", trigger), Insert("rate", {"micro_usd": 1, "msat": 2, "taken_at": 3, "source": ""})]
    )
    for table in ("inbox", "rate"):
        assert [row["n"] for row in await base.select(table, order=["n"])] == [41, 42, 43]
    (old, _, _) = await base.select("inbox", order=["n"])
    wanted = ("new", 0, 77, None) if revision < "0003" else ("new", 41, 41, 41)  # from then on they were there
    assert (old["state"], old["priority"], old["written_at"], old["ended_at"]) == wanted
    secret = {"agent": "a", "name": "s", "sealed": b"s", "size": 1, "set_at_ms": 1}
    await base.commit([Insert("secret", secret)])
    assert await base.count("agent", {"status": "active"}) == 2
    await base.aclose()


@pytest.mark.parametrize("revision", OLD)
async def test_a_file_of_an_older_version_keeps_its_rows(tmp_path: Path, revision: str) -> None:
    rows = old_rows(tmp_path, revision)
    make_sqlite(tmp_path / "node.db", revision, rows)
    base = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
    await base.aclose()
    assert read_sqlite(tmp_path / "node.db", rows) == rows
    await write_one_more(tmp_path / "node.db", revision)


@pytest.mark.needs("postgres")
@pytest.mark.parametrize("revision", OLD)
async def test_a_postgresql_database_of_an_older_schema_keeps_its_rows(tmp_path: Path, revision: str) -> None:
    rows, url = old_rows(tmp_path, revision), await fresh_database(bare=True)
    await make_postgres(url, revision, rows)
    base = await open_database(url, seal=unsigned_seal, clock=SystemClock())
    await base.aclose()
    assert await read_postgres(url, rows) == rows
    await write_one_more(url, revision)


def test_every_table_of_an_older_schema_is_looked_at(tmp_path: Path) -> None:
    first, second = (old_rows(tmp_path, revision) for revision in ("0001", "0002"))
    assert {"agent", "entry", "inbox", "proof", "tick"} < first.keys() < second.keys()
    assert all(len(rows) == 2 for _, rows in second.values())
