"""Jobs that only buyer and seller can read, between two nodes and with what other software writes."""

from dataclasses import replace

import orjson
import pytest

from core.error import InvalidInput
from core.money import MicroUsd
from dvm.error import InputTooLarge
from dvm.request import ComputeRequest, Datum
from relays.event import Draft, Event
from relays.key import Key
from relays.kind import DELETION, GIFT_WRAP
from relays.nip17 import wrap
from relays.nip90 import Input, feedback_draft, request_draft, result_draft
from relays.private_job import MOST_BYTES, Scheme, open_answer, open_request, sealed_answer, sealed_request
from tests.simulation.wire import Weather
from tests.unit.dvm.market_part import POLICY, Node, echo, until
from tests.unit.dvm.test_market import World, bought, freeze, story, words

SECRET = "the harvest is hidden in the old mill"


def ask(seller: Node, private: str, text: str = SECRET) -> ComputeRequest:
    return ComputeRequest(5050, (Datum(text),), (), MicroUsd(50_000), to=seller.key.pubkey, private=private)


def leaked(world: World, text: str = SECRET) -> list[Event]:
    return [event for event in world.relay.events.values() if text in event.to_json()]


async def _bought_privately(world: World, private: str, price: int) -> None:
    buyer, seller, rival = world.node(), world.node(services=echo(price)), world.node(services=echo())
    for node in (buyer, seller, rival):
        await node.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    view = await bought(buyer, ask(seller, private))
    shown = view.to_dict()
    assert (shown["result"], shown["seller"], shown["paid_msat"]) == (SECRET, seller.key.pubkey, price)
    assert (shown["private"], shown["to"]) == (private, seller.key.pubkey)
    assert await seller.sat() == price // 1_000
    assert leaked(world) == []
    assert not await rival.selling.list_sales()
    if private == "wrap":
        kinds = {event.kind for event in world.relay.events.values()}
        assert not kinds & {5050, 6050, 7000}, "a relay must not see that there was a job"
    else:
        assert all(event.all("request-id") for event in words(buyer, 6050))


@story
async def test_a_paid_job_in_nip_44(world: World) -> None:
    await _bought_privately(world, "nip44", 9_000)


@story
async def test_a_paid_job_in_nip_04(world: World) -> None:
    await _bought_privately(world, "nip04", 9_000)


@story
async def test_a_paid_job_in_gift_wraps(world: World) -> None:
    await _bought_privately(world, "wrap", 9_000)


@story
async def test_a_free_job_in_gift_wraps(world: World) -> None:
    await _bought_privately(world, "wrap", 0)


