"""Limits are finite and of one unit; budgets are named by day."""

import pytest

from core.money import MicroUsd, Msat
from node.gate.limits import Limits, day_budget, seller_budget


def test_limits_of_two_units_are_refused() -> None:
    with pytest.raises(ValueError):
        Limits("msat", Msat(1), MicroUsd(1), Msat(1))
    with pytest.raises(ValueError):
        Limits.of("msat", per_job=-1, per_day=1, per_seller=1)
    with pytest.raises(ValueError):
        Limits.of("sat", per_job=1, per_day=1, per_seller=1)


def test_a_day_ends_at_midnight_utc() -> None:
    assert day_budget(1_800_057_599) == "day:2027-01-15"
    assert day_budget(1_800_057_600) == "day:2027-01-16"
    assert seller_budget("ab", 0) == "seller:ab:1970-01-01"
