import pytest

from core.identifier import OperationId
from wallet.payment import (
    MAX_ATTEMPTS,
    TRANSITIONS,
    Answered,
    Coins,
    Effect,
    InFlight,
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
    events += [InFlight()]
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


# ---------------------------------------------------------------------- one copy is refused, another is on its way


@pytest.mark.parametrize("kind", [Kind.LOCK, Kind.SEND])
@pytest.mark.parametrize(
    ("events", "state", "name"),
    [
        ([Silent(), ABSENT, Rejected(0), ABSENT], State.UNKNOWN, "may_arrive"),
        ([Silent(), ABSENT, Rejected(0), ABSENT, Restarted(), ABSENT], State.UNKNOWN, "not_arrived"),
        ([Restarted(), ABSENT, Rejected(0), ABSENT], State.UNKNOWN, "may_arrive"),
        ([Silent(), ABSENT, Rejected(0), LookedUp(Signed.NONE, Coins.UNSPENT, late=True)], State.REFUSED, ""),
        ([Silent(), ABSENT, Rejected(11000), ABSENT], State.REFUSED, ""),
        ([Rejected(0), ABSENT], State.REFUSED, ""),
        ([Silent(), ABSENT, Rejected(0), LookedUp(Signed.NONE, Coins.UNSPENT, stale=True)], State.PREPARED, "outdated"),
    ],
)
def test_a_refusal_for_now_ends_no_payment_while_another_copy_may_arrive(kind, events, state, name):
    operation = Operation(OperationId("op"), kind, State.PREPARED)
    found, _, taken = moves(operation, *events)
    assert (found, taken) == (state, name or "never_happened")


# ---------------------------------------------------------------------- paying an invoice


def melt(state: State, **facts) -> Operation:
    return Operation(OperationId("op"), Kind.MELT, state, **facts)


def moves(operation: Operation, *events) -> tuple[State, Effect | None, str]:
    effect, name = None, ""
    for event in events:
        operation, effect, name = step(operation, event)
    return operation.state, effect, name


UNPAID = LookedUp(Signed.NONE, Coins.UNSPENT)
PAID = LookedUp(Signed.ALL, Coins.SPENT)
PAYING = LookedUp(Signed.NONE, Coins.PENDING)
LATE = LookedUp(Signed.NONE, Coins.UNSPENT, late=True)
GONE = LookedUp(Signed.NONE, Coins.SPENT)


@pytest.mark.parametrize(
    ("events", "state", "effect", "name"),
    [
        ([Answered()], State.DONE, Effect.BOOK, "answered"),
        ([NeverSent()], State.REFUSED, Effect.RELEASE, "never_sent"),
        ([InFlight()], State.UNKNOWN, Effect.WAIT, "in_flight"),
        ([InFlight(), Restarted()], State.UNKNOWN, Effect.LOOK_UP, "restarted"),
        ([InFlight(), Restarted(), PAYING], State.UNKNOWN, Effect.WAIT, "in_progress"),
        ([InFlight(), Restarted(), PAID], State.DONE, Effect.BOOK, "found"),
        ([InFlight(), Restarted(), UNPAID], State.REFUSED, Effect.RELEASE, "never_happened"),
        ([Rejected(20004)], State.UNKNOWN, Effect.LOOK_UP, "rejected"),
        ([Rejected(20004), UNPAID], State.REFUSED, Effect.RELEASE, "never_happened"),
        ([Rejected(20004), PAID], State.DONE, Effect.BOOK, "found"),
        ([Rejected(20004), PAYING], State.UNKNOWN, Effect.WAIT, "in_progress"),
        ([Silent(), UNPAID], State.UNKNOWN, Effect.SUBMIT, "not_arrived"),
        ([Silent(), PAYING, Restarted(), UNPAID], State.UNKNOWN, Effect.SUBMIT, "not_arrived"),
        ([Silent(), UNPAID, Rejected(20004), UNPAID], State.UNKNOWN, Effect.WAIT, "may_arrive"),
        ([Silent(), UNPAID, NeverSent()], State.UNKNOWN, Effect.WAIT, "still_unreachable"),
        ([Silent(), UNPAID, Answered()], State.DONE, Effect.BOOK, "answered"),
        ([Silent(), LATE], State.REFUSED, Effect.RELEASE, "expired_unpaid"),
        ([Restarted(), UNPAID], State.UNKNOWN, Effect.SUBMIT, "not_arrived"),
        ([Restarted(), PAID], State.DONE, Effect.BOOK, "found"),
        ([Restarted(), LookUpFailed()], State.UNKNOWN, Effect.WAIT, "look_up_failed"),
        ([Silent(), GONE], State.UNKNOWN, Effect.WAIT, "disputed"),
        ([Silent(), LookedUp(Signed.ALL, Coins.PENDING)], State.UNKNOWN, Effect.WAIT, "not_ours"),
        ([Silent(), LookedUp(Signed.ALL, Coins.UNSPENT)], State.UNKNOWN, Effect.WAIT, "not_ours"),
    ],
)
def test_a_payment_of_an_invoice_ends_only_by_what_is_known_of_it(events, state, effect, name):
    assert moves(melt(State.PREPARED), *events) == (state, effect, name)


def test_a_melt_makes_no_second_plan_whatever_the_mint_refuses():
    for code in (11003, 12001, 12002):
        for inputs in Coins:
            found = LookedUp(Signed.NONE, inputs, stale=True)
            assert moves(melt(State.PREPARED), Rejected(code), found)[1] is not Effect.REPLAN


def test_what_was_under_way_is_not_loose_after_a_restart_and_what_was_prepared_is():
    assert not step(melt(State.UNKNOWN), Restarted())[0].loose
    assert step(melt(State.PREPARED), Restarted())[0].loose
    assert step(melt(State.UNKNOWN, loose=True), Restarted())[0].loose


@pytest.mark.parametrize(
    ("found", "name"), [(UNPAID, "never_happened"), (PAID, "found"), (PAYING, "in_progress"), (GONE, "lost_race")]
)
def test_an_old_copy_never_has_an_invoice_paid(found, name):
    copied = melt(State.UNKNOWN, copied=True, loose=True)
    _, effect, taken = step(copied, found)
    assert taken == name
    assert effect is not Effect.SUBMIT
    assert step(copied, LookedUp(Signed.ALL, Coins.PENDING))[1] is Effect.WAIT
