"""One invoice has one payer, whichever way it pays."""

import asyncio

import pytest

from core.identifier import OperationId
from wallet.debt import Debts
from wallet.lightning_error import InvoiceKnown

HASH, OTHER = "ab" * 32, "cd" * 32


class Way:
    """Begins a payment by writing it down, which takes a moment."""

    def __init__(self, debts: Debts) -> None:
        self.debts, self.rows = debts, dict[str, str]()
        debts.add(self.pays)

    async def pays(self, payment_hash: str) -> OperationId | None:
        await asyncio.sleep(0)
        found = self.rows.get(payment_hash)
        return None if found is None else OperationId(found)

    async def pay(self, payment_hash: str, op_id: str) -> None:
        async with self.debts.alone(payment_hash, op_id):
            await asyncio.sleep(0)
            self.rows[payment_hash] = op_id


async def test_of_all_that_begin_at_once_by_different_ways_one_pays() -> None:
    debts = Debts()
    ways = [Way(debts) for _ in range(3)]
    pays = [way.pay(HASH, f"op {n} {i}") for n, way in enumerate(ways) for i in range(3)]
    ended = await asyncio.gather(*pays, return_exceptions=True)
    assert [type(one) for one in ended].count(type(None)) == 1
    assert [type(one) for one in ended].count(InvoiceKnown) == 8
    assert sum(len(way.rows) for way in ways) == 1


async def test_the_same_operation_may_go_on_and_another_invoice_has_its_own_payer() -> None:
    debts = Debts()
    way, other = Way(debts), Way(debts)
    await way.pay(HASH, "one")
    await way.pay(HASH, "one")
    await other.pay(OTHER, "two")
    with pytest.raises(InvoiceKnown, match="one"):
        await other.pay(HASH, "two")


async def test_who_comes_second_is_told_at_once_while_the_first_is_at_a_slow_mint() -> None:
    debts, slow = Debts(), asyncio.Event()
    way = Way(debts)

    async def held() -> None:
        async with debts.alone(HASH, "one"):
            way.rows[HASH] = "one"
            await slow.wait()

    holding = asyncio.create_task(held())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(InvoiceKnown):
        await asyncio.wait_for(way.pay(HASH, "two"), 5)
    slow.set()
    await holding
