import pytest

from core.identifier import OperationId
from wallet.payment import (
    MAX_ATTEMPTS,
    TRANSITIONS,
    Answered,
    Coins,
    Effect,
    Kind,
    LookedUp,
    LookUpFailed,
    NeverSent,
    Operation,
    QuoteExpired,
    QuotePaid,
    Rejected,
    Restarted,
    Signed,
    Silent,
    State,
    step,
)


def op(state: State, **facts) -> Operation:
    return Operation(OperationId("op"), Kind.LOCK, state, **facts)


ABSENT = LookedUp(Signed.NONE, Coins.UNSPENT)


@pytest.mark.parametrize("state", [State.PREPARED, State.UNKNOWN])
@pytest.mark.parametrize("event", [Silent(), Restarted(), Rejected(11000), LookUpFailed()])
def test_nothing_but_a_look_up_ends_an_operation_in_doubt(state, event):
    moved, effect, _ = step(op(state), event)
    assert moved.state is State.UNKNOWN
    assert effect in (Effect.LOOK_UP, Effect.WAIT)


def test_a_lost_answer_and_an_unknown_request_send_the_same_request_again():
    moved, effect, _ = step(op(State.UNKNOWN), ABSENT)
    assert (moved.state, effect) == (State.UNKNOWN, Effect.SUBMIT)


def test_a_definite_no_and_a_look_up_that_finds_nothing_end_it():
    rejected, _, _ = step(op(State.PREPARED), Rejected(11000))
    moved, effect, _ = step(rejected, ABSENT)
    assert (moved.state, effect) == (State.REFUSED, Effect.RELEASE)


@pytest.mark.parametrize("code", [11002, 11004])
def test_being_processed_is_not_a_no(code):
    rejected, _, _ = step(op(State.PREPARED), Rejected(code))
    _, effect, _ = step(rejected, ABSENT)
    assert effect is Effect.SUBMIT


def test_silence_after_a_no_makes_it_doubtful_again():
    rejected, _, _ = step(op(State.PREPARED), Rejected(11000))
    silent, _, _ = step(rejected, Silent())
    assert silent.rejected is None
    assert step(silent, ABSENT)[1] is Effect.SUBMIT


def test_only_a_fresh_plan_can_be_known_to_have_never_left():
    assert step(op(State.PREPARED), NeverSent())[0].state is State.REFUSED
    assert step(op(State.UNKNOWN), NeverSent())[0].state is State.UNKNOWN


def test_a_retired_keyset_makes_a_new_plan_a_bounded_number_of_times():
    stale = LookedUp(Signed.NONE, Coins.UNSPENT, stale=True)
    again, effect, _ = step(op(State.UNKNOWN, rejected=12002), stale)
    assert (effect, again.attempt, again.rejected) == (Effect.REPLAN, 2, None)
    assert step(op(State.UNKNOWN, rejected=12002, attempt=MAX_ATTEMPTS), stale)[1] is Effect.RELEASE
    assert step(op(State.UNKNOWN), stale)[1] is Effect.SUBMIT


@pytest.mark.parametrize("inputs", list(Coins))
def test_a_partly_signed_operation_waits_whatever_the_inputs(inputs):
    moved, effect, _ = step(op(State.UNKNOWN, rejected=11000), LookedUp(Signed.SOME, inputs))
    assert (moved.state, effect) == (State.UNKNOWN, Effect.WAIT)


def test_pending_inputs_wait_even_after_a_no():
    moved, effect, _ = step(op(State.UNKNOWN, rejected=11000), LookedUp(Signed.NONE, Coins.PENDING))
    assert (moved.state, effect) == (State.UNKNOWN, Effect.WAIT)


def test_what_was_signed_is_booked_whatever_the_mint_said_before():
    for rejected in (None, 11000):
        moved, effect, _ = step(op(State.UNKNOWN, rejected=rejected), LookedUp(Signed.ALL, Coins.SPENT))
        assert (moved.state, effect) == (State.DONE, Effect.BOOK)


def test_a_deposit_waits_for_its_payment():
    assert step(op(State.WAITING), QuotePaid())[:2] == (op(State.PREPARED), Effect.SUBMIT)
    assert step(op(State.WAITING), QuoteExpired())[0].state is State.REFUSED
    assert step(op(State.WAITING), Answered())[1] is None


@pytest.mark.parametrize("state", [State.DONE, State.REFUSED])
def test_what_has_ended_stays_ended(state):
    events = [Silent(), Restarted(), Rejected(1), NeverSent(), Answered(), LookUpFailed(), QuotePaid(), QuoteExpired()]
    events += [LookedUp(signed, coins) for signed in Signed for coins in Coins]
    for event in events:
        assert step(op(state), event) == (op(state), None, "")


def test_no_open_state_is_without_an_answer_to_any_look_up():
    for state in (State.PREPARED, State.UNKNOWN):
        for rejected in (None, 11000):
            for signed in Signed:
                for coins in Coins:
                    assert step(op(state, rejected=rejected), LookedUp(signed, coins))[1] is not None


def test_transition_names_are_unique():
    assert len({row.name for row in TRANSITIONS}) == len(TRANSITIONS)
