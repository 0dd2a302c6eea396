"""Counters and coins are compared with mints that say what is not so, and say it without end."""

import asyncio
from dataclasses import replace

import pytest

from core.money import Msat
from node.storage.memory import MemoryDatabase
from tests.model_mint import Fault, ModelMint
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, make_wallet
from wallet import holding, restorer
from wallet.error import MintLied, MintRefused
from wallet.model import LockTerms
from wallet.payment import State

HANGS_S = 60


class Stage:
    """A wallet with money, started again."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.mint = ModelMint(clock=self.clock)
        self.db = MemoryDatabase(clock=self.clock)
        self.restart()

    def restart(self) -> None:
        self.wallet = make_wallet(BUYER_WORDS, [self.mint], self.clock, self.db)

    async def lock(self):
        key = make_wallet(SELLER_WORDS, [self.mint], self.clock).key.compressed
        terms = LockTerms(self.mint.url, Msat.of_sat(10), key, self.clock.now() + 600, quote_id="lock")
        return await self.wallet.lock("lock", terms, Msat.of_sat(30), EFFECT, PERMIT)


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.wallet.deposit("deposit", made.mint.url, 100, EFFECT, PERMIT)
    assert (await made.wallet.poll("deposit")).state is State.DONE
    made.restart()
    return made


async def test_a_mint_that_calls_everything_signed_raises_no_counter_and_the_node_starts(stage):
    one = next(iter(stage.mint.signed.values()))
    real = stage.mint.restore

    async def everything(outputs):
        await asyncio.sleep(0)
        return {output.b: replace(one, keyset=output.keyset) for output in outputs}

    before = await stage.db.select("counter")
    stage.mint.restore = everything
    async with asyncio.timeout(HANGS_S):
        await stage.wallet.recover()
    assert await stage.db.select("counter") == before
    with pytest.raises(MintRefused):
        await stage.lock()
    stage.mint.restore = real
    assert await stage.lock()


async def test_a_mint_that_really_signs_everything_is_not_listened_to_for_ever(stage, monkeypatch):
    monkeypatch.setattr(restorer, "MOST", 500)
    asked = 0

    async def everything(outputs):
        nonlocal asked
        asked += len(outputs)
        await asyncio.sleep(0)
        fresh = tuple(output for output in outputs if output.b not in stage.mint.signed)
        if fresh:
            stage.mint._sign(fresh)
        return {output.b: stage.mint.signed[output.b] for output in outputs}

    stage.mint.restore = everything
    async with asyncio.timeout(HANGS_S):
        await stage.wallet.recover()
        assert asked <= 700
        with pytest.raises(MintLied):
            await stage.wallet.restore(stage.mint.url)


async def test_a_start_does_not_wait_for_a_mint_that_takes_its_time(stage, monkeypatch):
    monkeypatch.setattr(holding, "_WARM_S", 0.05)

    async def never(outputs):
        await asyncio.Event().wait()

    stage.mint.restore = never
    async with asyncio.timeout(HANGS_S):
        assert await stage.wallet.recover() == 0


async def test_a_claim_is_not_taken_up_again_in_the_middle_of_a_restore(stage):
    """The restore has read which outputs are an open operation's, and takes every other coin."""
    locked = await stage.lock()
    seller_db = MemoryDatabase(clock=stage.clock)
    seller = make_wallet(SELLER_WORDS, [stage.mint], stage.clock, seller_db)
    stage.mint.script = lambda name: Fault.UNREACHABLE if name == "swap" else Fault.NONE
    with pytest.raises(MintRefused):
        await seller.claim("claim", locked.payload, EFFECT, PERMIT)
    stage.mint.script = lambda _: Fault.NONE
    reached, go = asyncio.Event(), asyncio.Event()
    real = stage.mint.restore

    async def slowly(outputs):
        reached.set()
        await go.wait()
        return await real(outputs)

    stage.mint.restore = slowly
    restoring = asyncio.create_task(seller.restore(stage.mint.url))
    async with asyncio.timeout(HANGS_S):
        await reached.wait()
        claiming = asyncio.create_task(seller.claim("claim", locked.payload, EFFECT, PERMIT))
        await asyncio.sleep(0.05)
        row = (await seller_db.select("operation", {"id": "claim"}))[0]
        assert row["state"] == str(State.REFUSED)
        go.set()
        await restoring
        await claiming
    assert (await seller.audit()).clean
