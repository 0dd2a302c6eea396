"""Jobs that another process of the node has committed: the one that drives them takes them up while it runs."""

import pytest

from core.error import VendoError
from core.money import MicroUsd
from dvm.buying import CANCEL, Buying
from dvm.error import NotNow
from dvm.provider.echo import Echo
from dvm.request import ComputeRequest, Datum
from node.gate.gate import NodeGate
from relays.key import Keyring
from relays.outbox import Outbox
from tests.simulation.wire import SimPool
from tests.unit.dvm.market_part import Node, echo
from tests.unit.dvm.test_market import World, story
from wallet.wallet import Wallet

ASK = ComputeRequest(5050, (Datum("hello from elsewhere"),), (), MicroUsd(50_000))


async def beside(node: Node) -> Buying:
    """Buying in another process on the same database, which drives nothing."""
    keyring = Keyring(node.words)
    gate = NodeGate(node.db, node.clock, node.limits, keyring.node.pubkey)
    await gate.load()
    pool = SimPool(node.relay, gate.check)
    outbox = Outbox(pool, node.db, node.clock, gate.delivery)
    wallet = Wallet(node.db, keyring, node.clock, gate.check, [node.mint], permit_for=gate.permit)
    return Buying(
        node.db, gate, pool, outbox, wallet, node.price, keyring, node.clock, node.policy, (Echo(),),
        lambda kind: frozenset(), None,
    )  # fmt: skip


@story
async def test_a_job_that_another_process_committed_is_taken_up_once(world: World) -> None:
    await world.node(services=echo()).up()
    leader = await world.node(providers=(Echo(),)).up()
    other = await beside(leader)
    staged = await other.buy("agent:a", "k", ASK)
    assert (await leader.buying.view(staged.job_id)).state == "staged"
    await world.clock.sleep(5)
    assert (await leader.buying.view(staged.job_id)).state == "staged", "nobody has told it"
    for _ in range(3):
        await leader.gate.adopt()
        await leader.buying.adopt()
    while not (view := await leader.buying.view(staged.job_id)).purchase.closed:
        await world.clock.sleep(0.1)
    assert (view.state, view.result) == ("delivered", "hello from elsewhere")
    requests = [event for event in world.relay.events.values() if event.kind == 5050]
    assert len(requests) == 1
    assert (await other.view(staged.job_id)).result == view.result


@story
async def test_a_wish_to_end_a_job_is_found_by_the_process_that_drives_it(world: World) -> None:
    leader = await world.node().up()
    other = await beside(leader)
    staged = await other.buy("agent:a", "k", ASK)
    await leader.gate.adopt()
    await leader.buying.adopt()
    await world.clock.sleep(0.2)
    assert (await leader.buying.view(staged.job_id)).state == "quoting"
    assert (await other.cancel(staged.job_id)).state == "quoting", "it is a wish until it is found"
    await leader.buying.adopt()
    assert (await leader.buying.view(staged.job_id)).state == "cancelled"
    await leader.buying.adopt()
    assert not [row for row in await leader.db.select("meta") if row["key"].startswith(CANCEL)]
    with pytest.raises(NotNow):
        await other.cancel(staged.job_id)


@story
async def test_a_wish_for_a_job_that_is_over_goes_without_a_trace(world: World) -> None:
    leader = await world.node(providers=(Echo(),)).up()
    other = await beside(leader)
    staged = await other.buy("agent:a", "k", ASK)
    await other.cancel(staged.job_id)
    await other.cancel(staged.job_id)
    await leader.gate.adopt()
    await leader.buying.adopt()
    while not (view := await leader.buying.view(staged.job_id)).ended:
        await world.clock.sleep(0.1)
    assert view.state in ("cancelled", "delivered")
    await leader.buying.adopt()
    assert not [row for row in await leader.db.select("meta") if row["key"].startswith(CANCEL)]


@story
async def test_where_buying_does_not_run_nothing_is_taken_up(world: World) -> None:
    leader = await world.node().up()
    other = await beside(leader)
    staged = await other.buy("agent:a", "k", ASK)
    await other.adopt()
    assert not other._open
    with pytest.raises(VendoError):
        await other.cancel("ab" * 16)
    assert (await other.view(staged.job_id)).state == "staged"


@story
async def test_a_job_that_ends_while_the_rows_are_read_is_not_taken_up_again(world: World) -> None:
    leader = await world.node().up()
    select = leader.db.select
    staged = await leader.buying.buy("agent:a", "k", ASK)

    async def ending(table, where=None, **more):
        rows = await select(table, where, **more)
        if table == "purchase" and "state" in (where or {}) and "id" not in where:
            await leader.buying.cancel(staged.job_id)
        return rows

    leader.db.select = ending
    await leader.buying.adopt()
    leader.db.select = select
    await world.clock.sleep(500)
    assert (await leader.buying.view(staged.job_id)).state == "cancelled"
    assert not leader.buying._open
    assert not [name for name in leader.pool._subs if name.startswith("job/")]


@story
async def test_a_stale_row_that_was_taken_up_is_let_go_when_it_cannot_be_written(world: World) -> None:
    leader = await world.node().up()
    staged = await leader.buying.buy("agent:a", "k", ASK)
    stale = (await leader.db.select("purchase", {"id": staged.job_id}))[0]
    await leader.buying.cancel(staged.job_id)
    leader.buying._take_up(stale)
    await world.clock.sleep(500)
    assert not leader.buying._open
    assert (await leader.buying.view(staged.job_id)).state == "cancelled"
