"""Taking what is ours, again and again: a refund that a seller spoils by a half, a mint that is away for long."""

import pytest

from tests.model_mint import Fault
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
