"""Remembering events in bounded memory."""

from relays.seen import Seen


def test_at_least_the_last_size_ids_are_remembered_and_never_more_than_twice_that() -> None:
    part = Seen(10)
    for n in range(100):
        part.add(str(n), n)
        assert all(part.get(str(back)) == back for back in range(max(0, n - 9), n + 1))
        assert sum(part.get(str(back)) is not None for back in range(n + 1)) <= 20
