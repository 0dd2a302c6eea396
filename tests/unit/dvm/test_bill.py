"""Foreign customers pay an invoice: in time, late, never, and over crashes. Nothing that came is kept silently."""

from collections.abc import Callable, Sequence

import pytest

from core.money import Msat
from dvm.admission import Limits
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest
from dvm.service import Service
from relays.event import Draft, Event
from relays.key import Key
from relays.nip90 import Input, Quote, read_answer, request_draft
from tests.model_mint import Fault
from tests.unit.dvm.market_part import Node, until
from tests.unit.dvm.test_market import World, freeze, story, words
from wallet.invoice import read_invoice

PRICE = 21_000


class Broken(Echo):
    """Fails as long as it is told to."""

    works = False

    async def run(self, request: ComputeRequest) -> Answer:
        if not self.works:
            raise RuntimeError("out of order")
        return await super().run(request)


def sold(provider: Echo | None = None, **more: int) -> Callable[[], Sequence[Service]]:
    return lambda: [Service(5050, Msat(PRICE), provider or Echo(), eta_s=2, invoices=True, **more)]


def ask(world: World, key: Key, text: str = "hello", **more) -> Event:
    """A plain NIP-90 request: it names no way to pay."""
    event = key.sign(request_draft(kind=5050, inputs=[Input(text)], created_at=world.clock.now(), **more))
    world.relay.store(event)
    return event


async def quoted(seller: Node, asked: Event) -> Quote:
    """The seller's quote for a request."""
    found: list[Quote] = []

    def there() -> bool:
        answers = [read_answer(one) for one in words(seller, 7000) if one.value("e") == asked.id]
        found[:] = [one for one in answers if isinstance(one, Quote)]
        return bool(found)

    await until(seller.clock, there)
    return found[0]


async def sale_of(seller: Node, asked: Event) -> dict:
    return next(one for one in await seller.selling.list_sales() if one["request_id"] == asked.id)


def pay(world: World, quote: Quote) -> None:
    """Somebody with another wallet pays the quote's invoice."""
    world.mint.pay(next(id_ for id_, held in world.mint._quotes.items() if held.quote.request == quote.invoice))


def statuses(seller: Node, asked: Event) -> list[str]:
    return [one.value("status") for one in words(seller, 7000) if one.value("e") == asked.id]


@pytest.fixture
def customer() -> Key:
    return Key.generate()


async def start(world: World, provider: Echo | None = None, **more: int) -> Node:
    world.mint.auto_pay = False
    # a full seller is to say so, and not to ask strangers for proof of work
    return await world.node(services=sold(provider, **more), strangers=Limits(pow_bits_full=0)).up()


@story
async def test_the_quote_carries_an_invoice_over_its_price_and_no_other_way_to_pay(world: World) -> None:
    seller = await start(world)
    quote = await quoted(seller, ask(world, Key.generate()))
    found = read_invoice(quote.invoice)
    assert found.amount_msat == quote.amount.value == PRICE
    assert quote.expires_at <= found.expires_at
    assert not quote.methods, "who pays twice would have paid once for nothing"
    assert not words(seller, 6050)


@story
async def test_a_paid_invoice_is_worked_for_and_delivered_without_any_claim(world: World) -> None:
    seller = await start(world)
    asked = ask(world, Key.generate(), "hello over lightning")
    pay(world, await quoted(seller, asked))
    await until(world.clock, lambda: bool(words(seller, 6050)))
    assert words(seller, 6050)[0].content == "hello over lightning"
    assert await seller.sat() == 21
    shown = await sale_of(seller, asked)
    assert (shown["state"], shown["earned_msat"], shown["paid_by"], shown["owed_msat"]) == ("done", PRICE, "invoice", 0)
    effect = (await seller.db.select("effect", {"subject": asked.id}))[0]
    assert effect["state"] == "commit"
    assert seller.selling.open_count() == 0
    assert statuses(seller, asked) == ["payment-required", "processing"]


def test_nothing_is_worked_for_an_invoice_that_nobody_pays_and_its_place_is_free_again() -> None:
    World().run(_nobody_pays, 20_000)


