"""Results before the money: for whom, how much at once, and over crashes. Who did not pay one gets no more."""

from dataclasses import replace
from typing import Any

import pytest

from core.money import Msat
from dvm.admission import Limits
from dvm.provider.echo import Echo
from dvm.sale import Service
from dvm.settlement import Settlement
from relays.event import Event
from relays.key import Key
from relays.nip90 import JobResult, read_answer
from tests.model_mint import Fault
from tests.unit.dvm.market_part import Node, until
from tests.unit.dvm.test_bill import ask, pay, quoted, sale_of, statuses
from tests.unit.dvm.test_market import World, freeze, story, words
from tests.unit.dvm.test_nutzap import giver
from wallet.invoice import read_invoice
from wallet.payment import State as OperationState

PRICE = 21_000
TERMS = Settlement(credit_per_key=Msat(50_000), credit=Msat(70_000))


async def start(world: World, *named: Key, terms: Settlement = TERMS, lends: bool = True) -> Node:
    """A seller whose owner has named these customers."""
    world.mint.auto_pay = False
    service = Service(5050, Msat(PRICE), Echo(), eta_s=2, invoices=True, lends=lends)
    allow = frozenset(key.pubkey for key in named)
    return await world.node(
        services=lambda: [service], strangers=Limits(allow=allow, pow_bits_full=0), settlement=terms
    ).up()


def results(seller: Node, asked: Event) -> list[JobResult]:
    found = [read_answer(one) for one in words(seller, 6050) if one.value("e") == asked.id]
    return [one for one in found if isinstance(one, JobResult)]


async def billed(world: World, seller: Node, asked: Event) -> JobResult:
    await until(world.clock, lambda: bool(results(seller, asked)))
    return results(seller, asked)[0]


@story
async def test_a_trusted_customer_has_the_result_first_and_the_invoice_in_it(world: World) -> None:
    friend = Key.generate()
    seller = await start(world, friend)
    asked = ask(world, friend, "hello first")
    result = await billed(world, seller, asked)
    assert (result.content, result.amount) == ("hello first", Msat(PRICE))
    assert read_invoice(result.invoice).amount_msat == PRICE
    assert statuses(seller, asked) == ["processing"], "no quote was needed"
    assert (await sale_of(seller, asked))["state"] == "billed"
    pay(world, result)
    await until(world.clock, lambda: not seller.selling.open_count())
    shown = await sale_of(seller, asked)
    assert (shown["state"], shown["earned_msat"], shown["paid_by"]) == ("done", PRICE, "invoice")
    assert await seller.sat() == 21
    (effect,) = await seller.db.select("effect", {"subject": asked.id})
    assert effect["state"] == "commit"


@pytest.mark.parametrize("why", ["a stranger", "not offered", "not set", "too dear"])
def test_whoever_else_pays_before_the_work(why: str) -> None:
    async def tell(world: World) -> None:
        friend = Key.generate()
        named = () if why == "a stranger" else (friend,)
        terms = {"not set": Settlement(), "too dear": replace(TERMS, credit_per_key=Msat(PRICE - 1))}.get(why, TERMS)
        seller = await start(world, *named, terms=terms, lends=why != "not offered")
        asked = ask(world, friend)
        assert (await quoted(seller, asked)).invoice
        assert not results(seller, asked)

    World().run(tell)


@story
async def test_no_more_is_out_than_is_set_for_a_key_and_in_all(world: World) -> None:
    friends = [Key.generate() for _ in range(3)]
    seller = await start(world, *friends)
    asked = [ask(world, friends[0], str(number)) for number in range(3)]
    await until(world.clock, lambda: sum(len(results(seller, one)) for one in asked) == 2)
    await until(world.clock, lambda: sum("payment-required" in statuses(seller, one) for one in asked) == 1)
    served = [one for one in asked if results(seller, one)]
    third = ask(world, friends[1], "the third")
    await billed(world, seller, third)
    fourth = ask(world, friends[2], "one too many in all")
    assert (await quoted(seller, fourth)).invoice
    pay(world, results(seller, served[0])[0])
    await until(world.clock, lambda: len(seller.selling._open) < 5)
    await world.clock.sleep(5)
    assert (await billed(world, seller, ask(world, friends[2], "now there is room"))).invoice


@story
async def test_who_does_not_pay_is_remembered_and_gets_no_more_before_it_pays(world: World) -> None:
    friend, other = Key.generate(), Key.generate()
    seller = await start(world, friend, other)
    asked = ask(world, friend)
    await billed(world, seller, asked)
    find = seller.wallet.find

    async def given_up(op_id: str) -> Any:
        """What the wallet says once nobody can pay any more, an hour after the invoice's end."""
        found = await find(op_id)
        return found and replace(found, state=OperationState.REFUSED)

    seller.wallet.find = given_up
    await until(world.clock, lambda: not seller.selling.open_count())
    shown = await sale_of(seller, asked)
    assert (shown["state"], shown["earned_msat"], shown["error"]) == ("lost", 0, "its invoice was not paid")
    await seller.crash()
    await seller.up()
    again = ask(world, friend, "once more")
    assert (await quoted(seller, again)).invoice
    assert not results(seller, again)
    await billed(world, seller, ask(world, other, "somebody else"))


