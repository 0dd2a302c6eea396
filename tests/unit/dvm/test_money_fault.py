"""What must not cost anybody money: a full disk, a long outage, a changed configuration, sellers that play for time."""

from collections.abc import Callable

import pytest

from core.error import Conflict, StoreUncertain, Unavailable
from core.money import Msat
from dvm.policy import Policy
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest
from dvm.service import Service
from dvm.view import PurchaseView
from node.storage.error import StoreFailed, StoreFull
from relays.key import Key
from relays.nip90 import PayMethod, quote_draft, read_request
from tests.model_mint import Fault, ModelMint
from tests.unit.dvm.market_part import Node, echo, until
from tests.unit.dvm.test_market import ASK, World, bought, freeze, story, words
from tests.wallet_part import EFFECT, PERMIT, make_wallet


class Broken(Echo):
    async def run(self, request: ComputeRequest) -> Answer:
        raise RuntimeError("out of order")


def full_while(node: Node, full: Callable[[], bool], error: type[Exception] = StoreFull) -> None:
    """Every commit fails as long as this holds; nothing is written."""
    commit = node.db.commit

    async def failing(writes) -> None:
        if full():
            raise error
        await commit(writes)

    node.db.commit = failing


async def paid_in_vain(world: World) -> tuple[Node, PurchaseView]:
    """A buyer that has paid a seller whose provider is broken, and the open job."""
    buyer = world.node(providers=[Echo()], policy=Policy(timeout_s=30, lock_margin_s=120))
    seller = world.node(services=lambda: [Service(5050, Msat(9_000), Broken(), eta_s=2)])
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    view = await bought(buyer, closed=False)
    return buyer, view


@story
async def test_a_full_disk_at_the_locktime_does_not_keep_the_refund_from_coming(world: World) -> None:
    buyer, view = await paid_in_vain(world)
    locktime = view.purchase.payment.locktime
    full_while(buyer, lambda: locktime - 20 < world.clock.now() < locktime + 60)
    assert (await bought(buyer)).to_dict()["money"] == "refunded"


@story
async def test_a_paid_result_that_meets_a_full_disk_is_written_later(world: World) -> None:
    buyer, seller = world.node(providers=[Echo()]), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    full_while(buyer, lambda: bool(words(seller, 6050)) and world.clock.now() < begun + 20)
    begun = world.clock.now()
    view = await bought(buyer)
    assert (view.purchase.provider, view.to_dict()["money"]) == ("dvm", "claimed")
    assert await seller.sat() == 9


