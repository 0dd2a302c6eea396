"""M7 and the seller's half of M1 for the seller's machine, whatever customers, wallet, wire and crashes do."""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from core.money import Msat
from dvm import seller
from dvm.record import decode, encode
from dvm.seller import (
    ENDED,
    TRANSITIONS,
    Admitted,
    AskedAgain,
    Cancelled,
    Claim,
    Claimed,
    ClaimRefused,
    Event,
    PaymentRefused,
    PaymentVerified,
    Quoted,
    QuoteLapsed,
    Rule,
    Sale,
    Send,
    SendReceipt,
    SendWord,
    Settle,
    State,
    Work,
    WorkDone,
    WorkFailed,
)

CUSTOMER, STRANGER = "c" * 64, "d" * 64
PRICE = 9_000
EXPIRES = 60


@dataclass
class Shop:
    """One sale, and what is true about it outside the machine."""

    free: bool
    sale: Sale = field(init=False)
    now: int = 0
    working: int = 0
    worked: int = 0
    paid: bool = False
    delivered: list[str] = field(default_factory=list)
    quotes: list[str] = field(default_factory=list)
    settled: list[bool] = field(default_factory=list)
    claiming: bool = False
    claimed: int = 0
    receipts: int = 0
    refused: bool = False
    reached: set[State] = field(default_factory=lambda: {State.SEEN})
    fired: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.sale = Sale("r", "e", CUSTOMER, 5050, "{}", Msat(0 if self.free else PRICE))

    def tell(self, event: Event) -> None:
        before = self.sale
        after, effects = seller.step(before, event)
        if isinstance(event, PaymentVerified) and before.state is State.QUOTED and after.state is State.WORKING:
            assert event.sender == CUSTOMER, "somebody else's payment was taken for this customer's"
            assert event.net.value >= PRICE, "it works for too little"
            assert event.at < EXPIRES, "a quote was paid after its time"
            self.paid = True
        self.fired[before.state, type(event)] += after != before or bool(effects)
        self.sale = decode(Sale, encode(after))
        assert self.sale == after
        self.reached.add(after.state)
        for effect in effects:
            self.act(effect)
        self.check()

    def act(self, effect: seller.Effect) -> None:
        if isinstance(effect, Work):
            assert self.free or self.paid, "work before the payment was verified (M7)"
            self.working += 1
        elif isinstance(effect, Send):
            if self.sale.state is State.QUOTED:
                self.quotes.append(self.sale.answer)
            else:
                self.delivered.append(self.sale.answer)
        elif isinstance(effect, Claim):
            assert self.delivered, "a claim before the result was on its way"
            self.claiming = True
        elif isinstance(effect, SendReceipt):
            self.receipts += 1
        elif isinstance(effect, Settle):
            self.settled.append(effect.ok)
        else:
            assert isinstance(effect, SendWord)

    def check(self) -> None:
        assert len(set(self.quotes)) <= 1, "two different quotes for one request"
        assert len(set(self.delivered)) <= 1, "two different results for one request"
        assert self.worked <= 1, "worked twice"
        assert len(self.settled) <= 1, "settled twice"
        assert bool(self.settled) == (self.sale.state in ENDED), "settled at the wrong time"
        assert self.receipts <= self.claimed, "a receipt without a claim"
        if self.settled and self.settled[0]:
            assert self.delivered
            assert self.free or self.claimed == 1
        if self.settled == [False] and self.delivered:
            assert self.refused, "money was given up that could still be claimed"

    # -- what can happen

    def admit(self) -> None:
        self.tell(Admitted() if self.free else Quoted("q", EXPIRES, "the quote"))

    def wrong_admission(self) -> None:
        if not self.free:
            self.tell(Admitted())

    def pay(self, sender: str = CUSTOMER, net: int = PRICE) -> None:
        self.tell(PaymentVerified(self.now, "{}", "p", sender, "m", ("y",), Msat(net), self.now + 400))

    def bad_payment(self, sender: str) -> None:
        self.tell(PaymentRefused(sender, "token.forged"))

    def work(self, *, ok: bool) -> None:
        if self.working and self.sale.state is State.WORKING:
            self.working = 0
            self.worked += ok
            self.tell(WorkDone("the result") if ok else WorkFailed("broken"))

    def late_work(self) -> None:
        """A result of an earlier life of the process."""
        if self.sale.state is not State.WORKING:
            self.tell(WorkDone("another result"))

    def claim(self, outcome: str) -> None:
        if not self.claiming:
            return
        if outcome == "lost":
            return
        self.claiming = False
        if outcome == "done":
            self.claimed += self.sale.state is State.DELIVERED
            self.tell(Claimed(Msat(PRICE)))
        else:
            self.refused = True
            self.tell(ClaimRefused("token.spent"))

    def crash(self) -> None:
        self.sale = decode(Sale, encode(self.sale))
        self.working, self.claiming = 0, False
        for effect in seller.resumed(self.sale):
            self.act(effect)

    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.tell(QuoteLapsed(self.now))

    def cancel(self, sender: str) -> None:
        self.tell(Cancelled(sender))

    def again(self) -> None:
        self.tell(AskedAgain(self.now))


