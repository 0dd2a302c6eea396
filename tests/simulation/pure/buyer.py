"""A buyer's thin driver over `dvm.buyer`: persists the purchase, its outbox and its reservation together, then acts."""

from functools import lru_cache
from typing import Any

from core.effect import EffectClass, Intent
from core.identifier import EventId, PubKey
from core.money import Msat, Rate, money
from dvm import buyer as machine
from dvm import buyer_event as e
from dvm.invoice import Checkout
from dvm.job import ENDED, Funds, Limit, Payment, Purchase, State, refund_id
from dvm.record import decode, encode
from dvm.request import Datum
from dvm.selection import answered
from dvm.settlement import MODE_B, Method
from node.gate import compile as gate
from node.gate.limits import Limits
from node.gate.writ import operator_writ
from relays.event import Event as NostrEvent
from relays.nip90 import Input, JobRequest
from tests.simulation.pure.answer import translate
from tests.simulation.pure.cast import Job
from tests.simulation.pure.depositor import Depositor
from tests.simulation.pure.mint import Lock, Mint
from tests.simulation.pure.nwc import Nwc
from tests.simulation.pure.paper import key_of
from tests.simulation.pure.payer import pay, seek, shown_at
from tests.simulation.pure.purse import Purse, Stored
from tests.simulation.pure.sealing import signatures
from tests.simulation.pure.world import FREE, PAID, Msg, World
from wallet.payment import Kind
from wallet.payment import State as Op
from wallet.planner import lock_cost, melt_cost

RATE = Rate.of_btc_price(65_000, 0, "model")
WRIT = operator_writ()
LIMITS = {
    "uusd": Limits.of("uusd", per_job=50_000, per_day=1_000_000, per_seller=60_000),
    "msat": Limits.of("msat", per_job=80_000, per_day=2_000_000, per_seller=100_000),
}
PROBED = Msat(1_000_000)  # what may be paid before the work
LABELS = {(state, funds): f"buyer {state}/{funds}" for state in State for funds in Funds}
_lock_cost = lru_cache(1_024)(lock_cost)
_OUT = frozenset({Kind.LOCK, Kind.MELT})
SEAL_KEY = key_of("a buyer's half of the seal")


