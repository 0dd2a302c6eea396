"""What many histories must have come across: a zero is a hole in the proof. What cannot come says why."""

from dvm.settlement import Method
from tests.simulation.pure.cast import (
    ALL_POINTS,
    BORROWERS,
    DEPOSITARIES,
    DEPOSITORS,
    FAULTS,
    GIVERS,
    MACHINES,
    ORDER_ROGUES,
    ORDER_STRANGERS,
    PAYERS,
    ROGUES,
    SEAL_STRANGERS,
    STRANGERS,
)
from tests.simulation.pure.play import transitions
from tests.simulation.pure.world import Coverage

WAIVED = {
    "buyer: staged, CancelAsked -> cancelled": "the job's first step comes before anybody can cancel it",
    "buyer: staged, Start -> failed (2)": "the driver refuses a request that nothing on the route serves",
    "buyer: quoting, WindowClosed -> delivered": "a result that is stated to be free is taken when it comes",
    "buyer: paying, BudgetDenied -> delivered": "the same",
    "buyer: paying, LockFailed -> delivered": "the same",
    "buyer: ordered, BudgetDenied -> delivered": "the same",
    "buyer: ordered, ResultArrived -> delivered (1)": "the same",
    "buyer: ordered, SealedArrived -> delivered (1)": "the same",
    "buyer: ordered, SellerFailed -> delivered": "the same",
    "buyer: sealed, KeyHeld -> sealed": "buyers have no disks here: tests/unit/dvm/test_full_disk.py",
    "buyer: quoting, ResultArrived -> ordered (2)": "whoever waits orders when the quote comes, before any result",
    "wallet: collided": "a counter that was used twice, as by a copied file: tests/unit/wallet/test_collision.py",
    "wallet: contested": "the same",
    "nwc: given_up": "the owner's word, two weeks after the invoice's end: tests/unit/fs/service/test_lightning.py",
    "nwc: copied": "only in a node restored from an old copy: tests/property/test_lightning_saga.py",
    "deposit: sent, Heard -> returned (2)": "nothing is drawn of a deposit before its seller says that it has it",
    **{
        f"deposit: {place}, {row}": "the mint is asked only once a deposit is being closed"
        for place in ("sent", "open")
        for row in (f"SpentSeen -> {place}", "LocktimePassed -> refunding", "GraceOver -> lost")
    },
    "wallet: minted_before": "only in a node restored from an old copy: tests/property/test_payment_saga.py",
}


def zeros(coverage: Coverage) -> list[str]:
    """What never came, of all that must."""
    wanted = {
        "transitions": {name for name in transitions() if name not in WAIVED},
        "crashes": {f"{when} {point}" for point in ALL_POINTS for when in ("before", "after")},
        "faults": set(FAULTS),
        "actors": {
            *ROGUES,
            *STRANGERS,
            *ORDER_ROGUES,
            *MACHINES,
            *SEAL_STRANGERS,
            *ORDER_STRANGERS,
            *PAYERS,
            *DEPOSITARIES,
            *DEPOSITORS,
            *GIVERS,
            *BORROWERS,
        },
        "methods": {method.value for method in Method},
    }
    return sorted(
        f"{kind}: {name}" for kind, names in wanted.items() for name in names if not getattr(coverage, kind)[name]
    )


def strays(coverage: Coverage) -> list[str]:
    """What came although it is said that it cannot: the reason given is wrong."""
    return sorted(name for name, times in coverage.transitions.items() if times and name in WAIVED)
