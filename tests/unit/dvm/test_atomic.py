"""Sealed results between real drivers over a model mint and a simulated wire, in made-up time (ADR 25)."""

from dataclasses import replace

import pytest

from core.money import MicroUsd, Msat
from dvm.policy import Policy
from dvm.provider.echo import Echo
from dvm.request import ComputeRequest, Datum
from dvm.settlement import Settlement
from relays.kind import GIFT_WRAP
from relays.nip90 import read_answer, read_request
from tests.unit.dvm.market_part import echo
from tests.unit.dvm.test_market import World, bought, freeze, story, until, words

ASK = ComputeRequest(5050, (Datum("hello market"),), (), MicroUsd(50_000))
SEALED = {"proven": lambda mint: True}


@story
async def test_a_sealed_result_is_paid_for_and_opened_and_nobody_else_can_read_it(world: World) -> None:
    buyer, seller = world.node(**SEALED), world.node(services=echo(9_000), **SEALED)
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    view = await bought(buyer)
    shown = view.to_dict()
    assert (view.result, shown["money"], shown["method"], shown["mode"]) == ("hello market", "claimed", "atomic", "B")
    assert await seller.sat() == 9
    assert [line for line in shown["why"] if "paid by atomic" in line]
    (result,) = words(seller, 6050)
    answer = read_answer(result)
    assert answer.encrypted
    assert "hello market" not in answer.content
    assert result.value("seal") == view.purchase.payment.hash
    assert len(words(buyer, GIFT_WRAP)) == 2, "the token, and then the signatures"
    assert not view.purchase.sealed, "evidence is kept only of a fraud"
    receipts = [event for event in words(seller, 7000) if event.all("receipt")]
    assert receipts[0].all("receipt")[0][2:] == tuple(shown["ys"])


@story
async def test_a_customer_that_knows_nothing_of_seals_is_served_as_ever(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000), **SEALED)
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    view = await bought(buyer)
    assert (view.result, view.to_dict()["method"]) == ("hello market", "locked")
    (quote,) = [event for event in words(seller, 7000) if event.value("status") == "payment-required"]
    assert {tag[1] for tag in quote.all("pay")} == {"cashu"}
    (request,) = words(buyer, 5050)
    assert read_request(request).modes == ()


@story
async def test_a_mint_that_was_not_proven_is_not_used_for_a_sealed_result(world: World) -> None:
    buyer, seller = world.node(**SEALED), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    view = await bought(buyer)
    assert (view.result, view.to_dict()["method"]) == ("hello market", "locked")


@pytest.mark.parametrize("moment", ["working", "sealed", "delivered"])
def test_a_buyer_that_crashes_anywhere_ends_with_the_result_and_pays_once(moment: str) -> None:
    async def tell(world: World) -> None:
        buyer, seller = world.node(**SEALED), world.node(services=echo(9_000), **SEALED)
        await buyer.up()
        await seller.up()
        await buyer.fund(200)
        frozen = freeze(buyer, "purchase", moment)
        staged = await buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        await buyer.crash()
        await world.clock.sleep(1)
        await buyer.up()
        view = await bought(buyer)
        assert view.job_id == staged.job_id
        assert (view.result, view.to_dict()["money"]) == ("hello market", "claimed")
        assert await seller.sat() == 9

    World().run(tell)


@pytest.mark.parametrize("moment", ["quoted", "working", "sealed", "delivered"])
def test_a_seller_that_crashes_anywhere_delivers_and_is_paid_once(moment: str) -> None:
    async def tell(world: World) -> None:
        buyer = world.node(policy=replace(buyer_policy(), timeout_s=60), **SEALED)
        seller = world.node(services=echo(9_000), **SEALED)
        await buyer.up()
        await seller.up()
        await buyer.fund(200)
        frozen = freeze(seller, "sale", moment)
        await buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        await seller.crash()
        await world.clock.sleep(0.3)
        await seller.up()
        view = await bought(buyer)
        assert (view.result, view.to_dict()["money"]) == ("hello market", "claimed")
        await until(world.clock, lambda: not seller.selling.open_count())
        assert await seller.sat() == 9

    World().run(tell)


def buyer_policy() -> Policy:
    return Policy(quote_window_ms=1_500, timeout_s=30, lock_margin_s=300)


@story
async def test_a_seller_that_never_claims_leaves_the_money_to_be_taken_back(world: World) -> None:
    buyer, seller = world.node(providers=[Echo()], **SEALED), world.node(services=echo(9_000), **SEALED)
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    frozen = freeze(seller, "sale", "sealed")
    await buyer.buying.buy("agent:a", "k", ASK)
    await frozen.wait()
    rows = await seller.db.select("outbox", {"state": "pending"})
    assert rows
    await seller.crash()
    # The result goes out in another life, which then dies for good.
    frozen = freeze(seller, "sale", "delivered")
    await seller.up()
    await frozen.wait()
    await seller.crash()
    view = await bought(buyer)
    shown = view.to_dict()
    assert (shown["money"], shown["provider"], view.result) == ("refunded", "builtin", "hello market")
    assert any("its result stays sealed" in line for line in shown["why"])


