"""What counts as the best offer: five preferences, as whole numbers that are compared. Pure.

Every preference is a tuple, and the smaller one wins. All else equal a cheaper offer never loses, whatever the
preference: the price stands in each tuple, and what a price changes elsewhere (`dvm.reputation` weighs past payments
against it) changes in favour of the cheaper.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")

UNSAID_MS = 86_400_000  # who says nothing about the time is taken for the slowest
STEP = 50  # of 1000: differences in standing below that are no reason to pay more
DOUBLING_MS = 60_000  # `balanced`: a minute of waiting counts as much as the price again
_LONGEST_MS = 10 * DOUBLING_MS
_CHANCES = (6, 3, 1)  # of the best, the second and the third


class Prefer(StrEnum):
    """What an offer is chosen by."""

    COST = "cost"  # the least that leaves the wallet, fees included
    LATENCY = "latency"  # the quickest: as measured, else as stated
    QUALITY = "quality"  # the largest share of paid results of this kind that passed our check
    REPUTATION = "reputation"  # who kept its word for money, weighed by how much
    BALANCED = "balanced"  # the price, made dearer by doubt and by waiting


def weigh(
    prefer: Prefer, gross_msat: int, eta_s: int, expected_ms: int, reputation: int, quality: int
) -> tuple[int, ...]:
    """How an offer ranks; the smaller the better.

    Args:
        prefer: what counts.
        gross_msat: what it takes from our wallet.
        eta_s: seconds that the seller states; 0 if it does not.
        expected_ms: as measured of this seller, else as stated.
        reputation: 1 to 1000.
        quality: 0 to 1000.
    """
    match prefer:
        case Prefer.COST:
            return gross_msat, eta_s, -(reputation // STEP)
        case Prefer.LATENCY:
            return expected_ms, gross_msat, -(reputation // STEP)
        case Prefer.QUALITY:
            return -(quality // STEP), -(reputation // STEP), gross_msat, expected_ms
        case Prefer.REPUTATION:
            return -(reputation // STEP), gross_msat, expected_ms
        case Prefer.BALANCED:
            waiting = DOUBLING_MS + min(expected_ms, _LONGEST_MS)
            return gross_msat * 1000 * waiting // (max(1, reputation) * DOUBLING_MS), gross_msat, eta_s


def draw(ranked: Sequence[T], luck: int) -> list[T]:
    """One of the best three first, the others behind it in their order.

    If all buyers take the same best seller it is overrun; so some of them may take the next ones.

    Args:
        ranked: best first.
        luck: a random number from 0.
    """
    rest = list(ranked)
    chances = _CHANCES[: len(rest)]
    if not chances:
        return rest
    mark = luck % sum(chances)
    for place, chance in enumerate(chances):
        if mark < chance:
            return [rest.pop(place), *rest]
        mark -= chance
    raise AssertionError("the mark lies within the sum")
