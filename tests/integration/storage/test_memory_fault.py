"""SQLite gets no memory in the middle of a group: it rolls back by itself, and raises what is no error of sqlite3."""

import _sqlite3
import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.clock import SystemClock
from core.error import VendoError
from core.unit import Append
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database

LIBRARY = ctypes.CDLL(_sqlite3.__file__)
LIBRARY.sqlite3_hard_heap_limit64.argtypes = [ctypes.c_int64]
LIBRARY.sqlite3_hard_heap_limit64.restype = ctypes.c_int64
LIBRARY.sqlite3_memory_used.restype = ctypes.c_int64


@contextmanager
def spare(memory: int) -> Iterator[None]:
    """SQLite gets so many bytes more, in this process."""
    LIBRARY.sqlite3_hard_heap_limit64(LIBRARY.sqlite3_memory_used() + memory)
    try:
        yield
    finally:
        LIBRARY.sqlite3_hard_heap_limit64(0)


async def test_the_ledger_stays_unbroken_and_the_writer_alive_when_sqlite_gets_no_memory(tmp_path: Path) -> None:
    base = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
    assert isinstance(base, Database)
    await base.commit([Append("r", "begin", "first", "{}")])
    refused, kept = set[str](), ["first"]
    for memory in (*range(1_000, 10_000, 500), *range(10_000, 100_000, 10_000)):
        mine = [f"{memory}-{number}" for number in range(5)]
        try:
            with spare(memory):
                await base.commit([Append("r", "begin", one, '{"x":"' + "y" * 2_000 + '"}') for one in mine])
            kept += mine
        except VendoError as error:
            refused.add(error.code)
        await base.commit([Append("r", "commit", f"after-{memory}", "{}")])
        kept.append(f"after-{memory}")
    rows = await base.select("entry", {"run": "r"}, order=["seq"])
    await base.aclose()
    assert refused == {"store.failed"}
    assert [row["effect_id"] for row in rows] == kept
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert [row["prev"] for row in rows] == ["", *(row["id"] for row in rows[:-1])]
