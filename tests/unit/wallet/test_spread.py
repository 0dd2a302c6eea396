"""Where money should lie: caps hold, mints off the list are emptied, and nothing moves that is not worth its fee."""

from hypothesis import given
from hypothesis import strategies as st

from wallet.spread import Held, Rules, best_place, next_move, room

A, B, C = "https://a.example", "https://b.example", "https://c.example"


def test_without_a_cap_nothing_moves() -> None:
    assert next_move([Held(A, 1_000_000), Held(B, 0)], Rules()) is None


def test_what_is_above_the_cap_goes_to_the_mint_that_holds_least() -> None:
    move = next_move([Held(A, 15_000), Held(B, 3_000), Held(C, 1_000)], Rules(cap_sat=10_000))
    assert move is not None
    assert (move.source, move.target) == (A, C)
    assert 15_000 - move.sat - move.fee <= 10_000


def test_a_little_above_the_cap_is_not_worth_a_fee() -> None:
    rules = Rules(cap_sat=10_000, least_sat=2_000)
    assert next_move([Held(A, 10_100), Held(B, 0)], rules) is None


def test_nothing_moves_where_there_is_no_room() -> None:
    assert next_move([Held(A, 15_000), Held(B, 10_000)], Rules(cap_sat=10_000)) is None
    assert next_move([Held(A, 15_000)], Rules(cap_sat=10_000)) is None
    assert next_move([Held(A, 15_000), Held(B, 0, silent=True)], Rules(cap_sat=10_000)) is None
    assert next_move([Held(A, 15_000, silent=True), Held(B, 0)], Rules(cap_sat=10_000)) is None


def test_what_is_bound_takes_room_and_is_no_reason_to_move_more() -> None:
    rules = Rules(cap_sat=10_000)
    assert next_move([Held(A, 4_000, 50_000), Held(B, 0)], rules) is None, "it may be bound by the last move"
    move = next_move([Held(A, 14_000, 50_000), Held(B, 0)], rules)
    assert move is not None
    assert move.sat + move.fee <= 14_000
    assert room(Held(A, 4_000, 5_000), rules) == 1_000


def test_a_mint_that_is_trusted_no_more_is_emptied_first_and_wholly() -> None:
    mints = [Held(A, 50_000), Held(B, 700, retired=True), Held(C, 0)]
    move = next_move(mints, Rules(cap_sat=40_000))
    assert move is not None
    assert (move.source, move.target) == (B, C)
    assert 700 - 20 <= move.sat + move.fee <= 700


def test_a_mint_has_a_cap_of_its_own() -> None:
    rules = Rules(cap_sat=10_000, caps_sat={A: 100_000, C: 0})
    assert (room(Held(A, 0), rules), room(Held(B, 0), rules), room(Held(C, 0), rules)) == (100_000, 10_000, None)


def test_a_deposit_goes_where_there_is_room() -> None:
    mints = [Held(A, 9_500), Held(B, 9_000), Held(C, 0, retired=True)]
    assert best_place(mints, Rules(cap_sat=10_000), 800) == B
    assert best_place(mints, Rules(cap_sat=10_000), 2_000) is None
    assert best_place(mints, Rules(), 2_000) == B


_SAT = st.integers(0, 200_000)
_HELD = st.builds(Held, st.sampled_from([A, B, C]), _SAT, _SAT, st.booleans(), st.booleans())


@given(
    st.lists(_HELD, max_size=3, unique_by=lambda one: one.mint),
    st.builds(Rules, st.integers(0, 50_000), st.just({}), st.integers(1, 5_000), st.integers(0, 10)),
)
def test_a_move_never_breaks_a_cap_nor_takes_what_is_not_there(mints: list[Held], rules: Rules) -> None:
    move = next_move(mints, rules)
    if move is None:
        return
    by = {one.mint: one for one in mints}
    source, target = by[move.source], by[move.target]
    assert move.source != move.target
    assert 0 < move.sat <= move.sat + move.fee <= source.live
    assert not source.silent
    assert not target.retired
    assert not target.silent
    left = room(target, rules)
    assert left is None or move.sat <= left
    assert source.retired or move.sat >= rules.least_sat
    assert source.retired or source.live + source.bound > (rules.cap(move.source) or 0)


@given(st.lists(_HELD, max_size=3, unique_by=lambda one: one.mint), st.integers(1, 50_000))
def test_moves_come_to_an_end(mints: list[Held], cap: int) -> None:
    rules, now = Rules(cap_sat=cap, least_sat=1), list(mints)
    for _ in range(200):
        move = next_move(now, rules)
        if move is None:
            return
        change = {move.source: -move.sat - move.fee, move.target: move.sat}
        now = [Held(one.mint, one.live + change.get(one.mint, 0), one.bound, one.retired, one.silent) for one in now]
    raise AssertionError("money is moved about without end")
