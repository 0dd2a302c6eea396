"""Counters that were used before, as by a raw copy of the database: nothing is booked that did not happen."""

import pytest

from core.identifier import OperationId
from core.money import Msat
from node.storage.memory import MemoryDatabase
from tests.copy_part import copy_rows
from tests.model_mint import Fault, ModelMint
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, make_wallet
from wallet.cashu.port import CoinState
from wallet.error import PaymentUnknown
from wallet.model import LockTerms
from wallet.payment import MAX_ATTEMPTS, Coins, Effect, Kind, LookedUp, Operation, Signed, State, step
from wallet.wallet import Wallet


class Twins:
    """A seller's wallet and a raw copy of it, both compared with the mint before either of them went on."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.mint = ModelMint(clock=self.clock)
        self.buyer = make_wallet(BUYER_WORDS, [self.mint], self.clock)
        self.rows = [MemoryDatabase(clock=self.clock), MemoryDatabase(clock=self.clock)]
        self.one = make_wallet(SELLER_WORDS, [self.mint], self.clock, self.rows[0])
        self.two = self.one

    async def fund(self, wallet: Wallet, sat: int, op_id: str = "deposit") -> None:
        await wallet.deposit(op_id, self.mint.url, sat, EFFECT, PERMIT)
        assert (await wallet.poll(op_id)).state is State.DONE

    async def pay(self, quote: str, sat: int = 20):
        key, ends = self.one.key.compressed, self.clock.now() + 600
        terms = LockTerms(self.mint.url, Msat.of_sat(sat), key, ends, quote_id=quote)
        return await self.buyer.lock(quote, terms, Msat.of_sat(sat + 20), EFFECT, PERMIT)

    async def part(self) -> None:
        """The copy is made."""
        await copy_rows(*self.rows)
        self.two = make_wallet(SELLER_WORDS, [self.mint], self.clock, self.rows[1])
        await self.one.recover()
        await self.two.recover()


async def live(wallet: Wallet) -> int:
    return sum(balance.live for balance in await wallet.balance())


@pytest.fixture
async def twins() -> Twins:
    made = Twins()
    await made.fund(made.buyer, 255)
    return made


async def test_a_payment_is_not_taken_for_claimed_because_its_outputs_were_signed_for_another_one(twins):
    first, second = await twins.pay("first"), await twins.pay("second")
    await twins.part()
    await twins.one.claim("c1", first.payload, EFFECT, PERMIT)
    claimed = await twins.two.claim("c2", second.payload, EFFECT, PERMIT)
    assert claimed.amount_sat > 0
    assert (await twins.two.spent(twins.mint.url, second.ys)).state == CoinState.SPENT
    assert (await twins.two.audit()).clean
    whole = claimed.amount_sat * 2
    assert await live(twins.two) == whole, "what the other one was paid derives from the same seed, and was found"
    await twins.one.restore(twins.mint.url)
    assert await live(twins.one) == whole


async def test_no_doubt_about_the_answer_makes_a_collision_a_success(twins):
    first, second = await twins.pay("first"), await twins.pay("second")
    await twins.part()
    await twins.one.claim("c1", first.payload, EFFECT, PERMIT)
    left = [Fault.REQUEST_LOST]
    twins.mint.script = lambda name: left.pop() if name == "swap" and left else Fault.NONE
    await twins.two.claim("c2", second.payload, EFFECT, PERMIT)
    assert (await twins.two.spent(twins.mint.url, second.ys)).state == CoinState.SPENT
    assert (await twins.two.audit()).clean


async def test_a_lost_answer_after_a_collision_is_looked_up_with_the_new_outputs_only(twins):
    first, second = await twins.pay("first"), await twins.pay("second")
    await twins.part()
    await twins.one.claim("c1", first.payload, EFFECT, PERMIT)
    asked = []

    def script(name):
        asked.append(name)
        return Fault.ANSWER_LOST if name == "swap" and asked.count("swap") == 2 else Fault.NONE

    twins.mint.script = script
    await twins.two.claim("c2", second.payload, EFFECT, PERMIT)
    assert asked.count("swap") == 2
    assert (await twins.two.audit()).clean
    assert await live(twins.two) == await live(twins.one) * 2


async def test_a_payment_whose_change_collides_is_made_with_other_outputs_and_its_coins_are_not_tied_up(twins):
    await twins.fund(twins.one, 64)
    await twins.part()
    other = await twins.pay("other", 11)
    await twins.one.claim("c", other.payload, EFFECT, PERMIT)
    terms = LockTerms(
        twins.mint.url, Msat.of_sat(20), twins.buyer.key.compressed, twins.clock.now() + 600, quote_id="q"
    )
    paid = await twins.two.lock("l", terms, Msat.of_sat(40), EFFECT, PERMIT)
    received = await twins.buyer.claim("l", paid.payload, EFFECT, PERMIT)
    assert received.amount_sat >= 20
    audit = await twins.two.audit()
    assert (audit.clean, audit.open_operations) == (True, 0)


async def test_a_deposit_whose_outputs_were_signed_before_is_minted_with_others(twins):
    await twins.part()
    await twins.fund(twins.one, 64, "one")
    await twins.fund(twins.two, 64, "two")
    assert await live(twins.two) == 128
    assert (await twins.two.audit()).clean
    assert twins.mint.issued == 255 + 128


async def test_a_raw_copy_raises_its_counters_past_a_long_row_of_refused_requests(twins):
    """Each took counters and left them unsigned; the signed ones lie behind them."""
    await twins.fund(twins.one, 1)
    await copy_rows(*twins.rows)
    keyset = (await twins.rows[0].select("counter", {}))[0]
    await twins.one._purse.commit(twins.one._purse.count(keyset["keyset"], keyset["next"], keyset["next"] + 250))
    await twins.fund(twins.one, 64, "late")
    two = make_wallet(SELLER_WORDS, [twins.mint], twins.clock, twins.rows[1])
    await two.recover()
    counters = [(await rows.select("counter", {}))[0]["next"] for rows in twins.rows]
    assert counters[1] == counters[0]


async def test_no_counter_is_used_for_a_new_plan_before_it_was_compared_with_the_mint(twins):
    """The mint does not answer at the start, and the operation is looked up when it does."""
    token = await twins.buyer.send("token", twins.mint.url, 20, EFFECT, PERMIT)
    await twins.fund(twins.one, 1)
    twins.mint.script = lambda name: Fault.REQUEST_LOST if name in ("swap", "restore") else Fault.NONE
    with pytest.raises(PaymentUnknown):
        await twins.one.receive("r", token, EFFECT, PERMIT)
    await copy_rows(*twins.rows)
    twins.mint.script = lambda name: Fault.NONE
    await twins.fund(twins.one, 64, "late")
    twins.mint.rotate()
    two = make_wallet(SELLER_WORDS, [twins.mint], twins.clock, twins.rows[1])
    asked = []

    def away_at_first(name):
        asked.append(name)
        return Fault.UNREACHABLE if len(asked) == 1 else Fault.NONE

    twins.mint.script = away_at_first
    await two.recover()
    book = two._book(twins.mint.url)
    assert (await two.find("r")).state in (State.DONE, State.REFUSED)
    assert book.guarded


def op(**facts) -> Operation:
    return Operation(OperationId("op"), Kind.CLAIM, State.UNKNOWN, **facts)


COLLIDED = LookedUp(Signed.ALL, Coins.UNSPENT)


def test_signed_outputs_and_unspent_inputs_are_asked_about_once_more_before_they_are_a_collision():
    assert step(op(), COLLIDED)[1:] == (Effect.SUBMIT, "contested")
    moved, effect, name = step(op(rejected=11003), COLLIDED)
    assert (moved.state, moved.attempt, effect, name) == (State.PREPARED, 2, Effect.REPLAN, "collided")


def test_a_collision_that_never_ends_is_left_for_somebody_to_look_at():
    moved, effect, name = step(op(rejected=11003, attempt=MAX_ATTEMPTS), COLLIDED)
    assert (moved.state, effect, name) == (State.UNKNOWN, Effect.WAIT, "not_ours")


def test_signed_outputs_whose_inputs_are_pending_wait():
    assert step(op(rejected=11000), LookedUp(Signed.ALL, Coins.PENDING))[1] is Effect.WAIT


def test_a_part_that_was_signed_is_a_collision_only_if_the_mint_says_so():
    some = LookedUp(Signed.SOME, Coins.UNSPENT)
    assert step(op(rejected=11003), some)[2] == "collided"
    assert step(op(rejected=11000), some)[1] is Effect.WAIT
    assert step(op(rejected=11003), LookedUp(Signed.SOME, Coins.SPENT))[1] is Effect.WAIT


@pytest.mark.parametrize("rejected", [None, 11003])
def test_what_was_signed_for_a_copied_operation_is_all_that_there_will_be(rejected):
    assert step(op(rejected=rejected, copied=True), COLLIDED)[2] == "found"
