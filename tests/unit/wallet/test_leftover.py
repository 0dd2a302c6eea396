"""A mint that the owner took off the list: what is there comes back, and nothing new goes there."""

import pytest

from core.money import Msat
from tests.model_mint import Fault
from tests.unit.wallet.test_wallet import EFFECT, PERMIT, Stage, clean
from tests.wallet_part import BUYER_WORDS, SELLER_WORDS, make_wallet
from wallet.error import MintUnlisted, PaymentUnknown, TokenMint
from wallet.leftover import leftover
from wallet.model import Locked
from wallet.payment import State


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.fund(255)
    return made


def retire(stage: Stage) -> None:
    """Both take the mint off their lists and start again."""
    stage.buyer = make_wallet(BUYER_WORDS, [], stage.clock, stage.buyer_db, retired=[stage.mint])
    stage.seller = make_wallet(SELLER_WORDS, [], stage.clock, stage.seller_db, retired=[stage.mint])


async def test_a_mint_with_money_or_open_work_is_found_unless_it_is_on_the_list(stage):
    assert await leftover(stage.buyer_db, []) == (stage.mint.url,)
    assert await leftover(stage.buyer_db, [stage.mint.url + "/"]) == ()
    assert await leftover(stage.seller_db, []) == ()
    locked = await stage.lock()
    await stage.seller.verify(locked.payload, stage.wanted())
    assert await leftover(stage.seller_db, []) == (stage.mint.url,)


async def test_a_deposit_that_waits_keeps_its_mint():
    stage = Stage()
    stage.mint.auto_pay = False
    await stage.buyer.deposit("deposit", stage.mint.url, 50, EFFECT, PERMIT)
    assert await leftover(stage.buyer_db, []) == (stage.mint.url,)
    retire(stage)
    stage.mint.auto_pay = True
    assert (await stage.buyer.poll("deposit")).state is State.DONE


async def test_locked_money_comes_back_and_a_promised_payment_is_claimed(stage):
    first, _ = await stage.lock("first"), await stage.lock("second")
    await stage.seller.verify(first.payload, stage.wanted())
    retire(stage)
    await stage.seller.recover()
    assert (await stage.seller.claim("claim", first.payload, EFFECT, PERMIT)).amount_sat == 10
    assert (await stage.buyer.spent(stage.mint.url, first.ys)).state == "SPENT"
    stage.clock.seconds += 700
    assert (await stage.buyer.refund("refund", "second", EFFECT, PERMIT)).amount_sat > 0
    assert (await stage.buyer.restore(stage.mint.url)).amount == 0
    await clean(stage.buyer, stage.seller)


async def test_nothing_new_is_begun_there(stage):
    token = await stage.buyer.send("send", stage.mint.url, 20, EFFECT, PERMIT)
    locked = await stage.lock()
    retire(stage)
    calls = len(stage.mint.calls)
    assert stage.buyer.mints == ()
    url = stage.mint.url
    for refused in (
        lambda: stage.buyer.deposit("new", url, 50, EFFECT, PERMIT),
        lambda: stage.buyer.send("new", url, 50, EFFECT, PERMIT),
        lambda: stage.lock("new"),
    ):
        with pytest.raises(MintUnlisted):
            await refused()
    with pytest.raises(MintUnlisted):
        stage.buyer.lock_cost(url, Msat(1_000))
    with pytest.raises(TokenMint):
        await stage.seller.receive("new", token, EFFECT, PERMIT)
    with pytest.raises(TokenMint):
        await stage.seller.verify(locked.payload, stage.wanted())
    assert len(stage.mint.calls) == calls
    assert await stage.buyer.find("new") is None
    assert await stage.lock() == locked, "what was begun is still answered"


async def test_a_payment_in_doubt_is_resolved_after_its_mint_left_the_list(stage):
    stage.mint.script = lambda name: Fault.ANSWER_LOST
    with pytest.raises(PaymentUnknown):
        await stage.lock()
    stage.wire()
    retire(stage)
    assert await stage.buyer.recover() == 0
    assert isinstance((await stage.buyer.find("lock")).result, Locked)
