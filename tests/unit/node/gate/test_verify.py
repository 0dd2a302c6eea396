"""A ledger with one thing wrong is found wrong there."""

import orjson
import pytest

from core.unit import Append, Row
from node.gate.ledger import ledger_seal
from node.gate.verify import verify_ledger, verify_rows
from node.storage.chain import Head
from node.storage.memory import MemoryDatabase
from relays.key import Key
from tests.gate_part import KEY, SetClock, memory

GOOD = [("root", ""), ("begin", "a"), ("begin", "b"), ("unknown", "a"), ("commit", "a"), ("fail", "b"), ("begin", "c")]


async def ledger(entries: list[tuple[str, str]], base: MemoryDatabase | None = None) -> list[Row]:
    base = base or memory(SetClock())
    await base.commit([Append("run", type_, effect, "{}") for type_, effect in entries])
    return await base.select("entry", order=["n"])


async def test_a_good_ledger_is_good_and_says_what_is_open() -> None:
    rows = await ledger([*GOOD, ("begin", "d"), ("unknown", "d")])
    report = verify_rows(rows, KEY.pubkey)
    assert report.ok
    assert (report.entries, report.runs, report.effects) == (9, 1, 4)
    assert report.open == ("c", "d")
    assert report.unknown == ("d",)
    assert await verify_ledger(rows * 1, KEY.pubkey) == report


async def test_runs_are_chained_apart_and_effects_counted_together() -> None:
    base = memory(SetClock())
    await base.commit([Append("one", "root", "", "{}"), Append("one", "begin", "a", "{}")])
    await base.commit([Append("two", "root", "", "{}"), Append("two", "commit", "a", "{}")])
    assert verify_rows(await base.select("entry", order=["n"])).ok
    await base.commit([Append("two", "begin", "a", "{}")])
    problem = verify_rows(await base.select("entry", order=["n"])).problem
    assert problem is not None
    assert (problem.run, problem.seq) == ("two", 2)


@pytest.mark.parametrize(
    ("entries", "seq", "word"),
    [
        ([*GOOD, ("commit", "x")], 7, "never begun"),
        ([*GOOD, ("begin", "c")], 7, "begun before"),
        ([*GOOD, ("commit", "a")], 7, "already ended"),
        ([*GOOD, ("unknown", "b")], 7, "already ended"),
        ([*GOOD, ("unknown", "c"), ("unknown", "c")], 8, "twice"),
        ([*GOOD, ("root", "")], 7, "only one"),
        ([*GOOD, ("gift", "c")], 7, "no type"),
        (GOOD[1:], 0, "root"),
    ],
)
async def test_an_entry_out_of_turn_is_found(entries: list[tuple[str, str]], seq: int, word: str) -> None:
    problem = verify_rows(await ledger(entries), KEY.pubkey).problem
    assert problem is not None
    assert problem.seq == seq
    assert word in problem.reason


@pytest.mark.parametrize("column", ["type", "effect_id", "seq", "run", "prev", "id"])
async def test_a_changed_column_is_found(column: str) -> None:
    rows = await ledger(GOOD)
    rows[2][column] = 5 if column == "seq" else "f" * 64
    report = verify_rows(rows, KEY.pubkey)
    assert report.entries == 2
    assert not report.ok


@pytest.mark.parametrize("field", ["content", "created_at", "sig", "tags", "pubkey", "id"])
async def test_a_changed_event_is_found(field: str) -> None:
    rows = await ledger(GOOD)
    event = orjson.loads(rows[3]["raw"])
    changed = {"content": "{ }", "created_at": 5, "tags": [["r", "run"]]}
    event[field] = changed.get(field, "ab" * (64 if field == "sig" else 32))
    rows[3]["raw"] = orjson.dumps(event).decode()
    assert verify_rows(rows).entries == 3


async def test_a_missing_and_a_doubled_entry_are_found() -> None:
    rows = await ledger(GOOD)
    for bad in (rows[:3] + rows[4:], rows[:4] + rows[3:], [*rows[:2], rows[3], rows[2], *rows[4:]]):
        assert not verify_rows(bad).ok


async def test_entries_of_another_key_are_found() -> None:
    rows = await ledger(GOOD)
    assert verify_rows(rows, Key(b"\x09" * 32).pubkey).entries == 0
    last = rows[-1]
    forged = ledger_seal(Key(b"\x09" * 32))(
        Head("run", last["seq"], last["prev"], 1_800_000_000), Append("run", "begin", "c", "{}")
    )
    assert verify_rows([*rows[:-1], forged]).entries == len(rows) - 1


async def test_time_that_runs_backwards_is_found() -> None:
    rows = await ledger(GOOD[:2])
    late = ledger_seal(KEY)(Head("run", 2, rows[1]["id"], 5), Append("run", "begin", "z", "{}"))
    problem = verify_rows([*rows, late]).problem
    assert problem is not None
    assert "older" in problem.reason
