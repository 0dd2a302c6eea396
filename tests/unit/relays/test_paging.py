"""Walking down what a relay has stored, against relays that cut at any limit."""

import random

from hypothesis import given
from hypothesis import strategies as st

from relays.event import Draft, Event
from relays.filter import Filter
from relays.key import Key
from relays.paging import MAX_PAGES, CatchUp

KEY = Key.generate()


def events_at(times: list[int], kinds: tuple[int, ...] = (1,)) -> list[Event]:
    return [KEY.sign(Draft(kinds[n % len(kinds)], str(n), (), at)) for n, at in enumerate(times)]


def walk(stored: list[Event], filters: list[Filter], cap: int) -> tuple[set[str], CatchUp]:
    """A relay with one limit for the whole answer, as strict as any."""
    part = CatchUp(filters, filters)
    found: set[str] = set()
    asked = list(filters)
    while True:
        hits = [event for event in stored if any(one.matches(event) for one in asked)]
        hits.sort(key=lambda event: (-event.created_at, event.id))
        for event in hits[:cap]:
            found.add(event.id)
            part.note(event.created_at)
        following = part.turn(None)
        if following is None:
            return found, part
        asked = [following]


@given(
    st.lists(st.integers(1_000, 1_400), max_size=120),
    st.integers(1, 60),
    st.randoms(use_true_random=False),
)
def test_everything_is_found_at_any_limit_unless_one_second_is_too_full(
    times: list[int], cap: int, chance: random.Random
) -> None:
    stored = events_at(times, (1, 2, 3))
    filters = [Filter(kinds=frozenset({1, 2})), Filter(kinds=frozenset({2, 3}))][: chance.randint(1, 2)]
    wanted = {event.id for event in stored if any(one.matches(event) for one in filters)}
    full = max((times.count(at) for at in set(times)), default=0) >= cap
    found, _ = walk(stored, filters, cap)
    assert found <= wanted
    assert full or found == wanted


def test_nothing_stored_costs_one_answer() -> None:
    _, part = walk([], [Filter(kinds=frozenset({1})), Filter(kinds=frozenset({2}))], 10)
    assert part.pages == 1


def test_a_single_second_that_is_too_full_is_passed_and_counted_as_a_hole() -> None:
    stored = events_at([100] * 80 + [50] * 10)
    found, part = walk(stored, [Filter(kinds=frozenset({1}))], 60)
    assert {event.id for event in stored if event.created_at == 50} <= found
    assert part.holes == 1


def test_the_walk_stops_at_since() -> None:
    part = CatchUp([Filter(since=100)], [Filter(since=100)])
    part.note(100)
    assert part.turn(None) == Filter(since=100, until=100)
    part.note(100)
    assert part.turn(None) is None


def test_a_filter_with_a_limit_of_its_own_is_not_walked() -> None:
    part = CatchUp([Filter(limit=1)], [])
    part.note(100)
    assert part.turn(None) is None


def test_a_relay_that_always_has_more_is_left_in_the_end() -> None:
    part = CatchUp([Filter()], [Filter()])
    at = 10**9
    turns = 0
    while True:
        at -= 1
        part.note(at)
        turns += 1
        if part.turn(None) is None:
            break
    assert turns == MAX_PAGES
    assert part.holes == 1


def test_a_relay_that_ignores_until_does_not_hold_the_walk() -> None:
    part = CatchUp([Filter()], [Filter()])
    untils = []
    for _ in range(50):
        part.note(1_000)
        following = part.turn(None)
        assert following is not None
        untils.append(following.until)
    assert untils == sorted(set(untils), reverse=True)
