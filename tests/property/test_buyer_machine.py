"""M1, M2, M4, M5 for the buyer's machine, whatever sellers, wallet, wire and crashes do; and planted bugs."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dvm import buyer, buyer_rule
from dvm.buyer import TRANSITIONS, Rule
from dvm.buyer_event import Allocate, Chosen, LockDone, LockUnknown, ResultArrived, SellerFailed, SpentSeen
from dvm.job import Funds, State
from tests.property.market_part import SELLERS, World, happenings, purchase

ROUTES = (("dvm", "summarizer"), ("dvm",), ("summarizer", "dvm"), ("echo", "summarizer"), ("dvm", "echo", "summarizer"))


def play(seed: int, steps: int = 60) -> World:
    chance = random.Random(seed)
    world = World(purchase(chance.choice(ROUTES)), denied=set(chance.sample(SELLERS, chance.choice((0, 0, 1)))))
    if chance.random() < 0.9:
        world.start()
    for _ in range(steps):
        happenings(world, chance)
    world.settle()
    return world


class Buyer(RuleBasedStateMachine):
    """The same world under hypothesis, so that a failure shrinks to its few steps."""

    @initialize(route=st.sampled_from(ROUTES), denied=st.sets(st.sampled_from(SELLERS), max_size=1))
    def begin(self, route: tuple[str, ...], denied: set[str]) -> None:
        self.world = World(purchase(route), denied=denied)
        self.world.start()

    @rule(seller=st.sampled_from(SELLERS), price=st.sampled_from((1_000, 21_000, 28_500, 10**7)))
    def quote(self, seller: str, price: int) -> None:
        self.world.quote(seller, price)

    @rule(seller=st.sampled_from(SELLERS), fault=st.sampled_from(("", "bad")), price=st.sampled_from((None, 0, 500)))
    def result(self, seller: str, fault: str, price: int | None) -> None:
        self.world.result(seller, fault, price)

    @rule(seller=st.sampled_from(SELLERS))
    def error(self, seller: str) -> None:
        self.world.error(seller)

    @rule(round_=st.integers(0, 1))
    def window(self, round_: int) -> None:
        self.world.window(round_)

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
    again = Rule(State.PAYING, buyer_rule.accept, lambda p, e: bool(buyer_rule.payable(p.offers, e.at_ms // 1000)))
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


def test_allocation_is_asked_before_every_lock() -> None:
    job = purchase()
    job, _ = buyer.step(job, buyer_rule.Start(1_000, "{}", "r", 90))
    world = World(job, now=2_000)
    world.quote(SELLERS[0], 1_000)
    _, effects = buyer.step(world.job, buyer.WindowClosed(3_000, 0))
    assert [type(item).__name__ for item in effects] == ["Allocate", "Lock"]
    assert isinstance(effects[0], Allocate)
