"""What a memo names is looked up at its mint, finished once, and gone on with after a crash at any step."""

import asyncio
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest

from core.error import StoreUncertain, Unavailable
from core.money import Msat
from node.gate.ledger import ledger_seal
from node.memo import WalletMemo
from node.recovery import Standing
from relays.event import parse_json
from relays.key import Keyring
from tests.gate_part import KEY
from tests.model_mint import MSAT_PER, Fault, ModelMint, Payment, payable
from tests.recovery_part import FIRST, SECOND, Dying, Node, World, node
from tests.wallet_part import BUYER_WORDS, EFFECT, PERMIT, SELLER_WORDS, make_wallet
from wallet.amount import SAT, USD, Amount
from wallet.cashu.keyset import KeysetInfo
from wallet.error import MintRefused, PaymentUnknown, TokenSpent
from wallet.memo import Memo
from wallet.model import LockTerms


@pytest.fixture
async def lost(world) -> Node:
    made = await node(world, [FIRST, SECOND])
    await made.fund(FIRST, 100)
    await made.fund(SECOND, 64)
    return made


async def test_coins_locks_and_deposits_of_two_mints_come_back_from_words_and_a_relay(world, lost):
    locked = await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    world.mints[SECOND].auto_pay = False
    await lost.wallet.deposit("later", SECOND, 32, EFFECT, PERMIT)
    await lost.publish()
    world.pay_last(SECOND)

    again = await node(world)
    found = await again.recall.restore(())
    assert {(one["mint"], one["amount"], one["listed"], one["problem"]) for one in found["restored"]} == {
        (FIRST, 100 - locked.gross.sat_up(), False, ""),
        (SECOND, 64, False, ""),
    }
    by_kind = {one["kind"]: one for one in found["pending"]}
    assert by_kind["lock"]["standing"] == Standing.WAITING
    assert by_kind["lock"]["due"] == world.clock.now() + 600
    assert by_kind["deposit"]["standing"] == Standing.BEGUN
    assert found["memos"] == 1
    await world.settle(again)
    assert await again.held() == (164 - locked.gross.sat_up() + 32, 0, locked.amount.sat_up())
    assert await again.clean()
    world.clock.seconds += 603
    found = await again.recall.restore(())
    assert {one["standing"] for one in found["pending"]} <= {Standing.DONE, Standing.GONE}
    assert (await again.held())[1:] == (0, 0)
    assert await again.live() == 164 - locked.gross.sat_up() + 32 + locked.amount.sat_up() - 1
    assert await again.clean()
    assert await again.wallet.recollection.kept() == []


async def test_a_lock_to_a_hash_comes_back_too(world, lost):
    terms = replace(world.terms(), hash="ab" * 32, cosigner="job")
    locked = await lost.wallet.lock("a lock", terms, Msat.of_sat(30), EFFECT, PERMIT)
    await lost.publish()
    world.clock.seconds += 603
    again = await node(world)
    (one,) = (await again.recall.restore(()))["pending"]
    assert one["standing"] == Standing.DONE
    assert await again.held() == (164 - locked.gross.sat_up() + locked.amount.sat_up() - 1, 0, 0)
    assert await again.clean()


