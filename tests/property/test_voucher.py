"""Vouchers in random histories, honest and hostile: never above the deposit, never charged twice, both count alike."""

import random
from dataclasses import replace

import pytest

from core.money import Msat
from dvm import custody as theirs
from dvm import deposit as ours
from dvm import prepaid
from dvm.custody import CloseAsked as TheirClose
from dvm.custody import Custody, StatusAsked, VoucherShown, WorkEnded, fault
from dvm.deposit import Counted, Deposit, Drawn, Heard, State, verdict
from dvm.error import (
    VoucherBusy,
    VoucherDeposit,
    VoucherExceeds,
    VoucherExpired,
    VoucherRefused,
    VoucherReplayed,
    VoucherRequest,
    VoucherSignature,
    VoucherTotal,
)
from dvm.prepaid import Statement, Voucher, read_voucher, signed
from dvm.record import decode, encode
from relays.key import Key

KEY, OTHER, SELLER, BUYER = Key(b"\x01" * 32), Key(b"\x02" * 32), "5" * 64, "b" * 64
ID, AMOUNT, LOCKTIME, MARGIN = "d" * 32, 10_000, 10_000, 1_000


def kept(**more) -> Custody:
    return Custody(
        ID, "e", BUYER, KEY.compressed, "m", Msat(AMOUNT), LOCKTIME, MARGIN, 2, "{}",
        **{name: Msat(value) if name in ("total", "held") else value for name, value in more.items()},
    )  # fmt: skip


def open_deposit() -> Deposit:
    return Deposit(ID, "e", SELLER, Msat(AMOUNT), MARGIN, 0, locktime=LOCKTIME, state=State.OPEN)


def request(number: int) -> str:
    return f"{number:064x}"


def shown(voucher: Voucher, number: int, price: int, at: int = 0, sender: str = BUYER) -> VoucherShown:
    return VoucherShown(at, sender, SELLER, voucher, request(number), Msat(price))


def voucher(seq: int, total: int, number: int, key: Key = KEY, seller: str = SELLER, deposit: str = ID) -> Voucher:
    return signed(key, seller, deposit, seq, Msat(total), request(number))


GOOD = voucher(3, 3_000, 1)


@pytest.mark.parametrize(
    ("custody", "event", "why"),
    [
        (kept(seq=2, total=2_000), shown(GOOD, 1, 1_000), None),
        (kept(seq=3, total=2_000), shown(GOOD, 1, 1_000), VoucherReplayed),
        (kept(seq=9, total=2_000), shown(GOOD, 1, 1_000), VoucherReplayed),
        (kept(seq=2, total=2_000), shown(GOOD, 2, 1_000), VoucherRequest),
        (kept(seq=2, total=2_000), shown(GOOD, 1, 1_001), VoucherTotal),
        (kept(seq=2, total=2_000), shown(GOOD, 1, 999), VoucherTotal),
        (kept(seq=2, total=1_000), shown(GOOD, 1, 1_000), VoucherTotal),
        (kept(seq=2, total=3_000), shown(GOOD, 1, 0), VoucherTotal),
        (kept(seq=2, total=2_000, busy="x"), shown(GOOD, 1, 1_000), VoucherBusy),
        (kept(seq=2, total=2_000, closing=True), shown(GOOD, 1, 1_000), VoucherDeposit),
        (kept(seq=2, total=2_000, state=theirs.State.CLOSED), shown(GOOD, 1, 1_000), VoucherDeposit),
        (kept(seq=2, total=2_000), shown(GOOD, 1, 1_000, sender=SELLER), VoucherDeposit),
        (kept(seq=2, total=2_000), shown(GOOD, 1, 1_000, at=LOCKTIME - MARGIN), VoucherExpired),
        (kept(seq=2, total=9_000), shown(voucher(3, 11_000, 1), 1, 2_000), VoucherExceeds),
        (kept(seq=2, total=2_000), shown(voucher(3, 3_000, 1, OTHER), 1, 1_000), VoucherSignature),
        (kept(seq=2, total=2_000), shown(voucher(3, 3_000, 1, seller=BUYER), 1, 1_000), VoucherSignature),
        (kept(seq=2, total=2_000), shown(voucher(3, 3_000, 1, deposit="e" * 32), 1, 1_000), VoucherDeposit),
        (kept(seq=2, total=2_000), shown(replace(GOOD, total=Msat(3_001)), 1, 1_001), VoucherSignature),
        (kept(seq=2, total=2_000), shown(replace(GOOD, seq=4), 1, 1_000), VoucherSignature),
    ],
)
def test_each_voucher_that_is_not_good_is_refused_for_its_reason(custody, event, why) -> None:
    assert fault(custody, event) is why
    after, _ = theirs.step(custody, event)
    assert (after != custody) == (why is None)