async def _nobody_pays(world: World) -> None:
    seller = await start(world, max_open=1)
    first = ask(world, Key.generate(), "one")
    await quoted(seller, first)
    busy = ask(world, Key.generate(), "two")
    await world.clock.sleep(2)
    assert statuses(seller, busy) == ["error"]
    await world.clock.sleep(65)
    assert (await sale_of(seller, first))["state"] == "lapsed"
    await quoted(seller, ask(world, Key.generate(), "three"))
    await world.clock.sleep(4 * 3_600)
    assert (await sale_of(seller, first))["state"] == "expired"
    assert (await seller.db.select("operation", {"effect_id": (await _row(seller, first))["effect_id"]}))[0][
        "state"
    ] == "refused"
    assert not words(seller, 6050)
    assert "hello" not in (await _row(seller, first))["body"]
    assert not seller.selling._waiting


async def _row(seller: Node, asked: Event) -> dict:
    return (await seller.db.select("sale", {"id": asked.id}))[0]


@story
async def test_who_pays_after_the_quote_has_ended_still_gets_the_result(world: World) -> None:
    seller = await start(world)
    asked = ask(world, Key.generate(), "late")
    quote = await quoted(seller, asked)
    await world.clock.sleep(70)
    assert (await sale_of(seller, asked))["state"] == "lapsed"
    pay(world, quote)
    world.relay.store(asked)
    await seller.selling._on_request(asked, "")  # the same request again is a reason to look at once
    await until(world.clock, lambda: bool(words(seller, 6050)), 20)
    assert (await sale_of(seller, asked))["state"] == "done"
    assert not seller.selling._waiting


@story
async def test_a_customer_that_asks_again_and_again_does_not_make_us_ask_the_mint_each_time(world: World) -> None:
    seller = await start(world)
    asked = ask(world, Key.generate(), "impatient")
    await quoted(seller, asked)
    await world.clock.sleep(70)
    before = world.mint.calls.count("quote")
    for _ in range(200):
        await seller.selling._on_request(asked, "")
        await world.clock.sleep(0.1)
    assert world.mint.calls.count("quote") - before <= 4


@story
async def test_a_late_payment_is_found_without_being_asked_for(world: World) -> None:
    seller = await start(world)
    asked = ask(world, Key.generate(), "late")
    quote = await quoted(seller, asked)
    await world.clock.sleep(600)
    pay(world, quote)
    await until(world.clock, lambda: bool(words(seller, 6050)), 1_500)


@story
async def test_what_comes_after_the_customers_deadline_is_owed_and_serves_the_next_request(world: World) -> None:
    seller, customer = await start(world), Key.generate()
    late = ask(world, customer, "too late", deadline=world.clock.now() + 90)
    quote = await quoted(seller, late)
    await world.clock.sleep(100)
    pay(world, quote)
    ask_again = seller.selling._on_request(late, "")
    await ask_again
    await world.clock.sleep(20)
    shown = await sale_of(seller, late)
    assert (shown["state"], shown["owed_msat"], shown["earned_msat"]) == ("owed", PRICE, PRICE)
    said = next(one for one in words(seller, 7000) if one.value("status") == "error")
    assert "21 sat are kept for you" in said.all("status")[0][2]
    assert not words(seller, 6050)
    stranger = ask(world, Key.generate(), "not theirs")
    assert (await quoted(seller, stranger)).invoice, "what is owed to one is nobody else's"
    fresh = ask(world, customer, "in time")
    await until(world.clock, lambda: bool(words(seller, 6050)))
    assert words(seller, 6050)[0].value("e") == fresh.id
    assert (await sale_of(seller, late))["state"] == "repaid"
    assert ((await sale_of(seller, fresh))["state"], (await sale_of(seller, fresh))["paid_by"]) == ("done", "credit")
    third = ask(world, customer, "a third")
    assert (await quoted(seller, third)).invoice, "it was spent"


@story
async def test_work_that_fails_after_the_payment_is_owed(world: World) -> None:
    provider = Broken()
    seller, customer = await start(world, provider), Key.generate()
    asked = ask(world, customer)
    pay(world, await quoted(seller, asked))
    await until(world.clock, lambda: "error" in statuses(seller, asked))
    assert (await sale_of(seller, asked))["state"] == "owed"
    provider.works = True
    ask(world, customer, "once more")
    await until(world.clock, lambda: bool(words(seller, 6050)))
    assert await seller.sat() == 21


@story
async def test_a_cancelled_request_whose_invoice_was_paid_is_not_worked_and_owed(world: World) -> None:
    seller, customer = await start(world), Key.generate()
    asked = ask(world, customer)
    quote = await quoted(seller, asked)
    world.relay.store(customer.sign(Draft(5, "", (("e", asked.id), ("k", "5050")), world.clock.now())))
    await world.clock.sleep(2)
    assert (await sale_of(seller, asked))["state"] == "lapsed"
    pay(world, quote)
    await world.clock.sleep(60)
    assert (await sale_of(seller, asked))["state"] == "owed"
    assert not words(seller, 6050)


