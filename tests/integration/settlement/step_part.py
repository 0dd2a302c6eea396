"""Every persisted step of an atomic settlement, and how a sample of trials is drawn."""

import random
from collections.abc import Sequence
from typing import TypeVar

import pytest
from hypothesis import settings

TORTURE = settings.get_current_profile_name() == "torture"

_BUYER = ["purchase staged none", "purchase quoting none", "purchase paying locking", "operation lock prepared"]
_BUYER += ["operation lock done", "purchase sealed locked", "purchase delivered locked", "purchase delivered claimed"]
_SELLER = ["sale quoted", "sale working", "sale sealed", "sale delivered"]
_SELLER += ["operation claim prepared", "operation claim done", "sale done"]
STEPS = {
    ("A", "buyer"): [*_BUYER, "purchase ordered none"],
    ("B", "buyer"): [*_BUYER, "purchase working locked"],
    ("A", "seller"): _SELLER,
    ("B", "seller"): _SELLER,
}
OPENED = frozenset(_BUYER[-2:])  # the buyer has the key by then

Case = TypeVar("Case", bound=tuple[object, ...])


def sample(metafunc: pytest.Metafunc, name: str, cases: Sequence[Case], count: int) -> None:
    """All cases where everything is tried; else so many, drawn by the seed of the tests' order."""
    seed = metafunc.config.getoption("randomly_seed", 0)
    chosen = cases if TORTURE else random.Random(f"{seed} {name}").sample(cases, count)
    metafunc.parametrize(name, chosen, ids=[", ".join(map(str, one)) for one in chosen])
