from itertools import pairwise

from core.money import Msat
from dvm.discovery import AGAIN_S, BURST, MAX_SELLERS
from relays.event import parse_json
from relays.key import Key
from relays.kind import HEARTBEAT
from relays.nip65 import read_dm_relays, read_relay_list
from relays.nip89 import Announcement, announcement_draft, read_announcement
from relays.presence import HEARTBEAT_S, read_profile
from tests.simulation.wire import URL
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


@story
async def test_who_sells_is_heard_every_five_minutes_and_gone_soon_after_it_stops(world: World) -> None:
    seller = await world.node(services=echo(9_000, max_parallel=2)).up()
    await world.clock.sleep(HEARTBEAT_S * 3 + 10)
    beats = sorted(words(seller, HEARTBEAT), key=lambda event: event.created_at)
    assert [later.created_at - first.created_at for first, later in pairwise(beats)] == [HEARTBEAT_S] * 3
    assert (beats[-1].value("d"), beats[-1].value("queue"), beats[-1].value("load")) == ("vendo", "0", "0.00")
    assert int(beats[-1].value("expiration")) - beats[-1].created_at < 3 * HEARTBEAT_S
    assert len(words(seller, 31990)) == 1, "the announcement itself goes out once a day"
    seller.discovery._announced_at -= AGAIN_S
    await world.clock.sleep(HEARTBEAT_S)
    assert len(words(seller, 31990)) == 2


@story
async def test_who_sells_nothing_sends_no_heartbeat(world: World) -> None:
    node = await world.node().up()
    await world.clock.sleep(HEARTBEAT_S * 2)
    assert words(node, HEARTBEAT) == []


@story
async def test_profile_and_relay_lists_go_to_the_indexers_too_and_nothing_else_does(world: World) -> None:
    node = await world.node(services=echo(), indexers=("wss://index.example",)).up()
    await world.clock.sleep(1)
    rows = await node.db.select("outbox")
    kinds = {parse_json(row["raw"]).kind for row in rows if row["relay"] == "wss://index.example"}
    assert kinds == {0, 10002, 10050}
    lists = {event.kind: event for event in node.discovery.identity()}
    assert read_relay_list(lists[10002]).read == read_dm_relays(lists[10050]) == (URL,)
    assert read_profile(lists[0]).name == "vendo"


@story
async def test_an_announcement_from_the_future_is_not_kept_for_it_would_outlive_the_others(world: World) -> None:
    node = await world.node().up()
    honest = Key.generate()
    world.relay.store(announcement(honest, world.clock.now()))
    for ahead in (61, 900):
        world.relay.store(announcement(Key.generate(), world.clock.now() + ahead + 5))
    await world.clock.sleep(2)
    assert node.discovery.known_sellers(5050) == {honest.pubkey}


@story
async def test_a_flood_of_fresh_keys_takes_a_small_part_of_the_index(world: World) -> None:
    node = await world.node().up()
    for _ in range(BURST + 100):
        world.relay.store(announcement(Key.generate(), world.clock.now()))
    await world.clock.sleep(5)
    assert BURST <= len(node.discovery.list_sellers()) <= BURST + 5 * 10 <= MAX_SELLERS // 5
