"""The wallet pays foreign nodes through a real mint on real Lightning, whoever is killed or held up meanwhile.

The three nodes are shared by all tests here; each test has wallets, words and databases of its own.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
import pytest_asyncio
from bolt11 import Bolt11, Feature, Features, FeatureState, MilliSatoshi, TagChar, Tags, encode

from core.money import Msat
from tests.lightning.mint import Mint, lightning_mint
from tests.lightning.network import Network, network
from tests.lightning.node import Node
from tests.lightning.process import until
from tests.lightning.purse import CLOCK, Part, arrived, clean, live, proves, purses
from tests.lightning.rpc import Bill, Fate
from tests.wallet_part import EFFECT, PERMIT
from wallet.error import InsufficientFunds, InvoiceUnfit, MintRefused, PaymentUnknown
from wallet.lightning_error import InvoiceKnown
from wallet.model import LockTerms, Paid
from wallet.wallet import Wallet

pytestmark = [pytest.mark.needs("lightning"), pytest.mark.asyncio(loop_scope="module")]

PRICE_SAT = 1000
CEILING = Msat.of_sat(PRICE_SAT + 30)
FUNDS_SAT = 3000
LARGE_SAT = 600_000
HOP_MSAT = 1001  # what `middle` takes for forwarding the price
HOP_SAT = 2  # what the mint makes of it
SWAP_SAT = 1  # the mint's own fee for a few coins


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
        request.node.add_report_section("teardown", "lightning", f"{net.tails()}\n{found.mint.process.tail()}")


@pytest_asyncio.fixture(loop_scope="module")
async def own(part, tmp_path) -> AsyncIterator[Part]:
    """The same with a mint that is the test's alone, and may be killed."""
    async with lightning_mint("own", tmp_path, tmp_path, part.net.near) as mint:
        part.mint = mint
        yield part


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hasty_mint(net, tmp_path_factory) -> AsyncIterator[Mint]:
    folder = tmp_path_factory.mktemp("hasty-mint")
    async with lightning_mint("hasty", folder, folder, net.near, patience_s=0.5) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def hasty(part, hasty_mint) -> Part:
    """The same with a mint that calls PENDING what takes longer than half a second."""
    part.mint = hasty_mint
    return part


async def pay(part: Part, wallet: Wallet, bill: Bill | str, op_id: str = "pay", ceiling: Msat = CEILING) -> Paid:
    invoice = bill if isinstance(bill, str) else bill.invoice
    return await wallet.pay(op_id, part.mint.url, invoice, ceiling, EFFECT, PERMIT)


async def check_paid(wallet: Wallet, paid: Paid, bill: Bill, payee: Node, had: int, fee_sat: int) -> None:
    """The receipt is the invoice's, the payee has it, and what was not needed of the reserve came back."""
    assert sha256(bytes.fromhex(paid.preimage)).hexdigest() == bill.payment_hash
    booked = await payee.client.payment(bill.payment_hash)
    assert booked is not None
    assert (booked.amount_msat, booked.preimage) == (PRICE_SAT * 1000, paid.preimage)
    assert (paid.amount, paid.fee) == (Msat.of_sat(PRICE_SAT), Msat.of_sat(fee_sat))
    assert await live(wallet) == had - PRICE_SAT - fee_sat
    await clean(wallet)


@asynccontextmanager
async def drained(net: Network) -> AsyncIterator[None]:
    """`middle` has too little for `far` to forward a large payment, and nobody before it can know."""
    much = await net.middle.channel_sat(net.far) - LARGE_SAT // 2
    proves(await net.middle.client.pay((await net.far.client.bill(much)).invoice))
    try:
        yield
    finally:
        proves(await net.far.client.pay((await net.middle.client.bill(much)).invoice))
        await net.near.forget_failures()


async def resolved(part: Part, wallet: Wallet, bill: Bill, ceiling: Msat = CEILING) -> Paid:
    """Ask again under the same id until the fate of the payment is known."""

    async def known() -> Paid | None:
        try:
            return await pay(part, wallet, bill, ceiling=ceiling)
        except PaymentUnknown:
            return None

    found = await until(known, "the payment to be known")
    assert found is not None
    return found


def nowhere(sat: int) -> str:
    """A good invoice of a node to which no way leads."""
    tags = Tags()
    tags.add(TagChar.payment_hash, sha256(b"nobody").hexdigest())
    tags.add(TagChar.payment_secret, "11" * 32)
    tags.add(TagChar.description, "nowhere")
    tags.add(
        TagChar.features,
        Features.from_feature_list(
            {
                Feature.var_onion_optin: FeatureState.required,
                Feature.payment_secret: FeatureState.required,
            }
        ),
    )
    return encode(Bolt11("bcrt", CLOCK.now(), tags, MilliSatoshi(sat * 1000)), "22" * 32)


