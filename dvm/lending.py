"""Work before the money, for customers that pay over Lightning: who is served first and asked to pay with the result.

It is off unless the operator sets how much may be out, to one key and in all. Keys cost nothing, so it is only for
those whom the operator has named or who have paid before, and for these up to what they have paid; who did not pay
such a result gets no other one so.
"""

from collections.abc import Callable, Iterable

from core.unit import UnitOfWork
from dvm.record import decode
from dvm.sale import TABLE, OpenSale
from dvm.seller import Sale, State
from dvm.settlement import Settlement
from dvm.trust import Standing, Trust

_LOOKED_AT = 100  # sales of one customer that were lost


class Lending:
    """Of one seller.

    Args:
        unit: the database: who did not pay is found there.
        settlement: how much may be out.
        open_sales: those that have not ended.
    """

    def __init__(self, unit: UnitOfWork, settlement: Settlement, open_sales: Callable[[], Iterable[OpenSale]]) -> None:
        self._unit, self._settlement, self._open = unit, settlement, open_sales

    async def may(self, place: OpenSale, standing: Standing) -> bool:
        """Whether this sale is served before it is paid. If so it counts from now on, though nothing is written yet."""
        price, customer = place.sale.price, place.sale.customer
        limit = self._settlement.credit_per_key
        if standing.trust is Trust.PAID_BEFORE:
            limit = min(limit, standing.settled)
        if not place.service.lends or standing.trust is Trust.UNKNOWN or price > limit:
            return False
        if await self._left_unpaid(customer):
            return False
        # From here on nothing is awaited: what is counted is still so when it is taken.
        out = [one.sale for one in self._open() if one.lent and not one.sale.paid]
        mine = sum(sale.price.value for sale in out if sale.customer == customer)
        whole = sum(sale.price.value for sale in out)
        if mine + price.value > limit.value or whole + price.value > self._settlement.credit.value:
            return False
        place.lent = True
        return True

    async def _left_unpaid(self, customer: str) -> bool:
        asked = {"customer": customer, "state": State.LOST.value}
        rows = await self._unit.select(TABLE, asked, order=("-updated_at",), limit=_LOOKED_AT, columns=("body",))
        return any(sale.lent and not sale.paid for sale in (decode(Sale, row["body"]) for row in rows))
