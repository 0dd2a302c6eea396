"""A seller's places, quotes and copies: nothing that a stranger sends keeps a place, or gets work done twice."""

import asyncio
from dataclasses import replace

import pytest

from core.identifier import PubKey
from core.money import Msat
from core.unit import Update
from dvm import selling as module
from dvm.admission import Decline, Limits, MakeQuote, Meter
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.record import decode, encode
from dvm.request import ComputeRequest
from dvm.seller import Sale
from dvm.service import Service
from dvm.tariff import Tariff
from dvm.trust import Standing, Trust
from relays.event import Draft, Event
from relays.key import Key
from relays.kind import DELETION
from relays.nip17 import wrap
from relays.nip90 import Input, read_request, request_draft
from tests.unit.dvm.market_part import Node, echo, until
from tests.unit.dvm.test_bill import ask as ask_by_invoice
from tests.unit.dvm.test_bill import pay, quoted, start
from tests.unit.dvm.test_market import World, story, words


def draft(world: World, text: str = "x", type_: str = "text", kind: int = 5050) -> Draft:
    return request_draft(kind=kind, inputs=[Input(text, type_)], created_at=world.clock.now())


def ask(world: World, key: Key, text: str = "x", type_: str = "text") -> Event:
    event = key.sign(draft(world, text, type_))
    world.relay.store(event)
    return event


def all_places_are_free(seller: Node) -> None:
    selling = seller.selling
    assert (selling.open_count(), selling._waiting, selling._quotes) == (0, {}, {})
    assert not +selling._stock._taken
    assert not selling._per_customer


async def states(seller: Node) -> list[str]:
    return [row["state"] for row in await seller.db.select("sale")]


@story
async def test_a_job_that_builds_on_one_without_any_input_ends_and_gives_its_place_back(world: World) -> None:
    seller = await world.node(services=echo()).up()
    stranger = Key.generate()
    empty = stranger.sign(Draft(5970, "", (), world.clock.now()))
    world.relay.store(empty)
    world.relay.store(stranger.sign(Draft(6970, "{}", (("e", empty.id), ("p", stranger.pubkey)), world.clock.now())))
    ask(world, stranger, empty.id, "job")
    await world.clock.sleep(30)
    assert await states(seller) == ["failed"]
    all_places_are_free(seller)


@story
async def test_a_fault_of_ours_at_any_step_of_the_work_ends_the_sale(world: World) -> None:
    seller = await world.node(services=echo()).up()

    async def broken(*arguments: object, **more: object) -> ComputeRequest:
        raise IndexError

    seller.selling._counter.material.gather = broken
    ask(world, Key.generate())
    await world.clock.sleep(5)
    assert await states(seller) == ["failed"]
    (error,) = [one for one in words(seller, 7000) if one.value("status") == "error"]
    assert "Something broke here." in error.to_json()
    all_places_are_free(seller)


@story
async def test_a_lapsed_sale_that_is_asked_for_again_and_then_paid_is_worked_once(world: World) -> None:
    class Counted(Echo):
        runs = 0

        async def run(self, request: ComputeRequest) -> Answer:
            self.runs += 1
            await world.clock.sleep(40)  # longer than until the wallet is looked at again
            return await super().run(request)

    provider = Counted()
    seller = await start(world, provider)
    asked = ask_by_invoice(world, Key.generate())
    quote = await quoted(seller, asked)
    await world.clock.sleep(100)
    assert await states(seller) == ["lapsed"]
    pay(world, quote)
    seller.selling._on_repeat(asked.id)
    await until(world.clock, lambda: bool(words(seller, 6050)), 100)
    await world.clock.sleep(100)
    assert provider.runs == 1
    all_places_are_free(seller)


@story
async def test_a_lapsed_sale_is_not_opened_a_second_time(world: World) -> None:
    seller = await start(world)
    asked = ask_by_invoice(world, Key.generate())
    await quoted(seller, asked)
    await world.clock.sleep(100)
    reopened: list[str] = []
    service = seller.selling._service
    seller.selling._service = lambda sale: reopened.append(sale.request_id) or service(sale)
    await seller.selling._again(asked.id)
    seller.selling._on_repeat(asked.id)
    await world.clock.sleep(2)
    assert reopened == []


@story
async def test_one_wrapped_cancellation_ends_all_that_it_names_also_what_has_lapsed(world: World) -> None:
    seller, customer = await start(world), Key.generate()
    lapsed = ask_by_invoice(world, customer, "one")
    await quoted(seller, lapsed)
    await world.clock.sleep(100)
    asked = [ask_by_invoice(world, customer, text) for text in ("two", "three")]
    for one in asked:
        await quoted(seller, one)
    named = tuple(("e", one.id) for one in (lapsed, *asked))
    cancel = Draft(DELETION, "", (*named, ("k", "5050")), world.clock.now())
    world.relay.store(wrap(customer, seller.key.pubkey, cancel))
    await world.clock.sleep(2)
    assert [decode(Sale, row["body"]).cancelled for row in await seller.db.select("sale")] == [True] * 3


