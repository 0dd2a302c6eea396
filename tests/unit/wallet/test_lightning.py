"""What a wallet's word is worth, row by row."""

import hashlib

import pytest

from core.identifier import OperationId
from relays.nip47 import Transaction
from wallet.lightning import (
    GRACE_S,
    LATE_S,
    MAX_SENDS,
    UNPAID_S,
    Begun,
    Direction,
    Effect,
    Found,
    LookedUp,
    Payment,
    Proven,
    Rejected,
    Restarted,
    Silent,
    Stage,
    paid_in,
    paid_out,
    proves,
    step,
)

PREIMAGE = "11" * 32
HASH = hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest()
NOW, EXPIRES, UNTIL = 1_000, 5_000, 1_600


def payment(stage: Stage = Stage.PREPARED, **more) -> Payment:
    return Payment(OperationId("op"), Direction.PAY, stage, EXPIRES, UNTIL, **more)


def after(start: Payment, *events) -> tuple[Payment, list[str]]:
    names = []
    for event in events:
        start, _, name = step(start, event)
        names.append(name)
    return start, names


def test_a_payment_goes_out_once_and_is_proven() -> None:
    found, names = after(payment(), Begun(NOW), Proven(), Proven(), Restarted(NOW))
    assert (found.stage, found.sends, names) == (Stage.PAID, 1, ["begun", "paid", "", ""])


def test_what_is_never_sent_again_is_an_old_copy_s() -> None:
    found, names = after(payment(copied=True), Restarted(NOW), LookedUp(Found.ABSENT, NOW))
    assert (found.stage, found.sends, names) == (Stage.UNKNOWN, 0, ["copied", "doubtful"])
    assert step(found, LookedUp(Found.ABSENT, EXPIRES + LATE_S))[0].stage is Stage.FAILED


def test_a_request_that_nobody_takes_any_more_does_not_go_out() -> None:
    assert after(payment(), Begun(UNTIL))[0].stage is Stage.FAILED
    assert after(payment(), Restarted(UNTIL))[0].stage is Stage.FAILED


@pytest.mark.parametrize(
    "code", ["INSUFFICIENT_BALANCE", "QUOTA_EXCEEDED", "RESTRICTED", "UNAUTHORIZED", "NOT_IMPLEMENTED"]
)
def test_what_was_turned_away_has_failed_once_a_look_up_finds_nothing(code: str) -> None:
    sent, _ = after(payment(), Begun(NOW), Rejected(code, NOW))
    assert sent.stage is Stage.UNKNOWN
    assert step(sent, LookedUp(Found.ABSENT, NOW))[2] == "turned_away"
    assert step(sent, LookedUp(Found.PENDING, NOW))[0].stage is Stage.UNKNOWN


def test_a_wallet_that_says_failed_is_asked_again_later() -> None:
    sent, _ = after(payment(), Begun(NOW), Rejected("PAYMENT_FAILED", NOW))
    for found in (Found.ABSENT, Found.FAILED):
        assert step(sent, LookedUp(found, NOW + GRACE_S - 1))[2] == "doubtful"
        assert step(sent, LookedUp(found, NOW + GRACE_S))[2] == "failed"
    assert step(sent, LookedUp(Found.SETTLED, NOW))[0].stage is Stage.PAID


@pytest.mark.parametrize("code", ["INTERNAL", "OTHER", "SOMETHING_NEW"])
def test_a_code_that_says_nothing_ends_nothing(code: str) -> None:
    sent, _ = after(payment(), Begun(NOW), Rejected(code, NOW))
    assert step(sent, LookedUp(Found.ABSENT, NOW + 10 * GRACE_S))[2] == "doubtful"
    assert step(sent, LookedUp(Found.ABSENT, EXPIRES + LATE_S - 1))[2] == "doubtful"
    assert step(sent, LookedUp(Found.ABSENT, EXPIRES + LATE_S))[2] == "over"


def test_the_same_request_goes_out_again_only_while_it_may_be_taken_and_so_many_times() -> None:
    found, _ = after(payment(), Begun(NOW), Silent())
    for sends in range(2, MAX_SENDS + 1):
        found, effect, name = step(found, LookedUp(Found.ABSENT, NOW))
        assert (effect, name, found.sends) == (Effect.SEND, "not_arrived", sends)
    assert step(found, LookedUp(Found.ABSENT, NOW))[2] == "doubtful"
    fresh, _ = after(payment(), Begun(NOW), Silent())
    assert step(fresh, LookedUp(Found.ABSENT, UNTIL))[2] == "doubtful"


def test_of_several_copies_one_may_still_be_on_its_way() -> None:
    found, _ = after(payment(), Begun(NOW), Silent(), LookedUp(Found.ABSENT, NOW), Rejected("QUOTA_EXCEEDED", NOW))
    assert step(found, LookedUp(Found.ABSENT, NOW + GRACE_S))[2] == "doubtful"
    assert step(found, LookedUp(Found.ABSENT, UNTIL + GRACE_S))[2] == "failed"


def test_of_two_relays_one_may_still_deliver_what_the_other_had_turned_away() -> None:
    sent, _ = after(payment(relays=2), Begun(NOW), Rejected("INSUFFICIENT_BALANCE", NOW))
    assert step(sent, LookedUp(Found.ABSENT, NOW + GRACE_S))[2] == "doubtful"
    assert step(sent, LookedUp(Found.FAILED, NOW + GRACE_S))[2] == "doubtful"
    assert step(sent, LookedUp(Found.ABSENT, UNTIL + GRACE_S))[2] == "failed"


