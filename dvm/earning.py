"""What selling has brought: sales as plain values, and sums of what was claimed, by kind and mint."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from core.unit import Condition, Row, UnitOfWork, Within
from dvm.record import Unreadable, decode
from dvm.seller import Sale, State
from relays.event import parse_json

TABLE = "sale"
_PAGE = 500


@dataclass(slots=True)
class Earned:
    """Settled sales of one kind at one mint: how many, what was asked and what arrived, in msat."""

    kind: int
    mint: str
    sales: int = 0
    price_msat: int = 0
    earned_msat: int = 0


async def earnings(unit: UnitOfWork, since: int = 0) -> list[Earned]:
    """What was claimed since a time (Unix seconds), from the sales that are kept, by kind and mint.

    Units of mints are never summed with each other: every mint stands by itself.
    """
    found: dict[tuple[int, str], Earned] = {}
    async for sale in _settled(unit, since):
        one = found.setdefault((sale.kind, sale.mint), Earned(sale.kind, sale.mint))
        one.sales += 1
        one.price_msat += sale.price.value
        one.earned_msat += sale.earned.value
    return [found[key] for key in sorted(found)]


async def _settled(unit: UnitOfWork, since: int) -> AsyncIterator[Sale]:
    """Sales on terms that ended with the money: read by the index over quotes, which free ones have not."""
    low = "0"  # quotes are named in hex
    while True:
        where: dict[str, Condition] = {"quote_id": Within(low), "state": State.DONE.value}
        columns = ("quote_id", "updated_at", "body")
        rows = await unit.select(TABLE, where, order=("quote_id",), limit=_PAGE, columns=columns)
        for row in rows:
            if row["updated_at"] < since:
                continue
            try:
                sale = decode(Sale, row["body"])
            except Unreadable:
                continue
            if sale.earned:
                yield sale
        if len(rows) < _PAGE:
            return
        low = rows[-1]["quote_id"] + "\0"


def shown(sale: Sale, row: Row) -> Row:
    """One sale without anybody's content."""
    return {
        "request_id": sale.request_id,
        "customer": sale.customer,
        "kind": sale.kind,
        "state": sale.state.value,
        "price_msat": sale.price.value,
        "quote_id": sale.quote_id or None,
        "earned_msat": sale.claimed.value,
        "mint": sale.mint or None,
        "error": sale.error or None,
        "paid_by": _paid_by(sale),
        "owed_msat": sale.owed.value,
        "result_id": parse_json(sale.answer).id if sale.answer and sale.state is not State.QUOTED else None,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def _paid_by(sale: Sale) -> str | None:
    if sale.by_invoice:
        return "invoice" if sale.invoice and not sale.by_credit else "credit"
    if sale.deposit:
        return "prepaid"
    return "ecash" if sale.payment else None
