"""A whole market job whose money comes and goes over Lightning; all that takes part is a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256

import pytest
import pytest_asyncio

from tests.lightning.mint import Mint, lightning_mint
from tests.lightning.network import Network, network
from tests.lightning.rpc import Fate
from tests.market_part import PATIENT, SUMMARY_21, Market, Spec, market, until

pytestmark = [pytest.mark.needs("lightning"), pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

TEXT = " ".join(f"Sentence number {n} says that a coin which came over {n} channels buys as much." for n in range(1, 7))
_MINT_FEES_SAT = 4  # for swapping the buyer's coins, and later the seller's
REGTEST = {'network = "bitcoin"': 'network = "regtest"'}


@dataclass(slots=True)
class Place:
    """What runs."""

    net: Network
    mint: Mint
    town: Market


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("lightning-market")
    async with network(folder) as net, lightning_mint("mint", folder, folder, net.near) as mint:
        seller = Spec(SUMMARY_21, replace=REGTEST, mints=[mint.url])
        buyer = Spec(replace={**REGTEST, **PATIENT}, mints=[mint.url])
        async with market(folder, {"seller": seller, "buyer": buyer}, mint=False) as town:
            yield Place(net, mint, town)


@pytest_asyncio.fixture(loop_scope="module")
async def place(request, shared) -> AsyncIterator[Place]:
    yield shared
    said = [
        shared.net.tails(),
        shared.mint.process.tail(),
        *(shared.town.log(one)[-3000:] for one in shared.town.nodes),
    ]
    request.node.add_report_section("teardown", "lightning", "\n".join(said))


async def _deposited(place: Place, name: str, sat: int, key: str) -> None:
    """The node shows an invoice, a Lightning node two channels away pays it, and the node has the coins."""
    asked = await place.town.vendo(name, "wallet", "deposit", str(sat), "--key", key)
    assert asked.code == 0, asked
    paid = await place.net.far.client.pay(asked.json["invoice"])
    assert paid.success, paid.log
    assert paid.preimage is not None
    assert sha256(bytes.fromhex(paid.preimage)).hexdigest() == paid.payment_hash
    came = await place.town.vendo(name, "wallet", "deposit", str(sat), "--key", key, "--wait", "60")
    assert (came.code, came.json["state"]) == (0, "done"), came


async def _clean(place: Place, *names: str) -> None:
    for name in names:
        audit = await place.town.vendo(name, "wallet", "audit")
        assert (audit.code, audit.json["clean"]) == (0, True), audit


async def test_a_buyer_s_lightning_pays_for_work_and_becomes_the_seller_s(place):
    net, town = place.net, place.town
    await net.settled()
    held = await net.near.local_sat()
    had, sold = (await town.balance("buyer"))["live"], (await town.balance("seller"))["live"]
    await _deposited(place, "buyer", 500, "from far away")
    assert (await town.balance("buyer"))["live"] == had + 500
    assert await net.near.local_sat() == held + 500

    ran = await town.vendo("buyer", "buy", "--kind", "5001", "--input", TEXT, "--max-usd", "0.05")
    assert ran.code == 0, ran
    assert ran.json["seller"] == town.rings["seller"].node.pubkey
    assert ran.json["paid_msat"] == 21_000, ran.json

    async def earned() -> int:
        return (await town.balance("seller"))["live"] - sold

    assert await until(earned, "the seller to have its money") == 21
    spent = had + 500 - (await town.balance("buyer"))["live"]
    assert 21 < spent <= 21 + _MINT_FEES_SAT

    bill = await net.middle.client.bill(15, "what the work has brought")
    paid = await town.vendo("seller", "wallet", "withdraw", bill.invoice)
    assert (paid.code, paid.json["state"]) == (0, "done"), paid
    assert sha256(bytes.fromhex(paid.json["preimage"])).hexdigest() == bill.payment_hash
    assert await net.middle.client.bill_fate(bill.payment_hash) is Fate.PAID
    assert await earned() == 21 - 15 - paid.json["fee_sat"]
    await _clean(place, "buyer", "seller")


async def test_a_node_that_is_killed_while_it_withdraws_pays_once_and_has_the_receipt(place):
    net, town = place.net, place.town
    await _deposited(place, "buyer", 2000, "to withdraw")
    await net.settled()
    had, got = (await town.balance("buyer"))["live"], await net.far.local_sat()
    bill = await net.far.client.bill(1000)
    words = ("wallet", "withdraw", bill.invoice, "--key", "once")
    async with net.far.holding():
        asked = asyncio.create_task(town.vendo("buyer", *words))
        await net.on_its_way(bill)
        node = town.nodes.pop("buyer")
        town.children.remove(node)
        await node.kill()
        assert (await asked).code != 0
        await town.up("buyer")
        again = await town.vendo("buyer", *words)
        assert again.error_code == "wallet.unknown", again
    paid = await town.vendo("buyer", *words, "--wait", "60")
    assert (paid.code, paid.json["state"]) == (0, "done"), paid
    assert sha256(bytes.fromhex(paid.json["preimage"])).hexdigest() == bill.payment_hash
    await net.settled()
    assert await net.far.local_sat() == got + 1000
    assert (await town.balance("buyer"))["live"] == had - 1000 - paid.json["fee_sat"]
    await _clean(place, "buyer")


async def test_a_node_on_the_main_network_shows_no_invoice_of_another(place):
    town = place.town
    town.make("careful", Spec(mints=[place.mint.url]))
    await town.up("careful")
    ran = await town.vendo("careful", "wallet", "deposit", "100", "--key", "one")
    assert ran.code != 0
    assert ran.error_code == "wallet.invoice", ran
    assert await town.down("careful") == 0, town.log("careful")
