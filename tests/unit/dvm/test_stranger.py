"""What a stranger may not do to a node that buys and sells: stop it, fill it, or choose who is paid."""

from dataclasses import replace

import pytest

from core.unit import Update
from dvm import discovery
from dvm.admission import Meter
from dvm.discovery import MAX_CHARS, MAX_KINDS
from dvm.record import decode, encode
from dvm.seller import Sale
from relays.event import MAX_EVENT_BYTES, Draft, Event
from relays.key import Key
from relays.nip89 import Announcement, announcement_draft
from relays.nip90 import Input, request_draft
from tests.unit.dvm.market_part import Node, echo
from tests.unit.dvm.test_market import World, story, words


def request(key: Key, at: int, text: str, kind: int = 5050) -> Event:
    return key.sign(request_draft(kind=kind, inputs=[Input(text)], created_at=at))


def announcement(key: Key, at: int, kinds: tuple[int, ...] = (5050,), about: str = "a") -> Event:
    return key.sign(announcement_draft(Announcement(key.pubkey, "x", kinds, {}, (), "n", about, at)))


async def sales(node: Node) -> list[tuple[str, str]]:
    return [(row["state"], row["body"]) for row in await node.db.select("sale")]


@story
async def test_a_result_too_long_for_an_event_ends_the_sale_and_does_not_keep_its_place(world: World) -> None:
    seller = await world.node(services=echo()).up()
    stranger = Key.generate()
    frame = len(request(stranger, world.clock.now(), "").to_json())
    text = "\x01" * ((MAX_EVENT_BYTES - frame) // 6)  # one byte, and six characters of JSON
    assert len(request(stranger, world.clock.now(), text).to_json()) > MAX_EVENT_BYTES - 6
    world.relay.store(request(stranger, world.clock.now(), text))
    await world.clock.sleep(5)
    assert [state for state, _ in await sales(seller)] == ["failed"]
    assert seller.selling.open_count() == 0
    assert {event.value("status") for event in words(seller, 7000)} == {"processing", "error"}


@story
async def test_the_echo_of_an_input_is_left_out_where_json_makes_it_long(world: World) -> None:
    seller = await world.node(services=echo()).up()
    world.relay.store(request(Key.generate(), world.clock.now(), "\x01" * 9_500))
    await world.clock.sleep(5)
    assert [state for state, _ in await sales(seller)] == ["done"]
    (result,) = words(seller, 6050)
    assert result.content == "\x01" * 9_500
    assert result.all("i") == []


@story
async def test_a_sale_that_cannot_be_read_does_not_keep_the_node_from_starting(world: World) -> None:
    seller = await world.node(services=echo(9_000)).up()
    world.relay.store(request(Key.generate(), world.clock.now(), "x"))
    await world.clock.sleep(2)
    await seller.crash()
    ((state, body),) = await sales(seller)
    assert state == "quoted"
    broken = encode(replace(decode(Sale, body), request=" " * MAX_EVENT_BYTES + "{}"))
    await seller.db.commit([Update("sale", {"state": "quoted"}, {"body": broken})])
    await seller.up()
    world.relay.store(request(Key.generate(), world.clock.now(), "y"))
    await world.clock.sleep(2)
    assert len(words(seller, 7000)) == 2


@story
async def test_of_a_quote_that_nobody_paid_nothing_of_the_request_is_kept(world: World) -> None:
    seller = await world.node(services=echo(9_000)).up()
    world.relay.store(request(Key.generate(), world.clock.now(), "word " * 2_000))
    await world.clock.sleep(2)
    assert len((await sales(seller))[0][1]) > 10_000
    await world.clock.sleep(70)
    ((state, body),) = await sales(seller)
    assert state == "expired"
    assert len(body) < 2_000
    assert (await seller.selling.list_sales())[0]["result_id"] is None


@story
async def test_asking_and_cancelling_again_and_again_fills_neither_ledger_nor_database(world: World) -> None:
    seller = await world.node(services=echo(9_000)).up()
    for number in range(500):
        key = Key.generate()
        asked = request(key, world.clock.now(), str(number))
        world.relay.store(asked)
        await world.clock.sleep(0.05)
        world.relay.store(key.sign(Draft(5, "", (("e", asked.id), ("k", "5050")), world.clock.now())))
        await world.clock.sleep(0.05)
    found = await sales(seller)
    assert 256 <= len(found) <= 256 + 50 * 2  # 50 s, at the pace at which places would have come free by themselves
    assert seller.selling.open_count() < 32


@story
async def test_a_fat_announcement_and_one_for_every_kind_are_not_kept(world: World) -> None:
    node = await world.node().up()
    now = world.clock.now()
    world.relay.store(announcement(Key.generate(), now, about="y" * MAX_CHARS))
    world.relay.store(announcement(Key.generate(), now, kinds=tuple(range(5_000, 5_001 + MAX_KINDS))))
    await world.clock.sleep(2)
    assert node.discovery.list_sellers() == []


def test_who_fills_the_index_is_not_the_only_one_who_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_SELLERS", 10)

    async def fill(world: World) -> None:
        node = await world.node().up()
        honest, liar = Key.generate(), Key.generate()
        now = world.clock.now()
        world.relay.store(announcement(honest, now - 10))
        world.relay.store(announcement(liar, now))
        await world.clock.sleep(2)
        assert node.discovery.known_sellers(5050) == {honest.pubkey, liar.pubkey}
        for _ in range(20):
            world.relay.store(announcement(Key.generate(), now + 30, kinds=(5_999,)))
        await world.clock.sleep(2)
        assert len(node.discovery.list_sellers()) == 10
        assert node.discovery.known_sellers(5050) == frozenset(), "quotes are then collected for the whole window"

    World().run(fill)


@story
async def test_free_work_is_bounded_in_all_however_many_keys_ask(world: World) -> None:
    seller = await world.node(services=echo()).up()
    seller.selling._free = Meter(5, 1.0)
    for _ in range(20):
        world.relay.store(request(Key.generate(), world.clock.now(), "x"))
    await world.clock.sleep(0.5)
    assert len(await sales(seller)) == 5
    world.relay.store(request(Key.generate(), world.clock.now(), "later"))
    await world.clock.sleep(5)
    world.relay.store(request(Key.generate(), world.clock.now(), "much later"))
    await world.clock.sleep(2)
    assert len(words(seller, 6050)) == 6
