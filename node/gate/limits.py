"""What may be spent: finite limits in one unit, and the names of the budgets that count against them. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime

from core.money import Money, money


@dataclass(frozen=True, slots=True)
class Limits:
    """The operator's limits, all in the budget's unit (`uusd` or `msat`, DESIGN §6 M8).

    Attributes:
        unit: the unit of the other three.
        per_job: the most that one effect may reserve.
        per_day: the most that may be held and spent in one day (UTC).
        per_seller: the most that may be held and spent with one counterparty in one day.

    Raises:
        ValueError: a limit is negative or in another unit.
    """

    unit: str
    per_job: Money
    per_day: Money
    per_seller: Money

    def __post_init__(self) -> None:
        for limit in (self.per_job, self.per_day, self.per_seller):
            if limit.unit != self.unit or limit.value < 0:
                raise ValueError(f"every limit is a whole number of {self.unit}, not below zero")

    @classmethod
    def of(cls, unit: str, *, per_job: int, per_day: int, per_seller: int) -> "Limits":
        """From plain numbers in that unit."""
        return cls(unit, money(unit, per_job), money(unit, per_day), money(unit, per_seller))


def day_of(now: int) -> str:
    """The day (UTC) of a Unix time, as 2026-01-31."""
    return datetime.fromtimestamp(now, UTC).date().isoformat()


def day_budget(now: int) -> str:
    """The name of the budget of that day."""
    return f"day:{day_of(now)}"


def seller_budget(counterparty: str, now: int) -> str:
    """The name of the budget for one counterparty on that day."""
    return f"seller:{counterparty}:{day_of(now)}"