def play(seed: int) -> Shop:
    chance = random.Random(seed)
    shop = Shop(chance.random() < 0.3)
    for _ in range(25):
        _one(shop, chance, chance.choice((CUSTOMER, CUSTOMER, STRANGER)))
    return shop


def _one(shop: Shop, chance: random.Random, sender: str) -> None:
    chance.choice(
        (
            shop.admit,
            shop.wrong_admission,
            lambda: shop.pay(sender, chance.choice((PRICE, PRICE + 1, PRICE - 1))),
            lambda: shop.bad_payment(sender),
            lambda: shop.work(ok=chance.random() < 0.8),
            lambda: shop.work(ok=True),
            shop.late_work,
            lambda: shop.claim(chance.choice(("done", "lost", "refused"))),
            shop.crash,
            lambda: shop.wait(chance.choice((0, 1, 70))),
            lambda: shop.cancel(sender) if chance.random() < 0.2 else None,
            shop.again,
        )
    )()


class Seller(RuleBasedStateMachine):
    @initialize(free=st.booleans())
    def begin(self, free: bool) -> None:
        self.shop = Shop(free)
        self.shop.admit()

    @rule(sender=st.sampled_from((CUSTOMER, STRANGER)), net=st.sampled_from((PRICE, PRICE - 1)))
    def pay(self, sender: str, net: int) -> None:
        self.shop.pay(sender, net)

    @rule(ok=st.booleans())
    def work(self, ok: bool) -> None:
        self.shop.work(ok=ok)

    @rule()
    def late_work(self) -> None:
        self.shop.late_work()

    @rule(outcome=st.sampled_from(("done", "lost", "refused")))
    def claim(self, outcome: str) -> None:
        self.shop.claim(outcome)

    @rule()
    def crash(self) -> None:
        self.shop.crash()

    @rule(seconds=st.sampled_from((0, 10, 70)))
    def wait(self, seconds: int) -> None:
        self.shop.wait(seconds)

    @rule(sender=st.sampled_from((CUSTOMER, STRANGER)))
    def cancel(self, sender: str) -> None:
        self.shop.cancel(sender)

    @rule()
    def again(self) -> None:
        self.shop.again()

    @invariant()
    def sound(self) -> None:
        if hasattr(self, "shop"):
            self.shop.check()


TestSeller = Seller.TestCase
TestSeller.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_m7_holds_in_every_seeded_shop_and_every_transition_is_taken() -> None:
    reached: set[State] = set()
    fired: Counter = Counter()
    for seed in range(2_000):
        shop = play(seed)
        reached |= shop.reached
        fired += shop.fired
    assert reached == set(State)
    assert not [key for key in TRANSITIONS if not fired[key]]


def _shop_fails() -> bool:
    for seed in range(1_000):
        try:
            play(seed)
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize(
    ("key", "rules"),
    [
        ((State.SEEN, Admitted), (Rule(State.WORKING, seller._serve),)),
        ((State.QUOTED, PaymentVerified), (Rule(State.WORKING, seller._take_payment),)),
        ((State.QUOTED, PaymentVerified), (Rule(State.WORKING, seller._take_payment, seller._is_customer),)),
        ((State.DELIVERED, WorkDone), (Rule(State.DELIVERED, seller._deliver),)),
        ((State.DELIVERED, QuoteLapsed), (Rule(State.EXPIRED, seller._end),)),
        ((State.WORKING, QuoteLapsed), (Rule(State.EXPIRED, lambda sale, event: (sale, [])),)),
        ((State.DONE, Claimed), (Rule(State.DONE, seller._claimed),)),
    ],
)
def test_planted_bugs_are_caught(monkeypatch: pytest.MonkeyPatch, key, rules) -> None:
    monkeypatch.setitem(TRANSITIONS, key, rules)
    if key == (State.DONE, Claimed):
        monkeypatch.setattr(Shop, "late_work", lambda shop: shop.tell(Claimed(Msat(PRICE))))
    assert _shop_fails()
