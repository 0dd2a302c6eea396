"""A member's lease: who may act, until when, and what ends it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.share.tenure import GRANTS, Effect, Event, Granted, Left, Looked, PutOut, State, Tenure, step, turn

LEASE = 15.0


def _walk(*events: Event) -> tuple[Tenure, list[Effect]]:
    tenure, effects = Tenure(LEASE), []
    for event in events:
        tenure, more = step(tenure, event)
        effects += more
    return tenure, effects


def test_a_member_acts_until_shortly_before_its_lease_ends() -> None:
    tenure, effects = _walk(Granted(100.0, False), Looked(111.9))
    assert (tenure.state, tenure.may_act, effects) == (State.MEMBER, True, [Effect.ACT])
    tenure, effects = _walk(Granted(100.0, False), Looked(112.0))
    assert (tenure.state, tenure.may_act, effects) == (State.UNSURE, False, [Effect.ACT, Effect.HOLD])


def test_the_lease_counts_from_before_it_was_asked_for() -> None:
    tenure, _ = _walk(Granted(100.0, False), Granted(103.0, False))
    assert tenure.until == 103.0 + LEASE * 0.8


def test_a_late_answer_to_an_earlier_question_does_not_shorten_it() -> None:
    tenure, _ = _walk(Granted(103.0, False), Granted(100.0, False))
    assert tenure.until == 103.0 + LEASE * 0.8


def test_who_was_cut_off_goes_on_if_nobody_took_its_place() -> None:
    tenure, effects = _walk(Granted(0.0, True), Looked(60.0), Granted(61.0, True))
    assert (tenure.state, effects) == (State.STEWARD, [Effect.ACT, Effect.LEAD, Effect.HOLD, Effect.ACT])


def test_a_member_that_is_made_steward_is_told_to_lead_once() -> None:
    tenure, effects = _walk(Granted(0.0, False), Granted(3.0, True), Granted(6.0, True))
    assert tenure.leads
    assert effects == [Effect.ACT, Effect.LEAD]


@pytest.mark.parametrize("steward", [False, True])
@pytest.mark.parametrize("late", [False, True])
def test_who_was_put_out_ends_and_never_comes_back(steward: bool, late: bool) -> None:
    before: list[Event] = [Looked(60.0)] if late else []
    tenure, effects = _walk(Granted(0.0, steward), *before, PutOut(), Granted(61.0, steward), Looked(62.0), PutOut())
    assert tenure.state is State.ENDED
    assert effects.count(Effect.END) == 1
    assert effects[-1] is Effect.END


def test_a_steward_that_is_granted_less_ends() -> None:
    assert _walk(Granted(0.0, True), Granted(3.0, False))[1][-1] is Effect.END


def test_who_left_acts_no_more_and_is_not_ended() -> None:
    tenure, effects = _walk(Granted(0.0, True), Left(), PutOut())
    assert (tenure.state, effects[-1]) == (State.OUT, Effect.HOLD)


def test_the_table_says_what_follows_every_grant() -> None:
    assert set(GRANTS) == {(state, steward) for state in State for steward in (False, True)} - {
        (State.ENDED, False),
        (State.ENDED, True),
    }


_EVENTS = st.one_of(
    st.builds(Granted, st.floats(0, 1_000), st.booleans()),
    st.builds(Looked, st.floats(0, 1_000)),
    st.just(PutOut()),
    st.just(Left()),
)


@given(st.lists(_EVENTS, max_size=30))
def test_nothing_acts_past_its_own_end_once_it_has_looked(events: list[Event]) -> None:
    tenure = Tenure(LEASE)
    for event in events:
        ended = tenure.state is State.ENDED
        tenure, _ = step(tenure, event)
        assert not (isinstance(event, Looked) and tenure.may_act and event.now >= tenure.until)
        assert not ended or tenure.state is State.ENDED


def test_turns_are_spread_and_the_same_in_every_process() -> None:
    members = {"0.1": 1, "1.1": 2, "2.4": 3}
    names = [f"agent-{number}" for number in range(3_000)]
    shares = Counter(turn(name, members) for name in names)
    assert all(800 < share < 1_200 for share in shares.values())
    assert turn("agent-7", members) == turn("agent-7", dict(reversed(members.items())))
    assert turn("agent-7", {}) == ""


def test_a_member_that_goes_moves_only_its_own_share() -> None:
    members = {"0.1": 1, "1.1": 2, "2.4": 3}
    rest = {"0.1": 1, "2.4": 3}
    for number in range(500):
        before = turn(f"agent-{number}", members)
        assert before == "1.1" or turn(f"agent-{number}", rest) == before
