"""Double entry per mint and unit: what an operation moved, as postings that sum to zero (M3). Pure.

`wallet` and `locked` are what we hold: free (or reserved) coins, and coins locked to or handed to somebody who has not
taken them. All other accounts say where money came from (negative) or went to (positive); `lightning` is what mints
paid for us as invoices, `elsewhere` what moved in a time that this database does not remember (`wallet.copy`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum

from core.unit import Insert
from wallet.payment import Kind

LIGHTNING = "nwc:"
"""Begins what stands in place of a mint's address for a Lightning wallet; its postings are in msat."""


class Account(StrEnum):
    """Where money is, came from, or went."""

    WALLET = "wallet"
    LOCKED = "locked"
    FEES = "fees"
    DEPOSITS = "deposits"
    RECEIPTS = "receipts"
    EARNINGS = "earnings"
    PAYMENTS = "payments"
    WITHDRAWALS = "withdrawals"
    LIGHTNING = "lightning"
    RESTORED = "restored"
    LOST = "lost"
    ELSEWHERE = "elsewhere"


_SOURCE = {Kind.DEPOSIT: Account.DEPOSITS, Kind.CLAIM: Account.EARNINGS}
_SINK = {Kind.LOCK: Account.PAYMENTS}


def source(kind: Kind) -> Account:
    """Where coins from outside come from in an operation of this kind."""
    return _SOURCE.get(kind, Account.RECEIPTS)


def sink(kind: Kind) -> Account:
    """Where coins went that an operation of this kind gave away, once they are taken."""
    return _SINK.get(kind, Account.WITHDRAWALS)


def postings(operation: str, mint: str, unit: str, at: int, moves: Mapping[Account, int]) -> list[Insert]:
    """Rows for these moves, in the mint's unit.

    Raises:
        AssertionError: they do not sum to zero; then nothing may be written.
    """
    assert sum(moves.values()) == 0, "postings must sum to zero"
    return [
        Insert(
            "posting",
            {
                "operation": operation,
                "mint": mint,
                "unit": unit,
                "account": str(account),
                "amount": amount,
                "at": at,
            },
        )
        for account, amount in moves.items()
        if amount
    ]


def balances(rows: Iterable[Mapping[str, object]]) -> dict[tuple[str, str], Counter[Account]]:
    """The sum of each account, per mint and unit."""
    found: dict[tuple[str, str], Counter[Account]] = {}
    for row in rows:
        amount = row["amount"]
        assert isinstance(amount, int)
        found.setdefault((str(row["mint"]), str(row["unit"])), Counter())[Account(str(row["account"]))] += amount
    return found