@pytest.mark.parametrize(
    "value",
    [
        {"seq": 0}, {"seq": True}, {"seq": 1.0}, {"seq": 1 << 31}, {"total_msat": -1}, {"total_msat": 1 << 40},
        {"total_msat": "3000"}, {"deposit": "D" * 32}, {"request_id": "1"}, {"signature": "00"}, {"signature": None},
    ],
)  # fmt: skip
def test_what_is_no_voucher_is_refused(value) -> None:
    for whole in ({**GOOD.to_dict(), **value}, value, None, [value], "x"):
        with pytest.raises(VoucherSignature):
            read_voucher(whole)


def test_a_voucher_travels_whole() -> None:
    assert read_voucher(GOOD.to_dict()) == GOOD
    assert GOOD.is_signed(SELLER, KEY.compressed)


def test_a_seller_that_says_what_was_never_signed_is_not_believed() -> None:
    drawn, _ = ours.step(open_deposit(), Drawn(0, "j", request(1), Msat(1_000)))
    ahead, _ = ours.step(drawn, Heard(Statement(prepaid.OPEN, 2, Msat(1_000), False)))
    assert verdict(ahead, "j") is None
    more, _ = ours.step(drawn, Heard(Statement(prepaid.OPEN, 1, Msat(9_000), False)))
    assert (more.fault, verdict(more, "j")) == ("total", True)
    counted, _ = ours.step(more, Counted("j", ok=True))
    assert counted.charged == Msat(1_000), "it gets what we signed"


def test_an_old_word_of_a_seller_decides_nothing() -> None:
    one, _ = ours.step(open_deposit(), Drawn(0, "a", request(1), Msat(1_000)))
    one, _ = ours.step(one, Counted("a", ok=True))
    two, _ = ours.step(one, Drawn(0, "b", request(2), Msat(1_000)))
    old, _ = ours.step(two, Heard(Statement(prepaid.OPEN, 1, Msat(1_000), False)))
    assert verdict(old, "b") is None
    busy, _ = ours.step(two, Heard(Statement(prepaid.OPEN, 2, Msat(1_000), True)))
    assert verdict(busy, "b") is None, "it is still at work"
    idle, _ = ours.step(two, Heard(Statement(prepaid.OPEN, 2, Msat(1_000), False)))
    assert verdict(idle, "b") is False
    done, _ = ours.step(two, Heard(Statement(prepaid.OPEN, 2, Msat(2_000), False)))
    assert verdict(done, "b") is True


