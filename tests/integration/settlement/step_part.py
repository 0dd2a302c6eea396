"""Every persisted step of every settlement method, what its mints do for it, and how a sample of trials is drawn."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import settings

from tests.dying_mint_part import ANSWER, INVOICE, MELT, MINT, SWAP
from tests.integration.settlement.method_part import METHODS, Place

TORTURE = settings.get_current_profile_name() == "torture"

_ASKED = ["purchase quoting none"]
_CHOSEN = [*_ASKED, "purchase paying locking"]
_LOCKED = ["operation lock prepared", "operation lock done"]
_CLAIMED = ["operation claim prepared", "operation claim done"]
_MELTED = ["operation melt prepared", "operation melt done"]
_MINTED = ["operation deposit waiting", "operation deposit prepared", "operation deposit done"]
_OPENED = ["purchase delivered locked", "purchase delivered claimed"]
_SEALING = [*_CHOSEN, *_LOCKED, "purchase sealed locked", *_OPENED]
_SEALED = ["sale quoted", "sale working", "sale sealed", "sale delivered", *_CLAIMED, "sale done"]
STEPS = {
    ("A", "buyer"): [*_SEALING, "purchase ordered none"],
    ("B", "buyer"): [*_SEALING, "purchase working locked"],
    ("A", "seller"): _SEALED,
    ("B", "seller"): _SEALED,
    ("locked", "buyer"): [*_CHOSEN, *_LOCKED, "purchase working locked", *_OPENED],
    ("locked", "seller"): ["sale quoted", "sale working", "sale delivered", *_CLAIMED, "sale done"],
    ("prepaid", "buyer"): [
        *(f"deposit buyer {state}" for state in ("asked", "locking", "sent", "open", "closing", "taking", "returned")),
        *_LOCKED, *_CHOSEN, "purchase working locked", "purchase delivered claimed",
        "operation receive prepared", "operation receive done", "deposit buyer closed",
    ],
    ("prepaid", "seller"): [
        *(f"deposit seller {state}" for state in ("open", "claiming", "returning", "closed")),
        *_CLAIMED, "sale quoted", "sale working", "sale done", "operation send prepared", "operation send done",
    ],
    ("free", "buyer"): [*_ASKED, "purchase delivered none"],
    ("free", "seller"): ["sale working", "sale done"],
    ("invoice before", "buyer"): [*_CHOSEN, *_MELTED, "purchase working claimed", "purchase delivered claimed"],
    ("invoice before", "seller"): ["sale invoicing", *_MINTED, "sale quoted", "sale working", "sale done"],
    ("invoice after", "buyer"): [*_CHOSEN, *_MELTED, "purchase delivered claimed"],
    ("invoice after", "seller"): ["sale working", *_MINTED, "sale billed", "sale done"],
}  # fmt: skip
# By then the buyer has what it wanted, and the seller its money or nothing to fear for it.
_LAST = {"purchase delivered locked", "purchase delivered claimed", "purchase delivered none", "deposit buyer closed"}

# Where a seller that is gone for good leaves the buyer's money locked, and how that comes back.
SILENT = {"A": "sale delivered", "B": "sale working", "locked": "sale working", "prepaid": "deposit seller open"}
_BACK = ["operation refund prepared", "operation refund done"]
RETURNS = {
    "A": ["purchase sealed refunding", *_BACK, "purchase failed refunded"],
    "B": ["purchase failed locked", "purchase failed refunding", *_BACK, "purchase failed refunded"],
    "locked": ["purchase failed locked", "purchase failed refunding", *_BACK, "purchase failed refunded"],
    "prepaid": ["deposit buyer refunding", *_BACK, "deposit buyer refunded"],
}


@dataclass(frozen=True, slots=True)
class Act:
    """What a mint does for a job: at whose mint, what, and which of these since the job began."""

    side: str
    of: str
    nth: int


_LOCK, _BACK_AGAIN = Act("buyer", SWAP, 1), Act("buyer", SWAP, 2)
_CLAIM = {"lock": _LOCK, "claim": Act("seller", SWAP, 2), "refund": _BACK_AGAIN}
_PAY = {"invoice": Act("seller", INVOICE, 1), "melt": Act("buyer", MELT, 1), "mint": Act("seller", MINT, 1)}
ACTS = {
    "A": _CLAIM,
    "B": _CLAIM,
    "locked": _CLAIM,
    "prepaid": {**_CLAIM, "rest": Act("seller", SWAP, 3), "take": Act("buyer", SWAP, 4)},
    "free": dict[str, Act](),
    "invoice before": _PAY,
    "invoice after": _PAY,
}
TRANSACTIONS = {SWAP: 5, MELT: 12, MINT: 6, INVOICE: 1}  # of a mint in one of them, at most
# Nutshell (0.20.2) that dies here, and has been given more blank outputs than it needs, signs the change twice: it
# loses money, and nobody else does (tests/unit/wallet/test_withdrawal.py).
_GENEROUS = (MELT, 10)


def too_late() -> list[tuple[str, str, str]]:
    """All steps after which it makes a difference that a lock, an invoice or a deposit has ended meanwhile."""
    return [(method, who, step) for (method, who), steps in STEPS.items() for step in steps if step not in _LAST]


def at_mint() -> list[tuple[str, str, int]]:
    """Every moment in what mints do: method, act, and after how many transactions."""
    return [
        (method, name, at)
        for method, acts in ACTS.items()
        for name, act in acts.items()
        for at in (ANSWER, *range(TRANSACTIONS[act.of] + 1))
        if (act.of, at) != _GENEROUS
    ]


Trial = TypeVar("Trial", bound=tuple[str | int, ...])


def sealed(cases: Sequence[Trial]) -> list[Trial]:
    """Those of sealed results."""
    return [one for one in cases if METHODS[str(one[0])].place is Place.SEALED]


def others(cases: Sequence[Trial]) -> list[Trial]:
    """Those of all other methods."""
    return [one for one in cases if METHODS[str(one[0])].place is not Place.SEALED]


def sample(metafunc: pytest.Metafunc, name: str, *groups: Sequence[Trial]) -> None:
    """All cases where everything is tried, of the same method together; else one of each group.

    That one is drawn by the seed of the tests' order.
    """
    drawn = random.Random(f"{metafunc.config.getoption('randomly_seed', 0)} {name}")
    if not TORTURE:
        metafunc.parametrize(name, [[drawn.choice(group)] for group in groups], ids=_named)
        return
    together: dict[str, list[Trial]] = {}
    for one in (one for group in groups for one in group):
        together.setdefault(f"{one[0]} {one[1]}", []).append(one)
    metafunc.parametrize(name, list(together.values()), ids=list(together))


def _named(cases: Sequence[Trial]) -> str:
    return "; ".join(", ".join(map(str, one)) for one in cases)