@story
async def test_a_request_that_comes_open_and_wrapped_at_once_takes_one_place(world: World) -> None:
    seller, customer = await world.node(services=echo(9_000)).up(), Key.generate()
    selling = seller.selling
    selling._limits = replace(selling._limits, allow=frozenset({customer.pubkey}))
    standing = selling._clients.standing

    async def slow(key: str) -> Standing:
        await world.clock.sleep(0.5)
        return await standing(key)

    selling._clients.standing = slow
    asked = draft(world)
    open_, gift = customer.sign(asked), wrap(customer, seller.key.pubkey, asked)
    await asyncio.gather(selling._on_request(open_, ""), selling._on_request(open_, ""), selling._on_wrap(gift, ""))
    assert selling._stock._taken[5050] == selling._per_customer[customer.pubkey] == 1
    await world.clock.sleep(3)
    assert await states(seller) == ["quoted"]
    assert selling.open_count() == 1
    await world.clock.sleep(70)
    assert await states(seller) == ["expired"]
    all_places_are_free(seller)


@story
async def test_a_kind_that_is_withdrawn_while_a_request_is_judged_begins_nothing(world: World) -> None:
    for moment in ("before the price", "after it"):
        customer = Key.generate()
        seller = await world.node(services=echo(9_000)).up()
        selling = seller.selling
        selling._limits = replace(selling._limits, allow=frozenset({customer.pubkey}))
        standing, metered = selling._clients.standing, selling._metered

        async def first(key: str, selling=selling, standing=standing) -> Standing:
            selling.withdraw(5050)
            return await standing(key)

        async def last(request, decision, selling=selling, metered=metered):
            selling.withdraw(5050)
            return await metered(request, decision)

        if moment == "before the price":
            selling._clients.standing = first
        else:
            selling._metered = last
        await selling._on_request(customer.sign(draft(world)), "")
        await world.clock.sleep(1)
        assert await states(seller) == []
        all_places_are_free(seller)


@pytest.mark.parametrize("type_", ["event", "job"])
def test_a_price_by_length_is_asked_for_text_alone(type_: str) -> None:
    async def run(world: World) -> None:
        service = Service(5050, Msat(0), Echo(), eta_s=2, tariff=Tariff(Msat(1_000), "1k_chars"))
        seller = await world.node(services=lambda: [service]).up()
        key = Key.generate()
        named = request_draft(
            kind=5050, inputs=[Input("ab" * 32, type_)], created_at=world.clock.now(), providers=[seller.key.pubkey]
        )
        world.relay.store(key.sign(named))
        await world.clock.sleep(2)
        (word,) = words(seller, 7000)
        assert word.value("status") == "error"
        assert "send the input as text" in word.to_json()
        ask(world, key, "y" * 3_000)
        await until(world.clock, lambda: len(words(seller, 7000)) == 2)
        assert words(seller, 7000)[-1].value("amount") == "3000"

    World().run(run)


@story
async def test_with_what_it_builds_on_an_input_is_no_longer_than_the_operator_allows(world: World) -> None:
    seller = await world.node(services=echo(), strangers=Limits(max_input_bytes=100)).up()
    key = Key.generate()
    note = key.sign(Draft(1, "long " * 30, (), world.clock.now()))
    world.relay.store(note)
    ask(world, key, note.id, "event")
    await world.clock.sleep(5)
    assert await states(seller) == ["failed"]
    assert any("100 are served" in one.to_json() for one in words(seller, 7000))


@story
async def test_a_result_that_is_named_by_no_id_is_not_asked_for(world: World) -> None:
    seller, key = await world.node(services=echo()).up(), Key.generate()
    asked: list[object] = []
    fetch = seller.selling._counter.material._fetch

    async def counting(filters, seconds: float) -> list[Event]:
        asked.append(filters)
        return await fetch(filters, seconds)

    seller.selling._counter.material._fetch = counting
    made = draft(world, "ab" * 32, "job")
    world.relay.store(key.sign(replace(made, tags=(*made.tags, ("result", "ab" * 32, "no id")))))
    await world.clock.sleep(5)
    assert (await states(seller), asked) == (["failed"], [])


@story
async def test_another_wrap_of_the_same_request_is_no_new_question(world: World) -> None:
    seller, customer = await world.node(services=echo()).up(), Key.generate()
    staged: list[object] = []
    stage = seller.gate.stage

    async def counting(intent):
        staged.append(intent)
        return await stage(intent)

    seller.gate.stage = counting
    asked = draft(world)
    for _ in range(10):
        world.relay.store(wrap(customer, seller.key.pubkey, asked))
        await world.clock.sleep(1)
    assert len(staged) == 1
    assert await states(seller) == ["done"]


