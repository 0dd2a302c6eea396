"""Buying after a restore from an old copy: taken at any moment of a job, it never pays a second time."""

from dataclasses import replace

import pytest

from core.money import Msat
from dvm.copy import set_aside
from dvm.job import ENDED, Funds, Limit, Purchase, State
from dvm.policy import Policy
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest
from dvm.service import Service
from node.storage.memory import MemoryDatabase
from tests.copy_part import copy_rows
from tests.unit.dvm.market_part import Node, echo
from tests.unit.dvm.test_market import ASK, World, bought, story, words

JOB = Purchase(
    "job", "effect", "operator", 5050, (), (), "", Limit("msat", 1, Msat(1)), Msat(0), (), ("dvm", "echo"),
    0, 1, 1, 1, 1,
)  # fmt: skip


def test_what_had_certainly_left_is_followed_as_always():
    for money in (Funds.LOCKED, Funds.REFUNDING, Funds.CLAIMED):
        for state in State:
            assert set_aside(replace(JOB, state=state, money=money), 1, begun=True) is None


@pytest.mark.parametrize("state", [state for state in State if state not in ENDED])
def test_a_job_that_may_have_been_paid_since_ends_and_closes(state):
    after = set_aside(replace(JOB, state=state), 1, begun=False)
    assert after is not None
    assert (after.state, after.money, after.closed, after.copied) == (State.FAILED, Funds.NONE, True, True)


def test_a_job_that_cannot_cost_anything_goes_on():
    assert set_aside(replace(JOB, route=("echo",), state=State.FALLBACK), 1, begun=False) is None


def test_money_that_the_wallet_had_begun_to_lock_is_looked_up_before_the_job_closes():
    after = set_aside(replace(JOB, state=State.PAYING, money=Funds.LOCKING), 1, begun=True)
    assert after is not None
    assert (after.state, after.money, after.closed) == (State.FAILED, Funds.LOCKING, False)
    assert set_aside(after, 2, begun=True) is None, "again, it changes nothing"


def test_money_that_the_wallet_had_not_begun_to_lock_is_not_locked_now():
    after = set_aside(replace(JOB, state=State.PAYING, money=Funds.LOCKING), 1, begun=False)
    assert after is not None
    assert (after.money, after.closed) == (Funds.NONE, True)
    ended = set_aside(replace(JOB, state=State.CANCELLED, money=Funds.LOCKING), 1, begun=False)
    assert ended is not None
    assert (ended.state, ended.money, ended.closed) == (State.CANCELLED, Funds.NONE, True)


def test_a_job_that_has_ended_and_is_paid_stays_as_it_is():
    for money in (Funds.NONE, Funds.CLAIMED, Funds.REFUNDED):
        assert set_aside(replace(JOB, state=State.DELIVERED, money=money), 1, begun=True) is None


async def copies_of_a_job(buyer: Node) -> list[MemoryDatabase]:
    """The buyer's rows after each of its commits while a job runs to its end."""
    found: list[MemoryDatabase] = []
    commit = buyer.db.commit

    async def copying(writes) -> None:
        await commit(writes)
        made = MemoryDatabase()
        await copy_rows(buyer.db, made)
        found.append(made)

    buyer.db.commit = copying
    await bought(buyer)
    del buyer.db.commit
    return found


async def nothing_more_is_paid(world: World, buyer: Node, seller: Node) -> list[str]:
    """Restore every copy in turn and let it run: the money stays as it is. What became of the job each time."""
    copies = await copies_of_a_job(buyer)
    await world.clock.sleep(500)
    truth, earned, wraps = await buyer.sat(), await seller.sat(), {event.id for event in words(buyer, 1059)}
    became = []
    for copy in copies:
        await buyer.crash()
        buyer.db = copy
        await buyer.up(copied=True)
        await world.clock.sleep(100)
        assert await buyer.sat() == truth
        assert await seller.sat() == earned
        assert {event.id for event in words(buyer, 1059)} == wraps, "no other token was handed out"
        audit = await buyer.wallet.audit()
        assert audit.clean, audit.differences
        assert audit.open_operations == 0
        for row in await buyer.db.select("purchase"):
            effect = (await buyer.db.select("effect", {"id": row["effect_id"]}))[0]
            became.append(f"{row['state']} {row['money']} {effect['state']}")
    return became


class Broken(Echo):
    async def run(self, request: ComputeRequest) -> Answer:
        raise RuntimeError("out of order")


@story
async def test_a_copy_taken_at_any_moment_of_a_paid_job_pays_nothing_more(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await seller.up()
    await buyer.up()
    await buyer.fund(200)
    became = await nothing_more_is_paid(world, buyer, seller)
    assert "failed none unknown" in became, "before the money left, nobody knows"
    assert became[-1] == "delivered claimed commit"
    assert not [one for one in became if one.startswith("failed none fail")]


@story
async def test_a_copy_taken_at_any_moment_of_a_refunded_job_pays_nothing_more(world: World) -> None:
    buyer = world.node(providers=[Echo()], policy=Policy(timeout_s=30, lock_margin_s=120))
    seller = world.node(services=lambda: [Service(5050, Msat(9_000), Broken(), eta_s=2)])
    await seller.up()
    await buyer.up()
    await buyer.fund(200)
    await nothing_more_is_paid(world, buyer, seller)


@story
async def test_whoever_asked_is_told_once_that_the_job_ended(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await seller.up()
    await buyer.up()
    await buyer.fund(200)
    copies = await copies_of_a_job(buyer)
    await buyer.crash()
    quoting = [copy for copy in copies if [row["state"] for row in await copy.select("purchase")] == ["quoting"]]
    buyer.db = quoting[0]
    told = []

    async def tell(view):
        told.append((view.state, view.purchase.error))
        return ()

    await buyer.up()
    await buyer.crash()
    buyer.buying.on_finished(tell)
    assert await buyer.buying.adopt_copy() == 1
    assert await buyer.buying.adopt_copy() == 0
    assert [state for state, _ in told] == ["failed"]
    assert "restored" in told[0][1]


@story
async def test_where_no_mint_saw_any_money_move_the_job_cost_nothing(world: World) -> None:
    buyer = world.node()
    await buyer.up()
    await buyer.fund(200)
    await buyer.buying.buy("agent:a", "k", ASK)
    await world.clock.sleep(0.1)
    await buyer.crash()
    await buyer.up(copied=True)
    effect = (await buyer.db.select("effect", {"path": "/compute/new"}))[0]
    assert effect["state"] == "unknown"
    assert await buyer.db.select("hold", {"effect_id": effect["id"]})
    assert await buyer.wallet.copied() == {buyer.mint.url: "same"}
    assert await buyer.buying.nothing_was_paid() == 1
    assert await buyer.buying.nothing_was_paid() == 0
    effect = (await buyer.db.select("effect", {"path": "/compute/new"}))[0]
    assert (effect["state"], effect["cost"]) == ("fail", 0)
    assert not await buyer.db.select("hold", {"effect_id": effect["id"]})
