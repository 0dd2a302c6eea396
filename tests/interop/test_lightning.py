"""Foreign machines and foreign customers settle with us over Lightning: invoices of real mints, paid by real mints.

Two nutshell mints share one network of payees whose receipts are true (`tests.lightning_part`): what one mint pays, the
other sees paid. The machine and the customers are written with libraries that others use.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from bolt11 import decode

from core.clock import SystemClock
from core.effect import Permit
from core.money import Msat
from node.storage.memory import MemoryDatabase
from relays.key import Keyring, new_words
from tests.lightning_part import PATIENT, PENDING, SETTLED, Network, lightning_mint
from tests.market_part import PATIENT as WINDOW
from tests.market_part import Market, Spec, market, run, until
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.cashu.mint import MintClient
from wallet.payment import State
from wallet.wallet import Wallet

pytestmark = [pytest.mark.needs("node"), pytest.mark.asyncio(loop_scope="module")]
SCRIPTS = Path(__file__).parent / "node"
ECHO_PAID = '\n[[sell]]\nkind = 5050\nprice_msat = 21000\nprovider = "echo"\n'
HANGS_S = 180.0
BUY = ("buy", "--timeout", "150", "--kind")
FOREIGN = "5999"  # a kind that only the foreign machine serves
ONLY_MARKET = {**WINDOW, 'order = ["dvm", "builtin"]': 'order = ["dvm"]'}


@dataclass
class Town:
    """A market, and somebody's wallet at another mint that pays whatever invoice is posted to it."""

    market: Market
    network: Network
    payers: str  # the mint whose own invoices pay themselves
    payees: str  # the mint that waits until somebody pays
    wallet: Wallet
    pay_url: str


@asynccontextmanager
async def _payer(mint: str, http: aiohttp.ClientSession) -> AsyncIterator[tuple[Wallet, str]]:
    """A customer's wallet behind one address, as a browser extension or a phone would be."""
    client, clock = MintClient(mint, http, allow), SystemClock()
    wallet = Wallet(MemoryDatabase(clock=clock), Keyring(new_words()), clock, allow, [client], permit_for=Permit)
    await wallet.deposit("fund", mint, 1_000, EFFECT, PERMIT)

    async def funded() -> bool:
        return (await wallet.poll("fund")).state is State.DONE

    await until(funded, "the customer's coins")

    async def pay(request: web.Request) -> web.Response:
        invoice = await request.text()
        paid = await wallet.pay(f"pay {invoice}", mint, invoice, Msat.of_sat(100), EFFECT, PERMIT)
        return web.Response(text=paid.preimage)

    app = web.Application()
    app.router.add_post("/pay", pay)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield wallet, f"http://127.0.0.1:{port}/pay"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    folder = tmp_path_factory.mktemp("lightning")
    async with AsyncExitStack() as stack:
        payers, network = await stack.enter_async_context(lightning_mint(folder))
        payees, _ = await stack.enter_async_context(lightning_mint(folder, extra=PATIENT, network=network))
        nodes = {
            "seller": Spec(ECHO_PAID, mints=[payees]),
            "buyer": Spec(replace=ONLY_MARKET, mints=[payers]),
        }
        opened = await stack.enter_async_context(market(folder, nodes, mint=False))
        wallet, pay_url = await stack.enter_async_context(_payer(payers, opened.http))
        await opened.fund("buyer", 500)
        yield Town(opened, network, payers, payees, wallet, pay_url)


async def _script(name: str, **options: str) -> dict[str, Any]:
    argv = [f"--{option}={value}" for option, value in ({"wait": "150"} | options).items()]
    ran = await run("node", name, *argv, cwd=SCRIPTS, timeout=HANGS_S)
    assert ran.out, ran.err
    report: dict[str, Any] = json.loads(ran.out)
    return report


