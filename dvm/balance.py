"""Deposits as their owner sees them, ours and customers' in one form. Pure."""

from core.money import Msat
from core.unit import Row
from dvm.custody import Custody, State
from dvm.deposit import Deposit

BUYER, SELLER = "buyer", "seller"  # whose deposit a row is: ours somewhere, or a customer's here


def shown_deposit(deposit: Deposit, row: Row) -> Row:
    """One of ours at a seller."""
    return {
        "id": deposit.id,
        "side": BUYER,
        "peer": deposit.seller,
        "state": deposit.state.value,
        "mint": deposit.mint or None,
        "amount_msat": deposit.amount.value,
        "drawn_msat": deposit.charged.value,
        "left_msat": deposit.left.value if deposit.is_open else 0,
        "returned_msat": deposit.returned.value,
        "vouchers": deposit.seq,
        "locktime": deposit.locktime or None,
        "pending": deposit.pending.request_id if deposit.pending is not None else None,
        "fault": deposit.fault or None,
        "error": deposit.error or None,
        "created_at": int(row["created_at"]),
    }


def shown_custody(custody: Custody, row: Row) -> Row:
    """One of a customer here."""
    return {
        "id": custody.id,
        "side": SELLER,
        "peer": custody.customer,
        "state": custody.state.value,
        "mint": custody.mint,
        "amount_msat": custody.amount.value,
        "drawn_msat": custody.total.value,
        "left_msat": max(0, (custody.amount - custody.total).value) if custody.state is State.OPEN else 0,
        "returned_msat": Msat.of_sat(custody.returned_sat).value,
        "vouchers": custody.seq,
        "locktime": custody.locktime,
        "pending": custody.busy or None,
        "fault": None,
        "error": custody.error or None,
        "created_at": int(row["created_at"]),
    }
