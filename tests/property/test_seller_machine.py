"""M7 and the seller's half of M1 for the seller's machine, whatever customers, wallet, wire and crashes do."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from core.money import Msat
from dvm import seller
from dvm.parcel import Packed
from dvm.record import decode, encode
from dvm.seller import ENDED, TRANSITIONS, Rule, Sale, State
from dvm.seller_event import (
    Admitted,
    AskedAgain,
    AwaitInvoice,
    AwaitSignatures,
    Cancelled,
    Claim,
    Claimed,
    ClaimRefused,
    Cosigned,
    CountVoucher,
    CreditSpent,
    CreditTaken,
    Event,
    InvoiceFailed,
    InvoiceLapsed,
    InvoicePaid,
    InvoiceWanted,
    Lent,
    LookAtInvoice,
    MakeInvoice,
    Ordered,
    PaymentRefused,
    PaymentVerified,
    Quoted,
    QuoteLapsed,
    Send,
    SendReceipt,
    SendWord,
    Settle,
    Ship,
    Unsigned,
    VoucherTaken,
    Work,
    WorkDone,
    WorkFailed,
    WorkPacked,
)

CUSTOMER, STRANGER = "c" * 64, "d" * 64
PRICE = 9_000
EXPIRES = 60
PACKED = Packed("a" * 64, "b" * 64, 100_016, "text/plain")


@dataclass
class Shop:
    """One sale, and what is true about it outside the machine."""

    free: bool
    mode: str = "B"
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
    invoiced: bool = False
    making: bool = False
    shipping: int = 0
    got: int = 0  # what the invoice brought
    spent: int = 0  # of what is owed
    credited: bool = False
    sealed: bool = False
    signed: bool = False
    given_up: bool = False
    ordered: bool = False
    drawn: bool = False
    counted: list[bool] = field(default_factory=list)
    lent: bool = False
    reached: set[State] = field(default_factory=lambda: {State.SEEN})
    fired: Counter = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.sale = Sale("r", "e", CUSTOMER, 5050, "{}", Msat(0 if self.free else PRICE))

    def tell(self, event: Event) -> None:
        before = self.sale
        after, effects = seller.step(before, event)
        if isinstance(event, Ordered) and before.state is State.QUOTED and after.state is State.WORKING:
            assert event.sender == CUSTOMER, "somebody else's order was taken for this customer's"
            assert self.mode == "A", "work for an order that was not offered"
            assert event.at < EXPIRES, "a quote was ordered after its time"
            self.ordered = True
        if isinstance(event, PaymentVerified) and before.state is State.SEALED and after.state is State.DELIVERED:
            assert event.sender == CUSTOMER, "somebody else's payment was taken for this customer's"
            assert self.ordered, "a payment after the work for what was not ordered"
            assert event.net.value >= PRICE, "it takes too little for what was ordered"
            self.paid = True
        if isinstance(event, PaymentVerified) and before.state is State.QUOTED and after.state is State.WORKING:
            assert event.sender == CUSTOMER, "somebody else's payment was taken for this customer's"
            assert event.net.value >= PRICE, "it works for too little"
            assert event.at < EXPIRES, "a quote was paid after its time"
            self.paid = True
            self.sealed = event.mode == "B"
        if isinstance(event, VoucherTaken) and before.state is State.QUOTED and after.state is State.WORKING:
            assert event.sender == CUSTOMER, "somebody else's voucher was taken for this customer's"
            assert event.at < EXPIRES, "a quote was drawn after its time"
            assert not before.invoice, "one quote, paid in two ways"
            self.paid = self.drawn = True
        self.fired[before.state, type(event)] += after != before or bool(effects)
        self.sale = decode(Sale, encode(after))
        assert self.sale == after
        self.reached.add(after.state)
        for effect in effects:
            self.act(effect)
        self.check()

    def act(self, effect: object) -> None:
        if isinstance(effect, Work):
            assert self.free or self.paid or self.ordered or self.lent, "work before the payment was verified (M7)"
            self.working += 1
        elif isinstance(effect, Send):
            if self.sale.state is State.QUOTED:
                self.quotes.append(self.sale.answer)
            else:
                self.delivered.append(self.sale.answer)
        elif isinstance(effect, MakeInvoice):
            self.making = True
        elif isinstance(effect, Ship):
            assert self.paid or self.ordered, "our file servers are filled for nothing (M7)"
            assert self.sale.packed == PACKED, "a result that is not there goes to the servers"
            self.shipping += 1
        elif isinstance(effect, LookAtInvoice):
            assert self.sale.invoice
        elif isinstance(effect, Claim):
            assert not self.got, "a claim of what was paid by invoice"
            assert not self.drawn, "a claim of what was drawn"
            assert self.delivered, "a claim before the result was on its way"
            assert self.paid, "a claim of nothing"
            assert self.signed or not self.sealed, "a claim that the mint must refuse, and that shows the key"
            self.claiming = True
        elif isinstance(effect, CountVoucher):
            assert self.drawn, "a voucher is counted that was never taken"
            self.counted.append(effect.ok)
        elif isinstance(effect, SendReceipt):
            self.receipts += 1
        elif isinstance(effect, Settle):
            self.settled.append(effect.ok)
        else:
            assert isinstance(effect, SendWord | AwaitSignatures | AwaitInvoice)

    def check(self) -> None:
        assert len(set(self.quotes)) <= 1, "two different quotes for one request"
        assert len(set(self.delivered)) <= 1, "two different results for one request"
        assert self.worked <= 1, "worked twice"
        assert len(self.settled) <= 1, "settled twice"
        assert bool(self.settled) == (self.sale.state in ENDED), "settled at the wrong time"
        assert self.receipts <= self.claimed, "a receipt without a claim"
        if self.settled and self.settled[0]:
            assert self.delivered
            assert self.free or self.claimed + bool(self.got) + self.credited + self.drawn == 1
        if self.drawn:
            assert self.counted == ([bool(self.delivered)] if self.settled else []), "not counted, twice, or wrong"
        if self.got and self.sale.state in ENDED:
            kept = self.sale.owed.value + self.spent
            assert bool(self.delivered) != bool(kept), "money came, and neither a result nor a credit went"
            assert kept in (0, PRICE)
        assert self.sale.state is not State.OWED or self.sale.owed.value > 0
        assert self.sale.state is not State.REPAID or not self.sale.owed, "a part of the credit is gone"
        if self.settled == [False] and self.delivered:
            assert self.refused or self.given_up, "money was given up that could still be claimed"

    # -- what can happen

    def admit(self) -> None:
        self.tell(Admitted() if self.free else Quoted("q", EXPIRES, "the quote", mode=self.mode, hash="hash"))

    def want_invoice(self) -> None:
        if not self.free:
            self.tell(InvoiceWanted())

    def lend(self) -> None:
        """The customer is trusted; the driver has looked whether it may be."""
        if not self.free:
            self.lent |= self.sale.state is State.SEEN
            self.tell(Lent())

    def make_invoice(self, *, ok: bool) -> None:
        if not self.making:
            return
        self.making = False
        if ok:
            self.invoiced = self.invoiced or self.sale.state is State.INVOICING
            self.tell(Quoted("q", EXPIRES, "the quote", "lnbc", "deposit"))
        else:
            self.tell(InvoiceFailed("no mint"))

    def pay_invoice(self, until: int) -> None:
        """The wallet books it once, and the driver may tell of it again and again."""
        if not self.sale.invoice or self.given_up or self.credited:
            return  # what is paid beside a credit is looked after by the tip (dvm/tip.py)
        self.got = PRICE
        self.paid = True
        self.tell(InvoicePaid(self.now, Msat(PRICE), until))

    def give_up_invoice(self) -> None:
        if self.sale.invoice and not self.got and self.sale.state in (State.LAPSED, State.BILLED):
            self.given_up = True
            self.tell(InvoiceLapsed())

    def credit(self, amount: int, until: int = 0) -> None:
        if not self.free:
            open_ = self.sale.state in (State.SEEN, State.QUOTED, State.LAPSED) and not self.sale.cancelled
            in_time = not until or self.now < until
            billed = self.sale.state is State.BILLED
            if amount >= PRICE and (billed or (open_ and (in_time or self.sale.state is State.SEEN))):
                self.paid = self.credited = True
            self.tell(CreditTaken(Msat(amount), Msat(0), self.now, until))

    def spend(self, amount: int) -> None:
        owed = self.sale.owed.value
        if amount <= owed:
            self.spent += amount if self.sale.state is State.OWED else 0
            self.tell(CreditSpent(Msat(amount)))

    def wrong_admission(self) -> None:
        if not self.free:
            self.tell(Admitted())

    def pay(self, sender: str = CUSTOMER, net: int = PRICE, mode: str = "") -> None:
        self.tell(PaymentVerified(self.now, "{}", "p", sender, "m", ("y",), Msat(net), self.now + 400, mode))

    def draw(self, sender: str = CUSTOMER) -> None:
        self.tell(VoucherTaken(self.now, sender, "d" * 32, "m"))

    def order(self, sender: str = CUSTOMER) -> None:
        self.tell(Ordered(self.now, sender))

    def sign(self, sender: str = CUSTOMER, number: int = 1) -> None:
        self.signed |= sender == CUSTOMER and number == 1 and self.sale.state is State.SEALED
        self.tell(Cosigned(sender, ("signature",) * number))

    def unsigned(self, seconds: int) -> None:
        """The time for signatures may be over."""
        self.now += seconds
        over = self.sale.state is State.SEALED and self.now >= self.sale.locktime + 60
        self.given_up |= over
        self.tell(Unsigned(self.now))

    def bad_payment(self, sender: str) -> None:
        self.tell(PaymentRefused(sender, "token.forged"))

    def work(self, *, ok: bool) -> None:
        if self.working and self.sale.state is State.WORKING:
            self.working = 0
            self.worked += ok
            bill = ("lnbc", "deposit") if self.lent else ("", "")
            self.tell(WorkDone("the result", self.now, *bill) if ok else WorkFailed("broken"))

    def stray_bill(self) -> None:
        """A result with an invoice, of a sale that was not to have one."""
        if not self.lent and not self.paid and not self.ordered and self.sale.state is not State.WORKING:
            self.tell(WorkDone("another result", self.now, "lnbc", "other"))

    def pack(self) -> None:
        """The result is too large for an event."""
        if self.working and self.sale.state is State.WORKING:
            self.tell(WorkPacked(PACKED))
            self.working = 0 if self.sale.state is State.STORING else self.working

    def ship(self, *, ok: bool) -> None:
        if self.shipping and self.sale.state is State.STORING:
            self.shipping = 0
            self.worked += ok
            self.tell(WorkDone("the pointer", self.now) if ok else WorkFailed("no server took it"))

    def late_work(self) -> None:
        """A result of an earlier life of the process."""
        if self.sale.state not in (State.WORKING, State.STORING):
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
        self.working, self.claiming, self.making, self.shipping = 0, False, False, 0
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
    """Most shops are paid in one way, so that their tales come far; some see everything at once."""
    chance = random.Random(seed)
    shop = Shop(chance.random() < 0.2, chance.choice(("A", "B", "B", "")))
    ways = chance.choice(((_by_ecash,), (_by_ecash,), (_by_invoice,), (_by_invoice,), (_by_ecash, _by_invoice)))
    for _ in range(40):
        sender = chance.choice((CUSTOMER, CUSTOMER, STRANGER))
        acts = [act for way in (_always, *ways) for act in way(shop, chance, sender)]
        chance.choice(acts)()
    return shop


Acts = tuple[Callable[[], None], ...]


def _always(shop: Shop, chance: random.Random, sender: str) -> Acts:
    return (
        shop.wrong_admission,
        lambda: shop.work(ok=chance.random() < 0.8),
        lambda: shop.work(ok=chance.random() < 0.9),
        lambda: shop.pack() if chance.random() < 0.6 else None,
        lambda: shop.ship(ok=chance.random() < 0.5),
        shop.late_work,
        shop.stray_bill,
        shop.crash,
        lambda: shop.wait(chance.choice((0, 1, 70))) if chance.random() < 0.7 else None,
        lambda: shop.cancel(sender) if chance.random() < 0.2 else None,
        shop.again,
    )


def _by_ecash(shop: Shop, chance: random.Random, sender: str) -> Acts:
    return (
        shop.admit,
        shop.admit,
        lambda: shop.pay(sender, chance.choice((PRICE, PRICE + 1, PRICE - 1)), chance.choice(("", "A", "B"))),
        lambda: shop.pay(sender, chance.choice((PRICE, PRICE + 1, PRICE - 1)), shop.mode),
        lambda: shop.order(sender),
        lambda: shop.draw(sender),
        lambda: shop.sign(sender, chance.choice((1, 1, 0, 2))),
        lambda: shop.unsigned(chance.choice((1, 500))),
        lambda: shop.bad_payment(sender),
        lambda: shop.claim(chance.choice(("done", "lost", "refused"))),
    )


def _by_invoice(shop: Shop, chance: random.Random, sender: str) -> Acts:
    return (
        shop.want_invoice,
        lambda: shop.lend() if chance.random() < 0.3 else None,
        lambda: shop.make_invoice(ok=chance.random() < 0.9),
        lambda: shop.pay_invoice(chance.choice((0, 0, 100))),
        lambda: shop.give_up_invoice() if chance.random() < 0.3 else None,
        lambda: (
            shop.credit(chance.choice((PRICE, PRICE - 1)), chance.choice((0, 100))) if chance.random() < 0.2 else None
        ),
        lambda: shop.spend(chance.choice((PRICE, 1_000, 1_000))),
    )


class Seller(RuleBasedStateMachine):
    @initialize(free=st.booleans(), invoice=st.booleans(), mode=st.sampled_from(("", "A", "B")))
    def begin(self, free: bool, invoice: bool, mode: str) -> None:
        self.shop = Shop(free, mode)
        if invoice:
            self.shop.want_invoice()
        else:
            self.shop.admit()

    @rule(ok=st.booleans())
    def make_invoice(self, ok: bool) -> None:
        self.shop.make_invoice(ok=ok)

    @rule()
    def lend(self) -> None:
        self.shop.lend()

    @rule(until=st.sampled_from((0, 5, 1_000)))
    def pay_invoice(self, until: int) -> None:
        self.shop.pay_invoice(until)

    @rule()
    def give_up_invoice(self) -> None:
        self.shop.give_up_invoice()

    @rule(amount=st.sampled_from((PRICE, 1_000)))
    def spend(self, amount: int) -> None:
        self.shop.spend(amount)

    @rule(sender=st.sampled_from((CUSTOMER, STRANGER)), net=st.sampled_from((PRICE, PRICE - 1)))
    def pay(self, sender: str, net: int) -> None:
        self.shop.pay(sender, net)

    @rule(sender=st.sampled_from((CUSTOMER, STRANGER)), mode=st.sampled_from("AB"))
    def pay_for_a_seal(self, sender: str, mode: str) -> None:
        self.shop.pay(sender, mode=mode)

    @rule(sender=st.sampled_from((CUSTOMER, STRANGER)))
    def draw(self, sender: str) -> None:
        self.shop.draw(sender)

    @rule(sender=st.sampled_from((CUSTOMER, STRANGER)))
    def order(self, sender: str) -> None:
        self.shop.order(sender)

    @rule(sender=st.sampled_from((CUSTOMER, STRANGER)), number=st.integers(0, 2))
    def sign(self, sender: str, number: int) -> None:
        self.shop.sign(sender, number)

    @rule(seconds=st.sampled_from((1, 500)))
    def unsigned(self, seconds: int) -> None:
        self.shop.unsigned(seconds)

    @rule(ok=st.booleans())
    def work(self, ok: bool) -> None:
        self.shop.work(ok=ok)

    @rule()
    def pack(self) -> None:
        self.shop.pack()

    @rule(ok=st.booleans())
    def ship(self, ok: bool) -> None:
        self.shop.ship(ok=ok)

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
        ((State.LAPSED, InvoicePaid), (Rule(State.EXPIRED, seller._end),)),  # kept silently
        ((State.WORKING, WorkFailed), (Rule(State.FAILED, seller._fail),)),  # the same
        ((State.QUOTED, QuoteLapsed), (Rule(State.EXPIRED, seller._end, seller._over),)),  # its invoice still stands
        ((State.SEEN, CreditTaken), (Rule(State.WORKING, seller._take_credit),)),  # credit that does not cover it
        ((State.INVOICING, Quoted), (Rule(State.WORKING, seller._serve),)),  # work for an invoice that nobody paid
        # Called paid though nobody paid, and given up though it may still be paid
        ((State.BILLED, InvoiceLapsed), (Rule(State.DONE, lambda sale, event: (sale, [Settle(ok=True)])),)),
        ((State.BILLED, QuoteLapsed), (Rule(State.LOST, seller._never_paid),)),
        ((State.BILLED, CreditTaken), (Rule(State.DONE, seller._credited_after),)),  # credit that does not cover it
        ((State.OWED, CreditSpent), (Rule(State.REPAID, seller._spend),)),  # a part of it, and the rest is gone
        ((State.WORKING, WorkDone), (Rule(State.DELIVERED, seller._deliver, seller._is_paid),)),
        ((State.WORKING, WorkPacked), (Rule(State.STORING, seller._pack),)),  # for nothing
        ((State.STORING, WorkFailed), (Rule(State.FAILED, seller._fail),)),  # money that came is kept silently
        ((State.STORING, WorkDone), (Rule(State.DELIVERED, seller._deliver, seller._is_paid),)),  # claimed unsigned
        ((State.SEALED, Cosigned), (Rule(State.DELIVERED, seller._cosigned),)),
        ((State.SEALED, Unsigned), (Rule(State.LOST, seller._unsigned),)),
        ((State.QUOTED, Ordered), (Rule(State.WORKING, seller._take_order, seller._is_customer),)),
        ((State.SEALED, PaymentVerified), (Rule(State.DELIVERED, seller._pay_order, seller._is_customer),)),
        ((State.QUOTED, VoucherTaken), (Rule(State.WORKING, seller._take_voucher),)),
        ((State.WORKING, WorkDone), (Rule(State.DONE, seller._deliver_free),)),  # a voucher is never counted
    ],
)
def test_planted_bugs_are_caught(monkeypatch: pytest.MonkeyPatch, key, rules) -> None:
    monkeypatch.setitem(TRANSITIONS, key, rules)
    if key == (State.DONE, Claimed):
        monkeypatch.setattr(Shop, "late_work", lambda shop: shop.tell(Claimed(Msat(PRICE))))
    assert _shop_fails()
