"""Whose turn it is, where each key needs a socket of its own."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from relays.rota import FIRST_S, HOT_S, LEAST_S, MOST_S, Rota


def test_all_have_a_socket_while_there_are_enough() -> None:
    rota = Rota(3)
    assert rota.turn(["a", "b"], [], 0.0) == (["a", "b"], [])
    assert rota.turn(["a", "b"], ["a", "b"], 1_000.0) == ([], [])


def test_a_key_that_has_read_makes_room_and_the_next_starts_when_its_socket_is_closed() -> None:
    rota = Rota(1)
    rota.turn(["a", "b"], [], 0.0)
    assert rota.turn(["a", "b"], [], FIRST_S) == ([], [])  # it has not read to its end
    assert rota.turn(["a", "b"], ["a"], FIRST_S) == ([], ["a"])
    assert rota.turn(["a", "b"], [], FIRST_S, closing=1) == ([], [])
    assert rota.turn(["a", "b"], [], FIRST_S) == (["b"], [])
    assert rota.turn(["a", "b"], ["b"], FIRST_S + 1.0) == ([], [])  # everybody had a turn: no hurry now
    assert rota.turn(["a", "b"], ["b"], FIRST_S + LEAST_S) == ([], ["b"])


def test_a_key_that_never_comes_to_an_end_loses_its_socket_in_time() -> None:
    rota = Rota(1)
    rota.turn(["a", "b"], [], 0.0)
    assert rota.turn(["a", "b"], [], MOST_S - 1) == ([], [])
    assert rota.turn(["a", "b"], [], MOST_S) == ([], ["a"])


def test_keys_that_got_something_keep_at_most_half_of_the_sockets() -> None:
    rota = Rota(4)
    keys = list("abcdefgh")
    rota.turn(keys, [], 0.0)
    for key in "abcd":
        rota.heard(key, 1.0)
    assert rota.turn(keys, keys, LEAST_S).stop == ["c", "d"]
    assert rota.turn(keys, keys, HOT_S + 2).stop[:1] == ["a"]


def test_a_key_that_left_gives_up_its_socket() -> None:
    rota = Rota(2)
    rota.turn(["a", "b"], [], 0.0)
    assert rota.turn(["b"], [], 1.0).stop == ["a"]
    assert list(rota.active) == ["b"]


@given(st.integers(1, 5), st.integers(1, 30))
def test_turns_are_fair_and_sockets_are_never_too_many(sockets: int, count: int) -> None:
    rota, keys, turns, mono = Rota(sockets), [str(n) for n in range(count)], Counter[str](), 0.0
    for _ in range(6 * count + 6):
        turn = rota.turn(keys, list(rota.active), mono)
        turns.update(turn.start)
        assert len(list(rota.active)) <= sockets
        mono += LEAST_S
    assert set(turns) == set(keys)
    assert max(turns.values()) - min(turns.values()) <= 1
