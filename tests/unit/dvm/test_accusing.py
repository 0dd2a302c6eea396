"""Frauds between nodes: who is cheated shows it to all, and who is shown it buys there no more."""

from typing import Any

from dvm.fraud import FRAUD, encode, examine, read_fraud
from dvm.provider.echo import Echo
from dvm.receipt import NAMESPACE
from dvm.reviewing import Reviewing
from relays.kind import LABEL
from relays.nip32 import label_draft
from tests.fraud_part import Swap, lying_sellers
from tests.unit.dvm.market_part import Node, echo
from tests.unit.dvm.test_market import World, bought, story, words

SENT_S = 120  # until the outbox has looked again
SEALED: dict[str, Any] = {"proven": lambda mint: True}


def reviewing(node: Node, *, publish: bool = True) -> Reviewing:
    return Reviewing(
        node.db, node.pool, node.outbox, node.wallet, node.keyring, node.clock,
        publish=publish, proof=node.buying.shown_fraud, condemn=node.buying.condemn,
    )  # fmt: skip


async def cheated(world: World, *, publish: bool = True) -> tuple[Node, Node, Node]:
    """A buyer that paid for a key which opens nothing, the seller, and somebody who only reads."""

    def attach(node: Node) -> None:
        node.buying.on_closing(reviewing(node, publish=publish).closing)

    buyer = world.node(attach=attach, providers=[Echo()], **SEALED)
    seller, reader = world.node(services=echo(9_000), **SEALED), world.node(providers=[Echo()], **SEALED)
    for node in (buyer, seller, reader):
        await node.up()
        await node.fund(200)
    with lying_sellers():
        view = await bought(buyer)
    assert (view.purchase.fault, view.purchase.money.value) == (FRAUD, "claimed")
    await world.clock.sleep(SENT_S)
    return buyer, seller, reader


@story
async def test_who_is_cheated_shows_it_and_nobody_who_looks_buys_there_any_more(world: World) -> None:
    buyer, seller, reader = await cheated(world)
    (label,) = words(buyer, LABEL)
    assert read_fraud(label).proven
    shown = await reviewing(reader).shown(seller.key.pubkey, look=True)
    assert shown["score"] == 0
    assert shown["frauds"] == [read_fraud(label).result_id]
    assert "a fraud is proven" in shown["reasons"][0]
    view = (await bought(reader)).to_dict()
    assert (view["provider"], view["money"]) == ("builtin", "none")
    assert any("a fraud of this seller is proven" in line for line in view["why"])


@story
async def test_both_remember_it_over_a_restart(world: World) -> None:
    buyer, seller, reader = await cheated(world)
    await reviewing(reader).shown(seller.key.pubkey, look=True)
    for number, node in enumerate((buyer, reader)):
        await node.crash()
        await node.up()
        view = (await bought(node, key=f"again {number}")).to_dict()
        assert (view["provider"], view["money"]) == ("builtin", "none")


@story
async def test_the_proof_can_be_had_for_every_job_that_ended_so_and_for_no_other(world: World) -> None:
    buyer, _, _ = await cheated(world, publish=False)
    assert words(buyer, LABEL) == [], "it publishes nothing about sellers"
    (view,) = await buyer.buying.list_jobs()
    assert examine(buyer.buying.shown_fraud(view.purchase)).proven
    shown = await reviewing(buyer).shown(view.purchase.payment.seller, look=False)
    assert shown["score"] == 0, "it knows it itself"


@story
async def test_a_label_that_proves_nothing_changes_nothing(world: World) -> None:
    seller, reader = world.node(services=echo(9_000)), world.node()
    await seller.up()
    await reader.up()
    await reader.fund(200)
    swap = Swap(seller=seller.key)
    liar = swap.buyer
    world.relay.store(
        liar.sign(
            label_draft(
                NAMESPACE, FRAUD, [("p", seller.key.pubkey)], encode(swap.proof(swap.result())), world.clock.now()
            )
        )
    )
    world.relay.store(
        liar.sign(label_draft(NAMESPACE, FRAUD, [("p", seller.key.pubkey)], "no proof", world.clock.now()))
    )
    shown = await reviewing(reader).shown(seller.key.pubkey, look=True)
    assert (shown["score"], shown["frauds"]) == (500, [])
    assert (await bought(reader)).to_dict()["money"] == "claimed"
