"""The wallet at a real nutshell mint with its default fees."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import orjson
import pytest
import pytest_asyncio

from core.clock import SystemClock
from core.effect import Permit
from core.error import InvalidInput
from core.money import Msat
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from relays.key import Keyring, new_words
from tests.mint_part import running_mint
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.cashu.mint import MintClient
from wallet.cashu.token import decode, encode
from wallet.error import (
    InsufficientFunds,
    MintRefused,
    MintUnlisted,
    OperationReused,
    TokenForged,
    TokenLock,
    TokenMint,
    TokenReused,
    TokenSpent,
    TokenTooSmall,
    TokenUnit,
    TooDear,
)
from wallet.model import Locked, LockTerms, Received, VerifyTerms
from wallet.payment import State
from wallet.wallet import Wallet

CHILD = Path(__file__).with_name("crashing_part.py")
ROOT = Path(__file__).parents[3]
CLOCK = SystemClock()


@dataclass
class Part:
    """A mint's address, a session, and wallets with databases on disk."""

    url: str
    http: aiohttp.ClientSession
    path: Path
    stack: contextlib.AsyncExitStack

    async def database(self, name: str) -> Database:
        database = await open_database(self.path / f"{name}.db", seal=unsigned_seal, clock=CLOCK)
        self.stack.push_async_callback(database.aclose)
        return database

    async def wallet(self, name: str, words: str | None = None, urls: tuple[str, ...] = ()) -> Wallet:
        mints = [MintClient(url, self.http, allow) for url in (self.url, *urls)]
        return Wallet(await self.database(name), Keyring(words or new_words()), CLOCK, allow, mints, permit_for=Permit)

    async def funded(self, name: str, sat: int, words: str | None = None) -> Wallet:
        wallet = await self.wallet(name, words)
        await wallet.deposit("deposit", self.url, sat, EFFECT, PERMIT)
        assert (await wallet.poll("deposit")).state is State.DONE
        return wallet

    def terms(self, seller: Wallet, sat: int = 10, locktime: int = 600, quote: str = "quote") -> LockTerms:
        until = CLOCK.now() + locktime
        return LockTerms(self.url, Msat.of_sat(sat), seller.key.compressed, until, quote_id=quote)

    def wanted(self, seller: Wallet, sat: int = 10, quote: str = "quote") -> VerifyTerms:
        return VerifyTerms(quote, Msat.of_sat(sat), (self.url,), seller.key.compressed, CLOCK.now() + 60)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mint_url(tmp_path_factory) -> AsyncIterator[str]:
    """One mint for all tests here; each has wallets, words and databases of its own."""
    async with running_mint(tmp_path_factory.mktemp("mint")) as url:
        yield url


@pytest.fixture
async def part(tmp_path, mint_url) -> AsyncIterator[Part]:
    async with contextlib.AsyncExitStack() as stack:
        url = mint_url
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield Part(url, http, tmp_path, stack)


async def clean(*wallets: Wallet) -> None:
    for wallet in wallets:
        audit = await wallet.audit()
        assert audit.differences == ()
        assert audit.open_operations == 0


async def live(wallet: Wallet) -> int:
    return sum(balance.live for balance in await wallet.balance())


