from core.money import Msat
from relays.key import Key
from relays.nip89 import Announcement, announcement_draft, read_announcement
from tests.unit.dvm.market_part import echo
from tests.unit.dvm.test_market import World, story, words


def announcement(key: Key, at: int, d: str = "x", kinds: tuple[int, ...] = (5050,)) -> object:
    return key.sign(announcement_draft(Announcement(key.pubkey, d, kinds, {5050: Msat(5)}, (), "n", "a", at)))


@story
async def test_a_seller_announces_what_it_sells_and_where_it_is_reached(world: World) -> None:
    seller = await world.node(services=echo(9_000)).up()
    await world.clock.sleep(1)
    found = read_announcement(words(seller, 31990)[0])
    assert (found.kinds, found.prices, found.mints) == ((5050,), {5050: Msat(9_000)}, (world.mint.url,))
    assert {event.kind for event in world.relay.events.values()} >= {0, 10002, 10050, 31990}


@story
async def test_who_sells_nothing_announces_nothing(world: World) -> None:
    node = await world.node().up()
    await world.clock.sleep(1)
    assert words(node, 31990) == []
    assert words(node, 10050)


@story
async def test_the_newest_announcement_counts_also_after_a_restart(world: World) -> None:
    node = await world.node().up()
    other = Key.generate()
    now = world.clock.now()
    world.relay.store(announcement(other, now - 10))
    world.relay.store(announcement(other, now - 5, kinds=(5001,)))
    world.relay.store(announcement(other, now - 20))
    await world.clock.sleep(2)
    assert node.discovery.known_sellers(5050) == frozenset()
    assert node.discovery.known_sellers(5001) == {other.pubkey}
    await node.down()
    world.relay.events.clear()
    await node.up()
    assert node.discovery.known_sellers(5001) == {other.pubkey}


@story
async def test_one_author_cannot_fill_the_index(world: World) -> None:
    node = await world.node().up()
    other = Key.generate()
    for n in range(20):
        world.relay.store(announcement(other, world.clock.now() - 5, d=str(n)))
    await world.clock.sleep(2)
    assert len(node.discovery.list_sellers()) == 8


@story
async def test_an_old_announcement_is_not_waited_for(world: World) -> None:
    node = await world.node().up()
    world.relay.store(announcement(Key.generate(), world.clock.now() - 31 * 86_400))
    await world.clock.sleep(2)
    assert node.discovery.known_sellers(5050) == frozenset()