@pytest.mark.parametrize(("payee", "fee_sat"), [("middle", SWAP_SAT), ("far", SWAP_SAT + HOP_SAT)])
async def test_a_foreign_node_is_paid_and_what_the_way_did_not_cost_comes_back(part, payee, fee_sat):
    wallet, node = await part.funded("wallet", FUNDS_SAT), getattr(part.net, payee)
    bill = await node.client.bill(PRICE_SAT)
    paid = await pay(part, wallet, bill)
    await check_paid(wallet, paid, bill, node, FUNDS_SAT, fee_sat)
    assert await pay(part, wallet, bill) == paid
    assert await live(wallet) == FUNDS_SAT - PRICE_SAT - fee_sat


async def test_an_invoice_is_paid_once_whoever_asks(part):
    wallet = await part.funded("wallet", FUNDS_SAT)
    bill = await part.net.middle.client.bill(PRICE_SAT)
    await pay(part, wallet, bill)
    had = await live(wallet)
    with pytest.raises(InvoiceKnown):
        await pay(part, wallet, bill, "again")
    assert await live(wallet) == had
    await clean(wallet)


async def test_an_invoice_to_which_no_way_leads_moves_nothing(part):
    wallet = await part.funded("wallet", FUNDS_SAT)
    with pytest.raises(MintRefused):
        await pay(part, wallet, nowhere(PRICE_SAT))
    assert await live(wallet) == FUNDS_SAT
    await clean(wallet)


async def test_a_hop_that_has_too_little_moves_nothing(part):
    """The mint's node sees a way and tries it; the refusal comes from the hop."""
    wallet, bill = await part.funded("wallet", LARGE_SAT + 50_000), await part.net.far.client.bill(LARGE_SAT)
    async with drained(part.net):
        with pytest.raises(MintRefused):
            await pay(part, wallet, bill, ceiling=Msat.of_sat(LARGE_SAT + 50_000))
    assert await part.net.near.client.payment_fate(bill.payment_hash) is Fate.FAILED
    assert await live(wallet) == LARGE_SAT + 50_000
    await clean(wallet)


async def test_a_payment_that_is_held_up_and_then_refused_comes_back(hasty):
    wallet, bill = await hasty.funded("wallet", LARGE_SAT + 50_000), await hasty.net.far.client.bill(LARGE_SAT)
    async with drained(hasty.net):
        hasty.net.middle.process.freeze()
        try:
            with pytest.raises(PaymentUnknown):
                await pay(hasty, wallet, bill, ceiling=Msat.of_sat(LARGE_SAT + 50_000))
            assert await live(wallet) < LARGE_SAT
        finally:
            hasty.net.middle.process.thaw()
        with pytest.raises(MintRefused):
            await resolved(hasty, wallet, bill, ceiling=Msat.of_sat(LARGE_SAT + 50_000))
    assert await live(wallet) == LARGE_SAT + 50_000
    await clean(wallet)


async def test_an_expired_invoice_is_not_tried(part):
    wallet = await part.funded("wallet", FUNDS_SAT)
    bill = await part.net.middle.client.bill(PRICE_SAT, expiry_s=1)

    async def is_over() -> bool:
        return await part.net.middle.client.bill_fate(bill.payment_hash) is Fate.EXPIRED

    await until(is_over, "the invoice to expire")
    with pytest.raises(InvoiceUnfit):
        await pay(part, wallet, bill)
    assert await part.net.near.client.payment_fate(bill.payment_hash) is Fate.UNKNOWN
    assert await live(wallet) == FUNDS_SAT
    await clean(wallet)


async def test_many_invoices_at_once_are_each_paid_once(part):
    wallet = await part.funded("wallet", 9000)
    bills = [await part.net.far.client.bill(PRICE_SAT) for _ in range(5)]

    async def one_of(bill: Bill) -> Paid:
        async def tried() -> Paid | None:
            try:
                return await pay(part, wallet, bill, f"pay {bill.payment_hash}")
            except InsufficientFunds:  # its coins lie with another payment that is under way, which brings change
                return None

        found = await until(tried, "coins that are free")
        assert found is not None
        return found

    paid = await asyncio.gather(*map(one_of, bills))
    for one, bill in zip(paid, bills, strict=True):
        assert sha256(bytes.fromhex(one.preimage)).hexdigest() == bill.payment_hash
        assert await part.net.far.client.bill_fate(bill.payment_hash) is Fate.PAID
    assert await live(wallet) == 9000 - sum(one.gross.sat_up() for one in paid)
    await clean(wallet)


async def test_a_payment_that_is_held_is_unknown_until_it_settles(hasty):
    wallet, bill = await hasty.funded("wallet", FUNDS_SAT), await hasty.net.far.client.bill(PRICE_SAT)
    async with hasty.net.far.holding():
        for _ in range(2):
            with pytest.raises(PaymentUnknown):
                await pay(hasty, wallet, bill)
        view = await wallet.find("pay")
        assert view is not None
        assert (view.state, view.pending) == ("unknown", True)
        assert await live(wallet) < FUNDS_SAT - PRICE_SAT
        assert (await wallet.audit()).pending_sat >= PRICE_SAT
    await check_paid(wallet, await resolved(hasty, wallet, bill), bill, hasty.net.far, FUNDS_SAT, SWAP_SAT + HOP_SAT)


