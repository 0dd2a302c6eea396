"""The ways in which a job is settled here: what is sold for that, and how both nodes are set up.

A node sells one kind in one way, so a job's kind says how it is paid. What does not fit into one market is in another
place: sealed results go before all else, and whoever shares a mint with its seller gets no invoice from it.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tests.dying_part import MARGINS
from tests.market_part import PATIENT

NODES = ("buyer", "seller")
DEPOSIT_SAT = 60  # of a customer at a seller


class Place(StrEnum):
    """A market."""

    SEALED = "sealed"  # results are sold sealed
    PLAIN = "plain"  # and here they are not
    LIGHTNING = "lightning"  # each has a mint of its own, both on one Lightning network


@dataclass(frozen=True, slots=True)
class Method:
    """A way to settle, and what is sold so: its kind and price. `fees_sat` is the most that mints take of the buyer."""

    place: Place
    kind: int
    sat: int
    fees_sat: int = 4


METHODS = {
    "A": Method(Place.SEALED, 5050, 20),  # work first
    "B": Method(Place.SEALED, 5051, 21),  # money first
    "locked": Method(Place.PLAIN, 5050, 20),
    "prepaid": Method(Place.PLAIN, 5051, 9, fees_sat=7),  # of locking, of closing and of taking the rest
    "free": Method(Place.PLAIN, 5052, 0, fees_sat=0),
    "invoice before": Method(Place.LIGHTNING, 5050, 21),
    "invoice after": Method(Place.LIGHTNING, 5051, 20),
}
_COMMON = {
    **PATIENT,
    'order = ["dvm", "builtin"]': 'order = ["dvm"]',
    "lock_margin_s = 300": f"lock_margin_s = {MARGINS['dvm.buyer_rule.ATOMIC_MARGIN_S']}",
    'per_day_usd = "1.00"': 'per_day_usd = "100"',
    'per_seller_usd = "0.50"': 'per_seller_usd = "100"',
}
_OWN = {
    Place.SEALED: {"atomic = false": "atomic = true", "order_max_msat = 0": "order_max_msat = 20000"},
    Place.PLAIN: {
        "prepaid_msat = 0": "prepaid_msat = 100000",
        # While a deposit is open nothing more is locked to the same seller: a job is drawn from it or not bought.
        "max_unsecured_msat = 1000000": f"max_unsecured_msat = {DEPOSIT_SAT + 5}000",
        "deposit_max_msat = 0": "deposit_max_msat = 100000",
    },
    Place.LIGHTNING: {
        "credit_per_key_msat = 0": "credit_per_key_msat = 100000",
        "credit_msat = 0": "credit_msat = 100000",
        "invoices_per_minute = 6": "invoices_per_minute = 6000",
    },
}
_WHEN = {"invoice after": "after"}


def changes(place: Place) -> dict[str, str]:
    """What is changed in config.toml of both nodes."""
    return {**_COMMON, **_OWN[place]}


def sells(place: Place) -> str:
    """What the seller's config.toml ends with."""
    return "".join(
        f'\n[[sell]]\nkind = {one.kind}\nprice_msat = {one.sat * 1000}\nprovider = "echo"\neta_s = 1\n'
        f'invoice = "{_WHEN.get(name, "before")}"\n'
        for name, one in METHODS.items()
        if one.place is place
    )


@dataclass(frozen=True, slots=True)
class Job:
    """What is bought in one trial."""

    method: str
    text: str
    timeout_s: int = 25

    @property
    def way(self) -> Method:
        """How it is paid."""
        return METHODS[self.method]

    @property
    def kind(self) -> int:
        """Its kind, by which that is chosen."""
        return self.way.kind

    @property
    def sat(self) -> int:
        """Its price."""
        return self.way.sat

    @property
    def body(self) -> dict[str, Any]:
        """As it is asked for."""
        return {"kind": self.kind, "input": self.text, "timeout_s": self.timeout_s}
