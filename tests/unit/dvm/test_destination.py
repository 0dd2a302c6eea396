"""Where answers and payments go: before there is money nowhere but to us, and never inside our network."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dvm.destination import MAX_RELAYS, answer_relays, payment_relays
from relays.address import is_nameable
from relays.event import parse_json
from relays.key import Key
from relays.nip65 import dm_relays_draft, relay_list_draft
from relays.nip90 import Input, request_draft
from tests.simulation.wire import URL
from tests.unit.dvm.market_part import Node, echo
from tests.unit.dvm.test_market import World, bought, story

OWN = ("wss://one.ours", "ws://127.0.0.1:7777")
A, B, C = "wss://a.example", "wss://b.example", "wss://c.example"
INSIDE = "ws://192.168.1.1"
STRANGE = [A, B, C, INSIDE, "wss://D.example/", "nonsense", "ws://localhost"]
URLS = st.sampled_from([*OWN, *STRANGE, *[f"wss://x{n}.example" for n in range(9)]])


@pytest.mark.parametrize("named", [(), (A,), (A, INSIDE), ("nonsense",)])
def test_before_money_an_answer_goes_to_our_own_relays(named: tuple[str, ...]) -> None:
    assert answer_relays(OWN, named, (B,)) is None


def test_before_money_those_of_ours_that_the_customer_named_are_enough() -> None:
    assert answer_relays(OWN, (A, "WSS://one.ours/")) == (OWN[0],)


def test_after_money_the_named_relays_count_then_those_where_the_customer_reads() -> None:
    assert answer_relays(OWN, (A, OWN[1]), (B, C), paid=True) == (OWN[1], A, B, C)


def test_after_money_all_of_ours_are_kept_when_the_customer_named_none_of_them() -> None:
    assert answer_relays(OWN, (A,), (B,), paid=True) == (A, B, *OWN)
    many = [f"wss://x{n}.example" for n in range(9)]
    assert answer_relays(OWN, many, (), paid=True) == (*many[:3], *OWN)


def test_after_money_without_any_word_it_is_all_of_ours() -> None:
    assert answer_relays(OWN, (INSIDE, "nonsense"), ("ws://localhost",), paid=True) is None


def test_a_payment_goes_to_ours_and_to_where_the_seller_takes_messages() -> None:
    assert payment_relays(OWN, None) is None
    assert payment_relays(OWN, OWN[:1]) is None
    assert payment_relays(OWN, (A, OWN[0], B)) == (*OWN, A, B)
    assert len(payment_relays([f"wss://o{n}.ours" for n in range(9)], (A, B)) or ()) == 10


@given(st.lists(URLS, max_size=12), st.lists(URLS, max_size=12), st.booleans())
def test_an_answer_reaches_a_relay_of_ours_and_nothing_inside_our_network(
    named: list[str], read: list[str], paid: bool
) -> None:
    found = answer_relays(OWN, named, read, paid=paid)
    if found is None:
        return
    assert len(found) == len(set(found)) <= MAX_RELAYS
    assert any(url in OWN for url in found)
    assert all(url in OWN or (paid and is_nameable(url)) for url in found)


async def sent(node: Node, kind: int) -> set[str]:
    rows = await node.db.select("outbox")
    return {row["relay"] for row in rows if parse_json(row["raw"]).kind == kind}


@story
async def test_a_paid_result_goes_where_the_customer_reads_and_a_quote_does_not(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    await world.clock.sleep(5)
    lists = relay_list_draft([A, INSIDE], [A], world.clock.now())
    world.relay.store(buyer.key.sign(lists))
    view = await bought(buyer)
    assert view.result == "hello market"
    assert await sent(seller, 6050) == {URL, A}
    quotes = {
        row["relay"]
        for row in await seller.db.select("outbox")
        if (event := parse_json(row["raw"])).kind == 7000 and event.value("status") == "payment-required"
    }
    assert quotes == {URL}


@story
async def test_a_free_result_never_leaves_our_relays_for_a_stranger_s_word(world: World) -> None:
    seller = await world.node(services=echo()).up()
    stranger = Key.generate()
    world.relay.store(stranger.sign(relay_list_draft([A], [A], world.clock.now())))
    draft = request_draft(kind=5050, inputs=[Input("x")], created_at=world.clock.now(), relays=[B])
    world.relay.store(stranger.sign(draft))
    await world.clock.sleep(5)
    assert await sent(seller, 6050) == {URL}
    assert await seller.db.select("relay_list") == []


@story
async def test_a_payment_goes_also_where_the_seller_takes_messages(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(100)
    await world.clock.sleep(5)
    world.relay.store(seller.key.sign(dm_relays_draft([C, INSIDE], world.clock.now())))
    view = await bought(buyer)
    assert view.result == "hello market"
    assert await sent(buyer, 1059) == {URL, C}
    assert await sent(buyer, 5050) == {URL}