@story
async def test_too_much_without_a_seal_goes_to_no_seller(world: World) -> None:
    careful = Settlement(max_unsecured=Msat(9_000))
    buyer = world.node(settlement=careful, providers=[Echo()], **SEALED)
    seller = world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    view = await bought(buyer)
    assert (view.to_dict()["provider"], view.to_dict()["money"]) == ("builtin", "none")
    assert any("only unsecured" in line for line in view.to_dict()["why"])
    other = world.node(services=echo(9_000), **SEALED)
    await other.up()
    view = await bought(buyer, key="again")
    assert (view.to_dict()["seller"], view.to_dict()["method"]) == (other.key.pubkey, "atomic")


ORDERS = Settlement(order_max=Msat(20_000))


@story
async def test_a_cheap_job_is_done_before_any_money_is_locked(world: World) -> None:
    buyer, seller = world.node(**SEALED), world.node(services=echo(9_000), settlement=ORDERS, **SEALED)
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    view = await bought(buyer)
    shown = view.to_dict()
    assert (view.result, shown["money"], shown["method"], shown["mode"]) == ("hello market", "claimed", "atomic", "A")
    assert [one["word"] for one in shown["events"] if one["word"] in ("sealed", "locked", "claimed")][:2] == [
        "sealed",
        "locked",
    ]
    assert await seller.sat() == 9
    assert len(words(buyer, GIFT_WRAP)) == 2, "the order, and then the token"


@pytest.mark.parametrize("moment", ["ordered", "paying", "sealed", "delivered"])
def test_a_buyer_that_crashes_while_it_orders_pays_once(moment: str) -> None:
    async def tell(world: World) -> None:
        buyer, seller = world.node(**SEALED), world.node(services=echo(9_000), settlement=ORDERS, **SEALED)
        await buyer.up()
        await seller.up()
        await buyer.fund(200)
        frozen = freeze(buyer, "purchase", moment)
        staged = await buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        await buyer.crash()
        await world.clock.sleep(1)
        await buyer.up()
        view = await bought(buyer)
        assert view.job_id == staged.job_id
        assert (view.result, view.to_dict()["money"]) == ("hello market", "claimed")
        assert await seller.sat() == 9

    World().run(tell)


@pytest.mark.parametrize("moment", ["working", "sealed", "delivered"])
def test_a_seller_that_crashes_while_it_is_owed_is_paid_once(moment: str) -> None:
    async def tell(world: World) -> None:
        buyer, seller = world.node(**SEALED), world.node(services=echo(9_000), settlement=ORDERS, **SEALED)
        await buyer.up()
        await seller.up()
        await buyer.fund(200)
        frozen = freeze(seller, "sale", moment)
        await buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        await seller.crash()
        await world.clock.sleep(0.3)
        await seller.up()
        view = await bought(buyer)
        assert (view.result, view.to_dict()["money"]) == ("hello market", "claimed")
        await until(world.clock, lambda: not seller.selling.open_count())
        assert await seller.sat() == 9

    World().run(tell)


@story
async def test_a_customer_that_never_pays_gets_no_more_work_before_it_pays(world: World) -> None:
    buyer, seller = world.node(**SEALED), world.node(services=echo(9_000), settlement=ORDERS, **SEALED)
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    frozen = freeze(buyer, "purchase", "paying")
    await buyer.buying.buy("agent:a", "k", ASK)
    await frozen.wait()
    await buyer.crash()
    await until(world.clock, lambda: not seller.selling.open_count(), 200)
    assert [row["state"] for row in await seller.selling.list_sales()] == ["lost"]
    await buyer.up()
    assert (await bought(buyer)).to_dict()["money"] in ("none", "refunded")
    view = await bought(buyer, key="again")
    assert (view.result, view.to_dict()["mode"]) == ("hello market", "B")


@story
async def test_no_more_work_is_done_unpaid_than_is_allowed_in_all(world: World) -> None:
    few = replace(ORDERS, orders=1)
    buyer, seller = world.node(**SEALED), world.node(services=echo(9_000), settlement=few, **SEALED)
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    staged = [await buyer.buying.buy("agent:a", key, ASK) for key in ("a", "b")]
    modes = []
    for one in staged:
        while not (view := await buyer.buying.view(one.job_id)).purchase.closed:
            await world.clock.sleep(0.05)
        modes.append(view.to_dict()["mode"])
    assert sorted(modes) == ["A", "B"]