async def _bought(town: Town, text: str, **options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Our node buys from a foreign machine; the job as it ended, and what the machine says."""
    machine = _machine(town, text=text, **options)
    known = {one.pubkey for one in await town.market.events() if one.kind == 31_990}

    async def announced() -> bool:
        assert not machine.done(), machine.result()
        return bool({one.pubkey for one in await town.market.events() if one.kind == 31_990} - known)

    await until(announced, "the machine")
    before = await town.market.balance("buyer")
    ran = await town.market.vendo("buyer", *BUY, FOREIGN, "--input", text, timeout=HANGS_S)
    assert ran.code == 0, (ran.out, ran.err)
    job = ran.json
    said = await machine
    assert said["ok"], said
    spent = before["live"] - (await town.market.balance("buyer"))["live"]
    assert spent == job["cost_msat"] // 1000, "the books say what left"
    return job, said


def _machine(town: Town, **options: str) -> asyncio.Task[dict[str, Any]]:
    given = {"relay": town.market.relay, "mint": town.payees, "sat": "15", "kind": FOREIGN, **options}
    return asyncio.ensure_future(_script("lightning_dvm.mjs", **given))


async def test_a_foreign_machine_that_wants_its_money_first_is_paid_and_delivers(town: Town) -> None:
    job, said = await _bought(town, "buy me, ünïcode ✓")
    assert (job["result"], job["seller"], job["provider"]) == ("buy me, ünïcode ✓", said["machine"], "dvm")
    assert (job["money"], job["paid_msat"]) == ("claimed", 15_000)
    assert ["pay", "bolt11"] in said["pays"]
    assert ["pay", "cashu", town.payers, "sat"] in said["pays"]
    assert said["messages"] == 0, "it is told nothing: it sees its invoice paid"


async def test_a_foreign_machine_that_delivers_first_is_paid_for_its_result(town: Town) -> None:
    job, said = await _bought(town, "first the work", when="after")
    assert (job["result"], job["seller"], job["money"]) == ("first the work", said["machine"], "claimed")
    assert job["paid_msat"] == 15_000


async def test_the_invoice_is_paid_once_though_we_are_killed_while_it_is_under_way(town: Town) -> None:
    town.network.default(PENDING)
    buying = asyncio.ensure_future(_bought(town, "over a crash"))
    try:
        invoice = await until(lambda: _under_way(town), "the payment to be under way")
    finally:
        town.network.default(SETTLED)
    town.market.nodes["buyer"].process.kill()
    await town.market.nodes["buyer"].process.wait()
    buying.cancel()
    await asyncio.gather(buying, return_exceptions=True)
    town.network.ends(invoice, SETTLED)
    town.market.children.remove(town.market.nodes.pop("buyer"))
    await town.market.up("buyer")
    (request,) = [one for one in await town.market.requests("buyer") if one.value("i") == "over a crash"]

    async def ended() -> dict[str, Any] | None:
        jobs = await town.market.get("buyer", "node/compute/jobs")
        return next((one for one in jobs if one["request_id"] == request.id and one["closed"]), None)

    job = await until(ended, "the job's end")
    assert (job["money"], job["paid_msat"]) == ("claimed", 15_000)
    assert town.network.tried(invoice) == 1


async def _under_way(town: Town) -> str | None:
    """The invoice of a machine's quote that a mint was told to pay."""
    for event in await town.market.events():
        for tag in event.all("amount"):
            text = tag[2] if len(tag) > 2 else ""
            if text and town.network.known(text) and town.network.tried(text) and _is_pending(town, text):
                return text
    return None


def _is_pending(town: Town, invoice: str) -> bool:
    return town.network.read(decode(invoice).payment_hash)["fate"] == PENDING


async def test_we_buy_from_a_seller_that_has_no_mint_in_common_with_us(town: Town) -> None:
    ran = await town.market.vendo("buyer", *BUY, "5050", "--input", "from mint to mint", timeout=HANGS_S)
    assert ran.code == 0, (ran.out, ran.err)
    assert ran.json["result"] == "from mint to mint"
    assert ran.json["seller"] == town.market.rings["seller"].node.pubkey
    assert "Lightning invoice before the work" in ran.json["why"][0]


def _customer(town: Town, script: str, text: str, **options: str) -> asyncio.Task[dict[str, Any]]:
    given = {
        "relay": town.market.relay, "provider": town.market.rings["seller"].node.pubkey, "text": text,
        "wallet": town.pay_url, **options,
    }  # fmt: skip
    return asyncio.ensure_future(_script(script, **given))


@pytest.mark.parametrize("script", ["paying_customer.mjs", "ndk_customer.mjs"])
async def test_a_foreign_customer_pays_our_invoice_and_gets_its_result(town: Town, script: str) -> None:
    before = await town.market.balance("seller")
    said = await _customer(town, script, f"hello from {script}")
    assert said["ok"], said
    assert said["result"] == f"hello from {script}"
    assert (said["amount"], said["paid"], said["results"]) == ("21000", 1, 1)
    assert (await town.market.balance("seller"))["live"] - before["live"] == 21
    sale = next(one for one in await _sales(town) if one["customer"] == said["customer"])
    assert (sale["state"], sale["paid_by"], sale["earned_msat"]) == ("done", "invoice", 21_000)


async def _sales(town: Town) -> list[dict[str, Any]]:
    return list(await town.market.get("seller", "node/market/sales"))


async def test_what_was_paid_while_our_node_was_killed_is_worked_for_when_it_is_up_again(town: Town) -> None:
    before = {sale["request_id"] for sale in await _sales(town)}
    customer = _customer(town, "paying_customer.mjs", "paid meanwhile", delay="3")

    async def quoted() -> bool:
        return any(sale["state"] == "quoted" and sale["request_id"] not in before for sale in await _sales(town))

    await until(quoted, "the quote")
    town.market.nodes["seller"].process.kill()
    await town.market.nodes["seller"].process.wait()
    town.market.children.remove(town.market.nodes.pop("seller"))
    paid = len(list(town.network.folder.glob("*.try.*")))

    async def has_paid() -> bool:
        return len(list(town.network.folder.glob("*.try.*"))) > paid

    await until(has_paid, "the customer's payment")
    await town.market.up("seller")
    said = await customer
    assert said["ok"], said
    assert said["result"] == "paid meanwhile"
