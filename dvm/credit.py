"""What a customer has paid for and not got: it goes into that customer's next requests.

A Lightning payment cannot be sent back over the invoice that it paid, nor a nutzap to whoever sent it. A sale whose
invoice was paid and that brought nothing is `owed`, and so is a nutzap that names one of our quotes (`dvm/tip.py`)
until it has paid for a job. What is owed to a key counts together, and all rows change in one commit with the sale's.
"""

from dataclasses import dataclass

from core.money import Msat
from core.unit import Row, UnitOfWork, Update
from dvm import tip as tips
from dvm.record import decode, encode
from dvm.seller import Sale, State, step
from dvm.seller_event import CreditSpent

TABLE = "sale"
MAX_ROWS = 64  # of each sort that are put together for one job
ZERO = Msat(0)


@dataclass(frozen=True, slots=True)
class Credit:
    """What covers the price of a sale. `fresh` of it came by nutzaps, and was counted for no sale before."""

    writes: tuple[Update, ...]
    fresh: Msat


async def credit_of(unit: UnitOfWork, sale: Sale, now: int) -> Credit | None:
    """The writes that take the price of `sale` from what its customer is owed; None if that does not cover it.

    Args:
        unit: the database.
        sale: a new one, or one with a quote that stands, of the same customer.
        now: Unix seconds.
    """
    left, beside = sale.price, sale.invoice_id
    writes: list[Update] = []
    for row in await _owed(unit, tips.TABLE, {"sender": sale.customer}):
        tip = tips.read(row)
        part = min(left, tip.owed)
        if part > ZERO:
            # An invoice that is paid for the same sale as well must not be kept in silence: one tip looks after it.
            writes.append(tips.update(tip, tips.step(tip, tips.Spent(part, beside)), now))
            left, beside = left - part, ""
    fresh = sale.price - left
    for row in await _owed(unit, TABLE, {"customer": sale.customer}):
        owed = decode(Sale, row["body"])
        part = min(left, owed.owed)
        if part > ZERO:
            writes.append(_taken(owed, part, int(row["version"]), now))
            left -= part
    # Without a gift nobody would look after an invoice that can still be paid: then it is left to that.
    return Credit(tuple(writes), fresh) if not left and not beside else None


async def _owed(unit: UnitOfWork, table: str, whose: dict[str, str]) -> list[Row]:
    return await unit.select(table, {**whose, "state": State.OWED.value}, order=("created_at", "id"), limit=MAX_ROWS)


def _taken(owed: Sale, amount: Msat, version: int, now: int) -> Update:
    after, _ = step(owed, CreditSpent(amount))
    change = {"state": after.state.value, "body": encode(after), "updated_at": now, "version": version + 1}
    return Update(TABLE, {"id": owed.request_id, "version": version}, change)