async def test_a_payment_goes_from_deposit_to_claim(part):
    buyer, seller = await part.funded("buyer", 1000), await part.wallet("seller")
    terms = part.terms(seller)
    locked = await buyer.lock("lock", terms, Msat.of_sat(20), EFFECT, PERMIT)
    assert locked.gross.value <= buyer.lock_cost(part.url, terms.price).value
    assert await buyer.lock("lock", terms, Msat.of_sat(20), EFFECT, PERMIT) == locked
    verified = await seller.verify(locked.payload, part.wanted(seller))
    assert (verified.net, verified.ys) == (Msat.of_sat(10), locked.ys)
    assert (await buyer.spent(part.url, locked.ys)).state == "UNSPENT"
    received = await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    assert received == Received(10, 1)
    assert await seller.claim("claim", locked.payload, EFFECT, PERMIT) == received
    with pytest.raises(TokenSpent):
        await seller.claim("claim again", locked.payload, EFFECT, PERMIT)
    state = await buyer.spent(part.url, locked.ys)
    assert state.state == "SPENT"
    assert all(report.witness for report in state.coins.values())
    with pytest.raises(OperationReused):
        await buyer.lock("lock", replace(terms, price=Msat.of_sat(11)), Msat.of_sat(20), EFFECT, PERMIT)
    await clean(buyer, seller)
    assert await live(buyer) == 1000 - locked.gross.sat_down()


async def test_a_token_is_sent_and_received_once(part):
    alice, bob = await part.funded("alice", 100), await part.wallet("bob")
    token = await alice.send("send", part.url, 21, EFFECT, PERMIT)
    assert await alice.send("send", part.url, 21, EFFECT, PERMIT) == token
    assert await bob.receive("receive", token, EFFECT, PERMIT) == Received(20, 1)
    assert await bob.receive("receive", token, EFFECT, PERMIT) == Received(20, 1)
    with pytest.raises(TokenSpent):
        await bob.receive("receive again", token, EFFECT, PERMIT)
    unsent = await alice.send("unsent", part.url, 8, EFFECT, PERMIT)
    assert await alice.receive("take back", unsent, EFFECT, PERMIT) == Received(7, 1)
    await clean(alice, bob)


async def _after(locktime: int) -> None:
    while CLOCK.now() <= locktime + 1:
        await asyncio.sleep(0.2)


async def test_a_locked_payment_is_refunded_after_its_locktime_and_not_before(part):
    buyer, seller = await part.funded("buyer", 200), await part.wallet("seller")
    terms = part.terms(seller, locktime=8)
    locked = await buyer.lock("lock", terms, Msat.of_sat(20), EFFECT, PERMIT)
    with pytest.raises(InvalidInput):
        await buyer.refund("refund", "lock", EFFECT, PERMIT)
    await _after(terms.locktime)
    refunded = await buyer.refund("refund", "lock", EFFECT, PERMIT)
    assert refunded == Received(10, 1)
    assert await buyer.refund("refund", "lock", EFFECT, PERMIT) == refunded
    with pytest.raises(TokenSpent):
        await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    await clean(buyer, seller)


async def test_a_refund_after_the_claim_finds_the_race_lost(part):
    buyer, seller = await part.funded("buyer", 200), await part.wallet("seller")
    terms = part.terms(seller, locktime=8)
    locked = await buyer.lock("lock", terms, Msat.of_sat(20), EFFECT, PERMIT)
    await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    await _after(terms.locktime)
    with pytest.raises(TokenSpent):
        await buyer.refund("refund", "lock", EFFECT, PERMIT)
    assert (await buyer.spent(part.url, locked.ys)).state == "SPENT"
    await clean(buyer, seller)


