"""What we know of sellers from jobs that we paid for ourselves: no rumours, and nothing that is free to a seller. Pure.

A deed is one paid job and how it ended. Only a result that passed our check *and* was paid for speaks for a seller, as
far as the payment reaches: who was paid 1 sat a hundred times has not shown what it does with 10,000. What speaks
against a seller counts whole, for every kind, and for a claim without a result most. Deeds fade over 90 days.

A key that nobody knows has the score 400 of 1000: a little worse than a coin, since a key costs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

HORIZON_S = 90 * 86_400
NEUTRAL = 400  # of 1000, for a key without a past
PRIOR = 3_000  # as much as three jobs of today
MAX_SELLERS = 5_000
MAX_DEEDS = 256  # of one seller; the oldest go
_WHOLE = 1_000


class Verdict(StrEnum):
    """How a job that was handed to a seller ended, as we saw it."""

    NONE = ""  # it has not, or we ended it ourselves
    DELIVERED = "delivered"
    BAD = "bad"  # a result that failed the check
    FAILED = "failed"  # the seller said that it could not
    LATE = "late"  # nothing within its time


@dataclass(frozen=True, slots=True)
class Deed:
    """One paid job. `claimed` says whether the seller took the money; `price` is net to it, in msat."""

    job_id: str
    seller: str
    kind: int
    at: int
    verdict: Verdict
    price: int
    took_ms: int
    claimed: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A seller as it stands for one job. `took_ms` is 0 if nothing was measured. `fraud` says what is proven of it."""

    reputation: int = NEUTRAL
    quality: int = NEUTRAL
    took_ms: int = 0
    jobs: int = 0
    fraud: str = ""


FRESH = Standing()
_AGAINST = {Verdict.BAD: 2, Verdict.FAILED: 1, Verdict.LATE: 1}
_KEPT_ANYWAY = 4  # the money was claimed, and there is no good result


def standing(deeds: Iterable[Deed], kind: int, price: int, now: int) -> Standing:
    """How a seller stands for a job of this kind at this price.

    Args:
        deeds: this seller's.
        kind: request kind.
        price: what it asks now, in msat: payments below it count in proportion.
        now: Unix seconds.
    """
    good = against = passed = failed = took = measured = jobs = 0
    for deed in deeds:
        weight = _WHOLE * max(0, HORIZON_S - max(0, now - deed.at)) // HORIZON_S
        if not weight or deed.verdict is Verdict.NONE:
            continue
        jobs += 1
        settled = deed.verdict is Verdict.DELIVERED and deed.claimed and deed.price > 0
        if deed.verdict is not Verdict.DELIVERED:
            against += weight * (_KEPT_ANYWAY if deed.claimed else _AGAINST[deed.verdict])
        if deed.kind != kind:
            continue
        if settled:
            good += weight * min(deed.price, price) // max(1, price)
            passed += weight
            took, measured = took + weight * deed.took_ms, measured + weight
        elif deed.verdict in (Verdict.BAD, Verdict.FAILED):
            failed += weight
    return Standing(
        reputation=_share(good, against),
        quality=_share(passed, failed),
        took_ms=max(1, took // measured) if measured else 0,
        jobs=jobs,
    )


def _share(good: int, against: int) -> int:
    """Good of all in 1000, where `PRIOR` of neutral past is added: 1 to 1000."""
    return max(1, (PRIOR * NEUTRAL + good * _WHOLE) // (PRIOR + good + against))


class Repute:
    """The deeds of all sellers that we paid, bounded. Mutable, but it does nothing by itself."""

    def __init__(self) -> None:
        self._deeds: dict[str, dict[str, Deed]] = {}
        self._frauds: dict[str, str] = {}

    def learn(self, deed: Deed) -> None:
        """One more deed, or the same job's as it has become."""
        mine = self._deeds.pop(deed.seller, {})
        mine.pop(deed.job_id, None)
        mine[deed.job_id] = deed
        self._deeds[deed.seller] = mine  # at the end: who was not paid for longest goes first
        while len(mine) > MAX_DEEDS:
            del mine[next(iter(mine))]
        while len(self._deeds) > MAX_SELLERS:
            del self._deeds[next(iter(self._deeds))]

    def delivered(self, seller: str) -> int:
        """How many of the jobs that are remembered it was paid for and delivered."""
        deeds = self._deeds.get(seller, {}).values()
        return sum(deed.verdict is Verdict.DELIVERED and deed.claimed for deed in deeds)

    def standing(self, seller: str, kind: int, price: int, now: int) -> Standing:
        """How a seller stands for a job; see `standing`."""
        deeds, fraud = self._deeds.get(seller), self._frauds.get(seller, "")
        found = FRESH if deeds is None else standing(deeds.values(), kind, price, now)
        return replace(found, reputation=1, fraud=fraud) if fraud else found

    def condemn(self, seller: str, why: str) -> None:
        """A fraud of this seller is proven: nothing is bought from it any more."""
        self._frauds.setdefault(seller, why)
        while len(self._frauds) > MAX_SELLERS:
            del self._frauds[next(iter(self._frauds))]