@story
async def test_who_has_paid_before_owes_at_most_what_it_has_paid(world: World) -> None:
    customer = Key.generate()
    seller = await start(world)
    first = ask(world, customer, "paid before the work")
    pay(world, await quoted(seller, first))
    await billed(world, seller, first)
    await until(world.clock, lambda: not seller.selling.open_count())
    second = ask(world, customer, "paid after it")
    assert (await billed(world, seller, second)).invoice
    third = ask(world, customer, "more than it ever paid")
    assert (await quoted(seller, third)).invoice


@story
async def test_without_a_mint_that_makes_an_invoice_nothing_is_given_away(world: World) -> None:
    friend = Key.generate()
    seller = await start(world, friend)
    world.mint.script = lambda call: Fault.UNREACHABLE if call == "request_quote" else Fault.NONE
    asked = ask(world, friend)
    await until(world.clock, lambda: statuses(seller, asked) == ["processing", "error"])
    assert (await sale_of(seller, asked))["state"] == "failed"
    assert not results(seller, asked)


@pytest.mark.parametrize("state", ["working", "billed", "done"])
def test_a_crash_after_any_step_loses_neither_money_nor_work_and_makes_no_second_invoice(state: str) -> None:
    async def tell(world: World) -> None:
        friend = Key.generate()
        seller = await start(world, friend)
        frozen = freeze(seller, "sale", state)
        asked = ask(world, friend)
        if state == "done":
            pay(world, await billed(world, seller, asked))
        await until(world.clock, frozen.is_set)
        await seller.crash()
        await world.clock.sleep(1)
        await seller.up()
        result = await billed(world, seller, asked)
        if state != "done":
            pay(world, result)
        await until(world.clock, lambda: not seller.selling.open_count())
        assert (await sale_of(seller, asked))["state"] == "done"
        assert await seller.sat() == 21
        assert len({one.invoice for one in results(seller, asked)}) == 1
        deposits = [row for row in await seller.db.select("operation") if row["kind"] == "deposit"]
        assert len(deposits) == 1, "one invoice for one sale"

    World().run(tell)


@story
async def test_it_is_sent_again_to_a_customer_that_asks_again(world: World) -> None:
    friend = Key.generate()
    seller = await start(world, friend)
    asked = ask(world, friend)
    result = await billed(world, seller, asked)
    world.relay.events.pop(result.event_id)
    await world.clock.sleep(40)
    await seller.selling._on_request(asked, "")
    await until(world.clock, lambda: bool(results(seller, asked)))
    assert results(seller, asked)[0].event_id == result.event_id


async def start_with_gifts(world: World, friend: Key) -> Node:
    """Whose one customer may owe one price at once, and pays by a nutzap."""
    world.mint.auto_pay = False
    service = Service(5050, Msat(PRICE), Echo(), eta_s=2, invoices=True, lends=True)
    named = Limits(allow=frozenset({friend.pubkey}), pow_bits_full=0)
    return await world.node(
        services=lambda: [service],
        strangers=named,
        settlement=replace(TERMS, credit_per_key=Msat(PRICE)),
        gifts=True,
        offered=True,
    ).up()


@pytest.mark.parametrize("names", ["request", "result"])
def test_a_nutzap_pays_for_a_result_that_was_lent_and_frees_what_its_customer_owes(names: str) -> None:
    async def tell(world: World) -> None:
        donor = await giver(world)
        seller = await start_with_gifts(world, donor.key)
        asked = ask(world, donor.key)
        first = await billed(world, seller, asked)
        refused = ask(world, donor.key, "it owes as much as it may")
        assert (await quoted(seller, refused)).invoice
        named = asked.id if names == "request" else first.event_id
        world.relay.store(await donor.zap(seller.key.pubkey, seller.nutzaps.pubkey, 22, named))
        while (await sale_of(seller, asked))["state"] != "done":
            await world.clock.sleep(0.1)
        shown = await sale_of(seller, asked)
        assert (shown["paid_by"], shown["earned_msat"], shown["result_id"]) == ("credit", PRICE, first.event_id)
        (effect,) = await seller.db.select("effect", {"subject": asked.id})
        assert effect["state"] == "commit"
        assert (await billed(world, seller, ask(world, donor.key, "now there is room"))).invoice
        pay(world, first)  # both ways: what came twice is not kept in silence
        while not [tip for tip in await seller.db.select("tip") if tip["owed_msat"] >= PRICE]:
            await world.clock.sleep(0.1)

    World().run(tell, 20_000)


@story
async def test_a_nutzap_that_does_not_cover_a_lent_result_leaves_it_billed(world: World) -> None:
    donor = await giver(world)
    seller = await start_with_gifts(world, donor.key)
    asked = ask(world, donor.key)
    result = await billed(world, seller, asked)
    world.relay.store(await donor.zap(seller.key.pubkey, seller.nutzaps.pubkey, 12, asked.id))
    while not [tip for tip in await seller.db.select("tip") if tip["state"] == "owed"]:
        await world.clock.sleep(0.1)
    await world.clock.sleep(40)
    assert (await sale_of(seller, asked))["state"] == "billed"
    pay(world, result)
    await until(world.clock, lambda: not seller.selling.open_count())
    assert (await sale_of(seller, asked))["paid_by"] == "invoice"