@pytest.mark.parametrize("settles", ["while the mint is dead", "when it is back"])
async def test_a_mint_that_is_killed_while_it_pays_knows_afterwards(own, settles):
    wallet, bill = await own.funded("wallet", FUNDS_SAT), await own.net.far.client.bill(PRICE_SAT)
    async with own.net.far.holding():
        paying = asyncio.create_task(pay(own, wallet, bill))
        await own.net.on_its_way(bill)
        await own.mint.process.kill()
        with pytest.raises(PaymentUnknown):
            await paying
        if settles == "when it is back":
            await own.mint.start()
            with pytest.raises(PaymentUnknown):
                await pay(own, wallet, bill)
    if not own.mint.process.runs:
        await own.net.settled()
        await own.mint.start()
    await check_paid(wallet, await resolved(own, wallet, bill), bill, own.net.far, FUNDS_SAT, SWAP_SAT + HOP_SAT)


async def test_a_wallet_that_starts_anew_while_it_pays_finds_out(part):
    wallet, bill = await part.funded("wallet", FUNDS_SAT), await part.net.far.client.bill(PRICE_SAT)
    async with part.net.far.holding():
        paying = asyncio.create_task(pay(part, wallet, bill))
        await part.net.on_its_way(bill)
        paying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await paying
        wallet = await part.wallet("wallet")
        assert await wallet.recover() == 1
        assert await live(wallet) < FUNDS_SAT - PRICE_SAT

    async def is_over() -> bool:
        return await wallet.recover() == 0

    await until(is_over, "the wallet to find out")
    paid = await pay(part, wallet, bill)
    await check_paid(wallet, paid, bill, part.net.far, FUNDS_SAT, SWAP_SAT + HOP_SAT)


async def test_a_node_that_stands_still_while_it_is_paid_delays_the_answer_alone(hasty):
    wallet, bill = await hasty.funded("wallet", FUNDS_SAT), await hasty.net.middle.client.bill(PRICE_SAT)
    hasty.net.middle.process.freeze()
    try:
        with pytest.raises(PaymentUnknown):
            await pay(hasty, wallet, bill)
    finally:
        hasty.net.middle.process.thaw()
    await check_paid(wallet, await resolved(hasty, wallet, bill), bill, hasty.net.middle, FUNDS_SAT, SWAP_SAT)


async def test_an_invoice_of_the_same_mint_is_settled_inside_it_without_a_receipt(part):
    payer, payee = await part.funded("payer", FUNDS_SAT), await part.wallet("payee")
    await part.net.settled()
    held = await part.net.near.local_sat()
    deposit = await payee.deposit("deposit", part.mint.url, PRICE_SAT, EFFECT, PERMIT)
    paid = await pay(part, payer, deposit.invoice)
    assert (paid.preimage, paid.fee) == ("", Msat.of_sat(SWAP_SAT))
    await arrived(payee, "deposit")
    assert (await live(payer), await live(payee)) == (FUNDS_SAT - PRICE_SAT - SWAP_SAT, PRICE_SAT)
    assert await part.net.near.local_sat() == held
    await clean(payer, payee)


async def test_money_goes_from_one_node_through_a_job_s_payment_to_another(part):
    """Payer's Lightning, mint, ecash, lock, claim, mint, payee's Lightning."""
    net, price = part.net, Msat.of_sat(PRICE_SAT + 50)
    await net.settled()
    held, got = await net.near.local_sat(), await net.far.local_sat()
    buyer, seller = await part.funded("buyer", FUNDS_SAT, net.middle), await part.wallet("seller")
    terms = LockTerms(part.mint.url, price, seller.key.compressed, CLOCK.now() + 600, quote_id="quote")
    locked = await buyer.lock("lock", terms, Msat.of_sat(PRICE_SAT + 60), EFFECT, PERMIT)
    received = await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    assert received.amount_sat == PRICE_SAT + 50
    bill = await net.far.client.bill(PRICE_SAT)
    paid = await pay(part, seller, bill)
    await check_paid(seller, paid, bill, net.far, PRICE_SAT + 50, SWAP_SAT + HOP_SAT)
    await clean(buyer)
    # What the nodes say of it, who know nothing of ecash
    await net.settled()
    assert await net.far.local_sat() == got + PRICE_SAT
    left = await net.near.client.payment(bill.payment_hash)
    assert left is not None
    assert (left.amount_msat, left.fee_msat) == (-PRICE_SAT * 1000 - HOP_MSAT, HOP_MSAT)
    gained = await net.near.local_sat() - held
    assert FUNDS_SAT - PRICE_SAT - HOP_SAT <= gained <= FUNDS_SAT - PRICE_SAT - HOP_MSAT // 1000
    assert await live(buyer) + await live(seller) <= gained  # the mint can pay all that it owes
