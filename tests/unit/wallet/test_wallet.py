import asyncio
import logging
from dataclasses import replace

import pytest

from core.error import Conflict, InvalidInput, NotFound, Unavailable, Unpermitted
from core.money import Msat
from core.unit import Insert, Update
from node.storage.memory import MemoryDatabase
from tests.model_mint import Fault, ModelMint
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, HandClock, make_wallet
from wallet.cashu.port import CoinState, MintQuote, QuoteState
from wallet.error import (
    InsufficientFunds,
    InvoiceRejected,
    MintRefused,
    MintUnlisted,
    OperationReused,
    PaymentUnknown,
    TokenKeyset,
    TokenMint,
    TokenReused,
    TooDear,
)
from wallet.model import Locked, LockTerms, Received, VerifyTerms
from wallet.payment import State


class Stage:
    """A buyer with money, a seller, and their mint."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.mint = ModelMint(clock=self.clock)
        self.buyer_db = MemoryDatabase(clock=self.clock)
        self.seller_db = MemoryDatabase(clock=self.clock)
        self.restart()

    def restart(self) -> None:
        self.buyer = make_wallet(BUYER_WORDS, [self.mint], self.clock, self.buyer_db)
        self.seller = make_wallet(SELLER_WORDS, [self.mint], self.clock, self.seller_db)

    async def fund(self, sat: int, op_id: str = "deposit") -> None:
        await self.buyer.deposit(op_id, self.mint.url, sat, EFFECT, PERMIT)
        assert (await self.buyer.poll(op_id)).state is State.DONE

    def terms(self, sat: int = 10, quote: str = "quote") -> LockTerms:
        return LockTerms(
            self.mint.url, Msat.of_sat(sat), self.seller.key.compressed, self.clock.now() + 600, quote_id=quote
        )

    async def lock(self, op_id: str = "lock", sat: int = 10, then=lambda locked: ()) -> Locked:
        return await self.buyer.lock(op_id, self.terms(sat), Msat.of_sat(sat + 20), EFFECT, PERMIT, then)

    def wanted(self, sat: int = 10, quote: str = "quote") -> VerifyTerms:
        return VerifyTerms(quote, Msat.of_sat(sat), (self.mint.url,), self.seller.key.compressed, self.clock.now() + 60)

    def wire(self, *faults: Fault, call: str = "") -> None:
        left = list(faults)
        self.mint.script = lambda name: left.pop(0) if left and name.startswith(call) else Fault.NONE

    async def live(self) -> int:
        return sum(balance.live for balance in await self.buyer.balance())


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.fund(255)
    return made


async def clean(*wallets) -> None:
    for wallet in wallets:
        audit = await wallet.audit()
        assert audit.clean, audit.differences
        assert audit.open_operations == 0


async def test_the_plan_the_counters_and_the_reservation_are_durable_before_the_mint_is_asked():
    stage = Stage()
    await stage.fund(256)
    seen = {}
    real = stage.mint.swap

    async def watching(inputs, outputs, permit):
        seen["operation"] = await stage.buyer_db.select("operation", {"id": "lock"})
        seen["reserved"] = await stage.buyer_db.select("proof", {"state": "reserved"})
        seen["counter"] = await stage.buyer_db.select("counter")
        return await real(inputs, outputs, permit)

    before = (await stage.buyer_db.select("counter"))[0]["next"]
    stage.mint.swap = watching
    await stage.lock()
    assert [row["state"] for row in seen["operation"]] == ["prepared"]
    assert seen["reserved"]
    assert seen["counter"][0]["next"] > before


async def test_no_secret_lies_open_in_a_row_or_a_log(stage, caplog):
    caplog.set_level(logging.DEBUG)
    locked = await stage.lock()
    token = await stage.buyer.send("send", stage.mint.url, 20, EFFECT, PERMIT)
    everything = ""
    for table in ("proof", "operation", "posting", "counter"):
        everything += repr(await stage.buyer_db.select(table))
    secrets = [token[10:60]]
    for proof in locked.payload["proofs"]:
        secrets += [proof["secret"], proof["C"], proof["dleq"]["r"], proof["secret"][20:52]]
    logged = "\n".join(record.getMessage() + repr(record.__dict__) for record in caplog.records)
    for secret in secrets:
        assert secret not in everything
        assert secret not in logged
        assert secret not in repr(locked)
        assert secret not in repr(await stage.buyer.find("lock"))


async def test_the_callers_rows_are_committed_with_the_booking(stage):
    def then(locked: Locked):
        return [Insert("meta", {"key": "paid", "value": str(locked.gross.value)})]

    locked = await stage.lock(then=then)
    assert (await stage.buyer_db.select("meta"))[0]["value"] == str(locked.gross.value)


async def test_money_is_booked_even_if_the_callers_rows_do_not_fit(stage):
    with pytest.raises(Conflict):
        await stage.lock(then=lambda locked: [Update("meta", {"key": "absent"}, {"value": "x"})])
    view = await stage.buyer.find("lock")
    assert view.state is State.DONE
    assert await stage.lock() == view.result
    await clean(stage.buyer)


async def test_a_lost_answer_is_found_again_at_once(stage):
    stage.wire(Fault.ANSWER_LOST, call="swap")
    stage.mint.calls.clear()
    locked = await stage.lock()
    assert stage.mint.calls.count("swap") == 1
    assert stage.mint.calls.count("restore") == 1
    await clean(stage.buyer)
    await stage.seller.verify(locked.payload, stage.wanted())


async def test_a_mint_that_falls_silent_leaves_the_payment_unknown_until_it_speaks(stage):
    stage.mint.script = lambda name: Fault.ANSWER_LOST
    with pytest.raises(PaymentUnknown):
        await stage.lock()
    assert (await stage.buyer.find("lock")).state is State.UNKNOWN
    stage.restart()
    assert await stage.buyer.recover() == 1
    assert (await stage.buyer.audit()).open_operations == 1
    stage.wire()
    stage.restart()
    assert await stage.buyer.recover() == 0
    assert isinstance((await stage.buyer.find("lock")).result, Locked)
    await clean(stage.buyer)


async def test_a_request_that_never_arrived_is_sent_again_unchanged(stage):
    stage.wire(Fault.REQUEST_LOST, call="swap")
    await stage.lock()
    assert stage.mint.calls.count("swap") == 2
    await clean(stage.buyer)


async def test_an_unreachable_mint_is_a_clean_no(stage):
    stage.wire(Fault.UNREACHABLE, call="swap")
    with pytest.raises(MintRefused):
        await stage.lock()
    assert await stage.live() == 255
    with pytest.raises(MintRefused):
        await stage.lock()
    await clean(stage.buyer)


async def test_a_false_no_is_not_believed(stage):
    stage.wire(Fault.FALSE_NO, call="swap")
    await stage.lock()
    await clean(stage.buyer)


@pytest.mark.parametrize("fault", [Fault.WRONG_AMOUNT, Fault.WRONG_DLEQ, Fault.SHORT])
async def test_falsified_signatures_are_never_booked(stage, fault):
    stage.wire(fault, call="swap")
    locked = await stage.lock()
    await stage.seller.verify(locked.payload, stage.wanted())
    await clean(stage.buyer)
    held = (await stage.buyer.balance())[0]
    assert held.live + held.locked == stage.mint.circulating


async def test_a_partly_restored_operation_stays_unknown(stage):
    stage.wire(Fault.ANSWER_LOST, call="swap")
    real = stage.mint.restore

    async def partly(outputs):
        found = dict(await real(outputs))
        return dict(list(found.items())[:1])

    stage.mint.restore = partly
    with pytest.raises(PaymentUnknown):
        await stage.lock()
    assert (await stage.buyer.find("lock")).reason == "partly_signed"
    stage.mint.restore = real
    assert await stage.buyer.recover() == 0
    await clean(stage.buyer)


async def test_pending_inputs_are_waited_for(stage):
    stage.wire(Fault.REQUEST_LOST, call="swap")
    real = stage.mint.states

    async def pending(ys):
        return {y: replace(report, state=CoinState.PENDING) for y, report in (await real(ys)).items()}

    stage.mint.states = pending
    with pytest.raises(PaymentUnknown):
        await stage.lock()
    stage.mint.states = real
    assert await stage.buyer.recover() == 0
    await clean(stage.buyer)


async def test_a_cancelled_caller_loses_nothing(stage):
    release = asyncio.Event()
    real = stage.mint.swap

    async def slow(inputs, outputs, permit):
        answer = await real(inputs, outputs, permit)
        await release.wait()
        return answer

    stage.mint.swap = slow
    task = asyncio.create_task(stage.lock())
    while "swap" not in stage.mint.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stage.mint.swap = real
    assert await stage.buyer.recover() == 0
    assert (await stage.buyer.find("lock")).state is State.DONE
    await clean(stage.buyer)


async def test_a_retired_keyset_makes_a_new_plan_and_one_payment(stage):
    await stage.seller.recover()
    stage.mint.rotate(200)
    locked = await stage.lock()
    with pytest.raises(Unavailable):
        await stage.seller.verify(locked.payload, stage.wanted())
    stage.clock.seconds += 6
    verified = await stage.seller.verify(locked.payload, stage.wanted())
    assert verified.net.value >= 10_000
    assert (await stage.buyer.find("lock")).result == locked
    await clean(stage.buyer)


async def test_fees_that_rise_above_the_ceiling_refuse_the_payment(stage):
    await stage.buyer.recover()
    stage.mint.rotate(1000)
    with pytest.raises(MintRefused):
        await stage.buyer.lock("lock", stage.terms(), Msat.of_sat(12), EFFECT, PERMIT)
    assert await stage.live() == 255
    await clean(stage.buyer)


async def test_a_mint_with_shameless_fees_is_not_used(stage):
    stage.mint.rotate(5000)
    stage.clock.seconds += 400
    with pytest.raises(MintRefused):
        await stage.lock()
    assert await stage.live() == 255


async def test_many_locks_at_once_share_few_coins(stage):
    locked = await asyncio.gather(*(stage.lock(f"lock-{n}", 7) for n in range(12)))
    ys = [y for one in locked for y in one.ys]
    assert len(set(ys)) == len(ys)
    await clean(stage.buyer)


async def test_the_same_operation_twice_at_once_pays_once(stage):
    one, two = await asyncio.gather(stage.lock(), stage.lock())
    assert one == two
    assert stage.mint.calls.count("swap") == 1


async def test_money_that_is_tied_up_is_waited_for_and_then_refused(stage):
    stage.mint.script = lambda name: Fault.ANSWER_LOST
    with pytest.raises(PaymentUnknown):
        await stage.lock("first", 200)
    stage.wire()
    began = stage.clock.seconds
    with pytest.raises(InsufficientFunds):
        await stage.lock("second", 100)
    assert stage.clock.seconds - began >= 10
    assert await stage.buyer.find("second") is None


async def test_an_operation_id_means_one_request(stage):
    await stage.lock()
    with pytest.raises(OperationReused):
        await stage.lock(sat=11)
    with pytest.raises(OperationReused):
        await stage.buyer.send("lock", stage.mint.url, 5, EFFECT, PERMIT)


async def test_a_payment_can_be_looked_up_after_its_locktime(stage):
    terms = stage.terms()
    locked = await stage.buyer.lock("lock", terms, Msat.of_sat(30), EFFECT, PERMIT)
    stage.clock.seconds += 1000
    assert await stage.buyer.lock("lock", terms, Msat.of_sat(30), EFFECT, PERMIT) == locked


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"mint": "https://other.test"}, MintUnlisted),
        ({"mint": "https://mint.test.evil.test"}, MintUnlisted),
        ({"seller_pubkey": "02" + "00" * 32}, InvalidInput),
        ({"locktime": 1}, InvalidInput),
        ({"refund_key": "02" + "11" * 32}, InvalidInput),
        ({"price": Msat(0)}, InvalidInput),
        ({"unit": "usd"}, InvalidInput),
        ({"price": Msat.of_sat(40)}, TooDear),
    ],
)
async def test_terms_that_make_no_safe_lock_are_refused_before_anything_is_begun(stage, changes, error):
    stage.mint.calls.clear()
    with pytest.raises(error):
        await stage.buyer.lock("lock", replace(stage.terms(), **changes), Msat.of_sat(40), EFFECT, PERMIT)
    assert await stage.buyer.find("lock") is None
    assert "swap" not in stage.mint.calls
    assert await stage.live() == 255


async def test_nothing_happens_without_a_permit():
    stage = Stage()
    await stage.fund(100)

    def refuse(_) -> None:
        raise Unpermitted

    wallet = make_wallet(BUYER_WORDS, [stage.mint], stage.clock, stage.buyer_db, refuse)
    stage.mint.calls.clear()
    for attempt in (
        wallet.lock("a", stage.terms(), Msat.of_sat(30), EFFECT, PERMIT),
        wallet.send("b", stage.mint.url, 5, EFFECT, PERMIT),
        wallet.deposit("c", stage.mint.url, 5, EFFECT, PERMIT),
    ):
        with pytest.raises(Unpermitted):
            await attempt
    assert not {"swap", "mint", "request_quote"} & set(stage.mint.calls)
    assert await stage.live() == 100


async def test_a_keyset_that_is_withdrawn_while_its_coins_are_checked_is_refused(stage):
    locked = await stage.lock(sat=7)
    assert len(locked.ys) == 1, "of several the next one would be looked up again"
    roll, real = stage.seller._books.roll(stage.mint.url), stage.mint.keys

    async def none():
        return ()

    async def keys(info):
        found = await real(info)
        stage.mint.keysets = none
        await roll.refresh()  # as another task does meanwhile
        return found

    stage.mint.keys = keys
    with pytest.raises(TokenKeyset):
        await stage.seller.verify(locked.payload, stage.wanted(7))
    assert roll.infos == {}


async def test_a_foreign_mint_is_asked_for_nothing(stage):
    other = ModelMint("https://other.test", clock=stage.clock)
    stranger = make_wallet(SELLER_WORDS, [other], stage.clock)
    token = await stage.buyer.send("send", stage.mint.url, 20, EFFECT, PERMIT)
    locked = await stage.lock()
    stage.mint.calls.clear()
    with pytest.raises(TokenMint):
        await stranger.receive("receive", token, EFFECT, PERMIT)
    with pytest.raises(TokenMint):
        await stranger.verify(locked.payload, stage.wanted())
    with pytest.raises(TokenMint):
        await stage.seller.verify(locked.payload, replace(stage.wanted(), mints=("https://other.test",)))
    assert stage.mint.calls == []
    assert other.calls == []


async def test_one_coin_pays_one_quote_also_after_a_restart(stage):
    locked = await stage.lock()
    await stage.seller.verify(locked.payload, stage.wanted())
    stage.restart()
    await stage.seller.verify(locked.payload, stage.wanted())
    with pytest.raises(TokenReused):
        await stage.seller.verify({**locked.payload, "id": "other"}, stage.wanted(quote="other"))


async def test_a_mint_that_talks_nonsense_makes_a_payment_neither_good_nor_bad(stage):
    locked = await stage.lock()
    stage.wire(Fault.REFUSED, call="states")
    with pytest.raises(Unavailable):
        await stage.seller.verify(locked.payload, stage.wanted())
    await stage.seller.verify(locked.payload, stage.wanted())


async def test_a_refused_claim_can_be_tried_again_and_pays_once(stage):
    locked = await stage.lock()
    stage.wire(Fault.UNREACHABLE, call="swap")
    with pytest.raises(MintRefused):
        await stage.seller.claim("claim", locked.payload, EFFECT, PERMIT)
    assert await stage.seller.claim("claim", locked.payload, EFFECT, PERMIT) == Received(10, 1)
    assert await stage.seller.claim("claim", locked.payload, EFFECT, PERMIT) == Received(10, 1)
    await clean(stage.seller)


async def test_a_late_refund_is_not_booked_as_a_payment(stage):
    locked = await stage.lock()
    stage.clock.seconds += 700
    stage.mint.script = lambda name: Fault.ANSWER_LOST
    with pytest.raises(PaymentUnknown):
        await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    stage.wire()
    assert (await stage.buyer.spent(stage.mint.url, locked.ys)).state == "SPENT"
    assert await stage.buyer.recover() == 0
    assert (await stage.buyer.find("refund")).result == Received(10, 1)
    accounts = (await stage.buyer.audit()).mints[0].journal
    assert "payments" not in accounts
    await clean(stage.buyer)


async def test_a_refund_needs_a_lock_and_its_time(stage):
    with pytest.raises(NotFound):
        await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    await stage.lock()
    with pytest.raises(InvalidInput):
        await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    assert await stage.buyer.find("refund") is None
    stage.clock.seconds += 700
    await stage.buyer.refund("refund", "lock", EFFECT, PERMIT)
    with pytest.raises(NotFound):
        await stage.buyer.refund("another", "lock", EFFECT, PERMIT)


async def test_the_quoted_invoice_must_be_for_what_was_asked(stage):
    real = stage.mint.request_quote

    def bent(**changes):
        async def request_quote(amount, unit, pubkey, permit) -> MintQuote:
            return replace(await real(amount * changes.get("times", 1), unit, pubkey, permit), **changes["facts"])

        return request_quote

    for case in (
        {"times": 2, "facts": {"amount": 50}},
        {"facts": {"amount": 51}},
        {"facts": {"pubkey": "02" + "11" * 32}},
        {"facts": {"request": "lnbc1"}},
        {"facts": {"unit": "usd"}},
    ):
        stage.mint.request_quote = bent(**case)
        with pytest.raises(InvoiceRejected):
            await stage.buyer.deposit("other", stage.mint.url, 50, EFFECT, PERMIT)
    assert await stage.buyer.find("other") is None


async def test_an_unpaid_deposit_expires_and_a_paid_one_is_minted_by_the_background():
    stage = Stage()
    stage.mint.auto_pay = False
    await stage.buyer.deposit("unpaid", stage.mint.url, 50, EFFECT, PERMIT)
    paid = await stage.buyer.deposit("paid", stage.mint.url, 30, EFFECT, PERMIT)
    assert paid == await stage.buyer.deposit("paid", stage.mint.url, 30, EFFECT, PERMIT)
    assert (await stage.buyer.poll("paid")).state is State.WAITING
    quote = next(id_ for id_, held in stage.mint._quotes.items() if held.quote.amount == 30)
    stage.mint.pay(quote)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(stage.buyer.run(ready, stop))
    while await stage.live() == 0:
        await asyncio.sleep(0)
    stage.clock.seconds += 8 * 86_400
    while (await stage.buyer.find("unpaid")).state is State.WAITING:
        await asyncio.sleep(0)
    stop.set()
    await task
    assert (await stage.buyer.find("unpaid")).state is State.REFUSED
    assert await stage.live() == 30
    assert stage.mint._quotes[quote].quote.state is QuoteState.ISSUED
    await clean(stage.buyer)


async def test_a_mint_cannot_keep_a_deposit_open_for_ever_by_the_end_that_it_names(stage, monkeypatch):
    quote = stage.mint.request_quote

    async def endless(*args: object) -> object:
        return replace(await quote(*args), expiry=(1 << 63) - 1)

    monkeypatch.setattr(stage.mint, "request_quote", endless)
    made = await stage.buyer.deposit("endless", stage.mint.url, 50, EFFECT, PERMIT)
    assert made.expires_at == stage.clock.now() + 3_600 + 86_400


async def test_the_background_resolves_what_is_unknown_and_books_what_was_taken(stage):
    locked = await stage.lock("taken")
    await stage.seller.claim("claim", locked.payload, EFFECT, PERMIT)
    stage.mint.script = lambda name: Fault.ANSWER_LOST
    with pytest.raises(PaymentUnknown):
        await stage.lock("lock")
    stage.wire()
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(stage.buyer.run(ready, stop))
    while (await stage.buyer.find("lock")).state is not State.DONE or stage.clock.seconds < 1_800_000_100:
        await asyncio.sleep(0)
    stop.set()
    await task
    held = (await stage.buyer.balance())[0]
    assert held.locked == 11
    await clean(stage.buyer)


async def test_a_restore_finds_everything_across_rotations_and_holes(stage):
    await stage.lock()
    for n in range(30):
        stage.wire(Fault.REFUSED, call="swap")
        with pytest.raises(MintRefused):
            await stage.lock(f"hole-{n}")
    stage.wire()
    stage.mint.rotate()
    await stage.lock("after")
    fresh = make_wallet(BUYER_WORDS, [stage.mint], stage.clock)
    restored = await fresh.restore(stage.mint.url)
    assert restored.amount == await stage.live()
    assert restored.keysets == 2
    assert (await fresh.restore(stage.mint.url)).amount == 0
    await fresh.lock("more", stage.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    await clean(fresh)


async def test_an_old_copy_of_the_database_is_not_money(stage):
    old = MemoryDatabase(clock=stage.clock)
    for table in ("proof", "operation", "posting", "counter"):
        await old.commit([Insert(table, row) for row in await stage.buyer_db.select(table)])
    token = await stage.buyer.send("all", stage.mint.url, 250, EFFECT, PERMIT)
    wallet = make_wallet(BUYER_WORDS, [stage.mint], stage.clock, old)
    assert not (await wallet.audit()).clean
    # Its counters would make the very coins again that were given away; they are raised first.
    with pytest.raises(MintRefused):
        await wallet.send("again", stage.mint.url, 250, EFFECT, PERMIT)
    await stage.seller.receive("receive", token, EFFECT, PERMIT)
    await wallet.restore(stage.mint.url)
    await clean(wallet)
    held = (await wallet.balance())[0].live + (await stage.seller.balance())[0].live
    assert held == stage.mint.circulating


async def test_what_is_booked_while_the_books_are_read_is_no_difference(stage):
    read, sent = stage.buyer._purse.posted, []

    async def posted():
        rows = await read()
        if not sent:  # between two looks at the database, as everything else may be
            sent.append(await stage.buyer.send("send", stage.mint.url, 5, EFFECT, PERMIT))
        return rows

    stage.buyer._purse.posted = posted
    assert (await stage.buyer.audit()).differences == ()
    assert sent


async def test_money_in_too_many_small_coins_is_refused_with_what_can_be_spent_at_once():
    stage = Stage()
    for number in range(210):
        await stage.fund(1, f"coin {number}")
    with pytest.raises(InsufficientFunds, match="has 210 sat free, of which 200 at once"):
        await stage.buyer.send("all", stage.mint.url, 185, EFFECT, PERMIT)
    assert await stage.buyer.send("some", stage.mint.url, 150, EFFECT, PERMIT)
