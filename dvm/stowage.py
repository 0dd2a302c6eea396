"""How much unpaid work may lie on a seller's file servers: results that were ordered (mode A) and not paid yet.

What was never paid for stays there, since no server has to delete anything; so it goes on counting for its customer as
long as the sale is kept, and for a day for all customers together, whose keys cost nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from core.clock import Clock
from core.unit import Condition, UnitOfWork, Within
from dvm.record import Unreadable, decode
from dvm.seller import Sale, State
from dvm.settlement import MODE_A, Settlement

TABLE = "sale"
UNSTOWED = "too large to be stored here before it is paid for"
_LOOKED_AT = 1_000  # sales that were lost
_DAY_S = 86_400


@dataclass(slots=True)
class Load:
    """What an open sale has on our file servers, or is about to put there, in bytes."""

    size: int = 0


@dataclass(frozen=True, slots=True)
class Stowage:
    """Of one seller.

    Attributes:
        unit: the database: what was never paid is found there.
        clock: time.
        settlement: how much of it there may be.
        open_sales: those that have not ended, each with its load.
    """

    unit: UnitOfWork
    clock: Clock
    settlement: Settlement
    open_sales: Callable[[], Iterable[tuple[Sale, Load]]]

    async def take(self, sale: Sale, load: Load, size: int) -> bool:
        """Whether this result may be stored. If so it counts from now on, though nothing is written yet.

        Args:
            sale: it was ordered, and may be paid.
            load: of this sale.
            size: bytes as they are stored.
        """
        if sale.paid or sale.paid_by != MODE_A:
            return True
        if size > await self._room(sale.customer, load):
            return False
        load.size = size  # nothing was awaited since it was counted
        return True

    async def has_room(self, customer: str) -> bool:
        """Whether anything may still be stored for this customer before it pays."""
        return await self._room(customer, None) > 0

    async def _room(self, customer: str, load: Load | None) -> int:
        """Bytes that are left; of the open sales all but that of `load` count."""
        mine = await self._left({"customer": customer})
        whole = await self._left({"updated_at": Within(low=self.clock.now() - _DAY_S)})
        # From here on nothing is awaited: what is counted is still so when it is taken.
        for other, its in self.open_sales():
            if its is not load and other.paid_by == MODE_A and not other.paid:
                whole += its.size
                mine += its.size if other.customer == customer else 0
        most = self.settlement.order_bytes
        return min(most - mine, most * self.settlement.orders - whole)

    async def _left(self, where: dict[str, Condition]) -> int:
        """Bytes of results that nobody paid for."""
        rows = await self.unit.select(
            TABLE, {**where, "state": State.LOST.value}, order=("-updated_at",), limit=_LOOKED_AT, columns=("body",)
        )
        return sum(_unpaid(row["body"]) for row in rows)


def _unpaid(body: str) -> int:
    try:
        sale = decode(Sale, body)
    except Unreadable:
        return 0
    return sale.packed.size if sale.packed is not None and sale.paid_by == MODE_A and not sale.paid else 0
