"""A buyer's deposits at sellers (ADR 27): the thin driver over `dvm.deposit`, as `dvm.prepaying` and `dvm.drawing`.

The bounds of a deposit, the terms that are agreed to and the quotes that can be drawn are judged by `dvm.prepaying`
itself. What a voucher is signed with is a word that only its signer writes.
"""

from types import SimpleNamespace
from typing import Any

from core.error import VendoError
from core.money import Msat
from dvm import buyer as machine
from dvm import buyer_event as e
from dvm.deposit import (
    ENDED,
    GRACE_S,
    HELD,
    CloseAsked,
    Counted,
    Declined,
    Deposit,
    Drawn,
    GraceOver,
    Heard,
    LockDone,
    LockFailed,
    LocktimePassed,
    RefundDone,
    RefundFailed,
    SendClose,
    SendCoins,
    SpentSeen,
    State,
    TakeDone,
    TakeFailed,
    step,
    verdict,
)
from dvm.drawing import FIRST_ASK_S, LONGEST_ASK_S
from dvm.job import Funds, Payment
from dvm.job import State as Job
from dvm.prepaid import Voucher, voucher_text
from dvm.prepaying import ASK_AGAIN_S, ASK_S, Prepaying
from dvm.record import decode, encode
from dvm.settlement import Settlement
from tests.simulation.pure.cast import Balance, Plot
from tests.simulation.pure.mint import Lock
from tests.simulation.pure.paper import key_of, signed_by
from tests.simulation.pure.purse import Stored
from tests.simulation.pure.world import Msg
from wallet.payment import Kind
from wallet.payment import State as Op
from wallet.planner import lock_cost

LABELS = {state: f"buyer balance {state}" for state in State}
LARGEST = Msat(60_000)
BUSY_MS, BUSY_TRIES = 1_000, 30
HOUR_MS = 3_600_000


def rules_of(plot: Plot) -> Settlement:
    """What both sides have set."""
    return Settlement(
        prepaid_max=LARGEST,
        prepaid_after=0,
        prepaid_s=plot.lasts_s,
        deposit_max=LARGEST,
        deposits=4,
        deposit_margin_s=plot.apart_s,
    )


def voucher_key(deposit: str) -> str:
    """Signs vouchers of this deposit alone."""
    return key_of(f"voucher {deposit}")


def voucher(deposit: str, seller: str, seq: int, total: Msat, request_id: str, key: str = "") -> Voucher:
    """A voucher as its signer writes it."""
    text = voucher_text(seller, deposit, seq, total, request_id)
    return Voucher(deposit, seq, total, request_id, signed_by(key or voucher_key(deposit), text))


class Purses:
    """What `dvm.prepaying` and `dvm.custodian` ask of the wallet."""

    def __init__(self, node: Any, urls: tuple[str, ...], key: str) -> None:
        self.mints = urls
        self.key = SimpleNamespace(compressed=key)
        self._ppk = {mint.url: mint.ppk for mint in node.world.mints}

    def lock_cost(self, mint: str, price: Msat) -> Msat:
        return lock_cost(price, self._ppk[mint])


