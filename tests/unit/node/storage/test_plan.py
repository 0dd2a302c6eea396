"""A plan says what the full way says, for every write and question that comes after the first of its shape."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.unit import Among, Append, Condition, Delete, Insert, Update, Within
from node.storage import plan
from node.storage.error import BadWrite
from node.storage.plan import asked, compiled, planned
from node.storage.statement import question, step


class Word(StrEnum):
    NEW = "new"


class Number(IntEnum):
    ONE = 1


NUMBERS = st.sampled_from([0, 1, -5, Number.ONE, True, 1 << 61, -(1 << 61), (1 << 61) + 1, 1 << 62, None, "1", b"1"])
TEXTS = st.sampled_from(["", "a", "new'; --", Word.NEW, "done", None, 5])
WORDS = st.sampled_from(["new", "done", "dead", Word.NEW, "", "No", "x" * 25, "a'b", None, 7])
FEW = st.lists(st.sampled_from(["new", "done"]), max_size=2).map(lambda found: Among(tuple(found)))
BETWEEN = st.sampled_from([Within(1, 5), Within(None, 5), Within(), Within("a")])
ROWS = st.fixed_dictionaries(
    dict.fromkeys(("agent", "envelope_id", "cause", "source", "sender", "payload"), TEXTS) | {"at": NUMBERS},
    optional={"state": WORDS, "tries": NUMBERS, "expires_at": NUMBERS, "nothing": NUMBERS},
)  # fmt: skip
WHERE = st.fixed_dictionaries(
    {}, optional={"n": NUMBERS | BETWEEN, "agent": TEXTS | BETWEEN, "state": WORDS | FEW, "expires_at": NUMBERS}
)
SETS = st.fixed_dictionaries({}, optional={"state": WORDS, "error": TEXTS, "ended_at": NUMBERS})
ADDS = st.fixed_dictionaries({}, optional={"tries": NUMBERS, "at": NUMBERS})
WRITES = (
    st.builds(Insert, st.just("inbox"), ROWS, st.booleans())
    | st.builds(Update, st.just("inbox"), WHERE, SETS, ADDS, st.none(), st.sampled_from([None, 1, 2]))
    | st.builds(Delete, st.just("inbox"), WHERE, st.sampled_from([None, 1]))
)


def _said(make: object, *args: object) -> object:
    try:
        return make(*args)  # one of the functions below
    except BadWrite as error:
        return error.message


@given(st.lists(WRITES, min_size=1, max_size=20))
def test_a_planned_write_is_the_one_that_the_full_way_makes(writes: list[Insert | Update | Delete]) -> None:
    plan._plans.clear()
    for position, write in enumerate([*writes, *writes]):
        assert _said(planned, write, position) == _said(step, write, position)


@given(st.lists(st.tuples(WHERE, st.sampled_from([(), ("n",), ("-at", "n")]), st.sampled_from([None, 0, 7]),
                          st.sampled_from([(), ("n",), ("agent", "state")]), st.booleans()), max_size=20))  # fmt: skip
def test_a_planned_question_is_the_one_that_the_full_way_makes(
    questions: list[tuple[Mapping[str, Condition], tuple[str, ...], int | None, tuple[str, ...], bool]],
) -> None:
    plan._plans.clear()
    for one in [*questions, *questions]:
        assert _said(asked, "inbox", *one) == _said(question, "inbox", *one)


def test_the_second_of_a_shape_is_not_looked_at_in_full_and_a_word_that_was_not_seen_is() -> None:
    plan._plans.clear()
    made = [planned(Update("inbox", {"n": n, "state": "new"}, set={"state": word}), 0)
            for n, word in ((1, "done"), (2, "done"), (3, "dead"))]  # fmt: skip
    assert made[0].sql is made[1].sql
    assert [one.params for one in made] == [("done", 1), ("done", 2), ("dead", 3)]
    with pytest.raises(BadWrite):
        planned(Update("inbox", {"n": 4, "state": "new"}, set={"state": "Done"}), 0)
    assert len(plan._plans) == 1


def test_plans_and_words_are_bounded() -> None:
    plan._plans.clear()
    for number in range(1_000):
        word = "".join("abcdefghij"[int(digit)] for digit in str(number))
        planned(Update("inbox", {"state": word}, rows=None), 0)
    (only,) = plan._plans.values()
    assert len(only.texts) == plan._MOST_WORDS
    keys = [f"k{number}" for number in range(plan._MOST_PLANS + 10)]
    for key in keys:
        plan._keep(key, only)
    assert len(plan._plans) <= plan._MOST_PLANS


def test_entries_wait_for_their_place() -> None:
    entry = Append("r", "begin", "e", "{}")
    assert compiled([entry]) == (entry,)
