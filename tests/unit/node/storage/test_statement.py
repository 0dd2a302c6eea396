"""One text per shape, values always bound."""

import pytest

from core.unit import Among, Append, Insert, Update, Within
from node.storage.error import BadWrite
from node.storage.statement import compiled, question, step


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
    for bad in ({evil: 1}, {"event_id": Within(1)}):
        with pytest.raises(BadWrite):
            question("seen", bad, (), None)


def test_any_number_of_wanted_values_is_one_shape() -> None:
    texts = {question("seen", {"at": Among(tuple(range(k)))}, (), None)[0] for k in (1, 10, 1000)}
    assert len(texts) == 1
    assert question("seen", {"at": Among((None, 1))}, (), None)[0] not in texts


def test_entries_wait_for_their_place() -> None:
    entry = Append("r", "begin", "e", "{}")
    assert compiled([entry]) == (entry,)


def test_bytes_cannot_be_looked_up_in_lists() -> None:
    with pytest.raises(BadWrite):
        question("proof", {"sealed": Among((b"x",))}, (), None)