async def test_bad_payments_are_told_apart(part):
    buyer, seller = await part.funded("buyer", 500), await part.wallet("seller")
    locked = await buyer.lock("lock", part.terms(seller), Msat.of_sat(20), EFFECT, PERMIT)
    wanted = part.wanted(seller)

    def bent(**changes: object) -> dict[str, object]:
        return {**orjson.loads(orjson.dumps(locked.payload)), **changes}

    first, *others = bent()["proofs"]
    cases = [
        (bent(mint="http://127.0.0.1:1"), wanted, TokenMint),
        (bent(mint="https://evil.test"), wanted, TokenMint),
        (bent(unit="usd"), wanted, TokenUnit),
        (locked.payload, replace(wanted, price=Msat.of_sat(11)), TokenTooSmall),
        (locked.payload, replace(wanted, min_locktime=CLOCK.now() + 700), TokenLock),
        (locked.payload, replace(wanted, wallet_pubkey=buyer.key.compressed), TokenLock),
        (bent(proofs=[first, *({**p, "C": first["C"]} for p in others)]), wanted, TokenForged),
        (bent(proofs=[first, *({k: v for k, v in p.items() if k != "dleq"} for p in others)]), wanted, TokenForged),
        (bent(proofs=[{**first, "amount": first["amount"] * 2}, *others]), wanted, TokenForged),
    ]
    for payload, terms, error in cases:
        with pytest.raises(error):
            await seller.verify(payload, terms)
    await seller.verify(locked.payload, wanted)
    await seller.verify(locked.payload, wanted)
    with pytest.raises(TokenReused):
        await seller.verify(bent(id="other"), replace(wanted, quote_id="other"))
    await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    fresh = await part.wallet("fresh", seller._keyring.words)
    with pytest.raises(TokenSpent):
        await fresh.verify(locked.payload, wanted)


async def test_a_token_whose_second_coin_is_forged_is_refused_before_the_mint_is_asked(part):
    alice, bob = await part.funded("alice", 100), await part.wallet("bob")
    payment = decode(await alice.send("send", part.url, 5, EFFECT, PERMIT))
    first, second = payment.proofs
    forged = encode(payment.mint, "sat", [replace(first, dleq=None), replace(second, c=first.c)])
    with pytest.raises(TokenForged):
        await bob.receive("receive", forged, EFFECT, PERMIT)
    no_dleq = encode(payment.mint, "sat", [replace(first, dleq=None), replace(second, c=first.c, dleq=None)])
    with pytest.raises(MintRefused):
        await bob.receive("receive without dleq", no_dleq, EFFECT, PERMIT)
    await clean(alice, bob)


async def test_what_is_too_dear_too_much_or_elsewhere_begins_nothing(part):
    buyer, seller = await part.funded("buyer", 50), await part.wallet("seller")
    with pytest.raises(TooDear):
        await buyer.lock("a", part.terms(seller), Msat.of_sat(10), EFFECT, PERMIT)
    with pytest.raises(InsufficientFunds):
        await buyer.lock("b", part.terms(seller, 60), Msat.of_sat(100), EFFECT, PERMIT)
    with pytest.raises(MintUnlisted):
        await buyer.lock("c", replace(part.terms(seller), mint="https://evil.test"), Msat(1), EFFECT, PERMIT)
    for op_id in "abc":
        assert await buyer.find(op_id) is None
    assert await live(buyer) == 50
    with pytest.raises(TokenTooSmall):
        await seller.receive("one", await buyer.send("one", part.url, 1, EFFECT, PERMIT), EFFECT, PERMIT)
    await clean(buyer, seller)


async def test_ten_locks_at_once_all_succeed(part):
    buyer, seller = await part.funded("buyer", 500), await part.wallet("seller")
    jobs = [
        buyer.lock(f"lock-{n}", part.terms(seller, 7, quote=f"q{n}"), Msat.of_sat(20), EFFECT, PERMIT)
        for n in range(10)
    ]
    locked = await asyncio.gather(*jobs)
    assert len({y for one in locked for y in one.ys}) == sum(len(one.ys) for one in locked)
    claims = [seller.claim(f"claim-{n}", one.payload, EFFECT, PERMIT) for n, one in enumerate(locked)]
    assert [received.amount_sat for received in await asyncio.gather(*claims)] == [7] * 10
    await clean(buyer, seller)
    assert sum(balance.locked for balance in await buyer.balance()) == 0


