"""Receipts between nodes: who says what of whom, and what is made of it."""

from dataclasses import replace
from typing import Any

from core.effect import Permit
from dvm.provider.echo import Echo
from dvm.reviewing import FRESH_S, MOST_LABELS, Reviewing
from node.storage.memory import MemoryDatabase
from relays.event import Draft, Event
from relays.key import Key
from relays.kind import LABEL
from relays.nip32 import label_draft
from tests.unit.dvm.market_part import Node, echo, until
from tests.unit.dvm.test_market import ASK, World, bought, freeze, story, words
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.wallet import Wallet

PAID = range(9_900, 10_001)  # its price and the fee of taking it, a little less with time
SENT_S = 120  # until the outbox has looked again
SEALED: dict[str, Any] = {"proven": lambda mint: True}


def reviewing(node: Node) -> Reviewing:
    return Reviewing(node.db, node.pool, node.outbox, node.wallet, node.keyring, node.clock)


def _gives(node: Node) -> None:
    node.buying.on_closing(reviewing(node).closing)


async def town(world: World, *services: Any, **parts: Any) -> tuple[Node, Node, Node]:
    """A buyer that gives receipts, a seller, and somebody who reads them."""
    buyer = world.node(attach=_gives, providers=[Echo()], **parts)
    seller, reader = world.node(services=services[0] if services else echo(9_000), **parts), world.node()
    for node in (buyer, seller, reader):
        await node.up()
    await buyer.fund(200)
    await world.clock.sleep(1)
    return buyer, seller, reader


@story
async def test_a_locked_payment_is_shown_and_counts(world: World) -> None:
    buyer, seller, reader = await town(world)
    await bought(buyer)
    await world.clock.sleep(SENT_S)
    shown = await reviewing(reader).shown(seller.key.pubkey, look=True)
    assert shown["delivered_msat"] in PAID
    assert not shown["undelivered_msat"]


@story
async def test_the_money_for_a_sealed_result_is_shown_and_counts_too(world: World) -> None:
    buyer, seller, reader = await town(world, **SEALED)
    view = await bought(buyer)
    assert view.to_dict()["method"] == "atomic"
    await world.clock.sleep(SENT_S)
    assert len(words(buyer, LABEL)) == 1
    shown = await reviewing(reader).shown(seller.key.pubkey, look=True)
    assert shown["delivered_msat"] in PAID
    assert shown["buyers"] == 1


async def robbed(world: World, *, cancelled: bool = False) -> tuple[Node, Node, Node]:
    """The seller took the money and died; the buyer has waited for its result, or did not want it any more."""
    buyer, seller, reader = await town(world)
    frozen = freeze(seller, "sale", "working")
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    await until(world.clock, lambda: bool(frozen.is_set()))
    await seller.crash()
    view = await buyer.buying.view(staged.job_id)
    if cancelled:
        await buyer.buying.cancel(staged.job_id)
    payload = (await buyer.wallet.find(view.purchase.payment.op_id)).result.payload
    thief = Wallet(MemoryDatabase(), seller.keyring, world.clock, allow, [world.mint], permit_for=Permit)
    await thief.claim("claim", payload, EFFECT, PERMIT)
    await until(world.clock, lambda: not buyer.buying._open, 900)
    await world.clock.sleep(SENT_S)
    return buyer, seller, reader


@story
async def test_who_takes_the_money_and_delivers_nothing_is_told_of(world: World) -> None:
    _, seller, reader = await robbed(world)
    shown = await reviewing(reader).shown(seller.key.pubkey, look=True)
    assert shown["undelivered_msat"] in PAID
    assert not shown["delivered_msat"]


@story
async def test_a_buyer_that_cancelled_accuses_nobody(world: World) -> None:
    buyer, _, _ = await robbed(world, cancelled=True)
    assert words(buyer, LABEL) == []


@story
async def test_a_job_that_a_restored_node_set_aside_accuses_nobody(world: World) -> None:
    buyer, _, _ = await town(world)
    view = await bought(buyer)
    lost = replace(view.purchase, state="failed", copied=True, result="")
    assert await reviewing(buyer).closing(replace(view, purchase=view.purchase))
    assert not await reviewing(buyer).closing(replace(view, purchase=lost))


def changed(label: Event, author: Key, **tags: str) -> Event:
    """The same label with other words in some tags."""
    kept = tuple((tag[0], tags.get(tag[0], tag[1]), *tag[2:]) for tag in label.tags)
    return author.sign(Draft(label.kind, label.content, kept, label.created_at))


@story
async def test_an_accusation_is_contested_by_a_result_whatever_kind_the_accuser_names(world: World) -> None:
    buyer, seller, reader = await town(world)
    await bought(buyer)
    await world.clock.sleep(SENT_S)
    (label,) = words(buyer, LABEL)
    lie = changed(label, buyer.key, l="undelivered", k="5001")
    world.relay.events.pop(label.id)
    world.relay.store(lie)
    shown = await reviewing(reader).shown(seller.key.pubkey, look=True)
    assert (shown["receipts"], shown["score"]) == ([], 500)


@story
async def test_an_accusation_does_not_count_while_no_relay_can_show_a_result(world: World) -> None:
    _, seller, reader = await robbed(world)
    fetch, asked = reader.pool.fetch, []

    async def gone(filters, timeout, relays=None):
        asked.append(filters)
        return await fetch(filters, timeout, relays) if len(asked) != 2 else []

    reader.pool.fetch = gone
    one = reviewing(reader)
    assert (await one.shown(seller.key.pubkey, look=True))["undelivered_msat"] == 0
    await world.clock.sleep(FRESH_S)
    assert (await one.shown(seller.key.pubkey, look=True))["undelivered_msat"] in PAID, "it is looked at again"


@story
async def test_junk_does_not_hide_what_counts(world: World) -> None:
    _, seller, reader = await robbed(world)
    for number in range(MOST_LABELS + 50):
        tags = [("p", seller.key.pubkey), ("k", "5050")]
        junk = label_draft("dvm.settled", "delivered", tags, f"junk {number}", world.clock.now() - number % 7)
        world.relay.store(seller.key.sign(junk))
    fetch = reader.pool.fetch

    async def bounded(filters, timeout, relays=None):
        """As relays do: the newest, and no more than were asked for."""
        found = sorted(await fetch(filters, timeout, relays), key=lambda event: (-event.created_at, event.id))
        return found[: filters[0].limit or None]

    reader.pool.fetch = bounded
    shown = await reviewing(reader).shown(seller.key.pubkey, look=True)
    assert shown["undelivered_msat"] in PAID


@story
async def test_what_did_not_count_is_not_checked_again(world: World) -> None:
    buyer, seller, reader = await town(world)
    await bought(buyer)
    await world.clock.sleep(SENT_S)
    (label,) = words(buyer, LABEL)
    world.relay.events.pop(label.id)
    world.relay.store(changed(label, buyer.key, l="undelivered"))
    one, checked = reviewing(reader), []
    proven = reader.wallet.proven

    async def counting(*args):
        checked.append(args)
        return await proven(*args)

    reader.wallet.proven = counting
    await one.shown(seller.key.pubkey, look=True)
    await world.clock.sleep(FRESH_S)
    await one.shown(seller.key.pubkey, look=True)
    assert len(checked) == 1