def test_a_copy_s_payment_has_failed_only_once_the_forgotten_life_s_request_has_ended() -> None:
    found, _ = after(payment(copied=True), Restarted(NOW))
    assert step(found, LookedUp(Found.FAILED, UNTIL + GRACE_S - 1))[2] == "doubtful"
    assert step(found, LookedUp(Found.FAILED, UNTIL + GRACE_S))[2] == "failed"


@pytest.mark.parametrize("code", ["PAYMENT_FAILED", "INTERNAL", "QUOTA_EXCEEDED"])
def test_a_wallet_that_may_show_no_payments_ends_none_by_finding_nothing(code: str) -> None:
    sent, _ = after(payment(sends=1), Begun(NOW), Rejected(code, NOW))
    assert sent.sends == 2
    for when in (NOW + GRACE_S, EXPIRES + LATE_S, EXPIRES + 100 * LATE_S):
        assert step(sent, LookedUp(Found.UNSURE, when))[2] == "doubtful"


def test_what_was_turned_away_untried_or_has_not_arrived_needs_no_such_sureness() -> None:
    sent, _ = after(payment(), Begun(NOW), Rejected("QUOTA_EXCEEDED", NOW))
    assert step(sent, LookedUp(Found.UNSURE, NOW))[2] == "turned_away"
    lost, _ = after(payment(), Begun(NOW), Silent())
    assert step(lost, LookedUp(Found.UNSURE, NOW))[1:] == (Effect.SEND, "not_arrived")


def test_a_wallet_that_shows_no_proof_leaves_it_unknown_for_good() -> None:
    found, _ = after(payment(), Begun(NOW), Silent())
    assert step(found, LookedUp(Found.UNPROVEN, EXPIRES + 10 * LATE_S))[0].stage is Stage.UNKNOWN
    assert step(found, LookedUp(Found.PENDING, EXPIRES + 10 * LATE_S))[0].stage is Stage.UNKNOWN


def test_proof_after_all_is_booked() -> None:
    failed, _ = after(payment(), Begun(NOW), Rejected("QUOTA_EXCEEDED", NOW), LookedUp(Found.ABSENT, NOW))
    found, effect, name = step(failed, Proven())
    assert (found.stage, effect, name) == (Stage.PAID, Effect.BOOK, "paid_after_all")


def test_an_invoice_waits_and_is_booked_once() -> None:
    waiting = Payment(OperationId("in"), Direction.INVOICE, Stage.WAITING, EXPIRES)
    assert step(waiting, LookedUp(Found.PENDING, EXPIRES + UNPAID_S - 1))[2] == "not_yet"
    paid, effect, name = step(waiting, LookedUp(Found.SETTLED, NOW))
    assert (paid.stage, effect, name) == (Stage.PAID, Effect.BOOK, "received")
    assert step(paid, LookedUp(Found.SETTLED, NOW)) == (paid, None, "")
    assert step(waiting, LookedUp(Found.EXPIRED, EXPIRES + UNPAID_S))[0].stage is Stage.FAILED


def test_a_preimage_proves_by_its_hash_alone() -> None:
    assert proves(PREIMAGE, HASH)
    for wrong in ("00" * 32, PREIMAGE[:-2], "", None, PREIMAGE + "00", 7):
        assert not proves(wrong, HASH)


def seen(**more) -> Transaction:
    return Transaction(**{"payment_hash": HASH, "direction": "outgoing", "preimage": PREIMAGE, **more})


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (seen(state="settled"), Found.SETTLED),
        (seen(), Found.SETTLED),  # of a payment of its own a wallet knows the preimage only once it is paid
        (seen(direction="", settled_at=5), Found.SETTLED),
        (seen(direction=""), Found.PENDING),
        (seen(direction="incoming", state="settled"), Found.UNPROVEN),  # its own invoice: it knew that before
        (seen(state="settled", preimage=""), Found.UNPROVEN),
        (seen(state="settled", preimage="00" * 32), Found.UNPROVEN),
        (seen(state="failed"), Found.UNPROVEN),
        (seen(state="failed", preimage=""), Found.FAILED),
        (seen(state="expired", preimage=""), Found.EXPIRED),
        (seen(state="pending", preimage=""), Found.PENDING),
        (seen(state="accepted", preimage=""), Found.PENDING),
        (seen(preimage=""), Found.PENDING),
        (seen(payment_hash="ff" * 32), Found.UNPROVEN),
    ],
)
def test_what_a_look_up_of_a_payment_says(said: Transaction, found: Found) -> None:
    assert paid_out(said, HASH) is found


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (seen(direction="incoming", state="settled"), Found.SETTLED),
        (seen(direction="incoming", settled_at=5), Found.SETTLED),
        (seen(direction="incoming"), Found.PENDING),  # the wallet made that preimage
        (seen(direction="incoming", state="pending", settled_at=5), Found.PENDING),
        (seen(direction="outgoing", state="settled"), Found.UNPROVEN),
        (seen(direction="incoming", state="expired"), Found.EXPIRED),
        (seen(direction="incoming", state="settled", payment_hash="ff" * 32), Found.UNPROVEN),
    ],
)
def test_what_a_look_up_of_an_invoice_says(said: Transaction, found: Found) -> None:
    assert paid_in(said, HASH) is found
