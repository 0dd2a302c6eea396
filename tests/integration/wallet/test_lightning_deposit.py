"""The wallet at a real mint whose Lightning is as real: deposits that other nodes pay, with true payment hashes.

The three nodes are shared by all tests here; each test has wallets, words and databases of its own.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from core.money import Msat
from relays.key import Keyring, new_words
from tests.lightning.mint import Mint, lightning_mint
from tests.lightning.network import CAPACITY_SAT, Network, network
from tests.lightning.process import until
from tests.lightning.purse import CLOCK, Part, arrived, clean, live, proves, purses
from tests.lightning.rpc import Bill, Fate, NodeRefused
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.cashu.mint import MintClient
from wallet.error import InvoiceRejected
from wallet.invoice import read_invoice
from wallet.model import LockTerms, VerifyTerms
from wallet.payment import State

pytestmark = [pytest.mark.needs("lightning"), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory) -> AsyncIterator[Network]:
    async with network(tmp_path_factory.mktemp("lightning")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mint(net, tmp_path_factory) -> AsyncIterator[Mint]:
    folder = tmp_path_factory.mktemp("lightning-mint")
    async with lightning_mint("mint", folder, folder, net.near) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def part(request, tmp_path, net, mint) -> AsyncIterator[Part]:
    await net.settled()
    async with purses(net, mint, tmp_path) as found:
        yield found
        request.node.add_report_section("teardown", "lightning", f"{net.tails()}\n{mint.process.tail()}")


# ---------------------------------------------------------------------------- the nodes themselves


@pytest.mark.parametrize(
    ("source", "target", "fee_msat"),
    [("near", "middle", 0), ("middle", "near", 0), ("near", "far", 1001), ("far", "near", 1001)],
)
async def test_nodes_pay_each_other_and_the_one_between_takes_its_fee(net, source, target, fee_msat):
    payer, payee = getattr(net, source).client, getattr(net, target).client
    bill = await payee.bill(1000, "both ways")
    paid = await payer.pay(bill.invoice)
    proves(paid)
    assert paid.payment_hash == bill.payment_hash == read_invoice(bill.invoice).payment_hash
    booked = await payer.payment(bill.payment_hash)
    assert booked is not None
    assert (booked.amount_msat, booked.fee_msat, booked.preimage) == (-1_000_000 - fee_msat, fee_msat, paid.preimage)
    assert await payee.bill_fate(bill.payment_hash) is Fate.PAID


async def test_an_invoice_is_paid_once(net):
    bill = await net.middle.client.bill(21)
    proves(await net.near.client.pay(bill.invoice))
    with pytest.raises(NodeRefused, match="paid already"):
        await net.near.client.pay(bill.invoice)


async def _expired(bill: Bill) -> None:
    async def is_over() -> bool:
        return read_invoice(bill.invoice).expires_at < CLOCK.now()

    await until(is_over, "the invoice to expire")


async def test_an_expired_invoice_is_refused(net):
    bill = await net.middle.client.bill(21, expiry_s=1)
    await _expired(bill)
    with pytest.raises(NodeRefused, match="expired"):
        await net.near.client.pay(bill.invoice)
    assert await net.middle.client.bill_fate(bill.payment_hash) is Fate.EXPIRED


async def test_more_than_a_channel_has_is_refused_and_moves_nothing(net):
    await net.settled()
    before = [await node.local_sat() for node in net.nodes]
    bill = await net.middle.client.bill(CAPACITY_SAT)
    paid = await net.near.client.pay(bill.invoice)
    assert (paid.success, paid.preimage) == (False, None)
    assert await net.near.client.payment_fate(bill.payment_hash) is Fate.FAILED
    assert [await node.local_sat() for node in net.nodes] == before


async def test_wallets_ask_their_server_nothing_that_it_does_not_know(net):
    assert net.server.unknown == []


# ---------------------------------------------------------------------------- money in


@pytest.mark.parametrize("payer", ["middle", "far"])
async def test_a_deposit_is_paid_by_another_node_and_becomes_coins(part, payer):
    wallet, node = await part.wallet("wallet"), getattr(part.net, payer)
    held = await part.net.near.local_sat()
    deposit = await wallet.deposit("deposit", part.mint.url, 2000, EFFECT, PERMIT)
    assert (await wallet.poll("deposit")).state is not State.DONE
    assert await live(wallet) == 0
    proves(await node.client.pay(deposit.invoice))
    await arrived(wallet, "deposit")
    assert await live(wallet) == 2000
    assert await part.net.near.local_sat() == held + 2000
    await clean(wallet)


async def test_an_invoice_of_another_network_is_not_shown(part):
    wallet = await part.wallet("wallet", currencies=frozenset({"bc"}))
    with pytest.raises(InvoiceRejected):
        await wallet.deposit("deposit", part.mint.url, 100, EFFECT, PERMIT)
    await clean(wallet)


async def test_the_mint_tells_who_listens_that_an_invoice_was_paid(part):
    wallet = await part.wallet("wallet")
    quote = await MintClient(part.mint.url, part.http, allow).request_quote(
        64, "sat", Keyring(new_words()).key("quote", "x").compressed, PERMIT
    )
    async with part.http.ws_connect(f"{part.mint.url}/v1/ws") as socket:
        params = {"kind": "bolt11_mint_quote", "filters": [quote.id], "subId": "one"}
        await socket.send_json({"jsonrpc": "2.0", "id": 0, "method": "subscribe", "params": params})
        proves(await part.net.middle.client.pay(quote.request))
        states = []
        async with asyncio.timeout(60):
            while "PAID" not in states:
                said = await socket.receive_json()
                states += [said["params"]["payload"]["state"]] if "params" in said else []
    assert states[0] == "UNPAID"
    await clean(wallet)


async def test_a_deposit_that_is_paid_while_the_mint_is_dead_becomes_coins_after_it(part, tmp_path):
    async with lightning_mint("own", tmp_path, tmp_path, part.net.near) as own:
        part.mint = own
        wallet = await part.wallet("wallet")
        deposit = await wallet.deposit("deposit", own.url, 300, EFFECT, PERMIT)
        await own.process.kill()
        proves(await part.net.middle.client.pay(deposit.invoice))
        await own.start()
        await arrived(wallet, "deposit")
        assert await live(wallet) == 300
        await clean(wallet)


async def test_money_from_lightning_pays_for_work(part):
    buyer, seller = await part.funded("buyer", 1000, part.net.far), await part.wallet("seller")
    until_then = CLOCK.now() + 600
    terms = LockTerms(part.mint.url, Msat.of_sat(100), seller.key.compressed, until_then, quote_id="quote")
    locked = await buyer.lock("lock", terms, Msat.of_sat(110), EFFECT, PERMIT)
    wanted = VerifyTerms("quote", terms.price, (part.mint.url,), seller.key.compressed, CLOCK.now() + 60)
    await seller.verify(locked.payload, wanted)
    received = await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    assert received.amount_sat == 100
    assert (await live(buyer), await live(seller)) == (1000 - locked.gross.sat_down(), 100)
    await clean(buyer, seller)
