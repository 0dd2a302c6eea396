"""One text per shape, values always bound."""

from typing import Any

import pytest

from core.unit import Among, Delete, Insert, Update, Within
from node.storage.error import BadWrite
from node.storage.statement import batches, question, step


def test_writes_of_one_shape_share_one_text() -> None:
    first, second = (step(Insert("seen", {"event_id": f"{k}", "at": k}), 0) for k in range(2))
    assert first.sql is second.sql
    assert second.params == ("1", 1)


def test_values_never_reach_the_text() -> None:
    evil = "'; DROP TABLE seen; --"
    made = [
        step(Insert("seen", {"event_id": evil, "at": 1}), 0),
        step(Update("seen", {"event_id": evil}, set={"at": 1}), 0),
    ]
    texts = [one.sql for one in made] + [question("seen", {"event_id": evil, "at": Within(1, 2)}, ["-at"], 5)[0]]
    texts.append(question("seen", {"event_id": Among((evil,))}, (), None)[0])
    assert not any("DROP" in text for text in texts)
    for table, bad in (("seen", {evil: 1}), ("seen", {"event_id": Within(1)}), ("inbox", {"state": evil})):
        with pytest.raises(BadWrite):
            question(table, bad, (), None)


def test_any_number_of_wanted_values_is_one_shape() -> None:
    texts = {question("seen", {"at": Among(tuple(range(k)))}, (), None)[0] for k in (1, 10, 1000)}
    assert len(texts) == 1
    assert question("seen", {"at": Among((None, 1))}, (), None)[0] not in texts


def test_bytes_and_texts_with_a_nul_are_bound_one_by_one_in_few_texts() -> None:
    asked = [question("proof", {"sealed": Among(tuple(bytes((k,)) for k in range(count)))}) for count in range(1, 130)]
    assert len({one.sql for one in asked}) == 9  # 1, 2, 4 … 256 marks
    assert asked[4].params == (b"\0", b"\1", b"\2", b"\3", b"\4", b"\4", b"\4", b"\4")
    with pytest.raises(BadWrite):
        question("proof", {"sealed": Among((b"x",) * 20_000)})


def test_words_stand_in_the_text_and_only_where_they_are_compared() -> None:
    assert question("inbox", {"state": "new"}).sql.endswith("WHERE \"state\" = 'new'")
    assert question("inbox", {"state": Among(("new",))}).sql.endswith("WHERE \"state\" = 'new'")
    assert question("inbox", {"state": Among(("new", "dead"))}).sql.endswith("WHERE \"state\" IN ('dead', 'new')")
    made = step(Update("inbox", {"n": 1, "state": "new"}, set={"state": "done"}), 0)
    assert made.sql == 'UPDATE "inbox" SET "state" = ? WHERE "n" = ? AND "state" = \'new\''
    assert made.params == ("done", 1)


def test_writes_are_put_together_by_table_in_their_order_where_a_sum_tells_whether_each_fitted() -> None:
    given = [
        Insert("seen", {"event_id": "a", "at": 1}), Update("budget", {"name": "b"}, add={"held": 1}),
        Insert("seen", {"event_id": "b", "at": 2}), Update("budget", {"name": "c"}, add={"held": 2}),
        Delete("seen", {"event_id": "a"}, rows=1), Insert("seen", {"event_id": "c", "at": 3}),
    ]  # fmt: skip
    made = list(batches(step(write, 0) for write in given))
    assert [(one.sql.split(" ")[0], one.rows, len(one.params)) for one in made] == [
        ("INSERT", 2, 2), ("DELETE", 1, 1), ("INSERT", 1, 1), ("UPDATE", 2, 2),
    ]  # fmt: skip
    assert [params[0] for one in made[:3] for params in one.params] == ["a", "b", "a", "c"]


@pytest.mark.parametrize(
    ("where", "rows"),
    [({"event_id": "a"}, 0), ({"event_id": "a"}, 2), ({"at": 1}, 1), ({"event_id": Among(("a",))}, 1)],
)
def test_a_write_that_may_touch_more_or_fewer_rows_than_one_stands_alone(where: Any, rows: int) -> None:
    made = list(batches(step(Update("seen", where, set={"at": 2}, rows=rows), 0) for _ in range(2)))
    assert [len(one.params) for one in made] == [1, 1]


def test_writes_that_may_touch_any_number_of_rows_are_not_counted() -> None:
    (one,) = batches(step(Delete("seen", {"at": at}), 0) for at in range(3))
    assert (one.rows, len(one.params)) == (None, 3)