class Depositor:
    """Of one buyer."""

    _judged: Any = Prepaying._judged
    _check: Any = Prepaying._check
    drawable: Any = Prepaying.drawable
    _stands: Any = Prepaying._stands
    at_risk: Any = Prepaying.at_risk

    def __init__(self, node: Any) -> None:
        self.node, self.world = node, node.world
        self.disk: dict[str, Deposit] = {}
        self._seen = self.disk
        self._settlement = rules_of(node.world.plot)
        self._wallet = Purses(node, tuple([mint.url for mint in node.world.mints]), "")
        self._clock = SimpleNamespace(now=lambda: node.world.now // 1000, monotonic=lambda: node.world.now / 1000)
        self._out: dict[str, tuple[int, float]] = {}
        self._keyring = SimpleNamespace(node=SimpleNamespace(pubkey=node.key))
        self._turns: dict[str, int] = {}
        self._said = 0

    def _delivered(self, seller: str) -> int:
        return 0

    def _unsecured(self, seller: str) -> Msat:
        return Msat(sum(one.unsecured(seller).value for one in self.node.jobs.values()))

    # ---- life

    def want(self, number: int, wish: Balance) -> None:
        """Its owner opens it, and asks again until it is written down; perhaps closes it, at a time of its own."""
        id_ = f"{self.node.name}/balance {number}"
        shops = self.world.shops[self.node.group]
        seller = shops[wish.stall % len(shops)]
        self.world.soon(None, wish.at, self._open, id_, seller.key, wish.sat)
        if wish.close_at is not None:
            self.world.soon(None, wish.at + wish.close_at, self._close, id_)

    def _open(self, id_: str, seller: str, sat: int) -> None:
        if id_ in self.disk:
            return
        if self.node.life < 0:
            return self.world.soon(None, 3_000, self._open, id_, seller, sat)
        try:
            self._begin(id_, seller, Msat.of_sat(sat))
        finally:
            self.world.soon(None, 500, self._open, id_, seller, sat)

    def _begin(self, id_: str, seller: str, amount: Msat) -> None:
        try:
            self._check(seller, amount)
        except VendoError:
            return
        world, label = self.world, LABELS[State.ASKED]
        deposit = Deposit(id_, id_, seller, amount, self._settlement.deposit_margin_s, world.now // 1000)
        world.before(self.node, label)
        self.disk[id_] = deposit
        world.judge.opened(self.node, deposit)
        asked = self._post(deposit, "ask", amount=amount)
        world.after(self.node, label)
        world.send(self.node, asked)
        self._go_on(id_)

    def _close(self, id_: str) -> None:
        deposit = self.disk.get(id_)
        if deposit is None or self.node.life < 0 or deposit.state in ENDED:
            return
        self.tell(id_, CloseAsked())

    def forget(self) -> None:
        self._turns = {}

    def restart(self) -> None:
        for id_, kept in list(self.disk.items()):
            if decode(Deposit, encode(kept)) != kept:
                self.world.judge.breach("M4", f"{id_} did not survive its way through the database")
            if kept.state not in ENDED:
                self._go_on(id_)

    # ---- what sellers say

    def hear(self, msg: Msg) -> None:
        deposit = self.disk.get(msg.ref)
        if deposit is None or deposit.state in ENDED or msg.author != deposit.seller:
            return
        body = msg.body
        if body["word"] == "terms":
            if deposit.state is State.ASKED:
                self.tell(deposit.id, self._judged(deposit, body["terms"]))
        elif body["word"] == "account":
            self.tell(deposit.id, Heard(body["account"], msg.id if body["token"] else ""))

    # ---- steps

    def tell(self, id_: str, event: Any) -> None:
        """Step, persist, act."""
        before = self.disk[id_]
        after, effects = step(before, event)
        if after is before or (not effects and after == before):
            return
        world, label = self.world, LABELS[after.state]
        world.before(self.node, label)
        self.keep(before, after, event)
        posts = [self._written(after, effect) for effect in effects]
        world.after(self.node, label)
        for msg in posts:
            if msg is not None:
                world.send(self.node, msg)
        moved = after.state is not before.state or after.spent is not before.spent or after.refunds != before.refunds
        if moved or after.takes != before.takes:
            self._go_on(id_)

    def keep(self, before: Deposit, after: Deposit, event: Any) -> None:
        self.disk[after.id] = after
        self.world.judge.balance(self.node, before, after, event)

    def _written(self, after: Deposit, effect: Any) -> Msg | None:
        if type(effect) is SendCoins:
            return self._coins(after)
        if type(effect) is SendClose:
            return self._post(after, "close", seq=after.seq)
        return None

    def _coins(self, deposit: Deposit) -> Msg:
        stored = self.node.purse.ops[deposit.lock_id]
        coins = tuple([output for output in stored.outputs if output.gives])
        return self._post(
            deposit, "deposit", amount=deposit.amount, key=voucher_key(deposit.id), mint=deposit.mint, coins=coins,
            quote=deposit.id,
        )  # fmt: skip

    def _post(self, deposit: Deposit, word: str, **more: Any) -> Msg:
        self._said += 1
        id_ = f"{word} {deposit.id} {self._said}"
        msg = Msg(id_, "prepaid", self.node.key, deposit.id, deposit.seller, {"word": word, **more})
        self.node.outbox[msg.id] = msg
        return msg

    # ---- what jobs draw

    def draw(self, job_id: str, payment: Payment, tries: int = 0) -> None:
        """Draw the voucher, or say that nothing was drawn. Another job's voucher is waited for."""
        node, world = self.node, self.world
        job = node.jobs.get(job_id)
        if job is None or job.money is not Funds.LOCKING or job.payment.op_id != payment.op_id:
            return
        before = self.disk.get(payment.deposit)
        if job.state is Job.PAYING and before is not None and before.pending is not None:
            world.coverage.checks["a voucher waits for another"] += 1
            if tries < BUSY_TRIES:
                return world.soon(node, BUSY_MS, self.draw, job_id, payment, tries + 1)
            return node.tell(job_id, e.LockFailed(world.now, payment.op_id, "busy"))
        drawn = Drawn(world.now // 1000, job_id, job.request_id, payment.price)
        after = step(before, drawn)[0] if job.state is Job.PAYING and before is not None else before
        if before is None or after is None or after.pending is None or job.state is not Job.PAYING:
            return node.tell(job_id, e.LockFailed(world.now, payment.op_id, "the deposit does not cover the job"))
        locked, effects = machine.step(job, e.LockDone(world.now, payment.op_id, payment.price, payment.price, ()))
        if locked is job:
            return
        labels = LABELS[after.state], node.label_of(locked)
        for label in labels:
            world.before(node, label)
        self.keep(before, after, drawn)
        world.judge.drawn(node, locked, after)
        node.persist(job_id, job, locked, effects)
        for label in labels:
            world.after(node, label)
        node.act(job_id, effects)

    def signed(self, job: Any, payment: Payment) -> Msg:
        """The message with a job's voucher."""
        deposit = self.disk[payment.deposit]
        out = deposit.pending
        assert out is not None
        shown = voucher(deposit.id, deposit.seller, out.seq, out.total, out.request_id)
        body = {"quote": payment.quote_id, "voucher": shown}
        return Msg(f"voucher {payment.op_id}", "voucher", self.node.key, job.request_id, payment.seller, body)

    def counted(self, payment: Payment, job_id: str, ok: bool) -> None:
        """In the commit that says so of the job."""
        before = self.disk.get(payment.deposit)
        if before is not None:
            event = Counted(job_id, ok)
            self.keep(before, step(before, event)[0], event)

    def watch(self, job_id: str, payment: Payment, pause: int = 2_000, asked: int = 0, ask_at: int = 0) -> None:
        """Until the job has ended; if it brought no result, until the seller has said what it counts."""
        node, world = self.node, self.world
        job = node.jobs.get(job_id)
        if job is None or job.money is not Funds.LOCKED:
            world.events -= 1
            return
        if job.state not in (Job.PAYING, Job.WORKING):
            deposit = self.disk.get(payment.deposit)
            ok = False if deposit is None else verdict(deposit, job_id)
            if ok is not None:
                return node.tell(job_id, e.VoucherCounted(world.now, payment.op_id, ok))
            if world.now >= ask_at and deposit is not None and deposit.state in HELD:
                asked = min(asked * 2 or int(FIRST_ASK_S * 1000), int(LONGEST_ASK_S * 1000))
                ask_at = world.now + asked
                world.send(node, self._post(deposit, "status", seq=deposit.seq))
        world.soon(node, pause, self.watch, job_id, payment, pause * 2, asked, ask_at)

    # ---- what the state implies

    def _go_on(self, id_: str) -> None:
        node, world, deposit = self.node, self.world, self.disk[id_]
        turn = self._turns[id_] = self._turns.get(id_, 0) + 1
        state = deposit.state
        if state is State.ASKED:
            until = (deposit.created_at + ASK_S) * 1000
            world.at(max(world.now, until), node, self._later, id_, turn, Declined("The seller did not answer."))
        elif state is State.LOCKING:
            self._lock(id_)
        elif state is State.TAKING:
            self._take(id_, turn)
        elif state is State.REFUNDING:
            world.soon(node, min(2_000 * deposit.refunds, 30_000) + 1, self._refund, id_, turn)
        elif state not in ENDED:
            if state in (State.SENT, State.OPEN):
                world.at(max(world.now + 500, deposit.due_at * 1000), node, self._later, id_, turn, CloseAsked())
            else:
                world.soon(node, 500, self._look, id_, turn, 500)
            if state in (State.SENT, State.CLOSING):
                pause = int(ASK_AGAIN_S * 1000)
                world.soon(node, pause, self._again, id_, turn, pause * 3)

    def _is_over(self, id_: str, turn: int) -> bool:
        """Something else has come meanwhile; a timer that was stopped is nothing that happens."""
        over = self._turns.get(id_) != turn
        self.world.events -= over
        return over

    def _later(self, id_: str, turn: int, event: Any) -> None:
        if not self._is_over(id_, turn):
            self.tell(id_, event)

    def _again(self, id_: str, turn: int, pause: int) -> None:
        """The seller has not answered: say it once more."""
        if self._is_over(id_, turn):
            return
        deposit = self.disk[id_]
        again = self._coins(deposit) if deposit.state is State.SENT else self._post(deposit, "close", seq=deposit.seq)
        self.world.send(self.node, again)
        self.world.soon(self.node, pause, self._again, id_, turn, pause * 3)

    def _look(self, id_: str, turn: int, pause: int) -> None:
        """Whether the seller took the coins, and whether they may be taken back."""
        if self._is_over(id_, turn):
            return
        world, deposit = self.world, self.disk[id_]
        if deposit.spent:
            if deposit.state is State.RETURNED:
                return self.tell(id_, SpentSeen(world.now // 1000))
            when = (max(deposit.locktime, deposit.spent_at) + GRACE_S) * 1000
            return world.at(max(world.now, when), self.node, self._grace, id_, turn)
        mint = self.node.mint_at(deposit.mint)

        def heard(word: str, spent: bool) -> None:
            if self._turns.get(id_) != turn:
                return
            now = world.now // 1000
            if word == "ok" and spent:
                self.tell(id_, SpentSeen(now))
            elif word == "ok" and now >= deposit.locktime:
                self.tell(id_, LocktimePassed(now))
            if self._turns.get(id_) == turn:
                rest = max(500, (deposit.locktime + 3) * 1000 - world.now)
                world.soon(self.node, min(pause, rest), self._look, id_, turn, min(pause * 2, 120_000))

        world.ask(self.node, lambda: all(name in mint.spent for name in deposit.ys), heard)

    def _grace(self, id_: str, turn: int) -> None:
        if not self._is_over(id_, turn):
            self.tell(id_, GraceOver(self.world.now // 1000))

    # ---- money: only asks and reports

    def _lock(self, id_: str) -> None:
        """Lock the coins, or learn for certain that nothing left; the same name is asked for again after any doubt."""
        deposit, purse = self.disk[id_], self.node.purse
        stored = purse.ops.get(deposit.lock_id)
        if stored is not None:
            return self._resume(stored)
        mint = self.node.mint_at(deposit.mint)
        token = deposit.amount.sat_up() + mint.fee(1)
        chosen = purse.choose(mint, token)
        if chosen is None:
            return self.tell(id_, LockFailed("too few coins"))
        names, worth = chosen
        lock = Lock(deposit.wallet_key, deposit.locktime, self.node.refund_key(deposit.lock_id))
        self.world.judge.depositing(self.node, deposit, lock)
        purse.begin(deposit.lock_id, Kind.LOCK, mint, names, worth, "", id_, (token, lock, f"locked in {id_}"))

    def _resume(self, stored: Stored) -> None:
        if stored.op.state is Op.DONE or stored.op.state is Op.REFUSED:
            self.op_ended(stored)
        else:
            self.node.purse.resume(stored)

    def _take(self, id_: str, turn: int) -> None:
        """Take what the seller gave back."""
        if self._turns.get(id_) != turn:
            return
        deposit, purse = self.disk[id_], self.node.purse
        stored = purse.ops.get(deposit.return_id)
        if stored is not None and stored.op.state is not Op.REFUSED:
            return self._resume(stored)
        url, coins = self.world.log[deposit.wrap].body["token"]
        mint = next((one for one in self.world.mints if one.url == url), None)
        worth = sum(coin.amount for coin in coins)
        if mint is None or not coins or worth <= mint.fee(len(coins)):
            return self.tell(id_, TakeFailed("It is worth nothing."))
        if any(coin.lock is not None for coin in coins):
            return self.tell(id_, TakeFailed("It is locked."))
        names = tuple([coin.name for coin in coins])
        purse.begin(deposit.return_id, Kind.RECEIVE, mint, names, worth, "", id_, None)

    def _refund(self, id_: str, turn: int) -> None:
        if self._is_over(id_, turn):
            return
        deposit, purse = self.disk[id_], self.node.purse
        stored = purse.ops.get(deposit.refund_id)
        if stored is not None and stored.op.state is not Op.REFUSED:
            return self._resume(stored)
        self.world.judge.takes_back(self.node, deposit)
        mint, key = self.node.mint_at(deposit.mint), self.node.refund_key(deposit.lock_id)
        worth = sum(mint.signed[name].amount for name in deposit.ys)
        purse.begin(deposit.refund_id, Kind.REFUND, mint, deposit.ys, worth, key, id_, None)

    def op_ended(self, stored: Stored) -> None:
        """The wallet says how one of its operations ended."""
        id_ = stored.subject
        done, deposit = stored.op.state is Op.DONE, self.disk[stored.subject]
        net = Msat.of_sat(sum(output.amount for output in stored.outputs if not output.gives))
        if stored.kind is Kind.LOCK and deposit.state is State.LOCKING:
            ys = tuple([output.name for output in stored.outputs if output.gives])
            gross = Msat.of_sat(stored.worth) - net
            self.tell(id_, LockDone(gross, ys) if done else LockFailed(stored.reason))
        elif stored.kind is Kind.RECEIVE and deposit.state is State.TAKING and stored.id == deposit.return_id:
            if done:
                self.tell(id_, TakeDone(Msat.of_sat(stored.worth), net))
            elif stored.reason == "lost_race" or self.world.now >= deposit.locktime * 1000:
                self.tell(id_, TakeFailed(stored.reason))
            else:  # it may pass
                self.world.soon(self.node, 10_000, self._take, id_, self._turns.get(id_, 0))
        elif stored.kind is Kind.REFUND and deposit.state is State.REFUNDING:
            self.tell(id_, RefundDone(net)) if done else self._why_refused(deposit)

    def _why_refused(self, deposit: Deposit) -> None:
        mint = self.node.mint_at(deposit.mint)

        def heard(word: str, spent: bool) -> None:
            lost = word == "ok" and spent
            self.tell(deposit.id, SpentSeen(self.world.now // 1000) if lost else RefundFailed())

        self.world.ask(self.node, lambda: all(name in mint.spent for name in deposit.ys), heard)
