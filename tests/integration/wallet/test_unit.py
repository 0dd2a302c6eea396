"""Coins in cents at a real nutshell mint that has sat as well: in, on, out, and back after every kind of end."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from core.clock import SystemClock
from core.effect import Permit
from core.money import Msat
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from relays.key import Keyring, new_words
from tests.lightning_part import MSAT_PER, Network, lightning_mint
from tests.mint_part import also
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet import restorer
from wallet.amount import EUR, SAT, USD, Amount
from wallet.cashu.mint import MintClient
from wallet.cashu.token import decode, encode
from wallet.error import InsufficientFunds, MintRefused, TokenKeyset, TokenUnit, TooDear, UnitAbsent
from wallet.model import LockTerms
from wallet.payment import State
from wallet.wallet import Wallet

CHILD = Path(__file__).with_name("crashing_part.py")
ROOT = Path(__file__).parents[3]
CLOCK = SystemClock()
# Every point of every kind of saga is killed at in test_nutshell.py; here are those that leave most open.
SENT = ["after_answer"]
TAKEN = ["before_request"]
PAID = ["commit_1", "after_answer"]


@dataclass
class Part:
    """A mint with two units, the network that its Lightning pays into, and wallets on disk."""

    url: str
    network: Network
    http: aiohttp.ClientSession
    path: Path
    stack: contextlib.AsyncExitStack

    async def wallet(self, name: str, words: str = "") -> Wallet:
        database: Database = await open_database(self.path / f"{name}.db", seal=unsigned_seal, clock=CLOCK)
        self.stack.push_async_callback(database.aclose)
        mint = MintClient(self.url, self.http, allow)
        return Wallet(database, Keyring(words or new_words()), CLOCK, allow, [mint], permit_for=Permit)

    async def funded(self, name: str, cents: int, words: str = "") -> Wallet:
        wallet = await self.wallet(name, words)
        made = await wallet.foreign.deposit("cents", self.url, Amount(cents, USD), EFFECT, PERMIT)
        assert made.price == Msat(cents * MSAT_PER[USD])
        await wallet._keeper.poll("cents")
        assert await live(wallet, USD) == cents
        return wallet

    async def killed(self, name: str, words: str, point: str, action: str, argument: str = "-") -> None:
        """Run the operation in a child, which dies at that point."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(CHILD),
            *(str(self.path / f"{name}.db"), self.url, words, point, action, argument),
            env={"PYTHONPATH": str(ROOT), "PATH": os.defpath, "HOME": str(self.path)},
            cwd=self.path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == -9, (out, error.decode())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory) -> AsyncIterator[tuple[str, Network]]:
    """One mint for all tests here; each has wallets, words and databases of its own."""
    path = tmp_path_factory.mktemp("mint")
    async with lightning_mint(path, extra=also(USD, backend="TrueWallet")) as made:
        yield made


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """The counters have no such gaps here, and each search costs a second."""
    monkeypatch.setattr(restorer, "GAP", 50)


@pytest.fixture
async def part(tmp_path, town) -> AsyncIterator[Part]:
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Part(*town, http, tmp_path, stack)


async def live(wallet: Wallet, unit: str) -> int:
    return sum(one.live for one in await wallet.balance() if one.unit == unit)


async def clean(*wallets: Wallet) -> None:
    for wallet in wallets:
        audit = await wallet.audit()
        assert audit.differences == ()
        assert audit.open_operations == 0
        for one in audit.mints:
            assert sum(one.journal.values()) == 0
            assert one.journal.get("wallet", 0) == one.live + one.reserved


async def test_two_units_go_in_on_and_out_and_never_into_each_other(part):
    one, two = await part.funded("one", 500), await part.wallet("two")
    offers = await one.foreign.offers(part.url)
    assert [(offer.unit, offer.active, offer.deposits, offer.withdrawals) for offer in offers] == [
        (SAT, True, True, True),
        (USD, True, True, True),
    ]
    await one.deposit("sat", part.url, 40, EFFECT, PERMIT)
    await one.poll("sat")
    token = await one.foreign.send("send", part.url, Amount(120, USD), EFFECT, PERMIT)
    assert decode(token).unit == USD
    got = await two.foreign.receive("receive", token, EFFECT, PERMIT)
    assert got.amount + got.fee == Amount(120, USD)
    assert (await live(two, USD), await live(two, SAT)) == (got.amount.value, 0)

    text = part.network.invoice(100 * MSAT_PER[USD])
    with pytest.raises(TooDear):
        await one.foreign.pay("dear", part.url, text, Amount(101, USD), EFFECT, PERMIT)
    paid = await one.foreign.pay("pay", part.url, text, Amount(110, USD), EFFECT, PERMIT)
    assert paid.gross - paid.fee == Amount(100, USD)
    assert paid.fee <= Amount(10, USD)
    assert part.network.tried(text) == 1
    await clean(one, two)
    assert await live(one, SAT) == 40
    assert await live(one, USD) == 500 - 120 - 1 - paid.gross.value

    # What a job would be paid with is sat alone, of which there is too little here.
    terms = LockTerms(part.url, Msat.of_sat(100), two.key.compressed, CLOCK.now() + 600, quote_id="quote")
    with pytest.raises(InsufficientFunds):
        await one.lock("lock", terms, Msat.of_sat(200), EFFECT, PERMIT)
    with pytest.raises(UnitAbsent):
        await one.foreign.deposit("euro", part.url, Amount(5, EUR), EFFECT, PERMIT)


