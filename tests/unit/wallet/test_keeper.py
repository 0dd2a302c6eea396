"""The wallet's background work: what was paid is minted, and no mint keeps another one waiting."""

import asyncio

import pytest

from core.money import Msat
from node.storage.memory import MemoryDatabase
from tests.model_mint import Fault, ModelMint
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, make_wallet
from wallet.error import MintBusy, MintSilent, PaymentUnknown
from wallet.model import LockTerms
from wallet.payment import State
from wallet.wallet import Wallet

HANGS_S = 60


class PatientClock(HandClock):
    """Lets others work whenever somebody sleeps."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await asyncio.sleep(0.001)


class Stage:
    """A wallet at two mints."""

    def __init__(self) -> None:
        self.clock = PatientClock()
        self.mints = [ModelMint(f"https://{name}.test", clock=self.clock) for name in ("a", "b")]
        self.db = MemoryDatabase(clock=self.clock)
        self.wallet = make_wallet(BUYER_WORDS, self.mints, self.clock, self.db)

    async def fund(self, mint: ModelMint, op_id: str) -> None:
        await self.wallet.deposit(op_id, mint.url, 100, EFFECT, PERMIT)
        assert (await self.wallet.poll(op_id)).state is State.DONE


async def lock(wallet: Wallet, mint: ModelMint, op_id: str):
    key = make_wallet(SELLER_WORDS, [mint], HandClock()).key.compressed
    terms = LockTerms(mint.url, Msat.of_sat(10), key, 2_000_000_000, quote_id=op_id)
    return await wallet.lock(op_id, terms, Msat.of_sat(30), EFFECT, PERMIT)


@pytest.mark.parametrize("fault", ["keys", "fees"])
async def test_a_paid_deposit_is_minted_however_often_its_keyset_changes(fault):
    """The keyset is rotated between plan and request, and for its successor no new plan can be made."""
    stage = Stage()
    mint = stage.mints[0]
    await stage.fund(mint, "first")
    await stage.wallet.deposit("more", mint.url, 64, EFFECT, PERMIT)
    real = mint.mint

    async def rotating(quote_id, outputs, signature, permit):
        mint.mint = real
        if fault == "fees":
            mint.rotate(10_000_000)
        else:
            mint.rotate()
            mint.script = lambda name: Fault.REQUEST_LOST if name == "keys" else Fault.NONE
        return await real(quote_id, outputs, signature, permit)

    mint.mint = rotating
    assert (await stage.wallet.poll("more")).state is State.WAITING
    assert (await stage.wallet.find("more")).reason == "outdated"
    mint.script = lambda _: Fault.NONE
    mint.rotate(100)
    stage.clock.seconds += 400
    assert (await stage.wallet.poll("more")).state is State.DONE
    assert [balance.live for balance in await stage.wallet.balance()] == [164, 0]
    assert (await stage.wallet.audit()).clean


@pytest.mark.parametrize("call", ["swap", "mint"])
async def test_a_request_that_was_called_too_fast_and_forwarded_all_the_same_is_found(call):
    stage = Stage()
    mint = stage.mints[0]
    await stage.fund(mint, "first")
    real = getattr(mint, call)

    async def busy(*given):
        await real(*given)
        raise MintBusy

    setattr(mint, call, busy)
    if call == "swap":
        await lock(stage.wallet, mint, "lock")
        assert (await stage.wallet.find("lock")).state is State.DONE
    else:
        await stage.fund(mint, "second")
    assert (await stage.wallet.audit()).clean


async def test_a_lock_whose_first_copy_is_late_is_not_given_up_since_the_second_one_came_too_soon():
    stage = Stage()
    mint = stage.mints[0]
    await stage.fund(mint, "first")
    faults = [Fault.REQUEST_DELAYED, Fault.BUSY]
    mint.script = lambda name: faults.pop(0) if faults and name == "swap" else Fault.NONE
    with pytest.raises(PaymentUnknown):
        await lock(stage.wallet, mint, "lock")
    mint.deliver()
    await stage.wallet.recover()
    assert (await stage.wallet.find("lock")).state is State.DONE
    assert (await stage.wallet.audit()).clean


async def test_a_lock_that_a_mint_turns_away_for_good_comes_back_after_a_while():
    stage = Stage()
    mint = stage.mints[0]
    await stage.fund(mint, "first")
    faults = [Fault.REQUEST_LOST]
    mint.script = lambda name: (faults.pop(0) if faults else Fault.BUSY) if name == "swap" else Fault.NONE
    with pytest.raises(PaymentUnknown):
        await lock(stage.wallet, mint, "lock")
    stage.clock.seconds += 500
    await stage.wallet.recover()
    assert (await stage.wallet.find("lock")).state is State.UNKNOWN
    stage.clock.seconds += 200
    await stage.wallet.recover()
    assert (await stage.wallet.find("lock")).state is State.REFUSED
    assert (await stage.wallet.balance())[0].live == 100


async def test_a_mint_that_never_answers_keeps_no_other_one_waiting():
    stage = Stage()
    dead, alive = stage.mints
    for number, mint in enumerate(stage.mints):
        mint.auto_pay = False
        await stage.wallet.deposit(f"deposit {number}", mint.url, 100, EFFECT, PERMIT)
    ended = asyncio.Event()

    async def hanging(quote_id):
        await ended.wait()
        raise MintSilent

    dead.quote = hanging
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(stage.wallet.run(ready, stop))
    async with asyncio.timeout(HANGS_S):
        await asyncio.sleep(0.05)  # by now the dead one is being asked
        alive.auto_pay = True
        while (await stage.wallet.find("deposit 1")).state is not State.DONE:
            await asyncio.sleep(0.001)
    stop.set()
    ended.set()
    await running


async def test_locked_coins_at_one_mint_are_asked_about_whatever_another_one_says():
    stage = Stage()
    locked = []
    for number, mint in enumerate(stage.mints):
        await stage.fund(mint, f"deposit {number}")
        locked.append(await lock(stage.wallet, mint, f"lock {number}"))
    dead, alive = stage.mints
    seller = make_wallet(SELLER_WORDS, [alive], stage.clock)
    await seller.claim("claim", locked[1].payload, EFFECT, PERMIT)
    dead.script = lambda _: Fault.REQUEST_LOST
    await stage.wallet._auditor.sweep()
    held = {balance.mint: balance.locked for balance in await stage.wallet.balance()}
    assert held[alive.url] == 0
    assert held[dead.url] > 0
