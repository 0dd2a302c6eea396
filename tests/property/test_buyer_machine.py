"""M1, M2, M4, M5 for the buyer's machine, whatever sellers, wallet, wire and crashes do; and planted bugs."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dvm import buyer, buyer_rule, seal_rule, voucher_rule
from dvm.buyer import TRANSITIONS, Rule
from dvm.buyer_event import (
    Allocate,
    Chosen,
    InvoicePaid,
    LockDone,
    LockUnknown,
    RefundDone,
    ResultArrived,
    SealedArrived,
    SellerFailed,
    SpentSeen,
    VoucherCounted,
)
from dvm.job import Funds, State
from tests.property.market_part import SELLERS, World, happenings, purchase

ROUTES = (("dvm", "summarizer"), ("dvm",), ("summarizer", "dvm"), ("echo", "summarizer"), ("dvm", "echo", "summarizer"))


def play(seed: int, steps: int = 60) -> World:
    chance = random.Random(seed)
    world = World(purchase(chance.choice(ROUTES)), denied=set(chance.sample(SELLERS, chance.choice((0, 0, 1)))))
    if chance.random() < 0.9:
        world.start()
    if chance.random() < 0.5:
        _prologue(world, chance)
        steps = chance.choice((0, 5, 30))
    for _ in range(steps):
        happenings(world, chance)
    world.settle()
    return world


def _prologue(world: World, chance: random.Random) -> None:
    """Chance alone seldom gets so far: to an order, to work that is paid, or to a sealed result."""
    seller = next(name for name in SELLERS if name not in world.denied)
    mode = chance.choice(("", "A", "B", "invoice"))
    if chance.random() < 0.2:  # it is waited for, after it promised work
        world.progress(seller)
        world.window(0)
    if mode == "invoice":
        _paid_by_invoice(world, seller, chance)
        return
    world.quote(seller, 5_000, mode=mode)
    world.window(0)
    if mode == "A" and chance.random() < 0.5:
        return
    if mode == "A":
        world.sealed(seller)
    world.lock("done")
    if mode == "B" and chance.random() < 0.2:
        world.sealed(seller, chance.choice(("", "junk")), other=True)
    elif mode == "B" and chance.random() < 0.6:
        world.wait(chance.choice((0, 0, 320)))  # which is in the last minute of the lock
        world.sealed(seller)


def _paid_by_invoice(world: World, seller: str, chance: random.Random) -> None:
    """Two ask for their money first, and the result of the one that is chosen may be quicker than our wallet."""
    world.invoice(seller, 5_000)
    world.invoice(next(name for name in SELLERS if name not in (seller, *world.denied)), 5_000)
    world.window(0)
    early = chance.random() < 0.3
    if early:
        world.result(world.job.seller, chance.choice(("", "", "it is empty")))
    world.lock("done")
    if not early and chance.random() < 0.5:
        world.error(world.job.seller)


class Buyer(RuleBasedStateMachine):
    """The same world under hypothesis, so that a failure shrinks to its few steps."""

    @initialize(route=st.sampled_from(ROUTES), denied=st.sets(st.sampled_from(SELLERS), max_size=1))
    def begin(self, route: tuple[str, ...], denied: set[str]) -> None:
        self.world = World(purchase(route), denied=denied)
        self.world.start()

    @rule(seller=st.sampled_from(SELLERS), price=st.sampled_from((1_000, 21_000, 28_500, 10**7)))
    def quote(self, seller: str, price: int) -> None:
        self.world.quote(seller, price)

    @rule(seller=st.sampled_from(SELLERS), price=st.sampled_from((1_000, 21_000, 10**7)), firm=st.booleans())
    def invoice(self, seller: str, price: int, firm: bool) -> None:
        self.world.invoice(seller, price, firm=firm)

    @rule(seller=st.sampled_from(SELLERS), price=st.sampled_from((1_000, 21_000, 10**7)))
    def unpaid_result(self, seller: str, price: int) -> None:
        self.world.unpaid_result(seller, price)

    @rule(seller=st.sampled_from(SELLERS), price=st.sampled_from((1_000, 21_000)), mode=st.sampled_from("AB"))
    def sealed_quote(self, seller: str, price: int, mode: str) -> None:
        self.world.quote(seller, price, mode=mode)

    @rule(seller=st.sampled_from(SELLERS), fault=st.sampled_from(("", "junk")), other=st.booleans())
    def sealed(self, seller: str, fault: str, other: bool) -> None:
        self.world.sealed(seller, fault, other=other)

    @rule(fault=st.sampled_from(("", "bad")), fraud=st.booleans())
    def show_key(self, fault: str, fraud: bool) -> None:
        self.world.show_key(fault, fraud=fraud)

    @rule(reason=st.sampled_from(("the disk is full", "no server has it")))
    def hold_key(self, reason: str) -> None:
        self.world.hold_key(reason)

    @rule()
    def reveal_passed(self) -> None:
        self.world.reveal_passed()

    @rule(seller=st.sampled_from(SELLERS), fault=st.sampled_from(("", "bad")), price=st.sampled_from((None, 0, 500)))
    def result(self, seller: str, fault: str, price: int | None) -> None:
        self.world.result(seller, fault, price)

    @rule(seller=st.sampled_from(SELLERS))
    def error(self, seller: str) -> None:
        self.world.error(seller)

    @rule(round_=st.integers(0, 1))
    def window(self, round_: int) -> None:
        self.world.window(round_)

    @rule(seller=st.sampled_from(SELLERS), price=st.sampled_from((1_000, 28_500, 10**7)))
    def drawn_quote(self, seller: str, price: int) -> None:
        self.world.drawn_quote(seller, price)

    @rule(ok=st.booleans())
    def count(self, ok: bool) -> None:
        self.world.count(ok=ok)

    @rule(outcome=st.sampled_from(("done", "refused", "lost_after", "lost_before")))
    def lock(self, outcome: str) -> None:
        self.world.lock(outcome)

    @rule(ok=st.booleans())
    def fallback(self, ok: bool) -> None:
        self.world.fallback(ok=ok)

    @rule()
    def deadline(self) -> None:
        self.world.deadline()

    @rule(really=st.booleans())
    def locktime(self, really: bool) -> None:
        self.world.locktime(really=really)

    @rule(outcome=st.sampled_from(("done", "refused")))
    def refund(self, outcome: str) -> None:
        self.world.refund(outcome)

    @rule()
    def claim(self) -> None:
        self.world.claim()

    @rule()
    def watch(self) -> None:
        self.world.watch()

    @rule()
    def crash(self) -> None:
        self.world.crash()

    @rule()
    def cancel(self) -> None:
        self.world.cancel()

    @rule()
    def again(self) -> None:
        self.world.repeat("lock")

    @invariant()
    def sound(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


TestBuyer = Buyer.TestCase
TestBuyer.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_m1_m2_m4_hold_in_every_seeded_world_and_every_state_is_reached() -> None:
    reached: set[str] = set()
    fired: Counter[tuple[str, str]] = Counter()
    for seed in range(400 if settings.default.max_examples <= 1_000 else 20_000):
        world = play(seed)
        reached |= world.reached
        fired += world.fired
    assert reached == {str(place) for place in (*State, *Funds)}
    silent = [
        key
        for key in TRANSITIONS
        if not fired[str(key[0]), key[1].__name__]
        and key[1] not in (LockUnknown, Chosen)  # these change no place of their own
        and any(item.to != key[0] for item in TRANSITIONS[key])
    ]
    assert not silent, f"transitions that no world took: {silent}"


def _world_fails(seeds: int = 400) -> bool:
    for seed in range(seeds):
        try:
            play(seed)
        except AssertionError:
            return True
    return False


def test_planted_a_second_choice_while_money_is_out_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def out(p, e) -> bool:
        return p.money is Funds.LOCKED and bool(buyer_rule.payable(p.offers, e.at_ms // 1000))

    again = Rule(State.PAYING, buyer_rule.accept, out)
    monkeypatch.setitem(TRANSITIONS, (State.WORKING, SellerFailed), (again, Rule(State.FAILED, buyer_rule.give_up)))
    monkeypatch.setitem(TRANSITIONS, (Funds.LOCKED, Chosen), (Rule(Funds.LOCKING, buyer_rule.begin_lock),))
    assert _world_fails()


def test_planted_an_unknown_payment_that_is_undone_on_a_guess_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """M5: the lock's answer was lost, and the buyer takes the next quote."""
    monkeypatch.setitem(TRANSITIONS, (Funds.LOCKING, LockUnknown), (Rule(Funds.NONE, buyer_rule.lock_unknown),))
    rules = TRANSITIONS[State.PAYING, buyer_rule.LockFailed]
    monkeypatch.setitem(TRANSITIONS, (State.PAYING, LockUnknown), tuple(_with_reason(item) for item in rules))
    assert _world_fails()


