"""What is sold is changed while the node runs: durable, at once, announced, and open sales keep their terms."""

import orjson
import pytest

from core.error import InvalidInput
from core.money import Msat
from dvm.error import KindSold, NotSold
from dvm.policy import Policy
from dvm.provider.echo import Echo
from node.error import ConfigInvalid
from node.market import SellSection
from node.offering import Offerings
from relays.event import Draft
from relays.key import Key
from relays.kind import DELETION, HANDLER
from relays.nip89 import read_announcement
from relays.nip90 import read_answer
from tests.unit.dvm.market_part import RATE, Node
from tests.unit.dvm.test_market import ASK, World, story, words

CONFIGURED = SellSection(kind=5050, price_msat=9_000, provider="echo", eta_s=2)


class Shop:
    """A seller with its offerings, as node/trade.py puts them together."""

    def __init__(self, world: World, *configured: SellSection) -> None:
        self.world, self.configured = world, configured
        self.node: Node = world.node(services=lambda: self.offerings.services())

    async def up(self) -> "Shop":
        node = self.node
        self.offerings = Offerings(node.db, [Echo()], self.configured, ["http://mint"])

        def attach(made: Node) -> None:
            made.selling._ending = self.offerings.ending
            self.offerings.attach(made.selling, made.discovery)

        node.attach = attach
        await node.up()
        await self.offerings.load()
        await self.world.clock.sleep(1)
        return self

    async def ask(self, customer: Key, text: str = "x") -> list[str]:
        """What is said to a new request."""
        clock, mint = self.world.clock, self.world.mint
        mint.auto_pay = False  # a request that names no way to pay gets an invoice, and this one is not paid
        asked = customer.sign(Draft(5050, "", (("i", text, "text"),), clock.now()))
        self.world.relay.store(asked)
        await clock.sleep(2)
        mint.auto_pay = True
        return [
            one.value("amount") or one.value("status") for one in words(self.node, 7000) if asked.id in one.values("e")
        ]

    def announced(self):
        """The newest announcement."""
        found = list(words(self.node, HANDLER))
        return read_announcement(max(found, key=lambda one: one.created_at)) if found else None


@story
async def test_a_kind_that_is_started_is_sold_and_announced_at_once_and_after_a_restart(world: World) -> None:
    shop = await Shop(world).up()
    assert await shop.ask(Key.generate()) == []
    made = await shop.offerings.start({"kind": 5050, "price_msat": 20_500})
    assert (made["provider"], made["price_msat"], made["state"]) == ("echo", 21_000, "selling")
    assert await shop.ask(Key.generate()) == ["21000"]
    assert shop.announced().prices == {5050: Msat(21_000)}
    await shop.node.crash()
    await shop.up()
    assert await shop.ask(Key.generate()) == ["21000"]


@story
async def test_a_price_is_another_from_now_on_and_a_quote_that_stands_is_kept(world: World) -> None:
    shop = await Shop(world, CONFIGURED).up()
    customer = Key.generate()
    world.mint.auto_pay = False
    asked = customer.sign(Draft(5050, "", (("i", "x", "text"),), world.clock.now()))
    world.relay.store(asked)
    await world.clock.sleep(2)
    (before,) = words(shop.node, 7000)
    await shop.offerings.price(5050, {"price_msat": 30_000})
    await shop.node.selling._on_request(asked, "wss://relay.sim")
    await world.clock.sleep(2)
    assert words(shop.node, 7000) == [before], "the same request, the same bytes"
    assert await shop.ask(Key.generate()) == ["30000"]
    assert shop.announced().prices == {5050: Msat(30_000)}
    await shop.node.crash()
    await shop.up()
    assert await shop.ask(Key.generate()) == ["30000"], "above the configuration"
    ((row),) = await shop.node.db.select("sale", {"id": asked.id})
    assert orjson.loads(row["body"])["price"] == 9_000


