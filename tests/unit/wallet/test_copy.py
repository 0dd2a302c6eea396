"""A wallet whose database is an old copy: what happened since is asked for, and nothing is paid twice."""

from copy import deepcopy

import pytest

from core.error import Unavailable
from core.money import Msat
from node.storage.memory import MemoryDatabase
from tests.model_mint import Fault, ModelMint
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, make_wallet
from wallet.error import MintRefused, PaymentUnknown
from wallet.model import LockTerms
from wallet.payment import State


class Stage:
    """A wallet with money, a seller, their mint, and a way to go back to an older state of the wallet's database."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.mint = ModelMint(clock=self.clock)
        self.db = MemoryDatabase(clock=self.clock)
        self.buyer = make_wallet(BUYER_WORDS, [self.mint], self.clock, self.db)
        self.seller = make_wallet(SELLER_WORDS, [self.mint], self.clock)

    def wire(self, *faults: Fault, call: str = "") -> None:
        left = list(faults)
        self.mint.script = lambda name: left.pop(0) if left and name.startswith(call) else Fault.NONE

    async def fund(self, sat: int, op_id: str = "deposit") -> None:
        await self.buyer.deposit(op_id, self.mint.url, sat, EFFECT, PERMIT)
        assert (await self.buyer.poll(op_id)).state is State.DONE

    def terms(self, quote: str = "quote", sat: int = 10) -> LockTerms:
        key = self.seller.key.compressed
        return LockTerms(self.mint.url, Msat.of_sat(sat), key, self.clock.now() + 600, quote_id=quote)

    async def lock(self, op_id: str, sat: int = 10):
        return await self.buyer.lock(op_id, self.terms(op_id, sat), Msat.of_sat(sat + 20), EFFECT, PERMIT)

    def copy(self) -> MemoryDatabase:
        """The rows as they are now."""
        made = MemoryDatabase(clock=self.clock)
        made._tables = deepcopy(self.db._tables)
        return made

    async def restored(self, copy: MemoryDatabase) -> None:
        self.db = copy
        self.buyer = make_wallet(BUYER_WORDS, [self.mint], self.clock, copy)
        await self.buyer.mark_copied()

    async def live(self) -> int:
        return sum(balance.live for balance in await self.buyer.balance())

    async def elsewhere(self) -> int:
        rows = await self.db.select("posting", {"account": "elsewhere"})
        return sum(row["amount"] for row in rows)


async def clean(stage: Stage) -> None:
    audit = await stage.buyer.audit()
    assert audit.clean, audit.differences
    assert audit.open_operations == 0


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.fund(255)
    return made


async def test_the_balance_after_a_restore_is_what_the_mint_says(stage):
    old = stage.copy()
    await stage.lock("first", 40)
    token = await stage.buyer.send("token", stage.mint.url, 17, EFFECT, PERMIT)
    await stage.seller.receive("token", token, EFFECT, PERMIT)
    await stage.fund(64, "more")
    true = await stage.live()
    await stage.restored(old)
    assert await stage.live() == 255
    await stage.buyer.recover()
    assert await stage.live() == true
    assert await stage.elsewhere() == 255 - true
    assert await stage.buyer.copied() == {stage.mint.url: "moved"}
    await clean(stage)


async def test_a_token_that_was_given_out_meanwhile_and_not_taken_comes_back(stage):
    """Its coins derive from the seed as change does, so nobody can tell the two apart; whoever is first has it."""
    old = stage.copy()
    await stage.buyer.send("token", stage.mint.url, 17, EFFECT, PERMIT)
    true = await stage.live()
    await stage.restored(old)
    await stage.buyer.recover()
    assert await stage.live() == true + 17
    await clean(stage)


async def test_a_counter_is_raised_past_every_signature_before_anything_is_asked_for(stage):
    old = stage.copy()
    for number in range(8):
        await stage.lock(f"lock-{number}", 5)
    signed = set(stage.mint.signed)
    await stage.restored(old)
    await stage.buyer.recover()
    before = len(stage.mint.calls)
    await stage.lock("after")
    assert signed < set(stage.mint.signed)
    assert stage.mint.calls[before:].count("swap") == 1, "no output of the copy was signed before"
    await clean(stage)


async def test_where_nothing_happened_since_the_copy_that_is_found_out(stage):
    await stage.restored(stage.copy())
    await stage.buyer.recover()
    assert await stage.buyer.copied() == {stage.mint.url: "same"}
    assert await stage.live() == 255
    assert await stage.elsewhere() == 0
    await clean(stage)
    await stage.buyer.forget_copied()
    assert await stage.buyer.copied() == {}


async def test_nothing_is_begun_at_a_mint_that_has_not_said_what_happened(stage):
    old = stage.copy()
    await stage.lock("first", 40)
    await stage.restored(old)
    stage.mint.script = lambda name: Fault.UNREACHABLE if name in ("restore", "states") else Fault.NONE
    await stage.buyer.recover()
    before = stage.mint.calls.count("swap")
    with pytest.raises(MintRefused):
        await stage.lock("second")
    assert stage.mint.calls.count("swap") == before
    assert await stage.buyer.copied() == {stage.mint.url: "pending"}
    stage.wire()
    await stage.lock("second")
    await clean(stage)


async def test_that_a_mint_is_still_to_be_asked_outlives_a_restart(stage):
    old = stage.copy()
    await stage.lock("first", 40)
    true = await stage.live()
    await stage.restored(old)
    stage.mint.script = lambda name: Fault.UNREACHABLE
    await stage.buyer.recover()
    stage.wire()
    stage.buyer = make_wallet(BUYER_WORDS, [stage.mint], stage.clock, stage.db)
    await stage.buyer.recover()
    assert await stage.live() == true
    await clean(stage)


async def test_what_an_interrupted_look_found_is_not_forgotten(stage):
    old = stage.copy()
    await stage.lock("first", 40)
    await stage.lock("second", 40)
    await stage.restored(old)
    left = [Fault.NONE]  # the states of the coins that were found, and then no more
    stage.mint.script = lambda name: (left.pop() if left else Fault.UNREACHABLE) if name == "states" else Fault.NONE
    await stage.buyer.recover()
    assert (await stage.buyer.copied())[stage.mint.url].startswith("pending")
    stage.wire()
    await stage.buyer.recover()
    assert await stage.buyer.copied() == {stage.mint.url: "moved"}
    await clean(stage)


async def test_a_payment_that_the_copy_had_prepared_and_the_mint_never_saw_is_not_sent(stage):
    """It was refused in the life that is forgotten, and another seller was paid: sent now it would be a second one."""
    stage.mint.script = lambda name: Fault.REQUEST_LOST if name in ("swap", "restore") else Fault.NONE
    with pytest.raises(PaymentUnknown):
        await stage.lock("doubtful", 40)
    old = stage.copy()
    stage.wire()
    await stage.restored(old)
    swaps = stage.mint.calls.count("swap")
    await stage.buyer.recover()
    assert stage.mint.calls.count("swap") == swaps
    assert (await stage.buyer.find("doubtful")).state is State.REFUSED
    assert await stage.live() == 255
    with pytest.raises(MintRefused):
        await stage.lock("doubtful", 40)
    await clean(stage)


async def test_without_a_copy_the_same_payment_goes_out_again(stage):
    """What the flag changes: the same rows, not from a copy, are sent again as the saga wants it."""
    stage.mint.script = lambda name: Fault.REQUEST_LOST if name in ("swap", "restore") else Fault.NONE
    with pytest.raises(PaymentUnknown):
        await stage.lock("doubtful", 40)
    stage.wire()
    await stage.buyer.recover()
    assert (await stage.buyer.find("doubtful")).state is State.DONE


async def test_a_payment_that_the_mint_did_sign_is_booked_and_its_spent_change_written_off(stage):
    stage.mint.script = lambda name: (
        Fault.ANSWER_LOST if name in ("swap",) else (Fault.REQUEST_LOST if name == "restore" else Fault.NONE)
    )
    with pytest.raises(PaymentUnknown):
        await stage.lock("doubtful", 40)
    old = stage.copy()
    stage.wire()
    await stage.buyer.recover()
    for number in range(6):
        await stage.lock(f"later-{number}", 20)
    true = await stage.live()
    await stage.restored(old)
    await stage.buyer.recover()
    assert (await stage.buyer.find("doubtful")).state is State.DONE
    assert await stage.live() == true
    await clean(stage)


async def test_coins_that_were_spent_elsewhere_end_a_prepared_payment(stage):
    stage.mint.script = lambda name: Fault.REQUEST_LOST if name in ("swap", "restore") else Fault.NONE
    with pytest.raises(PaymentUnknown):
        await stage.lock("doubtful", 200)
    old = stage.copy()
    stage.wire()
    stage.mint.script = lambda name: Fault.REFUSED if name == "swap" else Fault.NONE
    await stage.buyer.recover()
    stage.wire()
    await stage.lock("other", 190)
    true = await stage.live()
    await stage.restored(old)
    await stage.buyer.recover()
    assert (await stage.buyer.find("doubtful")).state is State.REFUSED
    assert await stage.live() == true
    await clean(stage)


async def test_a_deposit_that_was_minted_meanwhile_ends_and_its_coins_are_there(stage):
    stage.mint.auto_pay = False
    await stage.buyer.deposit("later", stage.mint.url, 100, EFFECT, PERMIT)
    old = stage.copy()
    stage.mint.auto_pay = True
    assert (await stage.buyer.poll("later")).state is State.DONE
    await stage.restored(old)
    await stage.buyer.recover()
    assert await stage.live() == 355
    assert (await stage.buyer.poll("later")).state is State.REFUSED
    assert (await stage.buyer.find("later")).reason == "minted_before"
    await clean(stage)


async def test_a_deposit_that_was_paid_and_never_minted_is_minted_after_the_restore(stage):
    stage.mint.auto_pay = False
    await stage.buyer.deposit("later", stage.mint.url, 100, EFFECT, PERMIT)
    await stage.restored(stage.copy())
    stage.mint.auto_pay = True
    await stage.buyer.recover()
    assert (await stage.buyer.poll("later")).state is State.DONE
    assert await stage.live() == 355
    await clean(stage)


async def test_a_coin_that_is_pending_at_the_mint_is_asked_for_again(stage):
    row = (await stage.db.select("proof", {"state": "live"}))[0]
    await stage.restored(stage.copy())
    stage.mint.pending.add(row["y"])
    await stage.buyer.recover()
    assert (await stage.buyer.copied())[stage.mint.url].startswith("pending")
    with pytest.raises(Unavailable):
        await stage.buyer._teller.compared(stage.buyer._book(stage.mint.url))
    stage.mint.pending.clear()
    await stage.buyer.recover()
    assert await stage.buyer.copied() == {stage.mint.url: "same"}


async def test_a_refund_that_happened_in_the_forgotten_time_is_not_counted_twice(stage):
    await stage.lock("lock", 40)
    old = stage.copy()
    stage.clock.seconds += 700
    await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    true = await stage.live()
    await stage.restored(old)
    await stage.buyer.recover()
    assert await stage.live() == true
    await stage.buyer.audit()
    await clean(stage)
    assert sum(balance.locked for balance in await stage.buyer.balance()) == 0


async def refused_then_spent(stage: Stage, sat: int) -> tuple[MemoryDatabase, int]:
    """A payment in doubt when the copy was made; it was refused then, and another seller had the very same coins."""
    stage.mint.script = lambda name: Fault.REQUEST_LOST if name in ("swap", "restore") else Fault.NONE
    with pytest.raises(PaymentUnknown):
        await stage.lock("doubtful", sat)
    old = stage.copy()
    stage.mint.script = lambda name: Fault.REFUSED if name == "swap" else Fault.NONE
    await stage.buyer.recover()
    assert (await stage.buyer.find("doubtful")).state is State.REFUSED
    stage.wire()
    await stage.lock("other", sat)
    return old, await stage.live()


@pytest.mark.parametrize("sat", [63, 32])
async def test_where_the_coins_of_a_doubtful_payment_went_to_another_seller_money_has_moved(stage, sat):
    """Without change there is no other trace of it: no new coin to find, and no free one that is spent."""
    old, true = await refused_then_spent(stage, sat)
    await stage.restored(old)
    await stage.buyer.recover()
    assert (await stage.buyer.find("doubtful")).reason == "lost_race"
    assert await stage.buyer.copied() == {stage.mint.url: "moved"}
    assert await stage.live() == true
    assert await stage.elsewhere() == 255 - true, "the life that is forgotten spent it; it is not lost"
    assert await stage.db.select("posting", {"account": "lost"}) == []
    await clean(stage)


async def test_that_such_coins_are_gone_is_known_also_if_the_process_dies_before_the_mint_is_compared(stage):
    old, _ = await refused_then_spent(stage, 63)
    await stage.restored(old)
    asked = []

    def silent_after_the_race(name):
        asked.append(name)
        return Fault.UNREACHABLE if asked.count("states") > 1 else Fault.NONE

    stage.mint.script = silent_after_the_race
    await stage.buyer.recover()
    assert (await stage.buyer.find("doubtful")).reason == "lost_race"
    assert await stage.buyer.copied() == {stage.mint.url: "pending, moved"}
    stage.wire()
    stage.buyer = make_wallet(BUYER_WORDS, [stage.mint], stage.clock, stage.db)
    await stage.buyer.recover()
    assert await stage.buyer.copied() == {stage.mint.url: "moved"}


async def test_finding_coins_from_the_seed_does_not_hide_that_money_moved(stage):
    old = stage.copy()
    await stage.fund(64, "more")
    await stage.restored(old)
    stage.mint.script = lambda name: Fault.UNREACHABLE
    await stage.buyer.recover()
    with pytest.raises(Unavailable):
        await stage.buyer.restore(stage.mint.url)
    assert await stage.live() == 255
    stage.wire()
    await stage.buyer.restore(stage.mint.url)
    assert await stage.buyer.copied() == {stage.mint.url: "moved"}
    assert await stage.live() == 255 + 64
    await clean(stage)


async def test_a_coin_newer_than_the_copy_that_is_pending_at_the_mint_is_found_once_it_is_given_back(stage):
    old = stage.copy()
    await stage.fund(64, "more")
    newer = {row["y"] for row in await stage.db.select("proof", {"state": "live"})}
    newer -= {row["y"] for row in await old.select("proof", {"state": "live"})}
    assert newer
    await stage.restored(old)
    stage.mint.pending |= newer  # a payment over Lightning was under way with them
    await stage.buyer.recover()
    assert (await stage.buyer.copied())[stage.mint.url].startswith("pending")
    stage.mint.pending.clear()
    await stage.buyer.recover()
    assert await stage.buyer.copied() == {stage.mint.url: "moved"}
    assert await stage.live() == 255 + 64
    await clean(stage)
