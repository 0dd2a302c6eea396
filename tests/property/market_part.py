"""A model wallet and market for the buyer's machine: they act, then lose, delay or repeat the answer."""

import random
from collections import Counter
from dataclasses import dataclass, field

from core.money import MicroUsd, Msat, Rate
from dvm import buyer
from dvm.buyer_event import (
    Allocate,
    Answered,
    BudgetDenied,
    CancelAsked,
    CountVoucher,
    DeadlinePassed,
    Effect,
    Event,
    FallbackDone,
    FallbackFailed,
    Finish,
    InvoicePaid,
    KeyHeld,
    KeyShown,
    Lock,
    LockDone,
    LockFailed,
    LocktimePassed,
    LockUnknown,
    Notify,
    Pay,
    Progress,
    PublishCosign,
    PublishOrder,
    PublishPayment,
    Refund,
    RefundDone,
    RefundFailed,
    Refuse,
    ResultArrived,
    RevealPassed,
    RunFallback,
    SealedArrived,
    SeekKey,
    SellerFailed,
    SpentSeen,
    Start,
    VoucherCounted,
    WindowClosed,
)
from dvm.invoice import billed
from dvm.job import ENDED, FINAL, Funds, Limit, Purchase, State
from dvm.record import decode, encode
from dvm.request import Datum
from dvm.selection import Bill, Nature, Offer, Terms
from dvm.settlement import Method

RATE = Rate.of_btc_price(65_000, 0, "test")
SELLERS = ("a" * 64, "b" * 64, "c" * 64)
MINT = "http://mint"
FEE = 2_000
DAY_MS = 86_400_000


def purchase(route: tuple[str, ...] = ("dvm", "summarizer"), uusd: int = 20_000) -> Purchase:
    """A staged job with a reservation in µUSD."""
    limit = Limit("uusd", uusd, RATE.cover(MicroUsd(uusd)), RATE)
    return Purchase(
        job_id="job",
        effect_id="effect",
        caller="agent:a",
        kind=5001,
        inputs=(Datum("a text " * 40),),
        params=(),
        output="",
        limit=limit,
        bid=limit.ceiling - Msat(FEE),
        mints=(MINT,),
        route=route,
        created_at=1_000,
        window_ms=1_500,
        patience_ms=10_000,
        timeout_s=60,
        lock_margin_s=300,
    )


def quote(
    seller: str,
    number: int,
    price: int,
    at_ms: int,
    *,
    expires_in: int = 60,
    mint: str = MINT,
    mode: str = "",
    deposit: str = "",
) -> Offer:
    """A firm quote, as the driver hands it to the machine; in a mode it is for a sealed result.

    With a deposit it is drawn from that.
    """
    method = Method.ATOMIC if mode else Method.LOCKED
    hash_ = f"hash of {number}" if mode else ""
    terms = (Terms(mint, "02" + seller, Msat(price + FEE), method, mode, hash_, "02" + seller),) if mint else ()
    if deposit:
        terms = (Terms(MINT, "02" + seller, Msat(price), Method.PREPAID, deposit=deposit),)
    return Offer(
        f"quote-{number}",
        seller,
        Nature.QUOTE,
        at_ms,
        Msat(price),
        f"q{number}",
        at_ms // 1000 + expires_in,
        5,
        terms,
    )


