"""Whatever units come together, every engine gives the same verdicts and is left with the same rows."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import SystemClock
from core.error import VendoError
from core.unit import Among, Append, Condition, Delete, Insert, Update, Within, Write
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from node.storage.memory import MemoryDatabase
from tests.postgres_part import fresh_database
from tests.unit_part import Base

TABLES = {"seen": ["event_id"], "budget": ["name"], "mark": ["n"], "inbox": ["n"], "entry": ["n"]}
NAMES = st.sampled_from(["a", "a", "b", "\0é"])  # few, so that they meet
NUMBERS = st.integers(0, 2) | st.sampled_from([(1 << 63) - 1, -(1 << 63)])
ROWS = st.sampled_from([0, 1, 1, 1, 2, None])
TRIGGER = {"cause": "m", "source": "", "sender": "", "payload": "", "at": 0}


def condition(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Condition]:
    return values | st.lists(values, max_size=3).map(lambda some: Among(tuple(some)))


def within(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Condition]:
    return st.builds(Within, st.none() | values, st.none() | values)


def some_of(**columns: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=columns)


SEEN = some_of(event_id=condition(NAMES) | within(NAMES), at=condition(NUMBERS) | within(NUMBERS))
BUDGET = some_of(name=NAMES, held=condition(NUMBERS), spent=within(NUMBERS))
INBOX = some_of(
    agent=NAMES, envelope_id=NAMES, state=condition(st.sampled_from(["new", "done"])),
    ended_at=condition(st.none() | NUMBERS),
)  # fmt: skip
SMALL = st.integers(-3, 3)
CEILING = st.sampled_from([None, (("held", "spent"), "ceiling")])

BY_KEY: st.SearchStrategy[Write] = st.one_of(
    st.builds(lambda name, ignore: Insert("seen", {"event_id": name, "at": 1}, ignore), NAMES, st.booleans()),
    st.builds(lambda name, at: Update("seen", {"event_id": name}, set={"at": at}), NAMES, NUMBERS),
    st.builds(lambda name, at: Update("seen", {"event_id": name, "at": at}, rows=1), NAMES, NUMBERS),
    st.builds(lambda name: Delete("seen", {"event_id": name}, rows=1), NAMES),
    st.builds(lambda name, id, ignore: Insert("mark", {"agent": name, "id": id}, ignore), NAMES, NAMES, st.booleans()),
    st.builds(lambda run: Append(run, "begin", "e", "{}"), NAMES),
)  # fmt: skip
ANY: st.SearchStrategy[Write] = st.one_of(
    st.builds(lambda where, at, rows: Update("seen", where, set={"at": at}, rows=rows), SEEN, NUMBERS, ROWS),
    st.builds(lambda name, to: Update("seen", {"event_id": name}, set={"event_id": to}), NAMES, NAMES),
    st.builds(lambda where, rows: Delete("seen", where, rows=rows), SEEN, ROWS),
    st.builds(
        lambda name, most, held, ignore: Insert(
            "budget", {"name": name, "unit": "u", "ceiling": most, "held": held}, ignore
        ),
        NAMES, SMALL, SMALL, st.booleans(),
    ),
    st.builds(
        lambda where, add, spent, ceiling, rows: Update(
            "budget", where, add={"held": add}, set=spent, ceiling=ceiling, rows=rows
        ),
        BUDGET, SMALL, some_of(spent=SMALL, ceiling=SMALL), CEILING, ROWS,
    ),
    st.builds(
        lambda name, add, ceiling: Update("budget", {"name": name}, add={"held": add}, ceiling=ceiling),
        NAMES, SMALL, CEILING,
    ),
    st.builds(lambda agent, id: Delete("mark", {"agent": agent, "id": id}), NAMES, NAMES),
    st.builds(
        lambda row, more, ignore: Insert("inbox", {**TRIGGER, **row, **more}, ignore),
        st.fixed_dictionaries({"agent": NAMES, "envelope_id": NAMES}), some_of(ended_at=NUMBERS), st.booleans(),
    ),
    st.builds(
        lambda agent, id: Update("inbox", {"agent": agent, "envelope_id": id, "state": "new"}, set={"state": "done"}),
        NAMES, NAMES,
    ),
    st.builds(lambda where, rows: Update("inbox", where, set={"tries": 1}, rows=rows), INBOX, ROWS),
    st.builds(lambda where, rows: Delete("inbox", where, rows=rows), INBOX, ROWS),
)  # fmt: skip
BOTH = BY_KEY | ANY
GROUPS = st.lists(
    st.one_of(*(st.lists(st.lists(some, min_size=1, max_size=3), min_size=3, max_size=9) for some in (BY_KEY, BOTH))),
    min_size=1, max_size=3,
)  # fmt: skip
Verdict = tuple[str, Any] | None


class _Still(SystemClock):
    def now(self) -> int:
        return 1_000


async def outcome(base: Base, groups: Sequence[Sequence[Sequence[Write]]]) -> tuple[list[Verdict], Any]:
    """What became of each unit, and what is there afterwards."""
    verdicts: list[Verdict] = []
    for group in groups:
        if isinstance(base, Database):
            base._writer._careful = 0  # after a unit that did not fit it would go unit by unit for a while
        for error in await asyncio.gather(*(base.commit(unit) for unit in group), return_exceptions=True):
            assert error is None or isinstance(error, VendoError), error
            verdicts.append(None if error is None else (error.code, error.context))
    rows = {table: await base.select(table, order=order) for table, order in TABLES.items()}
    for row in [row for found in rows.values() for row in found]:
        row.pop("n", None)  # the order counts; a refused unit may have used numbers up
    questions = [
        await base.select("seen", {"at": Within(0)}, order=["-at", "event_id"], limit=2),
        await base.select("inbox", {"state": "new"}, order=["ended_at", "-agent", "n"], columns=["envelope_id"]),
        await base.count("budget", {"name": Among(("a", "\0"))}),
    ]
    return verdicts, (rows, questions)


class Field:
    """The engines, opened once; emptied before each example, which has ledger runs of its own."""

    def __init__(self, bases: Sequence[Base]) -> None:
        self.bases = bases
        self.examples = itertools.count()

    async def play(self, groups: Sequence[Sequence[Sequence[Write]]]) -> None:
        number = next(self.examples)
        groups = [[[_in_run(write, number) for write in unit] for unit in group] for group in groups]
        expected = await outcome(MemoryDatabase(unsigned_seal, _Still()), groups)
        for base in self.bases:
            await base.commit([Delete(table, {}) for table in TABLES])
            assert await outcome(base, groups) == expected


def _in_run(write: Write, number: int) -> Write:
    return replace(write, run=f"{number} {write.run}") if isinstance(write, Append) else write


async def opened(*places: Path | str) -> Field:
    return Field([await open_database(place, seal=unsigned_seal, clock=_Still()) for place in places])


@pytest.mark.needs("postgres")
@pytest.mark.timeout(3_600)
def test_every_engine_gives_the_same_verdicts_and_keeps_the_same_rows(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        field = runner.run(opened(tmp_path / "node.db", runner.run(fresh_database())))

        @settings(max_examples=settings().max_examples * 2 // 5)
        @given(GROUPS)
        def run(groups: Sequence[Sequence[Sequence[Write]]]) -> None:
            runner.run(field.play(groups))

        run()
        for base in field.bases:
            runner.run(base.aclose())
