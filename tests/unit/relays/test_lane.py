"""What waits for one relay."""

from relays.lane import MAX_ANSWERED_TRIES, MAX_HELD, MAX_IN_FLIGHT, Item, Lane
from relays.verdict import STORED, Verdict, VerdictState, lost


def lane(*names: str) -> Lane:
    part = Lane("ws://r", lambda most: most)
    part.add(Item(name, "{}", "e") for name in names)
    return part


def test_items_leave_in_the_order_in_which_they_came() -> None:
    part = lane("a", "b", "a")
    assert [item.event_id for item in (part.take(), part.take()) if item] == ["a", "b"]
    assert part.take() is None


def test_an_item_that_is_held_is_not_taken_in_again_until_it_is_settled() -> None:
    part = lane("a")
    item = part.take()
    assert item is not None
    part.add([Item("a", "{}", "e")])
    assert part.take() is None
    part.settle(item, STORED, 0.0)
    part.add([Item("a", "{}", "e")])
    assert part.take() is not None


def test_an_unknown_verdict_waits_longer_each_time() -> None:
    part = lane("a")
    mono, waits = 0.0, []
    for _ in range(10):
        part.due(mono)
        item = part.take()
        assert item is not None
        verdict, wait = part.settle(item, lost("x"), mono)
        assert verdict.state is VerdictState.UNKNOWN
        waits.append(wait)
        part.due(mono + wait - 0.01)
        assert not part.waiting
        mono += wait
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_an_error_that_always_comes_back_is_final_in_the_end() -> None:
    part = lane("a")
    mono = 0.0
    for n in range(MAX_ANSWERED_TRIES):
        part.due(mono)
        item = part.take()
        assert item is not None
        verdict, wait = part.settle(item, Verdict(VerdictState.UNKNOWN, "error: full"), mono)
        mono += wait
        assert (verdict.state is VerdictState.REFUSED) == (n == MAX_ANSWERED_TRIES - 1)
    assert len(part) == 0


def test_flight_and_memory_are_bounded() -> None:
    part = lane(*(str(n) for n in range(MAX_HELD + 5)))
    assert (len(part), part.overflow, part.hungry) == (MAX_HELD, True, False)
    taken = []
    while (item := part.take()) is not None:
        taken.append(item)
    assert len(taken) == MAX_IN_FLIGHT
    part.put_back(taken[-1])
    assert part.take() is taken[-1]