async def test_what_the_seller_took_before_or_after_the_restore_is_not_ours(world, lost):
    first = await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    second = await lost.wallet.lock("b lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    await lost.publish()
    await world.seller.claim("claim", first.payload, EFFECT, PERMIT)
    again = await node(world)
    found = {one["operation"]: one["standing"] for one in (await again.recall.restore(()))["pending"]}
    assert found == {"a lock": Standing.GONE, "b lock": Standing.WAITING}
    await world.seller.claim("claim b", second.payload, EFFECT, PERMIT)
    world.clock.seconds += 603
    found = {one["operation"]: one["standing"] for one in (await again.recall.restore(()))["pending"]}
    assert found["b lock"] == Standing.GONE
    assert (await again.held())[1:] == (0, 0)
    assert await again.clean()


async def test_a_lock_that_never_was_is_waited_for_until_it_is_due(world, lost):
    world.mints[FIRST].script = lambda name: Fault.REQUEST_LOST if name == "swap" else Fault.NONE
    with pytest.raises((PaymentUnknown, MintRefused)):
        await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    world.mints[FIRST].script = lambda _: Fault.NONE
    await lost.publish()
    again = await node(world)
    (one,) = (await again.recall.restore(()))["pending"]
    assert one["standing"] == Standing.WAITING
    assert await again.held() == (164, 0, 0)
    world.clock.seconds += 603
    (one,) = (await again.recall.restore(()))["pending"]
    assert one["standing"] == Standing.ABSENT
    assert await again.wallet.recollection.kept() == []


async def test_a_payment_that_was_being_claimed_is_claimed_once(world, lost):
    payer = make_wallet(SELLER_WORDS, [world.mints[FIRST]], world.clock)
    await payer.deposit("d", FIRST, 64, EFFECT, PERMIT)
    await payer.poll("d")
    terms = LockTerms(FIRST, Msat.of_sat(20), lost.wallet.key.compressed, world.clock.now() + 600, quote_id="q")
    paid = await payer.lock("pay", terms, Msat.of_sat(40), EFFECT, PERMIT)
    world.mints[FIRST].script = lambda name: Fault.REQUEST_LOST if name == "swap" else Fault.NONE
    with pytest.raises((PaymentUnknown, MintRefused)):
        await lost.wallet.claim("claim", paid.payload, EFFECT, PERMIT)
    world.mints[FIRST].script = lambda _: Fault.NONE
    await lost.publish()
    again = await node(world)
    (one,) = (await again.recall.restore(()))["pending"]
    assert (one["kind"], one["standing"]) == ("claim", Standing.DONE)
    assert await again.live() == 164 + 20
    (one,) = (await again.recall.restore(()))["pending"]
    assert one["standing"] == Standing.DONE
    assert await again.live() == 164 + 20
    assert await again.clean()


async def test_a_payment_whose_mint_is_away_when_it_is_to_be_claimed_is_claimed_after_the_loss(world, lost):
    terms = replace(world.terms(), seller_pubkey=lost.wallet.key.compressed, price=Msat.of_sat(20))
    payer = make_wallet(SELLER_WORDS, [world.mints[FIRST]], world.clock)
    await payer.deposit("d", FIRST, 64, EFFECT, PERMIT)
    await payer.poll("d")
    paid = await payer.lock("pay", terms, Msat.of_sat(40), EFFECT, PERMIT)
    away = await node(world, [FIRST, SECOND], db=lost.db)
    world.mints[FIRST].script = lambda _: Fault.UNREACHABLE
    for _ in range(2):
        with pytest.raises(MintRefused):
            await away.wallet.claim("claim", paid.payload, EFFECT, PERMIT)
    await away.publish()
    world.mints[FIRST].script = lambda _: Fault.NONE
    again = await node(world)
    (one,) = (await again.recall.restore(()))["pending"]
    assert (one["kind"], one["due"], one["standing"]) == ("claim", terms.locktime, Standing.DONE)
    assert await again.live() == 164 + 20
    assert await again.clean()
    assert (await away.wallet.recollection.memo()).pending
    with pytest.raises(TokenSpent):
        await away.wallet.claim("claim", paid.payload, EFFECT, PERMIT)


@pytest.mark.parametrize("ends", [Payment.SLOW, Payment.STUCK])
async def test_a_payment_over_lightning_that_was_under_way_is_followed_to_its_end(world, lost, ends):
    world.mints[FIRST].lightning = lambda _: ends
    bill = payable(40_000, world.clock.now(), "bill")
    with pytest.raises(PaymentUnknown):
        await lost.wallet.pay("pay", FIRST, bill, Msat.of_sat(60), EFFECT, PERMIT)
    await lost.publish()
    again = await node(world)
    (one,) = (await again.recall.restore(()))["pending"]
    assert (one["kind"], one["standing"]) == ("melt", Standing.BEGUN)
    await world.settle(again)
    before = await again.held()
    assert before[0] + before[1] == 164
    assert before[1] > 40
    world.mints[FIRST].lightning_ends()
    await world.settle(again)
    await again.recall.restore(())
    assert (await again.held())[1:] == (0, 0)
    assert await again.live() == (164 if ends is Payment.STUCK else 164 - 40 - 2)
    assert await again.clean()


async def test_what_was_under_way_in_cents_is_found_as_cents():
    world = World(more=(USD,))
    lost = await node(world, [FIRST, SECOND])
    await lost.fund(FIRST, 100)
    cents, mint = lost.wallet.foreign, world.mints[FIRST]
    await cents.deposit("cents", FIRST, Amount(500, USD), EFFECT, PERMIT)
    await lost.wallet._keeper.poll("cents")
    giver = make_wallet(SELLER_WORDS, [mint], world.clock)
    await giver.foreign.deposit("d", FIRST, Amount(64, USD), EFFECT, PERMIT)
    await giver._keeper.poll("d")
    token = await giver.foreign.send("gift", FIRST, Amount(33, USD), EFFECT, PERMIT)
    # An invoice that is not paid yet, a payment under way, and a token whose swap got lost.
    mint.lightning = lambda _: Payment.SLOW
    bill = payable(100 * MSAT_PER[USD], world.clock.now(), "bill")
    with pytest.raises(PaymentUnknown):
        await cents.pay("pay", FIRST, bill, Amount(120, USD), EFFECT, PERMIT)
    mint.auto_pay = False
    await cents.deposit("later", FIRST, Amount(32, USD), EFFECT, PERMIT)
    mint.script = lambda name: Fault.REQUEST_LOST if name == "swap" else Fault.NONE
    with pytest.raises((PaymentUnknown, MintRefused)):
        await cents.receive("token", token, EFFECT, PERMIT)
    mint.script = lambda _: Fault.NONE
    await lost.publish()
    world.pay_last(FIRST)

    again = await node(world)
    found = await again.recall.restore(())
    assert {(one["kind"], one["unit"], one["standing"]) for one in found["pending"]} == {
        ("deposit", USD, Standing.BEGUN),
        ("melt", USD, Standing.BEGUN),
        ("receive", USD, Standing.DONE),
    }
    told = [json.loads(parse_json(row["raw"]).content) for row in await again.db.select("entry")]
    notes = [one["note"] for one in told if one.get("note")]
    assert {(note["kind"], note["unit"]) for note in notes} == {(kind, USD) for kind in ("deposit", "melt", "receive")}
    assert {(one["mint"], one["unit"]) for one in found["restored"]} >= {(FIRST, SAT), (FIRST, USD)}
    assert {one["amount"] for one in found["restored"] if (one["mint"], one["unit"]) == (FIRST, SAT)} == {100}
    mint.lightning_ends()
    await world.settle(again)
    await again.recall.restore(())
    rows = {one.unit: one for one in await again.wallet.balance() if one.mint == FIRST}
    assert rows[SAT].live == 100
    paid = (await again.wallet._purse.operations(kind="melt"))[0]
    assert paid.result is not None
    assert (rows[USD].live, rows[USD].reserved, rows[USD].locked) == (500 - paid.result["gross"] + 32 + 33 - 1, 0, 0)
    assert await again.clean()


async def _with_cents() -> World:
    """A node that has cents at a mint, and is lost but for its memo."""
    world = World(more=(USD,))
    lost = await node(world, [FIRST, SECOND])
    await lost.fund(FIRST, 100)
    await lost.wallet.foreign.deposit("cents", FIRST, Amount(500, USD), EFFECT, PERMIT)
    await lost.wallet._keeper.poll("cents")
    await lost.publish()
    return world


def _bend(mint: ModelMint, bent: Callable[[tuple[KeysetInfo, ...]], list[KeysetInfo]]) -> None:
    """Its list of keysets is another one, until `del mint.keysets`."""
    real = mint.keysets

    async def keysets() -> tuple[KeysetInfo, ...]:
        return tuple(bent(await real()))

    mint.keysets = keysets


async def _in_background(world: World, of: Node) -> None:
    """What the service does, later."""
    world.clock.seconds += 1_000
    await of.recall.recovery._round(asyncio.Event())


HIDDEN = {
    "a unit that is not listed": (USD, lambda infos: [one for one in infos if one.unit != USD], "wallet.unit"),
    "sat that is not listed": (SAT, lambda infos: [one for one in infos if one.unit != SAT], "wallet.unit"),
    "a keyset that is listed twice": (
        USD,
        lambda infos: [*infos, *(replace(one, unit=SAT) for one in infos if one.unit == USD)],
        "wallet.unit",
    ),
    "a keyset that is listed twice, beside another": (
        USD,
        lambda infos: [*infos, *(replace(one, ppk=one.ppk + 1) for one in infos if one.unit == USD and not one.active)],
        "mint.lied",
    ),
}


@pytest.mark.parametrize("hidden", HIDDEN)
async def test_what_a_memo_named_is_looked_for_until_the_mint_lists_it(hidden):
    """That a mint does not list it now does not say that nothing lies there."""
    unit, bent, problem = HIDDEN[hidden]
    world = await _with_cents()
    mint = world.mints[FIRST]
    mint.rotate(unit=USD)  # the money is in an old keyset
    _bend(mint, bent)
    again = await node(world)
    found = await again.recall.restore(())
    said = {(one["mint"], one["unit"]): (one["amount"], one["problem"]) for one in found["restored"]}
    assert said[FIRST, unit][1] == problem
    assert (FIRST, unit) in await again.wallet.recollection.unscanned()
    await _in_background(world, again)
    assert (FIRST, unit) in await again.wallet.recollection.unscanned()
    assert (FIRST, unit) in (await again.wallet.recollection.memo()).mints, "and the next memo says it as well"

    # Also after a restart: the mint lists it again, and nobody has to ask.
    del mint.keysets
    later = await node(world, db=again.db)
    await _in_background(world, later)
    assert await later.wallet.recollection.unscanned() == set()
    rows = {one.unit: one.live for one in await later.wallet.balance() if one.mint == FIRST}
    assert rows == {SAT: 100, USD: 500}


async def test_a_unit_that_no_memo_named_is_not_missed():
    world = await _with_cents()
    _bend(world.mints[SECOND], lambda infos: [one for one in infos if one.unit == USD])
    again = await node(world, [SECOND])
    found = await again.recall.restore(())
    assert {one["mint"]: one["problem"] for one in found["restored"]} == {FIRST: "", SECOND: ""}


async def _lost(world: World) -> int:
    """A node that had a lock and a deposit under way; what is due to it after all."""
    lost = await node(world, [FIRST, SECOND])
    await lost.fund(FIRST, 100)
    await lost.fund(SECOND, 64)
    locked = await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    world.mints[SECOND].auto_pay = False
    await lost.wallet.deposit("later", SECOND, 32, EFFECT, PERMIT)
    await lost.publish()
    world.pay_last(SECOND)
    world.clock.seconds += 603
    return 164 - locked.gross.sat_up() + 32 + locked.amount.sat_up() - 1


async def _finishes(world: World, left: int, due: int) -> bool:
    """Whether a restore dies if so many commits succeed; what it has begun is finished by the next start."""
    dying = await node(world)
    dying.db.left = left
    died = True
    try:
        await dying.recall.restore(())
        died = False
    except StoreUncertain:
        pass
    dying.db.left = None
    again = await node(world, db=dying.db)
    if not await again.db.select("counter"):  # nothing was kept: whoever restores has seen the error
        await again.recall.restore(())
    for _ in range(3):
        await again.wallet.recover()
        await again.recall.recovery.look()
        await world.settle(again)
    assert await again.held() == (due, 0, 0), left
    assert await again.clean(), left
    return died


async def test_a_restore_that_dies_after_any_commit_is_finished_by_the_next_start():
    left = 0
    while True:
        world = World()
        due = await _lost(world)
        if not await _finishes(world, left, due):
            break
        left += 1
    assert left > 8


async def test_counters_are_raised_and_never_lowered(world, lost):
    await lost.publish()
    again = await node(world)
    await again.recall.restore(())
    used = {row["keyset"]: row["next"] for row in await lost.db.select("counter")}
    now = {row["keyset"]: row["next"] for row in await again.db.select("counter")}
    assert set(used) == set(now)
    assert all(used[keyset] <= now[keyset] for keyset in used)
    await again.recall.recovery.take_in(Memo(counters=dict.fromkeys(now, 1)))
    assert {row["keyset"]: row["next"] for row in await again.db.select("counter")} == now


async def test_an_empty_node_never_writes_over_what_the_lost_one_said(world, lost):
    await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    await lost.publish()
    again = await node(world, [FIRST])
    assert not await again.publish()
    await again.fund(FIRST, 8)
    assert await again.publish()
    assert len(world.relay.events) == 2
    third = await node(world)
    kinds = {(one["kind"], one["operation"]) for one in (await third.recall.restore(()))["pending"]}
    assert kinds == {("lock", "a lock")}


async def test_what_is_kept_and_not_finished_is_told_on(world, lost):
    await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    await lost.publish()
    again = await node(world)
    world.mints[FIRST].script = lambda _: Fault.UNREACHABLE
    found = await again.recall.restore(())
    assert [one["problem"] for one in found["pending"]] == ["mint.unreachable"]
    assert {one["mint"]: one["problem"] for one in found["restored"]} == {FIRST: "mint.unreachable", SECOND: ""}
    await again.publish()
    world.relay.events = [one for one in world.relay.events if one is world.relay.events[-1]]
    world.mints[FIRST].script = lambda _: Fault.NONE
    third = await node(world)
    assert [one["operation"] for one in (await third.recall.restore(()))["pending"]] == ["a lock"]
    assert (await third.held())[2] > 0


async def test_a_memo_is_written_when_something_changed_and_only_then(world, lost):
    assert await lost.publish()
    assert not await lost.publish()
    await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    assert await lost.publish()
    assert not await lost.publish()
    assert len(world.relay.events) == 1
    assert all("a lock" not in one.to_json() for one in world.relay.events)
    assert [row["state"] for row in await lost.db.select("outbox")].count("pending") == 1


async def test_a_database_that_is_older_than_its_memo_takes_another_name(world, lost):
    await lost.publish()
    tables = deepcopy(lost.db._tables)
    await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    await lost.publish()
    old = Dying(ledger_seal(KEY), world.clock)
    old._tables = tables
    twin = await node(world, [FIRST, SECOND], db=old)
    await twin.publish()
    assert len(world.relay.events) == 2
    third = await node(world)
    assert [one["operation"] for one in (await third.recall.restore(()))["pending"]] == ["a lock"]


async def test_nothing_is_written_before_a_relay_has_said_what_it_holds(world, lost):
    """A database that was set back, started before its relays are there, would write over what is newer."""
    await lost.publish()
    tables, newest = deepcopy(lost.db._tables), list(world.relay.events)
    old = Dying(ledger_seal(KEY), world.clock)
    old._tables = tables
    world.relay.events, world.relay.up = [], False
    twin = await node(world, [FIRST, SECOND], db=old)
    await twin.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    with pytest.raises(Unavailable):
        await twin.publish()
    assert world.relay.events == []
    world.relay.events, world.relay.up = newest, True
    assert await twin.publish()


async def test_a_node_that_lost_nothing_finds_nothing(world, lost):
    await lost.wallet.lock("a lock", world.terms(), Msat.of_sat(30), EFFECT, PERMIT)
    await lost.publish()
    found = await lost.recall.restore(())
    assert (found["pending"], found["memos"]) == ([], 0)
    assert {one["amount"] for one in found["restored"]} == {0}


@pytest.mark.parametrize("enabled", [True, False])
async def test_the_memo_follows_the_wallet_by_itself_unless_it_is_turned_off(world, lost, enabled):
    memo = WalletMemo(
        lost.db, world.relay, lost.outbox, lost.wallet.recollection, Keyring(BUYER_WORDS).node, world.clock,
        enabled=enabled,
    )  # fmt: skip
    lost.wallet.on_change(memo.changed)
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(memo.run(ready, stop))
    await ready.wait()
    seen: set[str] = set()
    for place in range(3):
        await lost.wallet.lock(f"lock {place}", world.terms(5), Msat.of_sat(30), EFFECT, PERMIT)
        for _ in range(2_000):
            await asyncio.sleep(0)
            seen |= {row["event_id"] for row in await lost.db.select("outbox")}
            if len(seen) > place:
                break
    stop.set()
    await running
    assert bool(seen) is enabled
    assert len(seen) >= (3 if enabled else 0)
