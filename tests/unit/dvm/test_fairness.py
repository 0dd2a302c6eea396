"""How a seller shares out its work, its places and its patience, with real drivers in made-up time."""

import pytest

from core.money import Msat
from dvm.admission import Limits
from dvm.clientele import KEPT
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest, Datum
from dvm.schedule import LEAST_WEIGHT, Ticket
from dvm.service import Service
from dvm.trust import Trust
from relays.event import Draft, Event
from relays.key import Key
from tests.unit.dvm.market_part import Node
from tests.unit.dvm.test_market import ASK, World, bought, story, words


def slow(world: World, log: list[str], seconds: float) -> Echo:
    class Slow(Echo):
        async def run(self, request: ComputeRequest) -> Answer:
            log.append(request.inputs[0].data)
            await world.clock.sleep(seconds)
            return await super().run(request)

    return Slow()


def ask(world: World, key: Key, text: str, *tags: tuple[str, ...]) -> Event:
    made = key.sign(Draft(5050, "", (("i", text, "text"), *tags), world.clock.now()))
    world.relay.store(made)
    return made


def told(node: Node, asked: Event) -> list[str]:
    return [one.value("status") for one in words(node, 7000) if asked.id in one.values("e")]


@story
async def test_a_customer_with_many_jobs_delays_another_by_one(world: World) -> None:
    order: list[str] = []
    service = Service(5050, Msat(0), slow(world, order, 2), eta_s=2, max_parallel=1)
    await world.node(services=lambda: [service]).up()
    greedy, modest = Key.generate(), Key.generate()
    for n in range(8):
        ask(world, greedy, f"greedy {n}")
    await world.clock.sleep(1)
    ask(world, modest, "modest")
    await world.clock.sleep(30)
    assert len(order) == 9
    assert order.index("modest") <= 2


@story
async def test_what_would_be_late_is_told_when_to_come_again_and_is_then_served(world: World) -> None:
    order: list[str] = []
    service = Service(5050, Msat(0), slow(world, order, 10), eta_s=10, max_parallel=1)
    seller = await world.node(services=lambda: [service]).up()
    for n in range(3):
        ask(world, Key.generate(), str(n))
    await world.clock.sleep(1)
    key = Key.generate()
    hasty = ask(world, key, "hasty", ("deadline", str(world.clock.now() + 25)))
    patient = ask(world, Key.generate(), "patient", ("deadline", str(world.clock.now() + 90)))
    await world.clock.sleep(1)
    assert told(seller, hasty) == ["error"]
    (word,) = [one for one in words(seller, 7000) if hasty.id in one.values("e")]
    wait = int(word.value("retry-after"))
    assert 20 <= wait <= 40
    assert seller.selling.dropped["busy"] == 1
    await seller.selling._on_request(hasty, "wss://relay.sim")
    assert seller.selling.dropped["repeated"] == 1, "not judged again before that"
    await world.clock.sleep(60)
    assert told(seller, patient) == ["processing"]
    assert sorted(order) == ["0", "1", "2", "patient"]


@story
async def test_a_place_is_kept_as_long_as_its_quote_stands(world: World) -> None:
    service = Service(5050, Msat(9_000), Echo(), eta_s=2, max_parallel=1, max_open=4)
    seller = await world.node(services=lambda: [service]).up()
    seller.selling._limits = Limits(pow_bits_full=0)
    asked = [ask(world, Key.generate(), str(n)) for n in range(6)]
    await world.clock.sleep(2)
    said = [told(seller, one) for one in asked]
    assert said.count(["payment-required"]) == 4
    assert said.count(["error"]) == 2
    await world.clock.sleep(70)
    later = ask(world, Key.generate(), "later")
    await world.clock.sleep(2)
    assert told(seller, later) == ["payment-required"], "quotes lapse, and their places come free"


