"""Which index PostgreSQL takes with plans that are made once and kept, by its own account and on tables of any size."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from core.clock import SystemClock
from core.unit import Among, Condition, Delete, Insert, Update, Within, Write
from node.storage.chain import unsigned_seal
from node.storage.database import open_database
from node.storage.postgres_link import Link, close, connect
from node.storage.postgres_question import count_question, question
from node.storage.postgres_statement import op
from node.storage.postgres_wave import sieve, together, waves_of
from tests.postgres_part import fresh_database

pytestmark = pytest.mark.needs("postgres")


AGENT = {"program": "p", "state_version": 1, "state": "{}", "created_at": 0}
STATES = ("new", "dead", "done")


def many(number: int) -> list[Write]:
    """Rows of many agents: what belongs to one of them is a small part, and the planner is to know that."""
    mine = {"agent": f"a{number % 200}", "envelope_id": f"e{number}", "cause": "message"}
    state = STATES[number % 3]
    name = f"a{number}"
    ended = {"ended_at": number} if state == "done" else {}
    letter = {"source": "", "sender": "", "payload": "", "at": number, "state": state}
    return [
        Insert("tick", {"id": f"t{number}", "at_ms": number, "duration_ms": 1, **mine}),
        Insert("inbox", {**mine, **letter, **ended}),
        Insert("agent", {"name": name, "pubkey": name, "status": "active", **AGENT}),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled() -> str:
    url = await fresh_database()
    base = await open_database(url, seal=unsigned_seal, clock=SystemClock())
    await base.commit([write for number in range(2_000) for write in many(number)])
    await base.aclose()
    link = await connect(url)
    await link.execute("ANALYZE tick, inbox, agent")
    await close(link)
    return url


@pytest.fixture
async def link(filled: str) -> AsyncIterator[Link]:
    found = await connect(filled)
    yield found
    await close(found)


def literal(value: Any) -> str:
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(literal, value))}]"
    return str(value) if isinstance(value, int) else f"'{value}'"


async def plan(link: Link, text: str, params: list[Any]) -> str:
    await link.execute(f"PREPARE q AS {text}")
    given = f"({', '.join(map(literal, params))})" if params else ""
    rows = await link.fetch(f"EXPLAIN (COSTS OFF) EXECUTE q{given}")
    await link.execute("DEALLOCATE q")
    return "\n".join(row[0] for row in rows)


QUESTIONS = [
    ("inbox", {"agent": "a", "state": "new"}, ["priority", "n"], "inbox_new"),
    ("inbox", {"agent": Among(("a", "b")), "state": "new"}, [], "inbox_new"),
    ("inbox", {"agent": Among(tuple(f"{k}" for k in range(99))), "state": "new"}, [], "inbox_new"),
    ("inbox", {"agent": "a", "state": "dead"}, ["n"], "inbox_dead"),
    ("inbox", {"agent": "a", "envelope_id": "x", "state": "new"}, [], "inbox_agent_envelope_id_key"),
    ("inbox", {"ended_at": Within(high=9)}, ["ended_at"], "inbox_ended"),
    ("agent", {"status": "dormant", "name": Within("m")}, ["name"], "agent_status"),
    ("alarm", {"due_ms": Within(high=9)}, ["due_ms"], "ix_alarm_due_ms"),
    ("interest", {"event": Among(("x", "*"))}, [], "interest_event"),
    ("tick", {"agent": "a"}, ["-n"], "tick_agent"),
    ("entry", {"run": "r"}, ["-seq"], "entry_run_seq_key"),
    ("outbox", {"state": "pending", "next_at_ms": Within(high=9)}, ["next_at_ms"], "outbox_due"),
]


@pytest.mark.parametrize(("table", "where", "order", "index"), QUESTIONS)
async def test_the_index_for_a_question_is_found_and_its_order_needs_no_sorting(
    link: Link, table: str, where: Mapping[str, Condition], order: list[str], index: str
) -> None:
    asked = question(table, where, order, 10)
    found = await plan(link, asked.ask.lone, list(asked.params))
    assert index in found
    assert "Seq Scan" not in found
    assert not (order and "Sort" in found)
    counted = count_question(table, where, 10)
    assert "Seq Scan" not in await plan(link, counted.ask.lone, list(counted.params))
    if asked.ask.many:
        assert index in await plan(link, asked.ask.many, asked.ask.together([asked.params, asked.params]))


ROW = {"agent": "a", "envelope_id": "1", "cause": "m", "source": "", "sender": "", "payload": "", "at": 0}
CHANGES: list[tuple[Write, str]] = [
    (Update("agent", {"name": "a", "version": 1, "epoch": 0}, set={"state": "{}"}, add={"version": 1}), "agent_pkey"),
    (Update("inbox", {"n": 1, "state": "new"}, set={"state": "done", "ended_at": 5}), "inbox_pkey"),
    (Update("inbox", {"agent": "a", "envelope_id": "1"}, set={"tries": 1}), "inbox_agent_envelope_id_key"),
    (Delete("item", {"agent": "a", "key": "k"}, rows=1), "item_pkey"),
    (Update("budget", {"name": "day"}, add={"held": 5}, ceiling=(("held", "spent"), "ceiling")), "budget_pkey"),
    (Insert("inbox", ROW), "inbox_agent_envelope_id_key"),
]


@pytest.mark.parametrize(("write", "index"), CHANGES, ids=[index for _, index in CHANGES])
async def test_the_row_of_a_write_is_found_by_its_key_alone_and_among_many(
    link: Link, write: Write, index: str
) -> None:
    assert isinstance(write, Insert | Update | Delete)
    (wave,) = waves_of([(0, [op(write, 0)])])
    for lone in (True, False):
        if not isinstance(write, Insert):
            found = await plan(link, together(wave.forms, lone, ""), wave.params(wave.forms, lone=lone))
            assert index in found
            assert "Seq Scan" not in found
    found = await plan(link, sieve(wave.forms, ""), wave.params(wave.forms, lone=False))
    assert index in found
    assert "Seq Scan" not in found
