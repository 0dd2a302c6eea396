"""One job from three sellers: real drivers, wallets and gates over a model mint and a simulated wire."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from core.error import BudgetExceeded, KeyReused
from core.money import MicroUsd, Msat
from dvm.error import NotDeterministic, NotNow, TooFewSellers
from dvm.policy import Policy
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.redundancy import Redundancy
from dvm.reputation import NEUTRAL
from dvm.request import ComputeRequest, Datum
from dvm.reviewing import Reviewing
from dvm.service import Service
from dvm.view import PurchaseView
from node.gate.limits import Limits
from relays.kind import LABEL
from tests.unit.dvm.market_part import Node, echo, until
from tests.unit.dvm.test_market import World, bought, freeze, story, words

ASK = ComputeRequest(5050, (Datum("hello market"),), (), MicroUsd(90_000), redundancy=Redundancy(2, 3))
POLICY = Policy(quote_window_ms=1_500, timeout_s=30, lock_margin_s=300, deterministic=(5050,))
PRICE = 9_000


class Liar(Echo):
    def __init__(self, lie: str) -> None:
        self.lie = lie

    async def run(self, request: Any) -> Answer:
        return Answer(self.lie)


def sells(lie: str) -> Any:
    """What somebody sells: the truth, or one lie."""
    return (lambda: [Service(5050, Msat(PRICE), Liar(lie), eta_s=2)]) if lie else echo(PRICE)


async def town(world: World, *lies: str, **parts: Any) -> tuple[Node, list[Node]]:
    """A buyer that knows its three sellers, of whom some lie."""

    def attach(node: Node) -> None:
        told: list[PurchaseView] = []

        async def note(view: PurchaseView) -> tuple[()]:
            told.append(view)
            return ()

        node.told = told
        node.buying.on_finished(note)
        node.buying.on_moved(note)
        node.buying.on_closing(
            Reviewing(node.db, node.pool, node.outbox, node.wallet, node.keyring, node.clock).closing
        )

    sellers = []
    buyer = world.node(attach=attach, **({"policy": POLICY} | parts))
    await buyer.up()
    for lie in (*lies, *[""] * 3)[:3]:
        sellers.append(await world.node(services=sells(lie)).up())
    await buyer.fund(400)
    await until(world.clock, lambda: len(buyer.discovery.known_sellers(5050)) == 3)
    return buyer, sellers


async def quiet(world: World, buyer: Node) -> None:
    """Until nothing is open, and nobody is still to be told."""
    for _ in range(4_000):
        rows = await buyer.db.select("meta")
        if not buyer.buying._open and not [row for row in rows if row["key"].startswith("panel/")]:
            return
        await world.clock.sleep(0.5)
    raise AssertionError("it never ended")


@story
async def test_three_sellers_do_it_and_each_is_paid_once_within_one_reservation(world: World) -> None:
    buyer, sellers = await town(world)
    view = await bought(buyer, ASK)
    await quiet(world, buyer)
    shown = view.to_dict()
    assert (shown["state"], shown["result"], shown["money"]) == ("delivered", "hello market", "claimed")
    attempts = shown["redundancy"]["attempts"]
    assert {one["seller"] for one in attempts} == {one.key.pubkey for one in sellers}
    assert [await one.sat() for one in sellers] == [PRICE // 1000] * 3
    assert shown["paid_msat"] == 3 * PRICE
    assert shown["cost_msat"] == sum(one["cost_msat"] for one in attempts) <= shown["reserved_msat"]
    assert 89_000 < shown["reserved_uusd"] <= 90_000
    assert [one.state for one in buyer.told if one.ended] == ["delivered"], "who asked is told of one job, once"
    assert [one.job_id for one in await buyer.buying.list_jobs()] == [view.job_id]
    (budget,) = [row for row in await buyer.db.select("budget") if row["name"].startswith("day:")]
    assert budget["held"] == 0
    parts = [(await buyer.buying.view(one["job_id"])).purchase for one in attempts]
    assert budget["spent"] == sum(one.limit.cost(one.cost).value for one in parts)


@story
async def test_who_disagrees_is_outvoted_and_thought_less_of_and_no_receipt_praises_it(world: World) -> None:
    buyer, sellers = await town(world, "a lie")
    view = await bought(buyer, ASK)
    await quiet(world, buyer)
    assert view.result == "hello market"
    liar = sellers[0].key.pubkey
    told = {
        one["seller"]: one["agrees"]
        for one in (await buyer.buying.view(view.job_id)).to_dict()["redundancy"]["attempts"]
    }
    assert told == {one.key.pubkey: one.key.pubkey != liar for one in sellers}
    assert any(line.startswith(f"{liar}: disagreed") for line in view.to_dict()["why"])
    now, repute = world.clock.now(), buyer.buying._desk.repute
    assert repute.standing(liar, 5050, PRICE, now).reputation < NEUTRAL
    assert repute.standing(sellers[1].key.pubkey, 5050, PRICE, now).reputation > NEUTRAL
    await world.clock.sleep(120)
    assert {one.value("p") for one in words(buyer, LABEL)} == {one.key.pubkey for one in sellers[1:]}
    await buyer.crash()
    await buyer.up()
    assert buyer.buying._desk.repute.standing(liar, 5050, PRICE, now).reputation < NEUTRAL, "it is remembered"


@story
async def test_where_too_few_agree_there_is_no_result_and_the_cost_is_booked(world: World) -> None:
    buyer, sellers = await town(world, "a lie", "another")
    view = await bought(buyer, ASK)
    await quiet(world, buyer)
    shown = view.to_dict()
    assert (shown["state"], shown["result"], shown["money"]) == ("failed", None, "claimed")
    assert shown["error"].startswith("Fewer than 2 of 3 sellers agree: 3 delivered, 3 different results")
    assert shown["paid_msat"] == 3 * PRICE
    assert [one["agrees"] for one in shown["redundancy"]["attempts"]] == [None] * 3
    await world.clock.sleep(120)
    assert words(buyer, LABEL) == [], "nobody knows who was right"
    assert [await one.sat() for one in sellers] == [PRICE // 1000] * 3


@story
async def test_a_seller_that_is_gone_does_not_keep_the_others_from_agreeing(world: World) -> None:
    buyer, sellers = await town(world)
    await sellers[2].crash()
    view = await bought(buyer, ASK, closed=False)
    assert view.result == "hello market"
    await quiet(world, buyer)
    assert (await buyer.buying.view(view.job_id)).purchase.closed


@story
async def test_a_key_stands_for_one_job_and_its_one_wish(world: World) -> None:
    buyer, sellers = await town(world)
    view = await bought(buyer, ASK)
    again = await buyer.buying.buy("agent:a", "k", ASK)
    assert (again.job_id, again.repeated) == (view.job_id, True)
    for other in (replace(ASK, redundancy=None), replace(ASK, redundancy=Redundancy(3, 3))):
        with pytest.raises(KeyReused):
            await buyer.buying.buy("agent:a", "k", other)
    await quiet(world, buyer)
    assert [await one.sat() for one in sellers] == [PRICE // 1000] * 3


@story
async def test_what_cannot_be_compared_or_done_by_so_many_is_refused_before_anything_leaves(world: World) -> None:
    buyer, _ = await town(world)
    with pytest.raises(NotDeterministic):
        await buyer.buying.buy("agent:a", "a", replace(ASK, kind=5001))
    with pytest.raises(TooFewSellers):
        await buyer.buying.buy("agent:a", "b", replace(ASK, redundancy=Redundancy(3, 4)))
    assert not await buyer.db.select("purchase")
    assert not await buyer.db.select("effect", {"path": "/compute/new"})


@story
async def test_the_limit_for_one_job_is_for_all_of_it(world: World) -> None:
    limits = Limits.of("uusd", per_job=80_000, per_day=5_000_000, per_seller=2_000_000)
    buyer, _ = await town(world, limits=limits)
    with pytest.raises(BudgetExceeded):
        await buyer.buying.buy("agent:a", "k", ASK)
    assert not await buyer.db.select("effect", {"path": "/compute/new"})


@story
async def test_it_is_cancelled_as_a_whole(world: World) -> None:
    buyer, sellers = await town(world)
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    await buyer.buying.cancel(staged.job_id)
    await quiet(world, buyer)
    view = await buyer.buying.view(staged.job_id)
    assert (view.state, view.purchase.closed, view.to_dict()["cost_msat"]) == ("cancelled", True, 0)
    assert [one.state for one in buyer.told if one.ended] == ["cancelled"]
    with pytest.raises(NotNow):
        await buyer.buying.cancel(staged.job_id)
    assert [await one.sat() for one in sellers] == [0] * 3


@pytest.mark.parametrize("moment", ["staged", "quoting", "paying", "working", "delivered"])
def test_a_buyer_that_crashes_anywhere_pays_each_once_and_tells_once(moment: str) -> None:
    async def tell(world: World) -> None:
        buyer, sellers = await town(world, "a lie")
        frozen = freeze(buyer, "purchase", moment)
        if moment == "staged":
            with pytest.raises(TimeoutError):
                await _given_up(world, buyer)
        else:
            await buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        before = [one.state for one in buyer.told if one.ended]
        await buyer.crash()
        await world.clock.sleep(1)
        await buyer.up()
        view = await bought(buyer, ASK)
        await quiet(world, buyer)
        assert (view.result, view.to_dict()["money"]) == ("hello market", "claimed")
        assert before + [one.state for one in buyer.told if one.ended] == ["delivered"]
        assert [await one.sat() for one in sellers] == [PRICE // 1000] * 3

    World().run(tell)


async def _given_up(world: World, buyer: Node) -> None:
    await asyncio.wait_for(buyer.buying.buy("agent:a", "k", ASK), 5)


@story
async def test_a_later_job_builds_on_the_agreed_result(world: World) -> None:
    buyer, _ = await town(world, "a lie")
    first = await bought(buyer, ASK)
    then = ComputeRequest(5050, (Datum(first.job_id, "job"),), (), MicroUsd(50_000))
    view = await bought(buyer, then, key="then")
    assert view.state == "delivered"
    assert view.purchase.inputs[0].pin == first.purchase.result_id
