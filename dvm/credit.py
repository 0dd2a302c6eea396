"""What a customer has paid for and not got: it goes into that customer's next requests.

A Lightning payment cannot be sent back over the invoice that it paid. A sale whose invoice was paid and that brought
nothing is `owed`; the next paid request of the same key is served for it, and both rows change in one commit.
"""

from core.unit import UnitOfWork, Update
from dvm.record import decode, encode
from dvm.seller import Sale, State, step
from dvm.seller_event import CreditSpent

TABLE = "sale"


async def credit_of(unit: UnitOfWork, sale: Sale, now: int) -> Update | None:
    """The write that takes the price of `sale` from what its customer is owed; None if nothing covers it.

    Args:
        unit: the database.
        sale: the new one, of the same customer.
        now: Unix seconds.
    """
    for row in await unit.select(TABLE, {"customer": sale.customer, "state": State.OWED.value}):
        owed = decode(Sale, row["body"])
        if owed.owed >= sale.price:
            after, _ = step(owed, CreditSpent(sale.price))
            change = {
                "state": after.state.value,
                "body": encode(after),
                "updated_at": now,
                "version": int(row["version"]) + 1,
            }
            return Update(TABLE, {"id": owed.request_id, "version": int(row["version"])}, change)
    return None