async def test_a_wallet_is_restored_from_its_words(part):
    words = new_words()
    buyer, seller = await part.funded("buyer", 300, words), await part.wallet("seller")
    for n in range(3):
        await buyer.lock(f"lock-{n}", part.terms(seller, 9 + n), Msat.of_sat(40), EFFECT, PERMIT)
    await buyer.receive("own", await buyer.send("send", part.url, 33, EFFECT, PERMIT), EFFECT, PERMIT)
    again = await part.wallet("again", words)
    restored = await again.restore(part.url)
    assert restored.amount == await live(buyer) == await live(again)
    assert (await again.restore(part.url)).amount == 0
    # Its counters were raised past everything it had made, so it can go on at once.
    assert await again.lock("new", part.terms(seller), Msat.of_sat(20), EFFECT, PERMIT)
    await clean(again)


async def test_a_mint_that_is_gone_refuses_cleanly_and_a_restarted_one_serves_on(part, tmp_path):
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(running_mint(tmp_path / "second"))
        wallet = await part.wallet("two", urls=(url,))
        await wallet.deposit("deposit", url, 64, EFFECT, PERMIT)
        await wallet.poll("deposit")
    terms = replace(part.terms(wallet), mint=url)
    with pytest.raises(MintRefused):
        await wallet.lock("gone", terms, Msat.of_sat(20), EFFECT, PERMIT)
    held = {balance.mint: balance for balance in await wallet.balance()}
    assert (held[url].live, held[url].reserved) == (64, 0)
    async with running_mint(tmp_path / "second", port=int(url.rsplit(":", 1)[1])):
        assert await wallet.lock("back", terms, Msat.of_sat(20), EFFECT, PERMIT)
        await clean(wallet)


async def killed(part: Part, name: str, words: str, point: str, action: str, argument: str) -> None:
    """Run the operation in a child, which dies at that point."""
    database = str(part.path / f"{name}.db")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(CHILD),
        *(database, part.url, words, point, action, argument),
        env={"PYTHONPATH": str(ROOT), "PATH": os.defpath, "HOME": str(part.path)},
        cwd=part.path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, error = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == -9, (out, error.decode())


POINTS = ["commit_1", "before_request", "after_answer", "commit_2"]


@pytest.mark.parametrize("point", POINTS)
async def test_a_lock_survives_kill_9(part, point):
    words, sellers = new_words(), new_words()
    seller = await part.wallet("seller", sellers)
    before = await part.funded("buyer", 200, words)
    assert await live(before) == 200
    await killed(part, "buyer", words, point, "lock", seller.key.compressed)
    buyer = await part.wallet("buyer", words)
    assert await buyer.recover() == 0
    await clean(buyer)
    view = await buyer.find("lock")
    assert view is not None
    assert isinstance(view.result, Locked)
    assert view.state is State.DONE
    await seller.verify(view.result.payload, part.wanted(seller))
    assert (await seller.claim("claim", view.result.payload, EFFECT, PERMIT)).amount_sat == 10
    assert await live(buyer) == 200 - view.result.gross.sat_down()
    await clean(buyer, seller)


@pytest.mark.parametrize("point", POINTS)
async def test_a_claim_survives_kill_9(part, point):
    words = new_words()
    seller = await part.wallet("seller", words)
    buyer = await part.funded("buyer", 200)
    locked = await buyer.lock("lock", part.terms(seller), Msat.of_sat(20), EFFECT, PERMIT)
    payload = part.path / "payload.json"
    payload.write_bytes(orjson.dumps(locked.payload))
    await killed(part, "seller", words, point, "claim", str(payload))
    again = await part.wallet("seller", words)
    assert await again.recover() == 0
    assert (await again.claim("claim", locked.payload, EFFECT, PERMIT)).amount_sat == 10
    assert await live(again) == 10
    await clean(again, buyer)


async def test_a_deposit_is_minted_in_the_background(part):
    wallet = await part.wallet("one")
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(wallet.run(ready, stop))
    await ready.wait()
    await wallet.deposit("deposit", part.url, 42, EFFECT, PERMIT)
    started = time.monotonic()
    while await live(wallet) != 42:
        assert time.monotonic() - started < 20
        await asyncio.sleep(0.1)
    stop.set()
    await task
    await clean(wallet)