class Story:
    """A buyer and a seller over a wire that loses, repeats and reorders; and somebody who sends what he likes."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.ours, self.theirs = open_deposit(), kept()
        self.wire: list[VoucherShown] = []
        self.statements: list[Statement] = []
        self.jobs = 0
        self.earned = 0
        self.working = ""
        self.worked: set[str] = set()
        self.drawn: dict[str, int] = {}
        self.now = 0

    def hear(self, event: theirs.Event) -> None:
        before = self.theirs
        after, effects = theirs.step(before, event)
        self.theirs = decode(Custody, encode(after))
        assert self.theirs == after
        self.statements += [after.statement for one in effects if isinstance(one, theirs.Tell)]
        assert after.total >= before.total, "what was earned became less"
        assert after.seq >= before.seq
        if after.busy and not before.busy:
            assert isinstance(event, VoucherShown)
            assert event.request_id not in self.worked, "worked twice for one voucher"
            assert event.voucher.is_signed(SELLER, KEY.compressed), "worked for what the buyer did not sign"
            self.worked.add(event.request_id)
            self.working = after.busy

    def tell(self, event: ours.Event) -> None:
        after, _ = ours.step(self.ours, event)
        self.ours = decode(Deposit, encode(after))
        assert self.ours == after

    def check(self) -> None:
        assert self.theirs.total.value == self.earned <= AMOUNT, "earned is not what was delivered"
        assert self.theirs.held.value <= AMOUNT
        assert self.ours.charged.value <= AMOUNT
        most = self.ours.pending.total if self.ours.pending is not None else self.ours.charged
        assert self.theirs.total <= most, "the seller counts what was never signed"
        assert self.ours.charged <= self.theirs.total or self.ours.pending is not None
        assert self.ours.fault == "", "an honest seller is blamed"

    def job(self) -> None:
        price = self.chance.choice((1, 1_000, 1_000, 2_500))
        self.jobs += 1
        before = self.ours
        self.tell(Drawn(self.now, f"j{self.jobs}", request(self.jobs), Msat(price)))
        if self.ours.pending is not None and before.pending is None:
            out = self.ours.pending
            self.drawn[request(self.jobs)] = price
            self.wire.append(shown(signed(KEY, SELLER, ID, out.seq, out.total, out.request_id), self.jobs, price))

    def arrive(self) -> None:
        if self.wire:
            event = self.chance.choice(self.wire)
            self.hear(replace(event, at=self.now))

    def hostile(self) -> None:
        known = [one.voucher for one in self.wire] or [GOOD]
        number = self.chance.randrange(1, self.jobs + 3)
        price = self.chance.choice((1, 1_000, AMOUNT, 1 << 39))
        old = self.chance.choice(known)
        bad = self.chance.choice(
            (
                replace(old, seq=old.seq + 1),
                replace(old, total=old.total + Msat(1)),
                replace(old, request_id=request(number + (old.request_id == request(number)))),
                signed(OTHER, SELLER, ID, self.theirs.seq + 1, self.theirs.total + Msat(price), request(number)),
                signed(KEY, BUYER, ID, self.theirs.seq + 1, self.theirs.total + Msat(price), request(number)),
                signed(KEY, SELLER, "f" * 32, self.theirs.seq + 1, self.theirs.total + Msat(price), request(number)),
            )
        )
        event = VoucherShown(self.now, self.chance.choice((BUYER, SELLER)), SELLER, bad, request(number), Msat(price))
        before = self.theirs
        why = fault(before, event)
        assert why is not None
        assert issubclass(why, VoucherRefused)
        self.hear(event)
        assert self.theirs == before

    def work(self) -> None:
        if not self.working:
            return
        ok, request_id = self.chance.random() < 0.7, self.working
        self.working = ""
        self.earned += self.drawn[request_id] if ok else 0
        self.hear(WorkEnded(request_id, ok))
        self.hear(WorkEnded(request_id, True))  # an earlier life of the process says it again
        out = self.ours.pending
        if ok and out is not None and out.request_id == request_id and self.chance.random() < 0.7:
            self.tell(Counted(out.job_id, ok=True))  # the good result arrived

    def ask(self) -> None:
        if self.ours.pending is not None:
            self.hear(StatusAsked(self.chance.choice((BUYER, BUYER, SELLER)), self.ours.seq))

    def said(self) -> None:
        if not self.statements:
            return
        self.tell(Heard(self.chance.choice(self.statements)))
        out = self.ours.pending
        if out is not None and (ok := verdict(self.ours, out.job_id)) is not None:
            if ok:
                assert out.request_id in self.worked
            self.tell(Counted(out.job_id, ok=ok))
            self.tell(Counted(out.job_id, ok=True))  # told once more

    def settle(self) -> None:
        """Everybody hears the last word: then both count alike."""
        self.work()
        self.hear(TheirClose(BUYER, self.ours.seq))
        if self.working:
            self.work()
        final = replace(self.theirs, state=theirs.State.CLOSED, closing=False).statement
        self.tell(Heard(final, "wrap"))
        if (out := self.ours.pending) is not None:
            self.tell(Counted(out.job_id, ok=bool(verdict(self.ours, out.job_id))))
        assert self.ours.charged == self.theirs.total == Msat(self.earned)


def play(seed: int) -> Story:
    story = Story(seed)
    acts = (
        story.job, story.job, story.arrive, story.arrive, story.hostile, story.work, story.work, story.ask, story.said,
    )  # fmt: skip
    for _ in range(40):
        story.chance.choice(acts)()
        story.check()
    story.settle()
    return story


def test_no_history_draws_more_than_was_signed_or_counts_a_job_twice() -> None:
    stories = [play(seed) for seed in range(200)]
    assert sum(story.earned for story in stories) > 50_000
    assert sum(len(story.worked) for story in stories) > 150


def _fails(seeds: int = 100) -> bool:
    for seed in range(seeds):
        try:
            play(seed)
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize(
    ("key", "rules"),
    [
        ((theirs.State.OPEN, VoucherShown), (theirs.Rule(theirs.State.OPEN, theirs._take),)),
        ((theirs.State.OPEN, WorkEnded), (theirs.Rule(theirs.State.OPEN, theirs._end_work),)),
    ],
)
def test_planted_faults_of_the_seller_are_caught(monkeypatch: pytest.MonkeyPatch, key, rules) -> None:
    monkeypatch.setitem(theirs.TRANSITIONS, key, rules)
    assert _fails()


def test_planted_a_seller_that_calls_itself_idle_while_it_works_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def idle(custody: Custody) -> Statement:
        return Statement(prepaid.OPEN, custody.seq, custody.total, False)

    monkeypatch.setattr(Custody, "statement", property(idle))
    assert _fails()


def test_planted_a_buyer_that_has_two_vouchers_out_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    covers = (ours.Rule(State.OPEN, ours._draw),)
    monkeypatch.setitem(ours.TRANSITIONS, (State.OPEN, Drawn), covers)
    assert _fails()


def test_planted_a_buyer_that_believes_an_old_word_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def believes(deposit: Deposit, event: Heard) -> Deposit:
        return replace(deposit, heard_seq=deposit.seq, heard_total=event.statement.total)

    monkeypatch.setattr(ours, "_learn", believes)
    assert _fails()