def request_of(
    world: World, id_: str, customer: str, kind: int, mints: tuple[str, ...], bid: Msat | None, **more: Any
) -> JobRequest:
    """What a request event says."""
    tags = more.get("tags", ())
    raw = NostrEvent(EventId(id_), PubKey(customer), world.now // 1000, kind, tags, "", "")
    return JobRequest(
        EventId(id_),
        PubKey(customer),
        kind,
        more.get("inputs", (Input("text"),)),
        "",
        (),
        bid,
        (),
        (),
        more.get("deadline"),
        more.get("deadline"),
        mints,
        False,
        raw,
        modes=more.get("modes", ()),
        seal_key=more.get("seal_key", ""),
        cosign_key=more.get("cosign_key", ""),
    )


class Buyer:
    """One node that buys."""

    role = "buyer"

    def __init__(self, world: World, name: str, key: str, jobs: tuple[Job, ...], group: int) -> None:
        self.world, self.name, self.key, self.group = world, name, key, group
        self.life = 0
        self.disk: dict[str, Purchase] = {}
        self.jobs: dict[str, Purchase] = {}  # in memory
        self.outbox: dict[str, Msg] = {}
        self.by_request: dict[str, str] = {}
        self.purse = Purse(world, self, "buyer", self.op_ended, self.booking)
        self.unit = world.plot.unit
        self.held = self.spent = 0
        self.with_seller: dict[str, int] = {}
        self.doubts: set[str] = set()
        self.watched: dict[str, int] = {}
        self.seeking: set[str] = set()
        self.kept: set[str] = set()  # sellers that took the money of an invoice and brought nothing; as persisted
        self.asks = {f"{name}.{number}": job for number, job in enumerate(jobs)}
        self.balances = Depositor(self) if world.plot.balances else None
        self.nwc = Nwc(self) if world.plot.nwc else None
        self.parts = tuple([part for part in (self.balances, self.nwc) if part is not None])
        self.checkout = Checkout(self.pay_cost, PROBED)
        self.wanted = jobs
        self.seen = 0
        self.known = frozenset(shop.key for shop in world.shops.get(group, ())) if world.plot.seed & 2 else frozenset()
        limits = LIMITS[self.unit]
        if "no room in the budget" in world.faults:
            value = 5_000 if self.unit == "uusd" else 8_000
            limits = Limits.of(self.unit, per_job=limits.per_job.value, per_day=limits.per_day.value, per_seller=value)
        self.limits = limits

    # ---- life

    def open(self) -> None:
        for number, job in enumerate(self.wanted):
            job_id = f"{self.name}.{number}"
            self.world.soon(None, job.at, self._ask_for, job_id, job)
            if job.cancel_at is not None:
                self.world.soon(None, job.at + job.cancel_at, self._cancel, job_id)
        if self.nwc is not None:
            self.nwc.open()
        for number, wish in enumerate(self.world.plot.balances):
            self.balances.want(number, wish)

    def _ask_for(self, job_id: str, job: Job) -> None:
        """A caller, who asks again under the same key until it is written down."""
        if job_id in self.disk:
            return
        if self.life < 0:
            return self.world.soon(None, 3_000, self._ask_for, job_id, job)
        try:
            self.stage(job_id, job)
        finally:
            self.world.soon(None, 500, self._ask_for, job_id, job)

    def _cancel(self, job_id: str) -> None:
        if job_id in self.jobs:
            self.tell(job_id, e.CancelAsked(self.world.now))

    def stage(self, job_id: str, job: Job) -> None:
        """Judge it at the gate, and write down the job with its reservation."""
        world = self.world
        reserve = money(self.unit, job.maximum)
        intent = Intent("agent:a", "/compute/new", job_id, b"", EffectClass.IRREVERSIBLE, job_id, reserve)
        day = gate.Usage(self.unit, self.held, self.spent)
        decision = gate.judge(intent, WRIT, self.limits, gate.Facts(world.now // 1000, False, day))
        if isinstance(decision, gate.Deny):
            self.disk[job_id] = None
            world.coverage.actors["a job that the gate refuses"] += 1
            return
        ceiling = RATE.cover(reserve) if self.unit == "uusd" else reserve
        limit = Limit(self.unit, job.maximum, ceiling, RATE)
        purchase = Purchase(
            job_id=job_id,
            effect_id=job_id,
            caller="agent:a",
            kind=FREE if job.free else PAID,
            inputs=(Datum("text"),),
            params=(),
            output="",
            limit=limit,
            bid=Msat(max(1, ceiling.value - 3_000)),
            mints=tuple(mint.url for mint in world.mints),
            route=job.route,
            created_at=world.now // 1000,
            window_ms=1_500,
            patience_ms=10_000,
            timeout_s=60,
            lock_margin_s=world.plot.margin_s,
        )
        label = LABELS[purchase.state, purchase.money]
        world.before(self, label)
        self.disk[job_id] = self.jobs[job_id] = purchase
        self.held += job.maximum
        world.judge.staged(self, purchase)
        world.after(self, label)
        self.begin(job_id)

    def begin(self, job_id: str) -> None:
        """The rows are durable: make the request and start."""
        job, now = self.jobs[job_id], self.world.now
        request_id = f"req {job_id}" if "dvm" in job.route else ""
        if request_id:
            self.world.listeners[request_id] = self
            self.by_request[request_id] = job_id
        self.tell(job_id, e.Start(now, request_id, request_id, now // 1000 + job.timeout_s))

    def forget(self) -> None:
        """The process died: what is in memory is gone."""
        self.jobs = {}
        self.doubts, self.watched, self.seeking = set(), {}, set()
        self.purse.forget()
        for part in self.parts:
            part.forget()

    def restart(self) -> None:
        """Read every open job again, and do whatever its state implies."""
        world = self.world
        for job_id, kept in self.disk.items():
            if kept is not None and not kept.closed:
                text = encode(kept)
                self.jobs[job_id] = decode(Purchase, text)
                if self.jobs[job_id] != kept:
                    world.judge.breach("M4", f"{job_id} did not survive its way through the database")
        for msg in list(self.outbox.values()):
            world.send(self, msg)
        for job_id, job in list(self.jobs.items()):
            if job.state is State.STAGED:
                self.begin(job_id)
            else:
                self.act(job_id, machine.resumed(job, world.now))
        for part in self.parts:
            part.restart()
        self.purse.recover()

    # ---- what comes in

    def hear(self, msg: Msg) -> None:
        """Verified first: author, then recipient and request; the rest is the machine's to judge."""
        if msg.signer != msg.author:
            return
        if msg.kind == "prepaid":
            return None if self.balances is None else self.balances.hear(msg)
        job_id = self.by_request.get(msg.ref)
        job = self.jobs.get(job_id) if job_id is not None else None
        if job is None or job_id is None or job.closed:
            return
        event = translate(self, msg, job)
        self.tell(job_id, event)
        if self.known and type(event) is e.Answered:
            job = self.jobs[job_id]
            complete = len(job.offers) >= len(self.known) and self.known <= answered(job.offers)
            if complete and job.state is State.QUOTING and job.round == 0:
                self.tell(job_id, e.WindowClosed(self.world.now, 0))

    def pay_cost(self, mint: str, amount: Msat) -> Msat:
        """What paying an invoice costs at most."""
        return melt_cost(amount, self.mint_at(mint).ppk)

    # ---- the machine

    def tell(self, job_id: str, event: Any) -> None:
        """Step, persist, act."""
        job = self.jobs.get(job_id)
        if job is None:
            return
        after, effects = machine.step(job, event)
        for ask in effects:
            if type(ask) is e.Allocate:
                after, effects = self._allocate(after, effects, ask)
                break
        if after is job and not effects:
            return
        if (
            not effects
            and after.state is job.state
            and after.money is job.money
            and after.offers is job.offers
            and after.notes is job.notes
        ):
            self.jobs[job_id] = after  # strangers' noise is no reason to write
            return
        label = LABELS[after.state, after.money]
        self.world.before(self, label)
        self.persist(job_id, job, after, effects)
        self.world.after(self, label)
        if effects:
            self.act(job_id, effects)

    def _allocate(self, after: Purchase, effects: list[Any], ask: Any) -> tuple[Purchase, list[Any]]:
        """Count the payment against the seller's limit, or go on as if that quote had not come."""
        while True:
            amount = after.limit.cost(ask.amount)
            trust = self._distrust(after)
            if trust:
                after, effects, again = self._denied(after, effects, ask, trust)
                if again is None:
                    return after, effects
                ask = again
                continue
            used = gate.Usage(self.unit, self.with_seller.get(ask.seller, 0), 0)
            reason = gate.over_budget(amount, used, self.limits.per_seller, "per-seller")
            if reason is None:
                self.with_seller[ask.seller] = used.held + amount.value
                return after, effects
            self.world.coverage.faults["no room in the budget"] += 1
            after, effects, again = self._denied(after, effects, ask, reason)
            if again is None:
                return after, effects
            ask = again

    def _denied(self, after: Purchase, effects: list[Any], ask: Any, reason: str) -> tuple[Purchase, list[Any], Any]:
        rest = [item for item in effects if type(item) not in (e.Allocate, e.Lock, e.Pay, e.PublishOrder)]
        after, more = machine.step(after, e.BudgetDenied(self.world.now, ask.op_id, reason))
        effects = rest + more
        return after, effects, next((item for item in effects if type(item) is e.Allocate), None)

    def _distrust(self, job: Purchase) -> str:
        """As `dvm.exposure`: why the chosen invoice may not be paid."""
        payment = job.payment
        if payment is None or not payment.method.by_invoice:
            return ""
        others = [one.payment for one in self.jobs.values() if one.job_id != job.job_id and one.payment is not None]
        if any(one.op_id == payment.op_id for one in others) or payment.op_id in self.purse.ops:
            return "its invoice was offered before"
        if payment.method is Method.INVOICE_BEFORE and payment.seller in self.kept:
            return "it was paid before the work and delivered nothing"
        return ""

    def persist(self, job_id: str, before: Purchase, after: Purchase, effects: list[Any]) -> None:
        """What goes into one commit."""
        self.disk[job_id] = self.jobs[job_id] = after
        world = self.world
        for effect in effects:
            kind = type(effect)
            if kind is e.PublishRequest:
                job = after
                wish = self.asks[job_id]
                request = request_of(
                    world,
                    job.request_id,
                    self.key,
                    self.group * 100_000 + job.kind,
                    job.mints,
                    job.bid,
                    deadline=job.deadline,
                    tags=(("pay", "bolt11"),) if wish.invoices else (("pay", "cashu"),),
                    modes=wish.modes,
                    seal_key=SEAL_KEY if wish.modes else "",
                    cosign_key=self.cosign_key if wish.modes else "",
                )
                self._post(Msg(job.request_id, "request", self.key, job.request_id, "", request))
            elif kind is e.PublishCancel:
                self._post(Msg(f"cancel {after.request_id}", "cancel", self.key, after.request_id))
            elif kind is e.PublishPayment and effect.payment.deposit:
                msg = self.balances.signed(after, effect.payment)
                self._post(msg)
                world.judge.hands_out(self, after, msg)
            elif kind is e.CountVoucher:
                self.balances.counted(effect.payment, job_id, effect.ok)
            elif kind is e.PublishPayment:
                stored = self.purse.ops[effect.payment.op_id]
                coins = tuple([output for output in stored.outputs if output.lock is not None])
                body = {"mint": effect.payment.mint, "coins": coins, "quote": effect.payment.quote_id}
                if effect.payment.mode:
                    body["mode"] = effect.payment.mode
                msg = Msg(
                    f"wrap {effect.payment.op_id}", "wrap", self.key, after.request_id, effect.payment.seller, body
                )
                self._post(msg)
                world.judge.paying(self, after, msg)
            elif kind is e.PublishOrder:
                self._wrapped("order", after, effect.payment, {"quote": effect.payment.quote_id})
            elif kind is e.PublishCosign:
                coins = effect.payment.ys
                words = signatures(self.cosign_key, coins)
                world.judge.cosigning(self, after)
                self._wrapped("cosign", after, effect.payment, {"quote": effect.payment.quote_id, "signed": words})
            elif kind is e.Finish:
                self._remember(after)
                self.held -= after.limit.value
                self.spent += after.limit.cost(effect.cost).value
                world.judge.finished(self, after, effect.cost)
        world.judge.purchase(self, before, after)

    def _wrapped(self, kind: str, job: Purchase, payment: Payment, body: dict[str, Any]) -> None:
        self._post(Msg(f"{kind} {payment.op_id}", kind, self.key, job.request_id, payment.seller, body))

    def _remember(self, job: Purchase) -> None:
        """As `dvm.exposure`: who kept the money of an invoice and brought nothing."""
        payment = job.payment
        if payment is None or payment.method is not Method.INVOICE_BEFORE or job.money is not Funds.CLAIMED:
            return
        if job.state is State.FAILED or (job.state is State.DELIVERED and job.provider != "dvm"):
            self.kept.add(payment.seller)

    @staticmethod
    def label_of(job: Purchase) -> str:
        """Under which a job is persisted."""
        return LABELS[job.state, job.money]

    @property
    def cosign_key(self) -> str:
        """Signs beside sellers; it is no refund key."""
        return key_of(f"cosign {self.name}")

    def _post(self, msg: Msg) -> None:
        self.outbox[msg.id] = msg

    # ---- acting

    def act(self, job_id: str, effects: list[Any]) -> None:
        world = self.world
        for effect in effects:
            kind = type(effect)
            if kind is e.StartTimer:
                late = 3_000 if "clock stands still" in world.faults and world.turn() < 0.3 else 0
                world.coverage.faults["clock stands still"] += bool(late)
                world.at(max(world.now, effect.at_ms + late), self, self._rings, job_id, effect)
            elif kind is e.PublishRequest:
                world.send(self, self.outbox[self.jobs[job_id].request_id])
            elif kind is e.PublishPayment:
                word = "voucher" if effect.payment.deposit else "wrap"
                world.send(self, self.outbox[f"{word} {effect.payment.op_id}"])
            elif kind is e.PublishOrder:
                world.send(self, self.outbox[f"order {effect.payment.op_id}"])
            elif kind is e.PublishCosign:
                world.send(self, self.outbox[f"cosign {effect.payment.op_id}"])
            elif kind is e.Pay:
                pay(self, job_id, effect.payment)
            elif kind is e.SeekKey:
                seek(self, job_id, effect.payment)
            elif kind is e.PublishCancel:
                world.send(self, self.outbox[f"cancel {self.jobs[job_id].request_id}"])
            elif kind is e.Lock:
                (self.balances.draw if effect.payment.deposit else self._lock)(job_id, effect.payment)
            elif kind is e.WatchSpent:
                (self.balances.watch if effect.payment.deposit else self.watch)(job_id, effect.payment)
            elif kind is e.Refund:
                world.soon(self, min(2_000 * effect.payment.refunds, 30_000) + 1, self._refund, job_id, effect.payment)
            elif kind is e.RunFallback:
                world.soon(self, 400, self._fallback, job_id, effect.provider)

    def _rings(self, job_id: str, timer: Any) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.closed or (timer.name != "locktime" and job.state in ENDED):
            self.world.events -= 1  # a timer that was stopped is nothing that happens
            return
        now = self.world.now
        if timer.name == "window":
            self.tell(job_id, e.WindowClosed(now, timer.round))
        elif timer.name == "deadline":
            self.tell(job_id, e.DeadlinePassed(now))
        elif timer.name == "reveal":
            self.tell(job_id, e.RevealPassed(now))
        else:
            self.tell(job_id, e.LocktimePassed(now))

    def _fallback(self, job_id: str, name: str) -> None:
        now = self.world.now
        if "clumsy provider" in self.world.faults and self.world.turn() < 0.6:
            self.world.coverage.faults["clumsy provider"] += 1
            self.tell(job_id, e.FallbackFailed(now, name, "no"))
        else:
            self.tell(job_id, e.FallbackDone(now, name, "a summary"))

    # ---- money: only asks and reports

    def mint_at(self, url: str) -> Mint:
        return self.world.mints[0] if url == self.world.mints[0].url else self.world.mints[1]

    def refund_key(self, op_id: str) -> str:
        """A key of its own for each lock, derived from its name."""
        return f"refund {op_id}"

    def _lock(self, job_id: str, payment: Payment) -> None:
        stored = self.purse.ops.get(payment.op_id)
        if stored is not None:
            if stored.op.state is Op.DONE or stored.op.state is Op.REFUSED:
                self.op_ended(stored)
            else:
                self.purse.resume(stored)
            return
        mint = self.mint_at(payment.mint)
        token = payment.price.sat_up() + mint.fee(1)
        chosen = self.purse.choose(mint, token)
        if chosen is None:
            self.world.coverage.faults["no funds"] += 1
            return self.tell(job_id, e.LockFailed(self.world.now, payment.op_id, "too few coins"))
        names, worth = chosen
        if (token + mint.fee(len(names))) * 1000 > payment.ceiling.value:
            return self.tell(job_id, e.LockFailed(self.world.now, payment.op_id, "too dear"))
        cosigner = self.cosign_key if payment.mode == MODE_B else ""
        lock = Lock(payment.wallet_key, payment.locktime, self.refund_key(payment.op_id), payment.hash, cosigner)
        self.purse.begin(
            payment.op_id, Kind.LOCK, mint, names, worth, "", job_id, (token, lock, f"locked for {job_id}")
        )

    def booking(self, stored: Stored) -> Any:
        """What is committed with the booking of a lock: "the money is locked" and "the token goes out" are one fact."""
        if stored.kind is not Kind.LOCK:
            return None
        job = self.jobs.get(stored.subject)
        if job is None:
            return None
        event = self._lock_done(stored)
        after, effects = machine.step(job, event)
        if after is job:
            return None

        def write() -> None:
            self.persist(stored.subject, job, after, effects)
            label = LABELS[after.state, after.money]
            self.world.coverage.commits[label] += 1
            self._booked = effects

        return write

    _booked: list[Any] | None = None

    def _lock_done(self, stored: Stored) -> Any:
        token = sum(output.amount for output in stored.outputs if output.lock is not None)
        change = sum(output.amount for output in stored.outputs if output.lock is None)
        ys = tuple([output.name for output in stored.outputs if output.lock is not None])
        return e.LockDone(self.world.now, stored.id, Msat.of_sat(stored.worth - change), Msat.of_sat(token), ys)

    def op_ended(self, stored: Stored) -> None:
        """The wallet says how one of its operations ended."""
        now, job_id = self.world.now, stored.subject
        if self.balances is not None and job_id in self.balances.disk:
            self.balances.op_ended(stored)
        elif stored.kind is Kind.LOCK:
            effects, self._booked = self._booked, None
            if stored.op.state is Op.REFUSED:
                self.tell(job_id, e.LockFailed(now, stored.id, stored.reason))
            elif effects is not None:
                self.act(job_id, effects)
            else:
                self.tell(job_id, self._lock_done(stored))
        elif stored.kind is Kind.MELT:
            if stored.op.state is Op.REFUSED:
                return self.tell(job_id, e.LockFailed(now, stored.id, stored.reason))
            back = sum(output.amount for output in stored.outputs)
            gross, amount = Msat.of_sat(stored.worth - back), Msat.of_sat(stored.terms["amount"])
            self.tell(job_id, e.InvoicePaid(now, stored.id, gross, amount))
        elif stored.kind is Kind.REFUND:
            job = self.jobs.get(job_id)
            if job is None or job.payment is None:
                return
            if stored.op.state is Op.DONE:
                self.tell(job_id, e.RefundDone(now, Msat.of_sat(stored.outputs[0].amount)))
            else:
                self._why_refused(job_id, job.payment)

    def _why_refused(self, job_id: str, payment: Payment) -> None:
        """This refund did not happen, for certain: only now does "spent" mean that it was the seller."""

        def heard(word: str, spent: bool) -> None:
            if word == "ok" and spent:
                self.tell(job_id, e.SpentSeen(self.world.now))
            else:
                self.tell(job_id, e.RefundFailed(self.world.now, "the mint refused"))

        self.world.ask(self, lambda: self.is_spent(payment), heard)

    def waits(self, stored: Stored) -> None:
        """An operation stays in doubt for now."""
        if stored.kind in _OUT and stored.id not in self.doubts:
            self.doubts.add(stored.id)
            self.tell(stored.subject, e.LockUnknown(self.world.now, stored.id))

    def is_spent(self, payment: Payment) -> bool:
        spent = self.mint_at(payment.mint).spent
        return all(name in spent for name in payment.ys)

    def watch(self, job_id: str, payment: Payment) -> None:
        if payment.op_id not in self.watched:
            self.watched[payment.op_id] = 0
            self._look(job_id, payment, 400)

    def _look(self, job_id: str, payment: Payment, pause: int) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.money is not Funds.LOCKED:
            self.world.events -= 1
            return

        def heard(word: str, spent: bool) -> None:
            shown_at(self, job_id, payment, word)
            job = self.jobs.get(job_id)
            if job is None or job.money is not Funds.LOCKED:
                return
            if word == "ok" and spent:
                self.tell(job_id, e.SpentSeen(self.world.now))
            else:
                self.world.soon(self, pause, self._look, job_id, payment, min(pause * 2, 120_000))

        self.world.ask(self, lambda: self.is_spent(payment), heard)

    def _refund(self, job_id: str, payment: Payment) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.money is not Funds.REFUNDING:
            return
        id_ = refund_id(payment.op_id)
        stored = self.purse.ops.get(id_)
        if stored is not None and stored.op.state is not Op.REFUSED:
            if stored.op.state is Op.DONE:
                self.op_ended(stored)
            else:
                self.purse.resume(stored)
            return
        self.world.judge.takes_back(self, payment)
        self.purse.begin(
            id_,
            Kind.REFUND,
            self.mint_at(payment.mint),
            payment.ys,
            payment.amount.sat_down(),
            self.refund_key(payment.op_id),
            job_id,
            None,
        )
