"""What is known of customers: whom the owner has named, and what the sales of each have brought, from the database.

Looked up when it matters and kept for the latest few thousand keys. Strangers make keys for nothing: how often the
database is asked for their sake is bounded, and beyond that they are what they are without it, unknown. They are kept
apart, so that many of them displace nobody who has paid.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from core.clock import Clock
from core.money import Msat
from core.unit import Among, Condition, UnitOfWork, Within
from dvm.admission import Limits, Meter
from dvm.record import Unreadable, decode
from dvm.seller import Sale, State
from dvm.trust import STRANGER, Standing, standing_of

TABLE = "sale"
KEPT = 4_096
LOOKUPS_PER_SECOND, LOOKUPS_BURST = 200.0, 1_000
_READ = 200  # sales of one customer: what counts is bounded anyway
_DAY_S = 86_400


@dataclass(slots=True)
class _Known:
    settled: int
    free_today: int
    day: int


class Clientele:
    """Standings of customers.

    Args:
        unit: the database.
        clock: time.
        limits: whom the owner has named, and what they may have.
        priced: the kinds that cost something; what everybody has for nothing counts against nobody.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, limits: Limits, priced: Callable[[], tuple[int, ...]]) -> None:
        self._unit, self._clock, self._limits, self._priced = unit, clock, limits, priced
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._strangers: OrderedDict[str, _Known] = OrderedDict()
        self._meter = Meter(LOOKUPS_BURST, LOOKUPS_PER_SECOND)

    async def standing(self, customer: str) -> Standing:
        """What a customer has earned."""
        known = self._find(customer)
        named = customer in self._limits.allow
        if known is None:
            if not named and not self._meter.take("", self._clock.monotonic()):
                return STRANGER
            known = await self._look_up(customer)
        self._keep(customer, known, self._known if named or known.settled else self._strangers)
        if known.day != self._today():
            known.day, known.free_today = self._today(), 0
        return standing_of(
            named=named,
            settled=Msat(known.settled),
            free_today=known.free_today,
            free_per_day=self._limits.free_per_day,
        )

    def served(self, customer: str, jobs: int = 1) -> None:
        """A job of this customer is done for nothing, of a kind that costs something; -1 takes one back."""
        if (known := self._find(customer)) is not None:
            known.free_today = max(0, known.free_today + jobs)

    def settled(self, customer: str, earned: Msat) -> None:
        """A sale to this customer has brought so much."""
        if (known := self._find(customer)) is not None:
            known.settled += earned.value
            self._strangers.pop(customer, None)
            self._keep(customer, known, self._known)

    def _find(self, customer: str) -> _Known | None:
        return self._known.get(customer) or self._strangers.get(customer)

    @staticmethod
    def _keep(customer: str, known: _Known, where: "OrderedDict[str, _Known]") -> None:
        where[customer] = known
        where.move_to_end(customer)
        while len(where) > KEPT:
            where.popitem(last=False)

    def _today(self) -> int:
        return self._clock.now() // _DAY_S

    async def _look_up(self, customer: str) -> _Known:
        """What the latest sales say: those that brought something, and those of today that were free."""
        day = self._today()
        rows = await self._unit.select(
            TABLE, {"customer": customer, "state": State.DONE.value}, order=("-created_at",), limit=_READ,
            columns=("body",),
        )  # fmt: skip
        settled = sum(_earned(row["body"]) for row in rows)
        free = 0
        if self._limits.free_per_day and (kinds := self._priced()):
            today = Within(low=day * _DAY_S)
            since: dict[str, Condition] = {
                "customer": customer, "kind": Among(kinds), "quote_id": "", "created_at": today,
            }  # fmt: skip
            free = await self._unit.count(TABLE, since, limit=self._limits.free_per_day)
        return _Known(settled, free, day)


def _earned(body: str) -> int:
    try:
        return decode(Sale, body).earned.value
    except Unreadable:  # one broken row is no reason to refuse whoever it is of
        return 0
