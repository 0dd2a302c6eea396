"""Buyer and sellers together: drivers, gates and wallets as they are, over a model mint and a simulated wire."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from core.error import BudgetExceeded, KeyReused, Paused, VendoError
from core.money import MicroUsd, Msat
from dvm.policy import Policy
from dvm.preference import Prefer
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest, Datum
from dvm.service import Service
from dvm.view import PurchaseView
from node.gate.limits import Limits
from relays.event import Draft
from relays.key import Key
from relays.nip17 import wrap
from relays.nip90 import feedback_draft, quote_draft, read_answer, read_request, result_draft
from tests.model_mint import Fault, ModelMint
from tests.simulation.virtual import VirtualClock, VirtualLoop, run
from tests.simulation.wire import SimRelay, Weather
from tests.unit.dvm.market_part import WORDS, Node, echo, until
from wallet.error import FxUnpriced

ASK = ComputeRequest(5050, (Datum("hello market"),), (), MicroUsd(50_000))


class World:
    def __init__(self, weather: Weather | None = None) -> None:
        self.loop = VirtualLoop()
        self.clock = VirtualClock(self.loop)
        self.weather = weather or Weather(delay=0.01)
        self.nodes: list[Node] = []

    def node(self, **parts) -> Node:
        node = Node(WORDS[len(self.nodes)], self.relay, self.mint, self.clock, **parts)
        self.nodes.append(node)
        return node

    def run(self, story: Callable[["World"], Awaitable[None]], seconds: float = 5_000) -> None:
        async def whole() -> None:
            self.relay = SimRelay(1, self.weather)
            self.mint = ModelMint(clock=self.clock)
            await story(self)
            for node in self.nodes:
                if node.tasks:
                    await node.down()

        run(asyncio.wait_for(whole(), seconds), self.loop)


def story(make):
    def test() -> None:
        World().run(make)

    test.__name__, test.__doc__ = make.__name__, make.__doc__
    return test


async def bought(node: Node, request: ComputeRequest = ASK, key: str = "k", *, closed: bool = True) -> PurchaseView:
    staged = await node.buying.buy("agent:a", key, request)
    end = node.clock.monotonic() + 1_000
    while True:
        view = await node.buying.view(staged.job_id)
        if view.purchase.closed or (view.ended and not closed):
            return view
        assert node.clock.monotonic() < end, view.to_dict()
        await node.clock.sleep(0.05)


def freeze(node: Node, table: str, state: str) -> asyncio.Event:
    """The process stops for ever right after the commit that brings this state, before it acts on it."""
    frozen, commit = asyncio.Event(), node.db.commit

    async def stopping(writes) -> None:
        if frozen.is_set():
            await asyncio.Event().wait()
        await commit(writes)
        if await node.db.select(table, {"state": state}):
            frozen.set()
            del node.db.commit
            await asyncio.Event().wait()

    node.db.commit = stopping
    return frozen


async def staged_and_started(node: Node) -> None:
    """As a tick does it, which commits a job together with everything else."""
    staged = await node.buying.stage("agent:a", "k", ASK)
    await node.db.commit(staged.writes)
    staged.start()


def words(node: Node, event_kind: int) -> list:
    return [event for event in node.relay.events.values() if event.kind == event_kind]


@story
async def test_a_free_job_is_done_at_once_and_costs_nothing(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo())
    await buyer.up()
    await seller.up()
    began = world.clock.monotonic()
    view = await bought(buyer)
    assert view.result == "hello market"
    assert world.clock.monotonic() - began < 1, "a result that states its price as 0 must not wait for the window"
    shown = view.to_dict()
    assert (shown["provider"], shown["seller"], shown["cost_uusd"]) == ("dvm", seller.key.pubkey, 0)
    assert shown["released_uusd"] == shown["reserved_uusd"] == 50_000
    assert [event.value("status") for event in words(seller, 7000)] == ["processing"]
    assert len(await seller.selling.list_sales()) == 1


@story
async def test_the_cheaper_of_two_sellers_is_paid_exactly_its_price(world: World) -> None:
    buyer = world.node()
    dear, cheap = world.node(services=echo(21_000)), world.node(services=echo(9_000))
    for node in (buyer, dear, cheap):
        await node.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    began = world.clock.monotonic()
    view = await bought(buyer)
    assert view.result == "hello market"
    shown = view.to_dict()
    assert shown["seller"] == cheap.key.pubkey
    assert shown["money"] == "claimed"
    assert shown["paid_msat"] == 9_000
    assert await cheap.sat() == 9
    assert await dear.sat() == 0
    assert 200 - await buyer.sat() == shown["cost_msat"] // 1000
    assert shown["reserved_uusd"] == shown["cost_uusd"] + shown["released_uusd"]
    assert shown["cost_msat"] == shown["paid_msat"] + shown["fees_msat"]
    assert any("chosen, the cheapest" in line for line in shown["why"])
    assert any(line.startswith(dear.key.pubkey) and "passed over" in line for line in shown["why"])
    assert world.clock.monotonic() - began < 1.4, "both known sellers had answered"
    effect = (await buyer.db.select("effect", {"subject": view.job_id}))[0]
    assert (effect["state"], effect["cost"]) == ("commit", shown["cost_uusd"])
    assert not await buyer.db.select("hold", {"effect_id": effect["id"]})
    receipts = [event for event in words(cheap, 7000) if event.all("receipt")]
    assert receipts[0].all("receipt")[0][2:] == tuple(shown["ys"])


@story
async def test_no_seller_means_the_built_in_provider_under_the_same_job(world: World) -> None:
    buyer = await world.node(providers=[Echo()]).up()
    view = await bought(buyer)
    shown = view.to_dict()
    assert (shown["provider"], shown["cost_uusd"], shown["result"]) == ("builtin", 0, "hello market")
    assert "No seller answered." in shown["why"][-1]
    assert view.purchase.request_id in world.relay.events


@story
async def test_a_quote_above_the_reservation_is_refused_and_nothing_is_paid(world: World) -> None:
    buyer, seller = world.node(providers=[Echo()]), world.node(services=echo(9_000))
    await buyer.up()
    await buyer.fund(100)
    await seller.up()
    request = ComputeRequest(5050, (Datum("x"),), (), MicroUsd(3_000))  # about 4.6 sat
    view = await bought(buyer, request)
    assert view.purchase.provider == "builtin"
    assert "above the bid" in view.to_dict()["quotes"][0]["refusal"]
    assert await buyer.sat() == 100


@story
async def test_a_seller_that_quotes_above_the_maximum_anyway_is_refused_by_the_buyer(world: World) -> None:
    buyer = await world.node(providers=[Echo()]).up()
    await buyer.fund(100)
    liar = Key.generate()
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    await until(world.clock, lambda: bool(words(buyer, 5050)))
    request = read_request(words(buyer, 5050)[0])
    quote = quote_draft(
        request=request,
        quote_id="q",
        amount=Msat(10**9),
        expires_at=world.clock.now() + 60,
        eta_s=1,
        methods=[],
        created_at=world.clock.now(),
    )
    world.relay.store(liar.sign(quote))
    await world.clock.sleep(5)
    view = await buyer.buying.view(staged.job_id)
    assert view.purchase.provider == "builtin"
    assert "above the reserved maximum" in view.to_dict()["quotes"][0]["refusal"]


@story
async def test_after_the_choice_nobody_elses_result_counts(world: World) -> None:
    class Slow(Echo):
        async def run(self, request: ComputeRequest) -> Answer:
            await world.clock.sleep(5)
            return await super().run(request)

    buyer = world.node()
    seller = world.node(services=lambda: [Service(5050, Msat(9_000), Slow(), eta_s=6)])
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    thief = Key.generate()
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    while (await buyer.buying.view(staged.job_id)).state != "working":
        await world.clock.sleep(0.05)
    request = read_request(words(buyer, 5050)[0])
    now = world.clock.now()
    world.relay.store(thief.sign(result_draft(request=request, content="mine", created_at=now, amount=Msat(0))))
    world.relay.store(thief.sign(feedback_draft(request=request, status="error", created_at=now, info="gone")))
    other = request.raw.to_dict() | {"tags": [["i", "other", "text"]]}
    elsewhere = read_request(seller.key.sign(Draft(5050, "", tuple(tuple(t) for t in other["tags"]), now)))
    world.relay.store(
        seller.key.sign(
            Draft(
                6050, "of another", (("e", elsewhere.event_id), ("e", request.event_id), ("p", buyer.key.pubkey)), now
            )
        )
    )
    view = await bought(buyer)
    assert view.result == "hello market"
    reasons = {item["reason"] for item in view.to_dict()["refused"]}
    assert {"it is not from the chosen seller", "it is for another request"} <= reasons


@story
async def test_a_seller_that_takes_the_job_and_fails_is_refunded_after_the_locktime(world: World) -> None:
    class Broken(Echo):
        async def run(self, request: ComputeRequest) -> Answer:
            raise RuntimeError("out of order")

    buyer = world.node(providers=[Echo()], policy=Policy(timeout_s=30, lock_margin_s=120))
    seller = world.node(services=lambda: [Service(5050, Msat(9_000), Broken(), eta_s=2)])
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    view = await bought(buyer, closed=False)
    assert (view.purchase.provider, view.to_dict()["money"]) == ("builtin", "locked")
    effect = (await buyer.db.select("effect", {"subject": view.job_id}))[0]
    assert effect["state"] == "begun", "the reservation must stay open while money is out (M4)"
    view = await bought(buyer)
    shown = view.to_dict()
    assert (shown["money"], shown["paid_msat"]) == ("refunded", 0)
    assert shown["cost_msat"] == shown["fees_msat"] == (100 - await buyer.sat()) * 1000
    assert 0 < shown["cost_msat"] <= 4_000
    effect = (await buyer.db.select("effect", {"subject": view.job_id}))[0]
    assert (effect["state"], effect["cost"]) == ("commit", shown["cost_uusd"])
    assert (await seller.selling.list_sales())[0]["state"] == "failed"


@story
async def test_the_same_key_gives_the_same_job_and_another_body_is_refused(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo())
    await buyer.up()
    await seller.up()
    both = await asyncio.gather(*(buyer.buying.buy("agent:a", "k", ASK) for _ in range(3)))
    assert len({one.job_id for one in both}) == 1
    view = await bought(buyer)
    again = await buyer.buying.stage("agent:a", "k", ASK)
    assert (again.job_id, again.repeated, again.writes) == (view.job_id, True, ())
    with pytest.raises(KeyReused):
        await buyer.buying.stage("agent:a", "k", ComputeRequest(5050, (Datum("other"),), (), MicroUsd(50_000)))
    assert len(words(buyer, 5050)) == 1


@story
async def test_a_job_above_the_limit_is_refused_and_leaves_no_trace(world: World) -> None:
    buyer = await world.node(limits=Limits.of("uusd", per_job=10_000, per_day=10_000, per_seller=10_000)).up()
    with pytest.raises(BudgetExceeded):
        await buyer.buying.stage("agent:a", "k", ASK)
    assert await buyer.db.select("purchase") == []


@story
async def test_a_seller_over_its_limit_is_passed_over_for_the_next(world: World) -> None:
    buyer = world.node(limits=Limits.of("uusd", per_job=50_000, per_day=500_000, per_seller=6_000))
    dear, cheap = world.node(services=echo(5_000)), world.node(services=echo(4_000))
    for node in (buyer, dear, cheap):
        await node.up()
    await buyer.fund(100)
    first = await bought(buyer, key="1")
    second = await bought(buyer, key="2")
    assert first.purchase.seller == cheap.key.pubkey
    assert second.purchase.seller == dear.key.pubkey
    assert any("per-seller" in line for line in second.to_dict()["why"])
    assert await cheap.sat() == 4
    assert await dear.sat() == 5


@story
async def test_too_little_money_falls_back_and_costs_nothing(world: World) -> None:
    buyer, seller = world.node(providers=[Echo()]), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(3)
    view = await bought(buyer)
    assert (view.purchase.provider, view.to_dict()["money"]) == ("builtin", "none")
    assert await buyer.sat() == 3


@pytest.mark.parametrize("moment", ["staged", "quoting", "paying", "working", "delivered"])
def test_a_buyer_that_crashes_anywhere_finishes_and_pays_once(moment: str) -> None:
    async def story(world: World) -> None:
        buyer, seller = world.node(), world.node(services=echo(9_000))
        await buyer.up()
        await seller.up()
        await buyer.fund(100)
        frozen = freeze(buyer, "purchase", moment)
        begun = staged_and_started(buyer) if moment == "staged" else buyer.buying.buy("agent:a", "k", ASK)
        buying = asyncio.create_task(begun)
        await frozen.wait()
        buying.cancel()
        await buyer.crash()
        await world.clock.sleep(1)
        await buyer.up()
        view = await bought(buyer)
        assert view.result == "hello market"
        assert view.to_dict()["money"] == "claimed"
        assert await seller.sat() == 9
        assert 100 - await buyer.sat() == view.to_dict()["cost_msat"] // 1000
        assert len(words(buyer, 1059)) == 1
        assert world.mint.circulating == await buyer.sat() + await seller.sat()

    World().run(story)


@pytest.mark.parametrize("moment", ["quoted", "working", "delivered"])
def test_a_seller_that_crashes_anywhere_delivers_and_is_paid_once(moment: str) -> None:
    async def story(world: World) -> None:
        class Slow(Echo):
            async def run(self, request: ComputeRequest) -> Answer:
                await world.clock.sleep(1)
                return await super().run(request)

        buyer = world.node()
        seller = world.node(services=lambda: [Service(5050, Msat(9_000), Slow(), eta_s=2)])
        await buyer.up()
        await seller.up()
        await buyer.fund(100)
        frozen = freeze(seller, "sale", moment)
        await buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        await seller.crash()
        await world.clock.sleep(1)
        await seller.up()
        view = await bought(buyer)
        assert view.result == "hello market"
        assert await seller.sat() == 9
        assert len(words(seller, 6050)) == 1

    World().run(story)


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.REQUEST_LOST, Fault.FALSE_NO, Fault.UNREACHABLE])
def test_a_payment_whose_answer_is_lost_is_looked_up_and_never_made_twice(fault: Fault) -> None:
    async def story(world: World) -> None:
        buyer, seller = world.node(providers=[Echo()]), world.node(services=echo(9_000))
        await buyer.up()
        await seller.up()
        await buyer.fund(100)
        faults = {"swap": [fault]}
        world.mint.script = lambda name: faults[name].pop() if faults.get(name) else Fault.NONE
        view = await bought(buyer)
        assert view.result == "hello market"
        assert len(words(buyer, 1059)) <= 1
        assert world.mint.circulating == await buyer.sat() + await seller.sat()
        assert view.to_dict()["cost_msat"] // 1000 == 100 - await buyer.sat()

    World().run(story)


@pytest.mark.parametrize("seed", range(6))
def test_a_bad_wire_changes_nothing_but_the_time(seed: int) -> None:
    async def story(world: World) -> None:
        world.relay.random.seed(seed)
        buyer = world.node(providers=[Echo()])
        sellers = [world.node(services=echo(9_000)), world.node(services=echo(12_000))]
        for node in (buyer, *sellers):
            await node.up()
        await buyer.fund(200)
        views = [await bought(buyer, key=str(n)) for n in range(3)]
        await world.clock.sleep(600)
        assert all(view.result == "hello market" for view in views)
        spent = sum(view.to_dict()["cost_msat"] for view in views)
        assert 200 - await buyer.sat() == spent // 1000
        held = [await node.sat() for node in (buyer, *sellers)]
        assert world.mint.circulating == sum(held)

    World(Weather(drop=0.2, repeat=0.3, forge=0.2, lose_ok=0.2, delay=0.3)).run(story)


@story
async def test_a_plain_sellers_free_result_wins_when_nothing_better_comes(world: World) -> None:
    buyer = await world.node(providers=[Echo()]).up()
    plain = Key.generate()
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    await until(world.clock, lambda: bool(words(buyer, 5050)))
    request = read_request(words(buyer, 5050)[0])
    now = world.clock.now()
    world.relay.store(plain.sign(feedback_draft(request=request, status="processing", created_at=now)))
    await world.clock.sleep(4)  # longer than the window
    assert (await buyer.buying.view(staged.job_id)).state == "quoting"
    world.relay.store(plain.sign(result_draft(request=request, content="by hand", created_at=now)))
    view = await bought(buyer)
    assert (view.result, view.purchase.provider, view.to_dict()["cost_msat"]) == ("by hand", "dvm", 0)


@story
async def test_a_cancelled_job_is_withdrawn_and_its_sellers_forget_it(world: World) -> None:
    class Never(Echo):
        async def run(self, request: ComputeRequest) -> Answer:
            await world.clock.sleep(10_000)
            raise VendoError

    buyer = world.node(policy=Policy(quote_window_ms=20_000))
    seller, other = world.node(services=echo(9_000)), world.node()
    for node in (buyer, seller, other):
        await node.up()
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    job = buyer.buying._open[staged.job_id]
    job._desk.known_sellers = lambda kind: frozenset()
    while not await seller.db.select("sale", {"state": "quoted"}):
        await world.clock.sleep(0.05)
    view = await buyer.buying.cancel(staged.job_id)
    assert (view.state, view.purchase.closed) == ("cancelled", True)
    await world.clock.sleep(2)
    assert (await seller.selling.list_sales())[0]["state"] == "cancelled"
    assert seller.selling.open_count() == 0


@story
async def test_what_came_while_the_buyer_stood_still_is_read_before_its_window_closes(world: World) -> None:
    class Frozen(VirtualClock):
        """Its process stands still when the window should close, for five seconds."""

        async def sleep(self, seconds: float) -> None:
            await world.clock.sleep(seconds + (5 if 1 < seconds <= 1.5 else 0))

    buyer = world.node()
    buyer.clock = Frozen(world.clock._loop)
    await buyer.up()
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    buyer.buying._open[staged.job_id]._desk.known_sellers = lambda kind: frozenset()
    await world.clock.sleep(6.6)
    await world.node(services=echo()).up()  # as if its quote had waited in the buyer's socket
    await until(world.clock, lambda: staged.job_id not in buyer.buying._open)
    view = await buyer.buying.view(staged.job_id)
    assert (view.state, view.purchase.provider) == ("delivered", "dvm")


@story
async def test_who_asked_is_told_once_in_the_same_commit(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    told: list[PurchaseView] = []

    async def note(view: PurchaseView):
        told.append(view)
        return []

    buyer.buying.on_finished(note)
    await bought(buyer)
    assert [(view.state, view.to_dict()["paid_msat"]) for view in told] == [("delivered", 9_000)]


@story
async def test_a_stranger_gets_no_work_without_paying(world: World) -> None:
    ran: list[str] = []

    class Counting(Echo):
        async def run(self, request: ComputeRequest) -> Answer:
            ran.append(request.inputs[0].data)
            return await super().run(request)

    seller = await world.node(services=lambda: [Service(5050, Msat(9_000), Counting(), eta_s=2)]).up()
    for n in range(50):
        stranger = Key.generate()
        world.relay.store(stranger.sign(Draft(5050, "", (("i", f"free {n}", "text"),), world.clock.now())))
    await world.clock.sleep(5)
    assert seller.selling.open_count() <= 32
    await world.clock.sleep(120)
    assert ran == []
    assert seller.selling.open_count() == 0, "expired quotes give their places back"


@story
async def test_a_request_that_comes_again_gets_the_same_quote_and_the_same_result(world: World) -> None:
    seller = await world.node(services=echo()).up()
    customer = Key.generate()
    request = customer.sign(Draft(5050, "", (("i", "again", "text"),), world.clock.now()))
    world.relay.store(request)
    await until(world.clock, lambda: bool(words(seller, 6050)))
    await world.clock.sleep(1)
    sent = await seller.db.select("outbox", {"state": "sent"})
    await seller.selling._on_request(request, "wss://relay.sim")
    await world.clock.sleep(1)
    assert len(words(seller, 6050)) == 1
    assert len(words(seller, 7000)) == 1
    assert await seller.db.select("outbox", {"state": "sent"}) != [] == [row for row in sent if row["state"] != "sent"]


@story
async def test_a_result_is_sent_again_for_a_request_that_comes_again_after_the_sale_and_a_restart(world: World) -> None:
    seller = await world.node(services=echo()).up()
    request = Key.generate().sign(Draft(5050, "", (("i", "again", "text"),), world.clock.now()))
    world.relay.store(request)
    await until(world.clock, lambda: bool(words(seller, 6050)))
    (result,) = words(seller, 6050)

    def lost() -> None:
        """The relay has forgotten it."""
        del world.relay.events[result.id]

    lost()
    seller.selling._on_repeat(request.id)
    await world.clock.sleep(3)
    assert words(seller, 6050) == [], "a copy from another relay, at once"
    await world.clock.sleep(60)
    seller.selling._on_repeat(request.id)
    await until(world.clock, lambda: words(seller, 6050) == [result])
    seller.services = lambda: ()
    await seller.crash()
    lost()
    await seller.up()
    await world.clock.sleep(3_600)
    await seller.selling._on_request(request, "wss://relay.sim")  # far older than a new request may be
    await until(world.clock, lambda: words(seller, 6050) == [result])


@story
async def test_without_a_fresh_rate_a_budget_in_dollars_authorises_nothing(world: World) -> None:
    buyer = await world.node(providers=[Echo()]).up()
    buyer.price.known = False
    with pytest.raises(FxUnpriced):
        await buyer.buying.stage("agent:a", "k", ASK)
    assert await buyer.db.select("effect", {"path": "/compute/new"}) == []


@story
async def test_a_running_job_ends_at_its_frozen_rate(world: World) -> None:
    """M8: the rate disappears while the job runs."""
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    buyer.price.known = False
    while not (await buyer.buying.view(staged.job_id)).purchase.closed:
        await world.clock.sleep(0.05)
    shown = (await buyer.buying.view(staged.job_id)).to_dict()
    assert shown["cost_uusd"] == -(-shown["cost_msat"] * 65_000 * 10**6 // 10**11)


@story
async def test_a_budget_in_msat_needs_no_rate(world: World) -> None:
    limits = Limits.of("msat", per_job=100_000, per_day=500_000, per_seller=100_000)
    buyer = world.node(limits=limits, policy=Policy(default_max=Msat(50_000)))
    seller = world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    buyer.price.known = False
    view = await bought(buyer, ComputeRequest(5050, (Datum("hello market"),)))
    shown = view.to_dict()
    assert (shown["money"], shown["reserved_msat"], shown["paid_msat"]) == ("claimed", 50_000, 9_000)
    assert shown["reserved_uusd"] is None
    effect = (await buyer.db.select("effect", {"subject": view.job_id}))[0]
    assert (effect["unit"], effect["cost"]) == ("msat", shown["cost_msat"])


@story
async def test_a_paused_seller_answers_nobody_and_a_paused_buyer_begins_nothing(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo())
    await buyer.up()
    await seller.up()
    await seller.gate.pause()
    await buyer.buying.buy("agent:a", "k", ASK)
    await world.clock.sleep(5)
    assert words(buyer, 7000) == []
    assert seller.selling.open_count() == 0
    await buyer.gate.pause()
    with pytest.raises(Paused):
        await buyer.buying.stage("agent:a", "k2", ASK)


@story
async def test_a_payment_that_is_not_good_is_refused_and_gets_no_work(world: World) -> None:
    seller = await world.node(services=echo(9_000)).up()
    customer = Key.generate()
    request = customer.sign(Draft(5050, "", (("i", "x", "text"),), world.clock.now()))
    world.relay.store(request)
    await until(world.clock, lambda: bool(words(seller, 7000)))
    quote = read_answer(words(seller, 7000)[0])
    bad_mint = json.dumps({"id": quote.quote_id, "mint": "https://evil.test", "unit": "sat", "proofs": []})
    for content in ("not json", "{}", bad_mint):
        tags = (("p", seller.key.pubkey), ("e", request.id), ("quote", quote.quote_id))
        world.relay.store(wrap(customer, seller.key.pubkey, Draft(14, content, tags, world.clock.now())))
    thief = Key.generate()
    world.relay.store(wrap(thief, seller.key.pubkey, Draft(14, "{}", tags, world.clock.now())))
    await world.clock.sleep(3)
    errors = [event for event in words(seller, 7000) if event.value("status") == "error"]
    assert errors
    assert (await seller.selling.list_sales())[0]["state"] == "quoted"
    assert words(seller, 6050) == []
    assert world.mint.calls.count("swap") == 0


@story
async def test_the_rate_at_which_a_job_counts_is_kept(world: World) -> None:
    buyer = await world.node().up()
    await buyer.buying.buy("operator", "k", ComputeRequest.parse({"kind": 5050, "input": "x", "max_usd": "0.01"}))
    assert len(await buyer.db.select("rate")) == 1


@story
async def test_who_was_paid_before_wins_by_reputation_also_after_a_restart(world: World) -> None:
    """The first job goes to the cheaper one; when that has worked for money, a cheaper newcomer loses to it."""
    policy = Policy(quote_window_ms=1_500, timeout_s=30, lock_margin_s=300, prefer=Prefer.REPUTATION)
    buyer, known = world.node(policy=policy), world.node(services=echo(9_000))
    for node in (buyer, known):
        await node.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    first = (await bought(buyer)).to_dict()
    assert (first["seller"], first["verdict"]) == (known.key.pubkey, "delivered")
    newcomer = await world.node(services=echo(8_000)).up()
    await world.clock.sleep(1)
    await buyer.down()
    await buyer.up()
    second = (await bought(buyer, key="second")).to_dict()
    assert second["seller"] == known.key.pubkey, second["why"]
    offers = {one["seller"]: one for one in second["quotes"]}
    assert offers[known.key.pubkey]["reputation"] > offers[newcomer.key.pubkey]["reputation"]
    assert offers[known.key.pubkey]["measured_ms"] == first["took_ms"]
    third = (await bought(buyer, replace(ASK, prefer=Prefer.COST), key="third")).to_dict()
    assert third["seller"] == newcomer.key.pubkey, "a job's own preference counts more than the policy"


@story
async def test_a_free_result_does_not_win_over_quotes_where_quality_is_wanted(world: World) -> None:
    buyer, free, paid = world.node(), world.node(services=echo()), world.node(services=echo(9_000))
    for node in (buyer, free, paid):
        await node.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    assert (await bought(buyer)).to_dict()["seller"] == free.key.pubkey
    wish = replace(ASK, prefer=Prefer.QUALITY)
    assert (await bought(buyer, wish, key="second")).to_dict()["seller"] == paid.key.pubkey


@story
async def test_with_luck_passed_in_another_of_the_best_is_taken(world: World) -> None:
    """Luck 7 of 9 is the second of two; without it the cheapest would be."""
    policy = Policy(quote_window_ms=1_500, timeout_s=30, lock_margin_s=300, spread=True)
    buyer, cheap, dear = world.node(policy=policy), world.node(services=echo(9_000)), world.node(services=echo(10_000))
    for node in (buyer, cheap, dear):
        await node.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    for luck, winner in ((7, dear), (3, cheap)):
        buyer.buying._random = lambda below, luck=luck: luck
        shown = (await bought(buyer, key=str(luck))).to_dict()
        assert shown["seller"] == winner.key.pubkey
        assert "drawn among the best by cost" in shown["why"][0]
