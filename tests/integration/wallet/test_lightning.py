"""Invoices paid from a real nutshell mint with its default input fee, over a Lightning whose receipts are true."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio
from bolt11 import decode

from core.effect import Permit
from core.error import StoreUncertain
from core.money import Msat
from relays.key import Keyring, new_words
from tests.integration.wallet.test_nutshell import CLOCK, POINTS, Part, clean, killed, live
from tests.lightning_part import FAILED, PENDING, SETTLED, UNKNOWN, Network, lightning_mint
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.cashu.mint import MintClient
from wallet.error import InvoiceUnfit, MintLimited, MintRefused, PaymentUnknown, TooDear
from wallet.model import Paid
from wallet.payment import State
from wallet.wallet import Wallet

CEILING = Msat.of_sat(300)


@dataclass
class Town(Part):
    """The same with a network of payees."""

    network: Network

    async def pay(self, wallet: Wallet, text: str, op_id: str = "pay") -> Paid:
        return await wallet.pay(op_id, self.url, text, CEILING, EFFECT, PERMIT)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mint(tmp_path_factory) -> AsyncIterator[tuple[str, Network]]:
    """One mint for all tests here."""
    async with lightning_mint(tmp_path_factory.mktemp("mint")) as found:
        yield found


@pytest.fixture
async def town(tmp_path, mint) -> AsyncIterator[Town]:
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Town(mint[0], http, tmp_path, stack, mint[1])


def proves(paid: Paid, text: str) -> bool:
    return hashlib.sha256(bytes.fromhex(paid.preimage)).hexdigest() == decode(text).payment_hash


async def test_invoices_are_paid_with_receipts_and_all_change_comes_back(town):
    wallet = await town.funded("payer", 1000)
    spent = 0
    for n, msat in enumerate((1_000, 20_500, 100_000, 255_000)):
        text = town.network.invoice(msat)
        paid = await town.pay(wallet, text, f"pay {n}")
        assert proves(paid, text)
        assert paid.gross.value <= wallet.pay_cost(town.url, Msat(msat)).value
        assert await town.pay(wallet, text.upper(), f"pay {n}") == paid
        assert town.network.tried(text) == 1
        spent += paid.gross.sat_down()
    assert await live(wallet) == 1000 - spent
    await clean(wallet)
    again = await town.wallet("again", wallet._keyring.words)
    assert (await again.restore(town.url)).amount == 1000 - spent


async def test_an_invoice_of_the_same_mint_is_settled_inside_and_has_no_receipt(town):
    payer, payee = await town.funded("payer", 200), await town.wallet("payee")
    deposit = await payee.deposit("deposit", town.url, 50, EFFECT, PERMIT)
    paid = await town.pay(payer, deposit.invoice)
    assert (paid.preimage, paid.amount) == ("", Msat.of_sat(50))
    assert (await payee.poll("deposit")).state is State.DONE
    assert await live(payee) == 50
    assert await live(payer) == 200 - paid.gross.sat_down()
    await clean(payer, payee)


@pytest.mark.parametrize("fate", [FAILED, UNKNOWN])
async def test_a_payment_that_fails_leaves_the_coins(town, fate):
    wallet = await town.funded("payer", 300)
    text = town.network.invoice(100_000, fate)
    with pytest.raises(MintRefused):
        await town.pay(wallet, text)
    assert await live(wallet) == 300
    town.network.ends(text, SETTLED)
    assert proves(await town.pay(wallet, text, "again"), text)
    await clean(wallet)


async def test_a_payment_under_way_is_pending_and_ends_as_it_goes(town):
    wallet = await town.funded("payer", 1000)
    good, bad = town.network.invoice(100_000, PENDING), town.network.invoice(100_000, PENDING)
    for op_id, text in (("good", good), ("bad", bad)):
        with pytest.raises(PaymentUnknown):
            await town.pay(wallet, text, op_id)
        assert (await wallet.find(op_id)).pending
    audit = await wallet.audit()
    assert (audit.differences, audit.open_operations, audit.pending_sat) == ((), 2, 200)
    town.network.ends(good, SETTLED)
    town.network.ends(bad, FAILED)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(wallet.run(ready, stop))
    async with asyncio.timeout(60):
        while (await wallet.audit()).open_operations:
            await asyncio.sleep(0.1)
    stop.set()
    await task
    paid = await town.pay(wallet, good, "good")
    assert proves(paid, good)
    with pytest.raises(MintRefused):
        await town.pay(wallet, bad, "bad")
    assert (town.network.tried(good), town.network.tried(bad)) == (1, 1)
    assert await live(wallet) == 1000 - paid.gross.sat_down()
    await clean(wallet)


async def test_a_false_receipt_leaves_the_payment_unknown(town):
    wallet = await town.funded("payer", 200)
    text = town.network.invoice(100_000, false=True)
    with pytest.raises(PaymentUnknown):
        await town.pay(wallet, text)
    await wallet.recover()
    assert (await wallet.find("pay")).state is State.UNKNOWN


async def test_what_cannot_be_paid_is_refused_before_anything_is_reserved(town):
    wallet = await town.funded("payer", 200)
    text = town.network.invoice(100_000)
    with pytest.raises(TooDear):
        await wallet.pay("dear", town.url, text, Msat.of_sat(101), EFFECT, PERMIT)
    with pytest.raises(InvoiceUnfit):
        await town.pay(wallet, town.network.invoice(100_000, age=4_000), "late")
    assert await live(wallet) == 200
    assert town.network.tried(text) == 0
    await clean(wallet)


async def test_the_limits_of_a_mint_are_read_and_kept_to(town, tmp_path):
    limits = {"MINT_MAX_MELT_BOLT11_SAT": "50", "MINT_MAX_MINT_BOLT11_SAT": "90"}
    async with lightning_mint(tmp_path / "small", extra=limits) as (url, network):
        wallet = Wallet(
            await town.database("small"),
            Keyring(new_words()),
            CLOCK,
            allow,
            [MintClient(url, town.http, allow)],
            permit_for=Permit,
        )
        with pytest.raises(MintLimited):
            await wallet.deposit("large", url, 91, EFFECT, PERMIT)
        await wallet.deposit("deposit", url, 90, EFFECT, PERMIT)
        assert (await wallet.poll("deposit")).state is State.DONE
        with pytest.raises(MintLimited):
            await wallet.pay("large", url, network.invoice(51_000), CEILING, EFFECT, PERMIT)
        assert await wallet.pay("pay", url, network.invoice(50_000), CEILING, EFFECT, PERMIT)


@pytest.mark.parametrize("fate", [SETTLED, PENDING])
@pytest.mark.parametrize("point", POINTS)
async def test_a_payment_survives_kill_9(town, point, fate):
    if fate == PENDING and point == "commit_2":
        fate = SETTLED  # the second commit is the booking
    words = new_words()
    before = await town.funded("payer", 300, words)
    assert await live(before) == 300
    text = town.network.invoice(100_000, fate)
    await killed(town, "payer", words, point, "pay", text)
    wallet = await town.wallet("payer", words)
    if fate == PENDING:
        assert await wallet.recover() == 1
        assert (await wallet.find("pay")).pending
        town.network.ends(text, SETTLED)
    assert await wallet.recover() == 0
    paid = await town.pay(wallet, text)
    assert proves(paid, text)
    assert town.network.tried(text) == 1
    assert await live(wallet) == 300 - paid.gross.sat_down()
    await clean(wallet)


class FullDisk:
    """Fails at the n-th commit: either nothing was written, or all of it and nobody knows."""

    def __init__(self, database, commits: int, *, written: bool) -> None:
        self._database, self._left, self._written = database, commits, written

    async def commit(self, writes):
        self._left -= 1
        if self._left == 0:
            if self._written:
                await self._database.commit(writes)
            raise StoreUncertain
        await self._database.commit(writes)

    async def select(self, *args, **kwargs):
        return await self._database.select(*args, **kwargs)


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("commits", [1, 2])
async def test_a_payment_survives_a_commit_of_which_nobody_knows(town, commits, written):
    words = new_words()
    await town.funded("payer", 300, words)
    database = await town.database("payer")
    mints = [MintClient(town.url, town.http, allow)]
    failing = Wallet(
        FullDisk(database, commits, written=written), Keyring(words), CLOCK, allow, mints, permit_for=Permit
    )
    text = town.network.invoice(100_000)
    with pytest.raises(StoreUncertain):
        await town.pay(failing, text)
    assert town.network.tried(text) == commits - 1
    wallet = Wallet(database, Keyring(words), CLOCK, allow, mints, permit_for=Permit)
    assert await wallet.recover() == 0
    paid = await town.pay(wallet, text)
    assert proves(paid, text)
    assert town.network.tried(text) == 1
    assert await live(wallet) == 300 - paid.gross.sat_down()
    await clean(wallet)
