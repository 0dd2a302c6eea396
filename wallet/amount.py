"""Amounts of coins with their unit (NUT-01): cents and satoshi are both whole numbers, and must never be added. Pure.

A coin's number counts the smallest part of its unit: `sat`, `msat`, and for money that states issue the minor unit of
ISO 4217, so that 500 of `usd` are five dollars. What jobs are paid with is sat, and `core.money.Msat` says that with
its type; what only an owner moves, in whichever unit a mint has, is an `Amount`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from wallet.error import UnitMixed

SAT, MSAT, USD, EUR = "sat", "msat", "usd", "eur"

UNITS: Mapping[str, int] = MappingProxyType({SAT: 0, MSAT: 0, USD: 2, EUR: 2})
"""The units that are handled, and how many decimal places people write of each. `auth` is no money, and is not here."""

MOST = 1 << 40
"""No single deposit, token or payment is as much, in any unit; sums stay far below what a column holds."""


@dataclass(frozen=True, slots=True)
class Amount:
    """So many of the smallest parts of one unit.

    Raises:
        UnitMixed: it is added to, taken from or compared with an amount of another unit.
        TypeError: the value is no whole number.
        ValueError: the unit is none that is handled.
    """

    value: int
    unit: str

    def __post_init__(self) -> None:
        if type(self.value) is not int:
            raise TypeError(f"an amount is a whole number, not {type(self.value).__name__}")
        if self.unit not in UNITS:
            raise ValueError(f"unknown unit of coins {self.unit!r}")

    def _same(self, other: "Amount") -> int:
        if self.unit != other.unit:
            raise UnitMixed(f"{other.unit} is not {self.unit}.")
        return other.value

    def __add__(self, other: Self) -> "Amount":
        return Amount(self.value + self._same(other), self.unit)

    def __sub__(self, other: Self) -> "Amount":
        return Amount(self.value - self._same(other), self.unit)

    def __lt__(self, other: Self) -> bool:
        return self.value < self._same(other)

    def __le__(self, other: Self) -> bool:
        return self.value <= self._same(other)

    def __gt__(self, other: Self) -> bool:
        return self.value > self._same(other)

    def __ge__(self, other: Self) -> bool:
        return self.value >= self._same(other)

    def __bool__(self) -> bool:
        return self.value != 0

    def __str__(self) -> str:
        """For people: `21 sat`, `5.00 usd`."""
        places = UNITS[self.unit]
        if not places:
            return f"{self.value} {self.unit}"
        whole, part = divmod(abs(self.value), 10**places)
        return f"{'-' if self.value < 0 else ''}{whole}.{part:0{places}d} {self.unit}"


def added(amounts: Iterable[Amount], unit: str) -> Amount:
    """Their sum, which is in `unit`.

    Raises:
        UnitMixed: one of them is not.
    """
    return sum(amounts, start=Amount(0, unit))
