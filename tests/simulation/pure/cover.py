"""What many histories must have come across: a zero is a hole in the proof. What cannot come says why."""

import re

from dvm.settlement import Method
from tests.simulation.pure.play import transitions
from tests.simulation.pure.plot import FAULTS, POINTS, ROGUES, STRANGERS
from tests.simulation.pure.world import Coverage

WAIVED = {
    "buyer: staged, CancelAsked -> cancelled": "the job's first step comes before anybody can cancel it",
    "buyer: staged, Start -> failed (2)": "the driver refuses a request that nothing on the route serves",
    "buyer: quoting, WindowClosed -> delivered": "a result that is stated to be free is taken when it comes",
    "buyer: paying, BudgetDenied -> delivered": "the same",
    "buyer: paying, LockFailed -> delivered": "the same",
    "wallet: collided": "a counter that was used twice, as by a copied file: tests/unit/wallet/test_collision.py",
    "wallet: contested": "the same",
    "wallet: not_ours": "the same",
    "wallet: minted_before": "only in a node restored from an old copy: tests/property/test_payment_saga.py",
}
# Methods that this tier does not model yet. Whoever adds one takes it out of here, and its words below.
_ELSEWHERE = "the tier of the drivers, and tests/property's machines, take it; this one does not model it yet"
UNBUILT = {
    Method.ATOMIC: _ELSEWHERE,
    Method.INVOICE_AFTER: _ELSEWHERE,
    Method.INVOICE_BEFORE: _ELSEWHERE,
    Method.PREPAID: "no rule of the buyer's table makes it",
}
# Rows that only those methods take, by a state or event that is theirs alone ...
_THEIRS = re.compile(
    r"\b(ordered|sealed|invoicing|lapsed|owed|repaid|InvoicePaid|InvoiceWanted|CreditTaken|Lent|billed|Ordered|SealedArrived)\b"
)
# ... and by name: an invoice's payment, a result that is paid before it is used, and the melt that pays.
_THEIRS_TOO = frozenset(
    {
        "buyer: none, Chosen -> locking",
        "buyer: quoting, ResultArrived -> paying (3)",
        "seller: working, WorkDone -> done (1)",
        "wallet: disputed",
        "wallet: expired_unpaid",
        "wallet: in_flight",
        "wallet: may_arrive",
    }
)


def unbuilt(name: str) -> bool:
    """Whether only a method that is not modelled here takes this row."""
    return name in _THEIRS_TOO or _THEIRS.search(name) is not None


def zeros(coverage: Coverage) -> list[str]:
    """What never came, of all that must."""
    wanted = {
        "transitions": {name for name in transitions() if name not in WAIVED and not unbuilt(name)},
        "crashes": {f"{when} {point}" for point in POINTS for when in ("before", "after")},
        "faults": set(FAULTS),
        "actors": {*ROGUES, *STRANGERS},
        "methods": {method.value for method in Method if method not in UNBUILT},
    }
    return sorted(
        f"{kind}: {name}" for kind, names in wanted.items() for name in names if not getattr(coverage, kind)[name]
    )


def strays(coverage: Coverage) -> list[str]:
    """What came although it is said that it cannot: the reason given is wrong."""
    named = {*WAIVED, *(name for name in transitions() if unbuilt(name))}
    return sorted(name for name in named if coverage.transitions[name]) + sorted(
        method.value for method in UNBUILT if coverage.methods[method.value]
    )