async def test_a_token_that_names_another_unit_than_its_coins_is_refused_here_and_would_be_there(part):
    one, two = await part.funded("one", 64), await part.wallet("two")
    token = await one.foreign.send("send", part.url, Amount(20, USD), EFFECT, PERMIT)
    coins = decode(token).proofs
    with pytest.raises((TokenKeyset, MintRefused)):
        await two.receive("as sat", encode(part.url, SAT, coins), EFFECT, PERMIT)
    with pytest.raises(TokenUnit):
        await two.foreign.receive("as euro", encode(part.url, EUR, coins), EFFECT, PERMIT)
    with pytest.raises(TokenUnit):
        await two.receive("toll", token, EFFECT, PERMIT)
    assert (await two.foreign.receive("as it is", token, EFFECT, PERMIT)).amount.unit == USD
    await clean(one, two)


async def test_the_words_find_both_units(part):
    words = new_words()
    lost = await part.funded("lost", 200, words)
    await lost.deposit("sat", part.url, 30, EFFECT, PERMIT)
    await lost.poll("sat")
    await lost.foreign.send("send", part.url, Amount(50, USD), EFFECT, PERMIT)
    again = await part.wallet("again", words)
    found = {unit: (await again.restore(part.url, unit)).amount for unit in await again.units_at(part.url)}
    assert found == {SAT: 30, USD: 199}
    assert await again.foreign.send("on", part.url, Amount(10, USD), EFFECT, PERMIT)
    audit = await again.audit()
    assert audit.differences == ()


@pytest.mark.parametrize("point", SENT)
async def test_a_token_in_cents_survives_kill_9(part, point):
    words = new_words()
    await part.funded("buyer", 200, words)
    await part.killed("buyer", words, point, "send_cents")
    again = await part.wallet("buyer", words)
    assert await again.recover() == 0
    view = await again.find("send")
    assert view is not None
    assert (view.state, view.unit) == (State.DONE, USD)
    other = await part.wallet("other")
    got = await other.foreign.receive("receive", str(view.result), EFFECT, PERMIT)
    assert got.amount + got.fee == Amount(20, USD)
    await clean(again, other)
    assert await live(again, USD) == 200 - 20 - view.fee


@pytest.mark.parametrize("point", TAKEN)
async def test_a_token_that_is_taken_in_cents_survives_kill_9(part, point):
    words = new_words()
    giver, taker = await part.funded("giver", 64), await part.wallet("taker", words)
    token = await giver.foreign.send("send", part.url, Amount(32, USD), EFFECT, PERMIT)
    await part.killed("taker", words, point, "receive_cents", token)
    again = await part.wallet("taker", words)
    await again.recover()
    assert (await again.foreign.receive("receive", token, EFFECT, PERMIT)).amount == Amount(31, USD)
    assert (await live(again, USD), await live(again, SAT)) == (31, 0)
    await clean(giver, taker, again)


@pytest.mark.parametrize("point", PAID)
async def test_an_invoice_that_is_paid_with_cents_survives_kill_9(part, point):
    words = new_words()
    await part.funded("payer", 200, words)
    text = part.network.invoice(100 * MSAT_PER[USD])
    await part.killed("payer", words, point, "pay_cents", text)
    again = await part.wallet("payer", words)
    assert await again.recover() == 0
    paid = await again.foreign.pay("pay", part.url, text, Amount(150, USD), EFFECT, PERMIT)
    assert paid.gross - paid.fee == Amount(100, USD)
    assert part.network.tried(text) == 1
    await clean(again)
    assert await live(again, USD) == 200 - paid.gross.value
