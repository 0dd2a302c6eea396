"""Which index SQLite takes for the questions that are asked all the time, by its own account."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from core.unit import Among, Condition, Delete, Update, Within
from node.storage.migration import migrate
from node.storage.statement import Step, count_question, question, step


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    (tmp_path / "node.db").touch()
    migrate(tmp_path / "node.db")
    with closing(sqlite3.connect(tmp_path / "node.db")) as found:
        yield found


def plan(db: sqlite3.Connection, sql: str, params: Sequence[object]) -> str:
    return "; ".join(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}", params))


@pytest.mark.parametrize(
    ("table", "where", "order", "index"),
    [
        ("inbox", {"agent": "a", "state": "new"}, ["priority", "n"], "inbox_new (agent=?)"),
        ("inbox", {"agent": Among(("a", "b")), "state": "new"}, [], "inbox_new (agent=?)"),
        ("inbox", {"agent": "a", "state": Among(("new",)), "priority": 0, "n": Within(5)}, [], "inbox_new"),
        ("inbox", {"agent": "a", "state": "dead"}, ["n"], "inbox_dead (agent=?)"),
        ("inbox", {"agent": "a", "state": "dropped"}, ["n"], "inbox_dropped (agent=?)"),
        ("inbox", {"agent": "a", "state": "expired"}, ["n"], "inbox_expired (agent=?)"),
        ("inbox", {"agent": "a", "state": "new", "priority": Within(high=3)}, ["-priority"], "inbox_new (agent=?"),
        ("inbox", {"agent": "a", "state": "new", "priority": 3, "n": Within(5)}, ["n"], "inbox_new (agent=? AND prio"),
        ("inbox", {"agent": "a", "envelope_id": "x", "state": "new"}, [], "sqlite_autoindex_inbox_1 (agent=? AND"),
        ("alarm", {"due_ms": Within(high=9)}, ["due_ms"], "ix_alarm_due_ms (due_ms<?)"),
        ("interest", {"event": Among(("x", "*")), "agent": Among(("a",))}, [], "interest_event (event=? AND agent=?)"),
        ("hook", {"agent": "a"}, [], "ix_hook_agent (agent=?)"),
        ("inbox", {"ended_at": Within(high=9)}, ["ended_at"], "inbox_ended"),
        ("agent", {"status": "dormant", "name": Within("m")}, ["name"], "agent_status (status=? AND name>?)"),
        ("agent", {"status": Among(("active", "dormant"))}, [], "agent_status (status=?)"),
        ("tick", {"agent": "a"}, ["-n"], "tick_agent (agent=?)"),
    ],
)
def test_the_index_for_a_question_is_found_and_its_order_needs_no_sorting(
    db: sqlite3.Connection, table: str, where: Mapping[str, Condition], order: list[str], index: str
) -> None:
    asked = question(table, where, order, 10)
    found = plan(db, asked.sql, asked.params)
    assert f"INDEX {index}" in found
    assert "SCAN" not in found.replace("SCAN json_each", "")
    assert "TEMP B-TREE" not in found


def test_which_agents_have_something_new_and_how_many_is_answered_by_the_small_index_alone(
    db: sqlite3.Connection,
) -> None:
    asked = question("inbox", {"state": "new"}, columns=["agent"], distinct=True)
    assert plan(db, asked.sql, asked.params) == "SCAN inbox USING COVERING INDEX inbox_new"
    for where in ({"state": "new"}, {"agent": "a", "state": "new"}):
        counted = count_question("inbox", where, 100)
        assert "COVERING INDEX inbox_new" in plan(db, counted.sql, counted.params)


@pytest.mark.parametrize(
    ("write", "index"),
    [
        (Update("inbox", {"agent": "a", "state": "new", "priority": 1}, set={"state": "done"}), "inbox_new"),
        (Delete("inbox", {"agent": "a", "state": "dead", "n": Within(high=5)}), "inbox_dead"),
        (
            Update("agent", {"name": "a", "version": 1, "status": "active"}, add={"version": 1}),
            "sqlite_autoindex_agent_1",
        ),
    ],
)
def test_changes_find_their_rows_by_an_index(db: sqlite3.Connection, write: Update | Delete, index: str) -> None:
    made: Step = step(write, 0)
    assert f"INDEX {index}" in plan(db, made.sql, made.params)
