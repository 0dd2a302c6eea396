"""What sales have brought, by kind and by customer: also those that were never quoted, and each sat once."""

from core.money import Msat
from dvm.admission import Limits
from dvm.earning import earnings
from dvm.provider.echo import Echo
from dvm.service import Service
from relays.key import Key
from tests.unit.dvm.market_part import Node, until
from tests.unit.dvm.test_bill import ask, pay, quoted, sale_of
from tests.unit.dvm.test_lending import PRICE, billed, start
from tests.unit.dvm.test_market import World, story, words
from tests.unit.dvm.test_nutzap import giver


async def told(node: Node, customer: Key) -> tuple[list[tuple[int, int, int]], int, int]:
    """Earnings of the node, and what the customer has settled, as it is known and as it is found after a restart."""
    found = [(one.kind, one.sales, one.earned_msat) for one in await earnings(node.db)]
    known = (await node.selling._clients.standing(customer.pubkey)).settled.value
    await node.crash()
    await node.up()
    return found, known, (await node.selling._clients.standing(customer.pubkey)).settled.value


@story
async def test_a_lent_sale_counts_when_it_is_paid(world: World) -> None:
    friend = Key.generate()
    seller = await start(world, friend)
    result = await billed(world, seller, ask(world, friend))
    assert await earnings(seller.db) == [], "nothing is paid yet"
    pay(world, result)
    await until(world.clock, lambda: not seller.selling.open_count())
    assert await told(seller, friend) == ([(5050, 1, PRICE)], PRICE, PRICE)


@story
async def test_a_sale_that_is_paid_by_credit_counts_once_wherever_the_credit_is_from(world: World) -> None:
    world.mint.auto_pay = False
    donor = await giver(world)
    service = Service(5050, Msat(PRICE), Echo(), eta_s=2, invoices=True)
    seller = await world.node(services=lambda: [service], strangers=Limits(pow_bits_full=0), gifts=True).up()
    late = ask(world, donor.key, "too late", deadline=world.clock.now() + 30)
    quote = await quoted(seller, late)
    await world.clock.sleep(40)
    pay(world, quote)
    while (await sale_of(seller, late))["state"] != "owed":
        await world.clock.sleep(0.1)
    assert await earnings(seller.db) == [], "what is owed is not earned"
    ask(world, donor.key, "for what is owed")
    await until(world.clock, lambda: len(words(seller, 6050)) == 1)
    zap = await donor.zap(seller.key.pubkey, seller.nutzaps.pubkey, 22, late.id)
    world.relay.store(zap)
    while not [tip for tip in await seller.db.select("tip") if tip["state"] == "owed"]:
        await world.clock.sleep(0.1)
    ask(world, donor.key, "for the nutzap")
    await until(world.clock, lambda: len(words(seller, 6050)) == 2 and not seller.selling.open_count())
    assert await told(seller, donor.key) == ([(5050, 2, 2 * PRICE)], 2 * PRICE, 2 * PRICE)
    assert await seller.sat() == 42


@story
async def test_a_lent_sale_is_not_counted_as_a_free_one(world: World) -> None:
    friend = Key.generate()
    seller = await start(world, friend)
    await billed(world, seller, ask(world, friend))
    seller.selling._clients._limits = Limits(allow=frozenset({friend.pubkey}), free_per_day=3)
    assert (await seller.selling._clients._look_up(friend.pubkey)).free_today == 0