@story
async def test_a_sat_once_paid_buys_no_quotes_without_bound(world: World) -> None:
    seller = await world.node(services=echo(9_000)).up()
    selling, request = seller.selling, read_request(Key.generate().sign(draft(world)))
    selling._unpaid = Meter(0, 0)

    async def paid(key: str) -> Standing:
        return Standing(Trust.PAID_BEFORE, Msat(1_000))

    selling._clients.standing = paid
    decisions = [await selling._metered(request, MakeQuote(())) for _ in range(40)]
    assert sum(isinstance(one, MakeQuote) for one in decisions) == module.TRUSTED_BURST
    assert all(isinstance(one, MakeQuote | Decline) for one in decisions)
    await world.clock.sleep(5)
    assert isinstance(await selling._metered(request, MakeQuote(())), MakeQuote)


@story
async def test_free_jobs_count_once_they_begin_and_not_those_of_free_kinds(world: World) -> None:
    services = [Service(5050, Msat(9_000), Echo(), eta_s=2), Service(5051, Msat(0), Echo(), eta_s=2)]
    friend = Key.generate()
    limits = Limits(allow=frozenset({friend.pubkey}), free_per_day=3)
    seller = await world.node(services=lambda: services, strangers=limits).up()
    clients = seller.selling._clients
    for n in range(2):
        world.relay.store(friend.sign(draft(world, str(n), kind=5051)))
    asked = ask(world, friend, "for nothing")
    await world.clock.sleep(2)
    for _ in range(5):
        await seller.selling._on_request(asked, "")
    await world.clock.sleep(2)
    seller.selling._meter = Meter(0, 0)
    await seller.selling._on_request(friend.sign(draft(world, "too fast")), "")
    assert clients._known[friend.pubkey].free_today == 1
    clients._known.clear()  # as after a restart
    await clients.standing(friend.pubkey)
    assert clients._known[friend.pubkey].free_today == 1


@story
async def test_a_cancel_while_a_quote_waits_to_be_written_leaves_nothing(world: World) -> None:
    seller, customer = await start(world), Key.generate()
    selling = seller.selling
    asked = customer.sign(draft(world))
    quote = selling._counter.quote

    def cancelled_meanwhile(sale, invoice):
        made = quote(sale, invoice)
        tell = sale.tell

        async def first_cancel(event, **more):
            sale.tell = tell
            await sale.tell(module.Cancelled(customer.pubkey))

        sale.tell = first_cancel
        return made

    selling._counter.quote = cancelled_meanwhile
    world.relay.store(asked)
    await world.clock.sleep(10)
    assert await states(seller) == ["cancelled"]
    all_places_are_free(seller)


@story
async def test_a_quote_that_cannot_be_made_ends_the_sale(world: World) -> None:
    seller = await start(world)

    def broken(*arguments: object, **more: object) -> None:
        raise IndexError

    seller.selling._quoting.quote = broken
    asked = ask_by_invoice(world, Key.generate())
    await until(world.clock, lambda: [one.value("e") for one in words(seller, 7000)] == [asked.id])
    assert await states(seller) == ["failed"]
    all_places_are_free(seller)


@story
async def test_a_row_that_is_for_another_key_does_not_stop_the_start(world: World) -> None:
    seller = await world.node(services=echo(9_000)).up()
    ask(world, Key.generate())
    await world.clock.sleep(2)
    await seller.crash()
    (row,) = await seller.db.select("sale")
    stranger, other = Key.generate(), Key.generate()
    foreign = wrap(stranger, PubKey(other.pubkey), draft(world)).to_json()
    broken = encode(replace(decode(Sale, row["body"]), request=foreign))
    await seller.db.commit([Update("sale", {"id": row["id"]}, {"body": broken})])
    await seller.up()
    ask(world, stranger, "y")
    await until(world.clock, lambda: len(words(seller, 7000)) == 2)


@story
async def test_quotes_of_a_kind_that_is_sold_no_more_are_cancelled_as_ever_also_after_a_restart(world: World) -> None:
    seller, key = await world.node(services=echo(9_000)).up(), Key.generate()
    first, second = ask(world, key, "one"), ask(world, key, "two")
    await until(world.clock, lambda: len(words(seller, 7000)) == 2)

    def cancel(asked: Event) -> None:
        world.relay.store(key.sign(Draft(DELETION, "", (("e", asked.id), ("k", "5050")), world.clock.now())))

    seller.selling.withdraw(5050)
    cancel(first)
    await world.clock.sleep(2)
    assert sorted(await states(seller)) == ["cancelled", "quoted"]
    await seller.crash()
    seller.services = lambda: ()
    await seller.up()
    cancel(second)
    await world.clock.sleep(2)
    assert await states(seller) == ["cancelled", "cancelled"]
    all_places_are_free(seller)
