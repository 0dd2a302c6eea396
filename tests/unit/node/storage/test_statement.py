"""One text per shape, values always bound."""

import pytest

from core.unit import Among, Insert, Update, Within
from node.storage.error import BadWrite
from node.storage.statement import question, step


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
