"""Requests of ours on the wire."""

import asyncio

from tests.unit.dvm.test_market import World, bought, echo, story


@story
async def test_two_jobs_alike_in_one_second_are_two_requests_and_both_are_done(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    first, second = await asyncio.gather(bought(buyer, key="one"), bought(buyer, key="two"))
    assert first.purchase.request_id != second.purchase.request_id
    assert {first.result, second.result} == {"hello market"}
    assert len(await seller.db.select("sale", {"state": "done"})) == 2