@story
async def test_who_can_send_ecash_of_a_mint_of_ours_gets_no_invoice(world: World) -> None:
    seller = await start(world)
    quote = await quoted(seller, ask(world, Key.generate(), mints=[world.mint.url], invoices=True))
    assert quote.methods
    assert not quote.invoice
    assert "request_quote" not in world.mint.calls


@story
async def test_a_customer_of_another_mint_gets_an_invoice_only_if_it_can_pay_one(world: World) -> None:
    seller = await start(world)
    other = "https://other.test"
    assert (await quoted(seller, ask(world, Key.generate(), mints=[other], invoices=True))).invoice
    refused = ask(world, Key.generate(), mints=[other])
    await until(world.clock, lambda: statuses(seller, refused) == ["error"])


@story
async def test_a_mint_that_makes_no_invoice_leaves_the_quote_for_ecash(world: World) -> None:
    seller = await start(world)
    world.mint.script = lambda call: Fault.UNREACHABLE if call == "request_quote" else Fault.NONE
    quote = await quoted(seller, ask(world, Key.generate()))
    assert quote.methods
    assert not quote.invoice
    only = ask(world, Key.generate(), mints=["https://other.test"], invoices=True)
    await until(world.clock, lambda: statuses(seller, only) == ["error"])
    assert (await sale_of(seller, only))["state"] == "failed"


@story
async def test_strangers_get_a_bounded_number_of_invoices(world: World) -> None:
    seller = await start(world, max_open=500)
    one = Key.generate()
    for number in range(10):
        ask(world, one, f"greedy {number}")
    await world.clock.sleep(5)
    assert world.mint.calls.count("request_quote") == 3, "one key"
    for number in range(60):
        ask(world, Key.generate(), f"flood {number}")
        await world.clock.sleep(0.2)
    assert world.mint.calls.count("request_quote") <= 12 + 6, "all keys together"
    assert len([event for event in words(seller, 7000) if event.value("status") == "payment-required"]) >= 40


@story
async def test_after_a_crash_while_the_invoice_is_made_the_same_request_gets_the_same_one(world: World) -> None:
    seller = await start(world)
    frozen = freeze(seller, "operation", "waiting")
    asked = ask(world, Key.generate())
    await frozen.wait()
    assert (await seller.db.select("sale"))[0]["state"] == "invoicing"
    await seller.crash()
    await seller.up()
    quote = await quoted(seller, asked)
    assert world.mint.calls.count("request_quote") == 1
    pay(world, quote)
    await until(world.clock, lambda: bool(words(seller, 6050)))


@pytest.mark.parametrize(("table", "state"), [("sale", "invoicing"), ("sale", "quoted"), ("sale", "working")])
def test_a_crash_after_any_step_loses_neither_money_nor_work(table: str, state: str) -> None:
    async def tale(world: World) -> None:
        seller = await start(world)
        frozen = freeze(seller, table, state)
        asked = ask(world, Key.generate(), "crash")
        if state == "working":
            pay(world, await quoted(seller, asked))
        await frozen.wait()
        await seller.crash()
        if state == "quoted":
            pay(world, next(iter(await _quotes(seller))))
        await seller.up()
        if state == "invoicing":
            pay(world, await quoted(seller, asked))
        await until(world.clock, lambda: bool(words(seller, 6050)))
        assert len({event.id for event in words(seller, 6050)}) == 1
        assert await seller.sat() == 21
        assert (await sale_of(seller, asked))["state"] == "done"

    World().run(tale)


async def _quotes(seller: Node) -> list[Quote]:
    """Quotes that were committed, sent or not."""
    from dvm.record import decode
    from dvm.seller import Sale
    from relays.event import parse_json

    rows = await seller.db.select("sale", {"state": "quoted"})
    answers = [read_answer(parse_json(decode(Sale, row["body"]).answer)) for row in rows]
    return [one for one in answers if isinstance(one, Quote)]


@story
async def test_a_payment_that_came_while_the_node_was_down_is_worked_for_at_its_start(world: World) -> None:
    seller = await start(world)
    asked = ask(world, Key.generate(), "meanwhile")
    quote = await quoted(seller, asked)
    await world.clock.sleep(70)
    await seller.crash()
    pay(world, quote)
    await world.clock.sleep(30)
    await seller.up()
    await until(world.clock, lambda: bool(words(seller, 6050)), 120)
    assert (await sale_of(seller, asked))["state"] == "done"