def _with_reason(item: Rule) -> Rule:
    def do(purchase, event):
        struck = buyer_rule._strike(purchase, purchase.chosen, "unknown")
        return item.do(struck, buyer_rule.LockFailed(event.at_ms, event.op_id, "unknown"))

    def when(purchase, event):
        struck = buyer_rule._strike(purchase, purchase.chosen, "unknown")
        return item.when(struck, buyer_rule.LockFailed(event.at_ms, event.op_id, "unknown"))

    return Rule(item.to, do, when)


def test_planted_a_reservation_closed_at_delivery_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buyer, "FINAL", frozenset(Funds))
    assert _world_fails()


def test_planted_a_result_from_anyone_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    anyone = (Rule(State.DELIVERED, buyer_rule.deliver, lambda p, e: not e.fault),)
    monkeypatch.setitem(TRANSITIONS, (State.WORKING, ResultArrived), anyone)
    assert _world_fails()


def test_planted_a_quote_above_the_reservation_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buyer_rule, "judge", lambda offer, ceiling, now, deadline: replace(offer, refusal=""))
    assert _world_fails()


def test_planted_a_refund_before_the_locktime_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    early = (Rule(Funds.REFUNDING, buyer_rule.refund),)
    monkeypatch.setitem(TRANSITIONS, (Funds.LOCKED, buyer_rule.LocktimePassed), early)
    assert _world_fails()


