"""Taking what is ours, again and again: a refund that a seller spoils by a half, a mint that is away for long."""

import asyncio

import pytest

from tests.model_mint import Fault, ModelMint
from tests.unit.wallet.test_wallet import EFFECT, PERMIT, Stage, clean
from wallet.error import MintRefused, TokenSpent
from wallet.model import Locked
from wallet.payment import State


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.fund(255)
    return made


async def take_some(stage: Stage, locked: Locked, coins: int) -> int:
    """The seller claims so many of the coins; what they are worth."""
    payload = {**locked.payload, "proofs": list(locked.payload["proofs"])[:coins]}
    await stage.seller.claim("some", payload, EFFECT, PERMIT)
    return sum(int(item["amount"]) for item in payload["proofs"])


@pytest.mark.parametrize("seen", [True, False])
async def test_a_seller_that_claims_a_part_does_not_keep_the_rest_from_coming_back(stage, seen):
    locked = await stage.lock(sat=22)  # several coins
    assert len(locked.ys) > 1
    stage.clock.seconds += 700
    taken = await take_some(stage, locked, len(locked.ys) - 1)
    if not seen:
        with pytest.raises(TokenSpent):
            await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    assert (await stage.buyer.spent(stage.mint.url, locked.ys)).state == "MIXED"
    received = await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    assert received.amount_sat + received.fee_sat == locked.amount.value // 1000 - taken
    accounts = (await stage.buyer.audit()).mints[0].journal
    assert accounts["payments"] == taken
    await clean(stage.buyer, stage.seller)


async def test_a_refund_that_came_too_late_for_every_coin_stays_refused(stage):
    locked = await stage.lock(sat=22)
    stage.clock.seconds += 700
    await take_some(stage, locked, len(locked.ys))
    for _ in range(2):
        with pytest.raises(TokenSpent):
            await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
        assert (await stage.buyer.spent(stage.mint.url, locked.ys)).state == "SPENT"
    await clean(stage.buyer)


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.REFUSED])
async def test_a_refund_that_is_refused_for_days_uses_up_no_counters_and_grows_no_plan(stage, fault):
    await stage.lock()
    stage.clock.seconds += 700
    stage.mint.script = lambda name: fault if name == "swap" else Fault.NONE
    with pytest.raises(MintRefused):
        await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    counters = await stage.buyer_db.select("counter")
    plan = len((await stage.buyer_db.select("operation", {"id": "refund"}))[0]["plan"])
    for _ in range(20):
        with pytest.raises(MintRefused):
            await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    assert await stage.buyer_db.select("counter") == counters, "holes in the counters hide money from a restore"
    assert len((await stage.buyer_db.select("operation", {"id": "refund"}))[0]["plan"]) == plan
    stage.mint.rotate()
    stage.wire()
    await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    assert (await stage.buyer.find("refund")).state is State.DONE
    await clean(stage.buyer)


async def test_a_mint_that_is_away_uses_up_counters_once_and_not_with_every_job(stage):
    before = (await stage.buyer_db.select("counter"))[0]["next"]
    stage.mint.script = lambda name: Fault.UNREACHABLE
    for number in range(40):
        with pytest.raises(MintRefused):
            await stage.lock(f"lock {number}")
        with pytest.raises(MintRefused):
            await stage.buyer.send(f"send {number}", stage.mint.url, 10, EFFECT, PERMIT)
    assert (await stage.buyer_db.select("counter"))[0]["next"] - before < 20, "a restore would miss later coins"
    assert await stage.buyer.find("lock 39") is None
    stage.wire()
    await stage.lock()
    await clean(stage.buyer)


async def unpaid() -> tuple[Stage, ModelMint]:
    stage = Stage()
    stage.mint.auto_pay = False
    deposit = await stage.buyer.deposit("late", stage.mint.url, 50, EFFECT, PERMIT)
    stage.clock.seconds += deposit.expires_at - stage.clock.now() + 300
    assert (await stage.buyer.poll("late")).state is State.WAITING
    return stage, stage.mint


async def test_an_invoice_that_is_seen_paid_after_it_expired_is_minted():
    stage, mint = await unpaid()
    stage.clock.seconds += 6 * 86_400
    assert (await stage.buyer.poll("late")).state is State.WAITING
    mint.auto_pay = True
    assert (await stage.buyer.poll("late")).state is State.DONE
    assert await stage.live() == 50


async def test_the_background_asks_for_a_late_payment_about_once_an_hour():
    stage, mint = await unpaid()
    ready, stop = asyncio.Event(), asyncio.Event()
    mint.calls.clear()
    end = stage.clock.now() + 4 * 3_600
    task = asyncio.create_task(stage.buyer.run(ready, stop))
    while stage.clock.now() < end:
        await asyncio.sleep(0)
    assert 3 <= mint.calls.count("quote") < 20
    mint.auto_pay = True
    while await stage.live() == 0:
        await asyncio.sleep(0)
        assert stage.clock.now() < end + 2 * 3_600
    stop.set()
    await task
    await clean(stage.buyer)


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.BUSY, Fault.REFUSED])
async def test_a_paid_deposit_that_the_mint_turns_away_is_minted_later_with_the_same_counters(fault):
    stage = Stage()
    await stage.buyer.deposit("deposit", stage.mint.url, 50, EFFECT, PERMIT)
    stage.mint.script = lambda name: fault if name == "mint" else Fault.NONE
    for _ in range(20):
        assert (await stage.buyer.poll("deposit")).state is State.WAITING
    assert (await stage.buyer_db.select("counter"))[0]["next"] < 10
    stage.mint.rotate()
    stage.wire()
    assert (await stage.buyer.poll("deposit")).state is State.DONE
    assert await stage.live() == 50
    await clean(stage.buyer)


@pytest.mark.parametrize("rotates", [False, True])
async def test_a_deposit_that_was_turned_away_and_whose_first_request_arrives_late_is_booked(rotates):
    stage = Stage()
    await stage.buyer.deposit("deposit", stage.mint.url, 50, EFFECT, PERMIT)
    faults = iter([Fault.REQUEST_DELAYED, Fault.REFUSED])
    stage.mint.script = lambda name: next(faults, Fault.NONE) if name == "mint" else Fault.NONE
    assert (await stage.buyer.poll("deposit")).state is State.WAITING
    stage.mint.deliver()
    if rotates:
        stage.mint.rotate()
        stage.wire()
    assert (await stage.buyer.poll("deposit")).state is State.DONE
    assert await stage.live() == 50
    await clean(stage.buyer)
