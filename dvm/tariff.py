"""What a job costs: for each job, or for a unit of it that can be measured before any work; in msat or µUSD. Pure.

Nothing here looks a rate up: it is handed in, and without one a price in dollars is not a price (DESIGN §6 M8).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from core.error import InvalidInput
from core.money import MicroUsd, Money, Msat, Rate
from dvm.error import Unpriced
from dvm.request import ComputeRequest

JOB = "job"
MAX_PRICE = 10**15
_MAX_COUNT = 10**9  # of a parameter: a stranger writes it
_MAX_BITS = 64


def _param(request: ComputeRequest, name: str, most: int) -> int:
    text = next((one[1] for one in request.params if one[0] == name and len(one) > 1), None)
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 12) or not 0 < int(text) <= most:
        raise InvalidInput(f"The price depends on the parameter {name}: a whole number from 1 to {most}.")
    return int(text)


Measure = Callable[[ComputeRequest], tuple[int, int]]
"""How many units a job has, as a fraction."""

UNITS: Mapping[str, Measure] = MappingProxyType(
    {
        JOB: lambda request: (1, 1),
        "input": lambda request: (len(request.inputs), 1),
        "1k_chars": lambda request: (sum(len(one.data) for one in request.inputs), 1_000),
        "1k_bytes": lambda request: (sum(len(one.data.encode()) for one in request.inputs), 1_000),
        "1k_tokens": lambda request: (_param(request, "max_tokens", _MAX_COUNT), 1_000),
        "1m_hashes": lambda request: (1 << _param(request, "pow", _MAX_BITS), 1_000_000),
    }
)
"""Units by the word that stands behind `per`. Tokens are those that the customer allows (`max_tokens`); hashes are
those that the wanted bits (`pow`) take on average."""

BY_LENGTH = frozenset({"1k_chars", "1k_bytes"})
"""Units that measure the text of the inputs: it must be there when the price is asked."""

NEEDS: Mapping[str, str] = MappingProxyType({"1k_tokens": "max_tokens", "1m_hashes": "pow"})
"""Units that depend on a parameter of the request, and on which."""


@dataclass(frozen=True, slots=True)
class Tariff:
    """A price for each unit, and the least and the most that a job costs; all of one unit of money.

    Raises:
        ValueError: amounts of different units, below zero, the least above the most, or a unit that nobody knows.
    """

    price: Money
    per: str = JOB
    minimum: Money | None = None
    maximum: Money | None = None

    def __post_init__(self) -> None:
        given = [one for one in (self.price, self.minimum, self.maximum) if one is not None]
        if any(type(one) is not type(self.price) for one in given):
            raise ValueError("price, minimum and maximum are of one unit of money")
        if any(not 0 <= one.value <= MAX_PRICE for one in given):
            raise ValueError(f"a price is from 0 to {MAX_PRICE}")
        if self.per not in UNITS:
            raise ValueError(f"per is one of {', '.join(UNITS)}")
        if self.minimum is not None and self.maximum is not None and self.minimum.value > self.maximum.value:
            raise ValueError("the minimum is above the maximum")

    @property
    def is_free(self) -> bool:
        """Whether every job is free."""
        return not self.price and not self.minimum

    @property
    def in_dollars(self) -> bool:
        """Whether a rate is needed."""
        return isinstance(self.price, MicroUsd)

    @property
    def fixed(self) -> Msat | None:
        """The price of every job, if it is the same for all and needs no rate."""
        if self.per != JOB or not isinstance(self.price, Msat):
            return None
        return whole_sat(Msat(_within(self.price.value, self.minimum, self.maximum)))

    def ask(self, request: ComputeRequest, rate: Rate | None) -> Msat:
        """What a job costs, net of the mint's fees: rounded up once, to whole satoshi.

        Raises:
            Unpriced: it is priced in dollars, and there is no fresh rate.
            InvalidInput: what the price depends on is missing from the request.
        """
        if self.is_free:
            return Msat(0)
        count, of = UNITS[self.per](request)
        numerator = self.price.value * count
        if not self.in_dollars:
            value = _within(-(-numerator // of), self.minimum, self.maximum)
            return whole_sat(Msat(value))
        if rate is None:
            raise Unpriced
        if (
            self.minimum is not None
        ):  # bounds are exact in dollars, and a fraction of a µUSD is kept until it is rounded
            numerator = max(numerator, self.minimum.value * of)
        if self.maximum is not None:
            numerator = min(numerator, self.maximum.value * of)
        return whole_sat(rate.ask(numerator, of))


def whole_sat(amount: Msat) -> Msat:
    """The least whole number of satoshi that covers it: ecash has nothing smaller."""
    return Msat.of_sat(amount.sat_up())


def _within(value: int, minimum: Money | None, maximum: Money | None) -> int:
    if minimum is not None:
        value = max(value, minimum.value)
    return min(value, maximum.value) if maximum is not None else value