def test_planted_a_claim_that_nobody_books_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = (Rule(Funds.NONE, buyer_rule.claimed),)
    monkeypatch.setitem(TRANSITIONS, (Funds.LOCKED, SpentSeen), lost)
    assert _world_fails()


def test_planted_a_token_sent_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSITIONS, (Funds.LOCKED, LockDone), (Rule(Funds.LOCKED, buyer_rule.lock_done),))
    monkeypatch.setitem(
        TRANSITIONS, (State.WORKING, LockDone), (Rule(State.WORKING, buyer_rule.send_payment, buyer_rule.locked),)
    )
    assert _world_fails()


def test_planted_a_signature_for_any_sealed_text_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    any_seal = (Rule(State.SEALED, seal_rule.keep_sealed, lambda p, e: bool(p.payment and p.payment.atomic)),)
    monkeypatch.setitem(TRANSITIONS, (State.WORKING, SealedArrived), any_seal)
    assert _world_fails()


def test_planted_money_for_an_order_that_was_not_shown_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buyer_rule, "mode_of", lambda offer: "")
    assert _world_fails()


def test_planted_a_signature_at_the_last_moment_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seal_rule, "COSIGN_MARGIN_S", -600)
    assert _world_fails()


def test_planted_a_job_that_gives_up_before_its_money_does_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when nobody claimed yet, and forgets that the key can still be bought."""
    monkeypatch.setitem(TRANSITIONS, (Funds.REFUNDING, RefundDone), (Rule(Funds.NONE, buyer_rule.refunded),))
    assert _world_fails()


def test_allocation_is_asked_before_every_lock() -> None:
    job = purchase()
    job, _ = buyer.step(job, buyer_rule.Start(1_000, "{}", "r", 90))
    world = World(job, now=2_000)
    world.quote(SELLERS[0], 1_000)
    _, effects = buyer.step(world.job, buyer.WindowClosed(3_000, 0))
    assert [type(item).__name__ for item in effects] == ["Allocate", "Lock"]
    assert isinstance(effects[0], Allocate)


def test_planted_a_paid_invoice_that_nobody_books_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSITIONS, (Funds.LOCKING, InvoicePaid), (Rule(Funds.NONE, buyer_rule.pay_done),))
    assert _world_fails()


def test_planted_an_invoice_paid_again_for_a_result_that_fails_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paid before the work, and the result is bad: the next invoice is not paid as well (M1)."""

    def gone(p, e) -> bool:
        return p.money is Funds.CLAIMED and bool(buyer_rule.payable(p.offers, e.at_ms // 1000))

    again = Rule(State.PAYING, buyer_rule.accept, gone)
    monkeypatch.setitem(TRANSITIONS, (State.WORKING, SellerFailed), (again, Rule(State.FAILED, buyer_rule.give_up)))
    monkeypatch.setitem(TRANSITIONS, (Funds.CLAIMED, Chosen), (Rule(Funds.LOCKING, buyer_rule.begin_pay),))
    assert _world_fails()


def test_planted_a_result_that_is_used_before_it_is_paid_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buyer takes what it has not paid for, and then pays somebody else."""
    early = (Rule(State.DELIVERED, buyer_rule.deliver, buyer_rule.always),)
    monkeypatch.setitem(TRANSITIONS, (State.PAYING, ResultArrived), early)
    assert _world_fails()


def test_planted_a_voucher_that_is_counted_though_the_seller_did_not_earn_it_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    always = (Rule(Funds.CLAIMED, voucher_rule.release, voucher_rule.void),)
    monkeypatch.setitem(TRANSITIONS, (Funds.LOCKED, VoucherCounted), always)
    assert _world_fails()


def test_planted_a_voucher_that_is_forgotten_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = (Rule(Funds.CLAIMED, lambda job, event: (job, []), voucher_rule.earned),)
    monkeypatch.setitem(TRANSITIONS, (Funds.LOCKED, ResultArrived), silent)
    assert _world_fails()