@story
async def test_who_has_paid_before_has_credit_also_after_a_restart(world: World) -> None:
    buyer, seller = world.node(), world.node(services=lambda: [Service(5050, Msat(9_000), Echo(), eta_s=2)])
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    await bought(buyer)
    await world.clock.sleep(5)
    customer = buyer.key.pubkey
    standing = await seller.selling._clients.standing(customer)
    assert (standing.trust, standing.settled) == (Trust.PAID_BEFORE, Msat(9_000))
    assert (await seller.selling._clients.standing(Key.generate().pubkey)).trust is Trust.UNKNOWN
    await seller.crash()
    await seller.up()
    assert await seller.selling._clients.standing(customer) == standing


@story
async def test_a_known_key_has_so_many_jobs_for_nothing_each_day(world: World) -> None:
    seller = await world.node(services=lambda: [Service(5050, Msat(9_000), Echo(), eta_s=2)]).up()
    friend = Key.generate()
    limits = Limits(allow=frozenset({friend.pubkey}), free_per_day=2)
    seller.selling._limits = seller.selling._clients._limits = limits

    async def said() -> str:
        asked = ask(world, friend, str(world.clock.now()))
        await world.clock.sleep(2)
        return told(seller, asked)[0]

    assert [await said() for _ in range(3)] == ["processing", "processing", "payment-required"]
    seller.selling._clients._known.clear()  # as after a restart
    assert await said() == "payment-required"
    for known in seller.selling._clients._known.values():
        known.day -= 1  # as the next day
    assert await said() == "processing"


@pytest.mark.parametrize("bits", [0, 8])
def test_a_stranger_without_work_is_not_looked_up_or_answered_where_it_is_asked_for(bits: int) -> None:
    async def run(world: World) -> None:
        seller = await world.node(services=lambda: [Service(5050, Msat(0), Echo(), eta_s=2)]).up()
        seller.selling._limits = Limits(pow_bits=bits)
        asked = ask(world, Key.generate(), "x")
        await world.clock.sleep(2)
        assert told(seller, asked) == (["processing"] if not bits else [])
        assert seller.selling.dropped["pow"] == (1 if bits else 0)

    World().run(run)


@story
async def test_strangers_use_up_the_patience_for_strangers_and_displace_nobody_who_has_paid(world: World) -> None:
    buyer, seller = world.node(), world.node(services=lambda: [Service(5050, Msat(9_000), Echo(), eta_s=2)])
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    await bought(buyer)
    selling = seller.selling
    for meter in (selling._strangers, selling._unpaid):
        meter.burst = meter.per_second = 0
        meter.keys.clear()
    for n in range(20):
        ask(world, Key.generate(), str(n))
    await world.clock.sleep(2)
    assert selling.dropped["class_rate"] == 20
    view = await bought(buyer, ComputeRequest(5050, (Datum("again"),), (), ASK.maximum), key="k2")
    assert (view.state, view.to_dict()["paid_msat"]) == ("delivered", 9_000)


@story
async def test_keys_without_number_displace_no_customer(world: World) -> None:
    seller = await world.node(services=lambda: [Service(5050, Msat(9_000), Echo(), eta_s=2)]).up()
    clients = seller.selling._clients
    paid = Key.generate().pubkey
    await clients.standing(paid)
    clients.settled(paid, Msat(9_000))
    for n in range(KEPT + 10):
        await clients.standing(f"{n:064x}")
        await world.clock.sleep(0.01)
    assert len(clients._strangers) == KEPT
    assert (await clients.standing(paid)).settled == Msat(9_000)


@story
async def test_a_seller_that_stops_and_goes_on_in_one_process_keeps_no_promise_twice(world: World) -> None:
    service = Service(5050, Msat(9_000), Echo(), eta_s=10, max_parallel=1)
    seller = await world.node(services=lambda: [service]).up()
    for n in range(3):
        ask(world, Key.generate(), str(n))
    await world.clock.sleep(2)
    line = seller.selling._stock.line(service)
    waits = line.wait_s(Ticket("new", "new", 10_000, LEAST_WEIGHT, 0))
    assert waits == 30
    selling = seller.selling
    await seller.down()
    assert selling._stock.line(service).wait_s(Ticket("new", "new", 10_000, LEAST_WEIGHT, 0)) == 0
    await selling.resume()
    assert selling._stock.line(service).wait_s(Ticket("new", "new", 10_000, LEAST_WEIGHT, 0)) == waits