@story
async def test_what_is_paused_answers_nobody_and_is_announced_no_more_until_it_is_resumed(world: World) -> None:
    shop = await Shop(world, CONFIGURED).up()
    assert [one["state"] for one in await shop.offerings.pause()] == ["paused"]
    assert await shop.ask(Key.generate()) == []
    assert [one.value("a") for one in words(shop.node, DELETION)] == [f"31990:{shop.node.key.pubkey}:vendo"]
    await shop.node.crash()
    await shop.up()
    assert await shop.ask(Key.generate()) == []
    await shop.offerings.resume(5050)
    assert await shop.ask(Key.generate()) == ["9000"]
    assert shop.announced().kinds == (5050,)


@story
async def test_what_is_stopped_stays_stopped_though_it_stands_in_the_configuration(world: World) -> None:
    shop = await Shop(world, CONFIGURED).up()
    await shop.offerings.stop(5050)
    assert shop.offerings.rows() == []
    await shop.node.crash()
    await shop.up()
    assert await shop.ask(Key.generate()) == []
    with pytest.raises(NotSold):
        await shop.offerings.price(5050, {"price_msat": 1})
    await shop.offerings.start({"kind": 5050, "price_msat": 0})
    assert await shop.ask(Key.generate()) == ["processing"]


@story
async def test_a_job_that_was_quoted_is_done_on_its_terms_though_its_kind_is_stopped_and_the_node_restarts(
    world: World,
) -> None:
    shop = await Shop(world, CONFIGURED).up()
    buyer = await world.node(policy=Policy(quote_window_ms=10_000, timeout_s=30, lock_margin_s=300)).up()
    await buyer.fund(100)
    staged = await buyer.buying.buy("agent:a", "k", ASK)
    buyer.buying._open[staged.job_id]._desk.known_sellers = lambda kind: frozenset()  # it waits for others, too
    while not await shop.node.db.select("sale", {"state": "quoted"}):
        await world.clock.sleep(0.05)
    await shop.offerings.stop(5050)
    await shop.node.crash()
    await shop.up()
    while not (view := await buyer.buying.view(staged.job_id)).purchase.closed:
        await world.clock.sleep(0.5)
    assert (view.state, view.to_dict()["paid_msat"]) == ("delivered", 9_000)
    assert await shop.offerings.earned() == [
        {"kind": 5050, "mint": buyer.wallet.mints[0], "sales": 1, "price_msat": 9_000, "earned_msat": 9_000}
    ]
    assert await shop.offerings.earned(world.clock.now() + 1) == []


@story
async def test_what_is_not_valid_changes_nothing(world: World) -> None:
    shop = await Shop(world, CONFIGURED).up()
    before = (shop.offerings.rows(), await shop.node.db.select("meta"))
    for terms in (
        {"kind": 5050, "price_msat": 1},
        {"kind": 5001, "price_msat": 1},
        {"kind": 5050, "price_msat": 9_000, "price_usd": "1"},
        {"kind": 5050},
        {"kind": 5050, "price_msat": 1, "per": "mile"},
        {"kind": 5050, "price_msat": 1, "provider": "pow"},
        {"kind": 5050, "price_msat": 1, "max_usd": "1"},
    ):
        with pytest.raises((InvalidInput, KindSold, ConfigInvalid)):
            await shop.offerings.start(terms)
    assert (await shop.offerings.start({"kind": 5050, "price_msat": 9_000, "eta_s": 2}))["state"] == "selling"
    assert (shop.offerings.rows(), await shop.node.db.select("meta")) == before


@story
async def test_a_price_in_dollars_is_quoted_at_the_rate_and_refused_without_one(world: World) -> None:
    shop = await Shop(world, SellSection(kind=5050, price_usd="0.013", provider="echo", eta_s=2)).up()
    selling = shop.node.selling
    assert await shop.ask(Key.generate()) == ["error"]
    selling._stock._rate = lambda: RATE
    assert await shop.ask(Key.generate()) == ["20000"]
    assert selling.dropped["unpriced"] == 1
    refused = [one for one in words(shop.node, 7000) if one.value("retry-after")]
    assert len(refused) == 1
    assert read_answer(refused[0]).status == "error"
    assert shop.announced().tariffs[5050].unit == "uusd"
