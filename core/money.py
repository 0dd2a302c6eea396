"""Money is an integer with a name: `Msat` and `MicroUsd` never mix, and only a `Rate` converts (DESIGN §6 M8).

Cost is rounded up and a bid is rounded down, so that a rounding never lets anyone spend more than was allowed.
"""

from dataclasses import dataclass
from typing import Self, TypeAlias

MSAT_PER_SAT = 1000
MSAT_PER_BTC = 100_000_000_000
MICRO = 1_000_000


@dataclass(frozen=True, slots=True, order=True)
class _Amount:
    value: int

    def __post_init__(self) -> None:
        if type(self.value) is not int:
            raise TypeError(f"{type(self).__name__} is a whole number, not {type(self.value).__name__}")

    def _same(self, other: object) -> int:
        if type(other) is not type(self):
            raise TypeError(f"{type(self).__name__} does not mix with {type(other).__name__}")
        return other.value

    def __add__(self, other: Self) -> Self:
        return type(self)(self.value + self._same(other))

    def __sub__(self, other: Self) -> Self:
        return type(self)(self.value - self._same(other))

    def __bool__(self) -> bool:
        return self.value != 0

    def __int__(self) -> int:
        return self.value


class Msat(_Amount):
    """Thousandths of a satoshi."""

    __slots__ = ()
    unit = "msat"

    @classmethod
    def of_sat(cls, sat: int) -> "Msat":
        """That many whole satoshi."""
        return cls(sat * MSAT_PER_SAT)

    def sat_up(self) -> int:
        """The least whole number of satoshi that covers it."""
        return -(-self.value // MSAT_PER_SAT)

    def sat_down(self) -> int:
        """The greatest whole number of satoshi within it."""
        return self.value // MSAT_PER_SAT


class MicroUsd(_Amount):
    """Millionths of a US dollar."""

    __slots__ = ()
    unit = "uusd"


Money: TypeAlias = Msat | MicroUsd


def money(unit: str, value: int) -> Money:
    """The amount that a row with a unit column holds.

    Raises:
        ValueError: the unit is neither `msat` nor `uusd`.
    """
    if unit == Msat.unit:
        return Msat(value)
    if unit == MicroUsd.unit:
        return MicroUsd(value)
    raise ValueError(f"unknown unit of money {unit!r}")


@dataclass(frozen=True, slots=True)
class Rate:
    """`micro_usd` µUSD are worth `msat` msat, as of `taken_at` (Unix seconds), according to `source`.

    Raises:
        ValueError: one of the two sides is not positive.
    """

    micro_usd: int
    msat: int
    taken_at: int
    source: str

    def __post_init__(self) -> None:
        if self.micro_usd <= 0 or self.msat <= 0:
            raise ValueError("a rate has two positive sides")

    @classmethod
    def of_btc_price(cls, usd: int, taken_at: int, source: str) -> "Rate":
        """From whole US dollars for one bitcoin."""
        return cls(usd * MICRO, MSAT_PER_BTC, taken_at, source)

    def cost(self, amount: Msat) -> MicroUsd:
        """What it costs, rounded up."""
        return MicroUsd(-(-amount.value * self.micro_usd // self.msat))

    def cover(self, amount: MicroUsd) -> Msat:
        """The most msat that stay within it, rounded down."""
        return Msat(amount.value * self.msat // self.micro_usd)

    def ask(self, micro_usd: int, of: int = 1) -> Msat:
        """What must be asked to get `micro_usd`/`of` µUSD, rounded up: a fraction is rounded once, here."""
        return Msat(-(-micro_usd * self.msat // (of * self.micro_usd)))
