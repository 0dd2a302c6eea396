"""Entries that are sealed before their group is at work: their places follow each other, whatever becomes of them."""

import pytest

from core.error import InvalidInput
from core.unit import Append, Insert, Row
from node.storage.chain import Chain, Head, unsigned_seal
from node.storage.postgres_entry import Entries, Ready
from node.storage.postgres_plan import compiled
from tests.gate_part import SetClock

FORBIDDEN, BROKEN = "not to be sealed", "breaks the seal"


def _seal(head: Head, entry: Append) -> Row:
    if entry.body == FORBIDDEN:
        raise InvalidInput("This is not sealed.")
    if entry.body == BROKEN:
        raise KeyError(entry.body)
    return unsigned_seal(head, entry)


def entries(*known: str) -> Entries:
    """Of a database that is empty, and whose runs `known` were looked up."""
    return Entries(Chain(_seal, SetClock(), lambda run: None), lambda: set(known), lambda: 100)


def unit(run: str = "r", body: str = "{}", more: int = 0) -> tuple[object, ...]:
    """A unit with an entry, or several."""
    return compiled(
        [Insert("meta", {"key": "k", "value": "v"}), *(Append(run, "begin", "e", body) for _ in range(more + 1))]
    )


def places(one: Ready) -> list[int]:
    """The numbers of its entries; it must be sealed."""
    assert one.ops is not None
    return [int(op.params[1]) for op in one.ops if op.form.table == "entry"]


def at_work(held: Entries, *group: Ready) -> list[list[int]]:
    """A group is at work; the places that its units have."""
    held.take(group)
    for one in group:
        held.place(one)
    held.follow()
    return [places(one) for one in group]


def test_what_waits_is_sealed_in_its_order_behind_what_is_at_work() -> None:
    held = entries("r")
    first, second = held.ready(unit(more=1)), held.ready(unit())
    assert at_work(held, first) == [[0, 1]]
    assert places(second) == [2]
    third = held.ready(unit())
    assert places(third) == [3]
    held.keep(first)
    assert at_work(held, second, third) == [[2], [3]]


def test_what_is_written_stays_and_what_is_not_gives_its_places_back_with_all_behind_it() -> None:
    held = entries("r")
    first, second, third = (held.ready(unit()) for _ in range(3))
    at_work(held, first)
    held.keep(first)
    at_work(held, second)
    held.spoil()  # the second is refused
    assert at_work(held, third) == [[1]]


def test_nothing_is_sealed_behind_a_unit_that_has_no_place_yet() -> None:
    held = entries("r")
    held.forget()
    first = held.ready(unit())
    held.take([first])
    behind = held.ready(unit())  # the first may still be refused before it gets its place
    assert behind.ops is None
    held.place(first)
    held.follow()
    assert held.ready(unit()).ops is None  # it would stand before the one that came before it
    assert not held.seal_some(8)
    assert places(behind) == [1]
    assert places(held.ready(unit())) == [3]


def test_those_that_were_left_out_are_sealed_a_few_at_a_time() -> None:
    held = entries("r")
    held.forget()
    first = held.ready(unit())
    held.take([first])
    waiting = [held.ready(unit()) for _ in range(5)]
    held.place(first)
    held.follow()
    assert held.seal_some(2)
    assert [one.ops is not None for one in waiting] == [True, True, False, False, False]
    assert at_work(held, *waiting[:3]) == [[1], [2], [3]]
    assert not held.seal_some(2)
    assert [places(one) for one in waiting[3:]] == [[4], [5]]


def test_a_unit_that_cannot_be_sealed_holds_up_those_behind_it_until_it_is_refused() -> None:
    held = entries("r")
    bad = held.ready(unit(body=FORBIDDEN))
    good = held.ready(unit())
    assert bad.ops is None
    assert good.ops is None
    held.take([bad])
    with pytest.raises(InvalidInput):
        held.place(bad)
    held.spoil()
    held.follow()
    assert at_work(held, good) == [[0]]


def test_a_half_sealed_unit_takes_no_place() -> None:
    held = entries("r")
    bad = held.ready(compiled([Append("r", "begin", "e", "{}"), Append("r", "begin", "e", FORBIDDEN)]))
    held.take([bad])
    held.spoil()
    held.follow()
    assert places(held.ready(unit())) == [0]


def test_runs_that_were_not_looked_up_are_sealed_with_their_group_alone() -> None:
    held = entries("r")
    unknown, known = held.ready(unit("other")), held.ready(unit())
    assert unknown.ops is None
    assert known.ops is None
    assert at_work(held, unknown, known) == [[0], [0]]


def test_after_a_doubt_everything_that_waits_is_sealed_anew() -> None:
    held = entries("r")
    first, second = held.ready(unit()), held.ready(unit())
    at_work(held, first)
    held.forget()  # nobody knows whether it is written
    assert held.ready(unit()).ops is None
    assert at_work(held, second) == [[0]]  # where the database says that the run ends


def test_a_fault_of_the_seal_strikes_its_own_unit_alone() -> None:
    held = entries("r")
    broken = held.ready(compiled([Append("r", "begin", "e", "{}"), Append("r", "begin", "e", BROKEN)]))
    good = held.ready(unit())
    held.take([broken])
    with pytest.raises(KeyError):
        held.place(broken)
    held.forget()
    held.follow()
    assert at_work(held, good) == [[0]]
    assert places(held.ready(unit())) == [1]


def test_a_fault_of_the_seal_takes_no_place_where_units_are_sealed_later() -> None:
    held = entries("r")
    held.forget()  # so that nothing is sealed at once
    broken = held.ready(compiled([Append("r", "begin", "e", "{}"), Append("r", "begin", "e", BROKEN)]))
    held.follow()
    assert not held.seal_some(8)
    held.take([broken])
    held.forget()
    held.follow()
    assert at_work(held, held.ready(unit())) == [[0]]


def test_a_group_that_has_its_places_does_not_hold_up_the_next_units() -> None:
    held = entries("r")
    first = held.ready(unit())
    held.take([first])
    assert places(held.ready(unit())) == [1]


def test_so_many_are_sealed_ahead_and_no_more() -> None:
    held = Entries(Chain(_seal, SetClock(), lambda run: None), lambda: {"r"}, lambda: 2)
    waiting = [held.ready(unit()) for _ in range(4)]
    assert [one.ops is not None for one in waiting] == [True, True, False, False]
    assert at_work(held, *waiting[:1]) == [[0]]
    assert not held.seal_some(8)
    assert [one.ops is not None for one in waiting] == [True, True, True, False]
    assert at_work(held, *waiting[1:]) == [[1], [2], [3]]


def test_units_go_in_the_order_in_which_they_came() -> None:
    held = entries("r")
    held.ready(unit())
    second = held.ready(unit())
    with pytest.raises(AssertionError):
        held.take([second])