@story
async def test_a_full_disk_at_the_claim_is_waited_for(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    full_while(seller, lambda: bool(words(seller, 6050)) and world.clock.now() < begun + 20)
    begun = world.clock.now()
    assert (await bought(buyer)).result == "hello market"
    await world.clock.sleep(60)
    assert (await seller.selling.list_sales())[0]["state"] == "done"


@story
async def test_a_job_whose_commit_was_uncertain_is_begun_when_its_key_is_used_again(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo())
    await buyer.up()
    await seller.up()
    commit = buyer.db.commit

    async def uncertain(writes) -> None:
        del buyer.db.commit
        await commit(writes)
        raise StoreUncertain

    buyer.db.commit = uncertain
    with pytest.raises(StoreUncertain):
        await buyer.buying.buy("agent:a", "k", ASK)
    assert (await bought(buyer)).result == "hello market"


def uncertain_once(node: Node, table: str, state: str, column: str = "state") -> None:
    """The commit that brings this state is durable, and the database says that it does not know."""
    commit = node.db.commit

    async def doubtful(writes) -> None:
        known = await node.db.select(table, {column: state})
        await commit(writes)
        if not known and await node.db.select(table, {column: state}):
            node.db.commit = commit
            raise StoreUncertain

    node.db.commit = doubtful


@pytest.mark.parametrize(
    ("side", "table", "column", "state"),
    [
        (0, "purchase", "state", "quoting"),
        (0, "purchase", "state", "paying"),
        (0, "purchase", "state", "working"),
        (0, "purchase", "state", "delivered"),
        (0, "purchase", "money", "claimed"),
        (1, "sale", "state", "quoted"),
        (1, "sale", "state", "working"),
        (1, "sale", "state", "delivered"),
        (1, "sale", "state", "done"),
    ],
)
def test_a_step_that_was_written_after_all_is_acted_on(side: int, table: str, column: str, state: str) -> None:
    async def tale(world: World) -> None:
        buyer, seller = world.node(), world.node(services=echo(9_000))
        await buyer.up()
        await seller.up()
        await buyer.fund(100)
        uncertain_once((buyer, seller)[side], table, state, column)
        if state == "quoting":  # written with the job itself: whoever asks for it hears of the doubt, and asks again
            with pytest.raises(StoreUncertain):
                await bought(buyer)
        view = await bought(buyer)
        assert (view.result, view.to_dict()["money"]) == ("hello market", "claimed")
        await until(world.clock, lambda: seller.selling.open_count() == 0)
        assert await seller.sat() == 9
        assert len(words(buyer, 1059)) == 1

    World().run(tale)


@story
async def test_a_refund_that_was_written_after_all_ends_the_job(world: World) -> None:
    buyer = world.node(providers=[Echo()], policy=Policy(timeout_s=30, lock_margin_s=120))
    seller = world.node(services=lambda: [Service(5050, Msat(9_000), Broken(), eta_s=2)])
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    uncertain_once(buyer, "purchase", "refunding", "money")
    view = await bought(buyer)
    assert view.to_dict()["money"] == "refunded"


@story
async def test_a_seller_that_sells_the_kind_no_more_still_claims_what_it_delivered(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    frozen = freeze(seller, "sale", "delivered")
    await buyer.buying.buy("agent:a", "k", ASK)
    await frozen.wait()
    await seller.crash()
    seller.services = lambda: ()
    await seller.up()
    view = await bought(buyer)
    assert view.to_dict()["money"] == "claimed"
    await until(world.clock, lambda: seller.selling.open_count() == 0)
    assert await seller.sat() == 9


@story
async def test_a_paid_job_of_a_kind_that_is_sold_no_more_is_refused_and_not_claimed(world: World) -> None:
    buyer = world.node(providers=[Echo()], policy=Policy(timeout_s=30, lock_margin_s=120))
    seller = world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    frozen = freeze(seller, "sale", "working")
    await buyer.buying.buy("agent:a", "k", ASK)
    await frozen.wait()
    await seller.crash()
    seller.services = lambda: ()
    await seller.up()
    view = await bought(buyer)
    assert (view.purchase.provider, view.to_dict()["money"]) == ("builtin", "refunded")
    assert (await seller.selling.list_sales())[0]["state"] == "failed"
    assert not await seller.gate.open_effects()


@story
async def test_a_claim_at_a_mint_that_is_off_the_list_waits_until_it_is_back(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    frozen = freeze(seller, "sale", "delivered")
    await buyer.buying.buy("agent:a", "k", ASK)
    await frozen.wait()
    await seller.crash()
    ours, seller.mint = seller.mint, ModelMint("https://other.test", clock=world.clock)
    await seller.up()
    await world.clock.sleep(30)
    assert (await seller.db.select("sale"))[0]["state"] == "delivered"
    await seller.down()
    seller.mint = ours
    await seller.up()
    assert (await bought(buyer)).to_dict()["money"] == "claimed"
    await until(world.clock, lambda: seller.selling.open_count() == 0)
    assert await seller.sat() == 9


@story
async def test_a_claim_goes_on_after_the_locktime_if_the_mint_was_away(world: World) -> None:
    buyer = world.node(policy=Policy(timeout_s=30, lock_margin_s=120))
    seller = world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    frozen = freeze(seller, "sale", "delivered")
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    await frozen.wait()
    await seller.crash()
    await buyer.crash()  # nobody takes the money back
    locktime = (await buyer.buying.view(staged.job_id)).purchase.payment.locktime
    await world.clock.sleep(locktime - world.clock.now() + 10)
    away = world.clock.now() + 60
    world.mint.script = lambda name: Fault.UNREACHABLE if world.clock.now() < away else Fault.NONE
    await seller.up()
    await until(world.clock, lambda: seller.selling.open_count() == 0, 200)
    assert await seller.sat() == 9


@story
async def test_a_seller_cannot_choose_how_long_the_money_stays_locked(world: World) -> None:
    buyer = await world.node(providers=[Echo()], policy=Policy(timeout_s=30)).up()
    await buyer.fund(100)
    slow = Key.generate()
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    await until(world.clock, lambda: bool(words(buyer, 5050)))
    request = read_request(words(buyer, 5050)[0])
    now = world.clock.now()
    quote = quote_draft(
        request=request,
        quote_id="q",
        amount=Msat(1_000),
        expires_at=now + 60,
        eta_s=86_400,
        methods=[PayMethod("cashu", buyer.wallet.mints[0], "sat", slow.compressed)],
        created_at=now,
    )
    world.relay.store(slow.sign(quote))
    await world.clock.sleep(5)
    view = await buyer.buying.view(staged.job_id)
    assert view.purchase.provider == "builtin"
    assert "too late" in view.to_dict()["quotes"][0]["refusal"]
    assert await buyer.sat() == 100


@story
async def test_money_that_was_locked_too_late_for_its_quote_is_not_handed_out(world: World) -> None:
    buyer = world.node(providers=[Echo()], policy=Policy(timeout_s=300, lock_margin_s=60))
    seller = world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    end = world.clock.now() + 100  # quotes stand for 60 s
    faults = {"swap": Fault.ANSWER_LOST, "restore": Fault.UNREACHABLE}
    world.mint.script = lambda name: faults.get(name, Fault.NONE) if world.clock.now() < end else Fault.NONE
    view = await bought(buyer)
    assert (view.purchase.provider, view.to_dict()["money"]) == ("builtin", "refunded")
    assert not words(buyer, 1059)


@story
async def test_a_result_that_was_paid_for_is_taken_after_a_long_outage(world: World) -> None:
    class Slow(Echo):
        async def run(self, request: ComputeRequest) -> Answer:
            await world.clock.sleep(5)
            return await super().run(request)

    buyer = world.node(providers=[Echo()])
    seller = world.node(services=lambda: [Service(5050, Msat(9_000), Slow(), eta_s=6)])
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    await buyer.buying.buy("agent:a", "k", ASK)
    await until(world.clock, lambda: bool(words(buyer, 1059)))
    await buyer.crash()
    await world.clock.sleep(100)
    assert words(seller, 6050)
    await buyer.up()
    view = await bought(buyer)
    assert (view.purchase.provider, view.result) == ("dvm", "hello market")


@story
async def test_a_seller_that_takes_a_part_does_not_keep_the_job_open_for_ever(world: World) -> None:
    buyer = world.node(providers=[Echo()], policy=Policy(timeout_s=30, lock_margin_s=120))
    seller = world.node(services=lambda: [Service(5050, Msat(26_000), Broken(), eta_s=2)])
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    view = await bought(buyer, closed=False)
    payment = view.purchase.payment
    payload = (await buyer.wallet.find(payment.op_id)).result.payload
    dearest = max(payload["proofs"], key=lambda proof: proof["amount"])
    assert len(payload["proofs"]) > 1
    await world.clock.sleep(payment.locktime - world.clock.now() + 1)
    thief = make_wallet(seller.words, [world.mint], world.clock)
    await thief.claim("part", {**payload, "proofs": [dearest]}, EFFECT, PERMIT)
    shown = (await bought(buyer)).to_dict()
    assert shown["money"] == "refunded"
    assert shown["cost_msat"] // 1000 == 100 - await buyer.sat()
    assert dearest["amount"] <= shown["cost_msat"] // 1000 <= dearest["amount"] + 4


def test_the_errors_of_a_full_disk_are_of_the_kind_that_drivers_wait_for() -> None:
    assert issubclass(StoreFull, Unavailable)


@story
async def test_a_job_whose_row_somebody_else_changed_decides_nothing_until_it_was_read_again(world: World) -> None:
    buyer, view = await paid_in_vain(world)
    job = buyer.buying._open[view.purchase.job_id]
    commit, select = buyer.db.commit, buyer.db.select

    async def overtaken(writes) -> None:
        raise Conflict("Somebody was quicker.")

    async def away(*args, **named):
        raise StoreFailed

    buyer.db.commit, buyer.db.select = overtaken, away
    with pytest.raises(StoreFailed):
        await job._commit(job.job, ())
    assert job.version == -1, "what is in memory was never written"
    buyer.db.commit, buyer.db.select = commit, select
    await bought(buyer)