@story
async def test_wrapped_and_encrypted_jobs_go_on_after_a_crash_of_either_side(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    await buyer.fund(200)
    for number, private in enumerate(("wrap", "nip44")):
        quoted = freeze(seller, "sale", "working")
        staged = await buyer.buying.buy("agent:a", private, ask(seller, private, f"{SECRET} {number}"))
        await quoted.wait()
        await seller.crash()
        await buyer.crash()
        await seller.up()
        await buyer.up()
        end = world.clock.monotonic() + 600
        while not (view := await buyer.buying.view(staged.job_id)).purchase.closed:
            assert world.clock.monotonic() < end, view.to_dict()
            await world.clock.sleep(0.1)
        assert view.result == f"{SECRET} {number}", view.to_dict()
    assert await seller.sat() == 18
    assert leaked(world) == []


@story
async def test_what_the_seller_says_no_to_is_said_in_private_too(world: World) -> None:
    """The reason travels, and nothing of it stands open."""
    buyer, seller = await world.node().up(), await world.node(services=echo(90_000_000)).up()
    for private in ("nip44", "nip04", "wrap"):
        view = await bought(buyer, ask(seller, private), key=private)
        assert view.to_dict()["state"] == "failed"
        assert any("above the bid" in line["refusal"] for line in view.to_dict()["quotes"]), view.to_dict()
    assert leaked(world, "above the bid") == []


def test_a_wrapped_job_is_cancelled_in_a_wrap() -> None:
    World(Weather(delay=2.0)).run(_cancelled_in_a_wrap)  # the quote is still on its way when the buyer cancels


async def _cancelled_in_a_wrap(world: World) -> None:
    buyer, seller = world.node(policy=replace(POLICY, quote_window_ms=20_000)), world.node(services=echo(9_000))
    await buyer.up()
    await seller.up()
    staged = await buyer.buying.buy("agent:a", "k", ask(seller, "wrap"))
    await until(world.clock, lambda: bool(seller.selling._quotes))
    await buyer.buying.cancel(staged.job_id)
    await until(world.clock, lambda: not seller.selling._open)
    assert (await seller.selling.list_sales())[0]["state"] == "cancelled"
    assert words(buyer, DELETION) == []


@story
async def test_only_the_seller_that_was_asked_may_answer(world: World) -> None:
    """The id of an encrypted request is public: a result from somebody else is none."""
    buyer, seller = world.node(), world.node()
    await buyer.up()
    await seller.up()
    staged = await buyer.buying.buy("agent:a", "k", ask(seller, "nip44"))
    await until(world.clock, lambda: bool(words(buyer, 5050)))
    stranger = Key.generate()
    request = words(buyer, 5050)[0]
    tags = (("e", request.id), ("p", buyer.key.pubkey), ("amount", "0"))
    world.relay.store(stranger.sign(Draft(6050, "take this", tags, world.clock.now())))
    await world.clock.sleep(40)
    view = await buyer.buying.view(staged.job_id)
    assert view.state == "failed"
    assert view.to_dict()["refused"][0]["reason"] == "this seller was not asked"


@story
async def test_customers_of_other_make_are_served_in_their_own_cipher(world: World) -> None:
    """NDK moves everything inside; the answer comes in NIP-04 to NIP-04, in NIP-44 to NIP-44."""
    seller = await world.node(services=echo()).up()
    me = Key.generate()
    inside = orjson.dumps([["i", SECRET, "prompt"], ["param", "top-k", "4"], ["relays", "wss://relay.sim"]]).decode()
    for encrypt, mark in ((me.encrypt_legacy, True), (me.encrypt, False)):
        tags = (("p", seller.key.pubkey), ("encrypted",))
        event = me.sign(Draft(5050, encrypt(seller.key.pubkey, inside), tags, world.clock.now()))
        world.relay.store(event)
        await until(world.clock, lambda event=event: bool(_results(world, event)))
        result = _results(world, event)[0]
        assert ("?iv=" in result.content) is mark
        assert open_answer(me, result).content == SECRET
        assert not result.all("i")
        assert not result.all("request")
    assert leaked(world) == []


def _results(world: World, request: Event) -> list[Event]:
    return [one for one in world.relay.events.values() if one.kind == 6050 and request.id in one.values("e")]


@story
async def test_sellers_of_other_make_are_understood(world: World) -> None:
    """nostrdvm answers NIP-04 in NIP-44, and its feedback has no status outside."""
    buyer, seller = await world.node().up(), Key.generate()
    wish = replace(ask_key(seller), private="nip04")
    staged = await buyer.buying.buy("agent:a", "k", wish)
    await until(world.clock, lambda: bool(words(buyer, 5050)))
    event = words(buyer, 5050)[0]
    request = open_request(seller, event)
    assert "?iv=" in event.content
    inside = orjson.dumps([["status", "processing"], ["content", "one moment"]]).decode()
    outer = (("e", event.id), ("p", buyer.key.pubkey), ("encrypted",))
    content = seller.encrypt(buyer.key.pubkey, inside)
    world.relay.store(seller.sign(Draft(7000, content, outer, world.clock.now())))
    await world.clock.sleep(3)
    assert (await buyer.buying.view(staged.job_id)).state == "quoting", "it promised work, so it is waited for"
    answer = seller.encrypt(buyer.key.pubkey, request.inputs[0].data.upper())
    world.relay.store(seller.sign(Draft(6050, answer, (*outer, ("status", "success")), world.clock.now())))
    await until(world.clock, lambda: staged.job_id not in buyer.buying._open)
    assert (await buyer.buying.view(staged.job_id)).result == SECRET.upper()


def ask_key(seller: Key) -> ComputeRequest:
    return ComputeRequest(5050, (Datum(SECRET),), (), MicroUsd(50_000), to=seller.pubkey)


@story
async def test_an_unreadable_request_to_us_is_declined_and_a_forged_wrap_is_nobodys(world: World) -> None:
    seller, me = await world.node(services=echo()).up(), Key.generate()
    draft = request_draft(kind=5050, inputs=[Input(SECRET)], created_at=world.clock.now(), providers=[me.pubkey])
    for_other, _ = sealed_request(me, Key.generate().pubkey, draft, Scheme.NIP44)
    aimed = me.sign(replace_tags(for_other, seller.key.pubkey))
    world.relay.store(aimed)
    await until(world.clock, lambda: bool(words(seller, 7000)))
    assert words(seller, 7000)[0].all("status")[0][:2] == ("status", "error")
    world.relay.store(wrap(me, seller.key.pubkey, Draft(14, "not a request", (), world.clock.now())))
    world.relay.store(wrap(me, seller.key.pubkey, draft))  # it names another provider
    await world.clock.sleep(2)
    assert seller.selling.dropped["for_others"] == 1
    assert not await seller.selling.list_sales()


def replace_tags(event: Event, provider: str) -> Draft:
    return Draft(event.kind, event.content, (("p", provider), ("encrypted",)), event.created_at)


@story
async def test_the_same_rumor_in_two_wraps_is_one_job(world: World) -> None:
    seller, me = await world.node(services=echo()).up(), Key.generate()
    draft = request_draft(
        kind=5050, inputs=[Input(SECRET)], created_at=world.clock.now(), providers=[seller.key.pubkey]
    )
    for _ in range(3):
        world.relay.store(wrap(me, seller.key.pubkey, draft))
    await world.clock.sleep(5)
    assert len(await seller.selling.list_sales()) == 1


@story
async def test_what_cannot_be_hidden_is_refused_before_anything_happens(world: World) -> None:
    buyer, seller = world.node(), world.node(services=echo())
    await buyer.up()
    await seller.up()
    for private in ("nip44", "nip04", "wrap"):
        with pytest.raises(InputTooLarge):
            await buyer.buying.buy("agent:a", private, ask(seller, private, "x" * MOST_BYTES[Scheme(private)]))
    with pytest.raises(InvalidInput):
        await buyer.buying.buy("agent:a", "k", replace(ask(seller, "wrap"), to=""))
    assert words(buyer, GIFT_WRAP) == []


@story
async def test_a_result_that_fits_no_event_when_encrypted_is_a_failure_that_is_told(world: World) -> None:
    from dvm.provider.provider import Answer

    class Long:
        name, kinds = "long", frozenset({5050})

        def check(self, request: ComputeRequest) -> None:
            return None

        async def run(self, request: ComputeRequest) -> Answer:
            return Answer("y" * 50_000)

    from core.money import Msat
    from dvm.service import Service

    buyer, seller = world.node(), world.node(services=lambda: [Service(5050, Msat(0), Long())])
    await buyer.up()
    await seller.up()
    for private in ("nip44", "wrap"):
        view = await bought(buyer, ask(seller, private), key=private)
        assert view.state == "failed"
    assert {row["state"] for row in await seller.selling.list_sales()} == {"failed"}


def test_a_feedback_in_the_open_to_a_private_job_still_counts() -> None:
    """Some sellers encrypt the result alone."""
    me, seller = Key.generate(), Key.generate()
    draft = request_draft(kind=5050, inputs=[Input(SECRET)], created_at=1, providers=[seller.pubkey])
    event, _ = sealed_request(me, seller.pubkey, draft, Scheme.NIP44)
    request = open_request(seller, event)
    word = seller.sign(feedback_draft(request=request, status="processing", created_at=1))
    assert open_answer(me, word) == word
    whole = sealed_answer(seller, request, result_draft(request=request, content="x", created_at=1))
    assert open_answer(me, whole).content == "x"
