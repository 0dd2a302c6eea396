import pytest

from wallet.journal import Account, balances, postings, sink, source
from wallet.payment import Kind


def test_postings_that_do_not_sum_to_zero_are_never_written():
    with pytest.raises(AssertionError):
        postings("op", "mint", "sat", 0, {Account.WALLET: 5, Account.FEES: -4})


def test_empty_sides_are_left_out_and_balances_add_up():
    rows = postings("op", "mint", "sat", 0, {Account.WALLET: 5, Account.FEES: 0, Account.DEPOSITS: -5})
    rows += postings("op2", "mint", "sat", 0, {Account.WALLET: -2, Account.FEES: 2})
    assert len(rows) == 4
    found = balances(row.row for row in rows)
    assert found == {("mint", "sat"): {Account.WALLET: 3, Account.FEES: 2, Account.DEPOSITS: -5}}


def test_every_kind_of_operation_has_a_source_and_a_sink():
    assert {source(kind) for kind in Kind} == {Account.DEPOSITS, Account.EARNINGS, Account.RECEIPTS}
    assert {sink(kind) for kind in Kind} == {Account.PAYMENTS, Account.WITHDRAWALS}