def bill(number: int, price: int, at_ms: int, method: Method) -> Bill:
    """A seller's invoice, checked."""
    return Bill(f"lnbc{number}", f"hash-{number}", at_ms // 1000 + 60, (Terms(MINT, "", Msat(price + FEE), method),))


@dataclass
class Op:
    """The truth about one lock, as the model mint knows it."""

    op_id: str
    seller: str
    gross: int
    state: str = "asked"  # asked, refused, out, claimed, back
    told: bool = False
    given: bool = False  # the seller has the token
    hash: str = ""  # it can be taken only by showing the key
    mode: str = ""  # B: and with our signature
    signed: bool = False  # the seller has our signature
    received: int = 0
    invoice: bool = False
    voucher: bool = False  # drawn from a deposit


@dataclass
class World:
    """One job among lying sellers, an unreliable wallet and crashes. Every method is something that can happen."""

    job: Purchase
    now: int = 1_000_000
    seq: int = 0
    ops: dict[str, Op] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    finished: list[Finish] = field(default_factory=list)
    notified: int = 0
    refunding: bool = False
    reached: set[str] = field(default_factory=set)
    fired: Counter[tuple[str, str]] = field(default_factory=Counter)
    denied: set[str] = field(default_factory=set)
    good_seal: bool = False
    held_from: int = 0
    ordered: set[str] = field(default_factory=set)

    def tell(self, event: Event) -> None:
        """Step, survive a gate that says no before the commit, act, and check."""
        before = self.job
        after, effects = buyer.step(before, event)
        while (ask := next((item for item in effects if isinstance(item, Allocate)), None)) is not None:
            if ask.seller not in self.denied:
                assert ask.amount <= before.limit.ceiling, "more was asked of the gate than is reserved"
                break
            self.fired[str(after.state), "BudgetDenied"] += 1
            self.fired[str(after.money), "BudgetDenied"] += 1
            after, effects = buyer.step(after, BudgetDenied(self.now, ask.op_id, "the seller's limit"))
        self.fired[str(before.state), type(event).__name__] += before.state != after.state
        self.fired[str(before.money), type(event).__name__] += before.money != after.money
        self.job = decode(Purchase, encode(after))
        assert self.job == after, "a state did not survive its way through the database"
        for effect in effects:
            self._act(effect)
        self.check()

    def _act(self, effect: Effect) -> None:
        if isinstance(effect, Lock):
            known = self.ops.setdefault(effect.payment.op_id, Op(effect.payment.op_id, effect.payment.seller, 0))
            assert known.seller == effect.payment.seller, "one operation for two sellers"
            known.hash, known.mode = effect.payment.hash, effect.payment.mode
            assert known.mode != "A" or self.job.sealed, "locked before the work that was to come first"
            known.voucher = bool(effect.payment.deposit)
            known.gross = effect.payment.price.value + (0 if known.voucher else FEE)
        elif isinstance(effect, CountVoucher):
            op = self.ops[effect.payment.op_id]
            assert op.voucher, "a voucher is counted that was never drawn"
            assert op.state == "out", "a voucher is counted twice, or never went out"
            op.state, op.received = ("claimed", 0) if effect.ok else ("back", op.gross)
        elif isinstance(effect, Pay):
            known = self.ops.setdefault(effect.payment.op_id, Op(effect.payment.op_id, effect.payment.seller, 0))
            assert known.seller == effect.payment.seller, "an invoice of somebody else"
            # A restart looks the payment up again, whoever has the job by then: it is begun only for who was chosen.
            assert known.invoice or self.job.seller == known.seller, "an invoice of somebody else"
            assert effect.payment.invoice
            known.gross, known.invoice = effect.payment.price.value + FEE, True
        elif isinstance(effect, PublishOrder):
            assert self.job.money is Funds.NONE, "ordered while money is out"
            self.ordered.add(effect.payment.seller)
        elif isinstance(effect, PublishPayment):
            op = self.ops[effect.payment.op_id]
            assert op.state == "out", "a token was sent that does not exist"
            assert op.seller == effect.payment.seller == self.job.seller, "the token went to somebody else"
            op.given = True
        elif isinstance(effect, PublishCosign):
            op = self.ops[effect.payment.op_id]
            assert op.mode == "B", "signed where no signature is needed"
            assert op.state == "out", "signed for money that is not there"
            assert self.job.sealed, "signed before the sealed result was written down"
            assert self.good_seal, "signed for something else than what was paid for"
            assert self.now <= (effect.payment.locktime - 60) * 1000, "signed so late that it may be taken back"
            assert not op.signed, "signed twice"
            op.signed = True
        elif isinstance(effect, SeekKey):
            assert any(op.state == "claimed" for op in self.ops.values()), "a key is sought that nobody can have shown"
        elif isinstance(effect, RunFallback):
            self.running.append(effect.provider)
        elif isinstance(effect, Refund):
            self.refunding = True
        elif isinstance(effect, Notify):
            self.notified += 1
        elif isinstance(effect, Finish):
            self.finished.append(effect)

    def check(self) -> None:
        """M1, M2, M4 and M5, after every event."""
        self.reached |= {str(self.job.state), str(self.job.money)}
        flying = [op for op in self.ops.values() if op.state in ("asked", "out") or (op.state == "claimed")]
        assert len([op for op in flying if op.state != "claimed"]) <= 1, "two locks in flight"
        assert len(flying) <= 1, "paid twice"
        ceiling = self.job.limit.ceiling.value
        assert sum(op.gross for op in flying) <= ceiling, "paid above the reservation"
        assert len(self.finished) <= 1, "finished twice"
        if self.finished or self.job.closed:
            assert self.job.closed
            assert self.finished
            assert self.job.state in ENDED
            assert self.job.money in FINAL
            assert not [op for op in self.ops.values() if op.state in ("asked", "out")], "closed with money out"
            assert not [op for op in self.ops.values() if op.invoice and op.state == "claimed" and not op.told]
            spent = sum(op.gross - op.received for op in self.ops.values() if op.state in ("claimed", "back"))
            assert self.finished[0].cost.value == spent, "the cost is not what left"
            assert self.job.limit.cost(Msat(spent)) <= self.job.limit.money
        assert self.notified == (self.job.state in ENDED), "the caller was told at the wrong time"
        if self.job.state is State.DELIVERED:
            assert self.job.result
            if self.job.provider == "dvm":
                assert self.job.result == f"by {self.job.seller}", "a result from somebody else"
        assert [note.word for note in self.job.notes].count("paid") <= 1, "the token was sent twice"
        if self.job.verdict:
            assert self.job.payment is not None
            handed = {op.seller for op in self.ops.values() if op.given} | self.ordered
            assert self.job.payment.seller in handed, "a seller is judged for what it was never handed"
        for op in flying:
            assert op.mode != "B" or op.state != "claimed" or op.signed, "taken without our signature"
        if self.job.state is State.ORDERED:
            assert not flying, "money is out for work that was to come first"
        if self.job.preimage:
            assert [op for op in self.ops.values() if op.state == "claimed" and op.hash], "a key without a payment"
        if self.job.state is State.SEALED:
            assert self.job.money in (Funds.LOCKED, Funds.REFUNDING, Funds.CLAIMED), "waits for a key without money"

    # -- what can happen --------------------------------------------------------------------------------------

    def start(self) -> None:
        self.tell(Start(self.now, '{"id":"r"}', "r", self.now // 1000 + 60))

    def _next(self) -> int:
        self.seq += 1
        return self.seq

    def quote(self, seller: str, price: int, expires_in: int = 60, mint: str = MINT, mode: str = "") -> None:
        offer = quote(seller, self._next(), price, self.now, expires_in=expires_in, mint=mint, mode=mode)
        self.tell(Answered(self.now, offer))

    def drawn_quote(self, seller: str, price: int) -> None:
        """A quote that can be drawn from a deposit."""
        self.tell(Answered(self.now, quote(seller, self._next(), price, self.now, deposit="d" * 32)))

    def count(self, *, ok: bool) -> None:
        """The driver has found out what a voucher without a result is worth."""
        op = next((op for op in self.ops.values() if op.voucher and op.state == "out" and op.told), None)
        if op is not None and self.job.state not in (State.PAYING, State.WORKING):
            self.tell(VoucherCounted(self.now, op.op_id, ok))

    def implicit(self, seller: str) -> None:
        self.tell(Answered(self.now, Offer(f"i{self._next()}", seller, Nature.IMPLICIT, self.now, Msat(1))))

    def invoice(self, seller: str, price: int, *, firm: bool = False, number: int = 0) -> None:
        """A price with an invoice, from a machine that wants its money first."""
        number = number or self._next()
        found = bill(number, price, self.now, Method.INVOICE_BEFORE)
        plain = Offer(f"v{self._next()}", seller, Nature.QUOTE if firm else Nature.IMPLICIT, self.now, Msat(price))
        self.tell(Answered(self.now, billed(plain, found)))

    def unpaid_result(self, seller: str, price: int) -> None:
        """A result that is to be paid for now."""
        number = self._next()
        found = bill(number, price, self.now, Method.INVOICE_AFTER)
        self.tell(ResultArrived(self.now, f"u{number}", seller, f"by {seller}", "", Msat(price), found))

    def result(self, seller: str, fault: str = "", price: int | None = None) -> None:
        amount = None if price is None else Msat(price)
        self.tell(ResultArrived(self.now, f"r{self._next()}", seller, f"by {seller}", fault, amount))

    def sealed(self, seller: str, fault: str = "", *, other: bool = False) -> None:
        """A sealed result; `other` is sealed with another key than the one that was quoted."""
        hash_ = "another" if other or self.job.payment is None else self.job.payment.hash
        self.good_seal = not fault and not other
        self.tell(SealedArrived(self.now, f"s{self._next()}", seller, "{}", hash_, "pt", fault))

    def show_key(self, fault: str = "", *, fraud: bool = False) -> None:
        """The seller takes the money, and the mint shows how."""
        self.claim()
        if self.job.state is State.SEALED and any(op.state == "claimed" for op in self.ops.values()):
            content = "" if fault else f"by {self.job.seller}"
            self.tell(KeyShown(self.now, "k", content, fault, fraud))

    def hold_key(self, reason: str) -> None:
        """The same, and what it opens finds no place on our disk."""
        self.claim()
        if self.job.state is State.SEALED and any(op.state == "claimed" for op in self.ops.values()):
            self.held_from = self.held_from or self.now
            self.tell(KeyHeld(self.now, "k", reason))

    def reveal_passed(self) -> None:
        self.watch()  # only with the money taken does that timer run
        waits = bool(self.held_from) and self.now < self.held_from + DAY_MS and self.job.state is State.SEALED
        self.tell(RevealPassed(self.now))
        assert not waits or self.job.state is State.SEALED, "given up what is paid for and can still be had"

    def error(self, seller: str) -> None:
        self.tell(SellerFailed(self.now, f"e{self._next()}", seller, "no"))

    def progress(self, seller: str) -> None:
        self.tell(Progress(self.now, f"p{self._next()}", seller, "processing"))

    def stray(self, seller: str) -> None:
        self.tell(Refuse(self.now, f"x{self._next()}", seller, "it is for another request"))

    def window(self, round_: int) -> None:
        self.tell(WindowClosed(self.now, round_))

    def deadline(self) -> None:
        self.now = max(self.now, self.job.deadline * 1000)
        self.tell(DeadlinePassed(self.now))

    def wait(self, seconds: int) -> None:
        self.now += seconds * 1000

    def cancel(self) -> None:
        self.tell(CancelAsked(self.now))

    def _asked(self) -> Op | None:
        return next(
            (
                op
                for op in self.ops.values()
                if not op.told and (op.state in ("asked", "out") or (op.invoice and op.state == "claimed"))
            ),
            None,
        )

    def lock(self, outcome: str) -> None:
        """The wallet ends a lock: it works, it fails for certain, or the answer is lost after it acted or not."""
        op = self._asked()
        if op is None:
            return
        if outcome in ("done", "lost_after"):
            op.state = "claimed" if op.invoice else "out"
            op.given = op.given or op.invoice  # who is paid over Lightning has it at once
        if outcome in ("lost_after", "lost_before"):
            self.tell(LockUnknown(self.now, op.op_id))
        elif op.state == "claimed":
            op.told = True
            self.tell(InvoicePaid(self.now, op.op_id, Msat(op.gross), Msat(op.gross - FEE)))
        elif op.state == "out":
            op.told = True
            self.tell(LockDone(self.now, op.op_id, Msat(op.gross), Msat(op.gross - 1_000), ("y1", "y2")))
        else:
            op.state, op.told = "refused", True
            self.tell(LockFailed(self.now, op.op_id, "the mint refused"))

    def claim(self) -> None:
        """A seller that has the token redeems it; the buyer's watch sees it only sometimes."""
        op = next((op for op in self.ops.values() if op.state == "out" and op.given), None)
        if op is not None and ((op.mode == "B" and not op.signed) or op.voucher):
            return
        if op is not None and self.job.money in (Funds.LOCKED, Funds.REFUNDING):
            op.state = "claimed"

    def watch(self) -> None:
        if any(op.state == "claimed" for op in self.ops.values()) and self.job.money in (Funds.LOCKED, Funds.REFUNDING):
            self.refunding = False
            self.tell(SpentSeen(self.now))

    def locktime(self, *, really: bool = True) -> None:
        if self.job.payment is not None:
            if really:
                self.now = max(self.now, self.job.payment.locktime * 1000)
            self.tell(LocktimePassed(self.now))

    def refund(self, outcome: str) -> None:
        op = next((op for op in self.ops.values() if op.state == "out" and op.told), None)
        if op is None or not self.refunding or self.job.payment is None:
            return
        assert self.now >= self.job.payment.locktime * 1000, "a refund before the locktime"
        self.refunding = False
        if outcome == "done":
            op.state, op.received = "back", max(0, op.gross - FEE - 1_000)
            self.tell(RefundDone(self.now, Msat(op.received)))
        else:
            self.tell(RefundFailed(self.now, "the mint's clock is behind"))

    def fallback(self, *, ok: bool) -> None:
        if self.running:
            name = self.running.pop()
            if ok:
                self.tell(FallbackDone(self.now, name, "a summary"))
            else:
                self.tell(FallbackFailed(self.now, name, "no"))

    def crash(self) -> None:
        """The process dies and comes back with what was committed."""
        self.job = decode(Purchase, encode(self.job))
        self.running, self.refunding = [], False
        if self.job.state is State.STAGED:
            return
        for effect in buyer.resumed(self.job, self.now):
            self._act(effect)

    def repeat(self, name: str) -> None:
        """A message arrives once more, or an answer that was thought lost."""
        op = self.ops.get(self.job.payment.op_id) if self.job.payment else None
        if name == "lock" and op is not None and op.invoice and op.state == "claimed":
            op.told = True
            self.tell(InvoicePaid(self.now, op.op_id, Msat(op.gross), Msat(op.gross - FEE)))
        elif name == "lock" and op is not None and op.state == "out":
            op.told = True
            self.tell(LockDone(self.now, op.op_id, Msat(op.gross), Msat(op.gross - 1_000), ("y1", "y2")))

    def settle(self) -> None:
        """Time passes and everybody does what must be done in the end: the job must close."""
        for _ in range(4):
            if self.job.state is State.STAGED:
                self.start()
            self.deadline()
            while self._asked() is not None:
                self.lock("done")
            self.crash()
            while self.running:
                self.fallback(ok=False)
            self.locktime()
            self.watch()
            self.refund("done")
            self.count(ok=bool(self.now % 2))
            self.wait(86_400 if self.held_from else 0)
            self.reveal_passed()
        assert self.job.closed, f"never closed: {self.job.state} {self.job.money}"


def happenings(world: World, chance: random.Random) -> None:
    """One random thing."""
    seller = chance.choice(SELLERS)
    price = chance.choice((1_000, 5_000, 21_000, 28_000, 10**9))
    choices = (
        world.start,
        lambda: world.quote(seller, price, chance.choice((1, 20, 60)), chance.choice((MINT, MINT, ""))),
        lambda: world.quote(seller, price, mode=chance.choice(("", "A", "B"))),
        lambda: world.invoice(seller, price, firm=chance.random() < 0.3, number=chance.choice((0, 0, 0, 7))),
        lambda: world.unpaid_result(seller, price),
        lambda: world.result(seller, chance.choice(("", "", "it is empty")), chance.choice((None, 0, 5_000))),
        lambda: world.result(world.job.seller or seller),
        lambda: world.error(world.job.seller or seller),
        lambda: world.progress(seller),
        lambda: world.implicit(seller),
        lambda: world.stray(seller),
        lambda: world.window(chance.choice((0, 0, 1))),
        world.deadline,
        lambda: world.lock(chance.choice(("done", "done", "refused", "lost_after", "lost_before"))),
        lambda: world.lock("done"),
        world.claim,
        world.watch,
        lambda: world.locktime(really=chance.random() < 0.5),
        lambda: world.refund(chance.choice(("done", "refused"))),
        lambda: world.fallback(ok=chance.random() < 0.5),
        lambda: world.repeat("lock"),
        lambda: world.wait(chance.choice((1, 5, 90))),
        lambda: world.sealed(world.job.seller or seller),
        lambda: world.sealed(
            chance.choice((world.job.seller or seller, seller)), chance.choice(("", "junk")), other=True
        ),
        lambda: world.sealed(seller, "junk"),
        lambda: world.show_key(chance.choice(("", "", "it is empty")), fraud=chance.random() < 0.3),
        world.reveal_passed,
        lambda: world.hold_key(chance.choice(("the disk is full", "no server has it"))),
        lambda: world.drawn_quote(seller, price),
        lambda: world.count(ok=chance.random() < 0.5),
    )
    weights = [4, 3, 8, 4, 1, 3, 3, 2, 3, 1, 1, 5, 1, 6, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 1, 3, 1, 1, 3, 3]
    if chance.random() < 0.02:
        world.cancel()
    elif chance.random() < 0.03:
        world.crash()
    else:
        chance.choices(choices, weights)[0]()
