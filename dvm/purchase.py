"""One open job of ours: the driver of the buyer's machine. State and outbox are committed together, then it acts.

Everything that is told to the machine passes `tell`, one thing at a time. Only the wallet's booking of a lock comes in
from the side (`_book`): it is committed in the wallet's own unit, so that "the money is locked" and "the token goes to
the seller" are one fact. Each state in memory is the last one that was *submitted*; if its unit fails, the row is read
again and what was to happen is decided again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from core.effect import Outcome, OutcomeState
from core.error import BudgetExceeded, Conflict, InvalidInput, StoreUncertain, Unavailable
from core.identifier import EffectId, PubKey
from core.money import Msat
from core.unit import Insert, Update, Write
from dvm.answer import translate, undrawable
from dvm.asking import parcel_bytes, request_of
from dvm.buyer import resumed, step
from dvm.buyer_event import (
    Allocate,
    BudgetDenied,
    CountVoucher,
    DeadlinePassed,
    Effect,
    Event,
    Finish,
    KeyShown,
    Lock,
    LockDone,
    LocktimePassed,
    Notify,
    Pay,
    Progress,
    PublishCancel,
    PublishCosign,
    PublishOrder,
    PublishPayment,
    PublishRequest,
    Refund,
    ResultArrived,
    RevealPassed,
    RunFallback,
    SealedArrived,
    SeekKey,
    Start,
    StartTimer,
    WatchSpent,
    WindowClosed,
)
from dvm.desk import Desk
from dvm.destination import payment_relays
from dvm.drawing import Drawer
from dvm.error import NotNow
from dvm.fallback import done_by
from dvm.invoice import MAX_READ, Checkout
from dvm.job import ENDED, Funds, Payment, Purchase, State
from dvm.opening import TABLE, row_of
from dvm.payer import Payer
from dvm.record import decode, encode
from dvm.reputation import Standing
from dvm.selection import Terms, answered
from dvm.settlement import UNSECURED, choose
from dvm.till import Till
from dvm.unpacking import ours_to_fetch, shown
from dvm.view import PurchaseView
from relays.event import Event as NostrEvent
from relays.event import parse_json
from relays.filter import Filter
from relays.kind import JOB_FEEDBACK, result_of
from relays.nip17 import Rumor
from relays.nip90 import cancel_draft
from relays.private_job import Scheme, as_event, open_answer, sealed_cancel
from wallet.model import Locked

log = logging.getLogger(__name__)

MAX_RETRIES = 8
_LATE_MS = 100  # a timer that rings later rang while this process stood still


class OpenJob:
    """One job that is not closed yet."""

    def __init__(self, desk: Desk, purchase: Purchase, version: int) -> None:
        self.job = purchase
        self.version = version
        self._desk = desk
        self._acted = version
        self._lock = asyncio.Lock()
        self._booked: tuple[list[Effect], tuple[Insert, ...]] | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._decided: Purchase | None = None
        self._till = Till(desk.unit, desk.gate, desk.wallet, desk.clock, self)
        self._payer = Payer(desk.gate, desk.wallet, desk.clock, self)
        self._drawer = Drawer(desk.prepaying, desk.clock, self) if desk.prepaying is not None else None
        self._read_invoices = 0
        self._fetched_for = ""  # the operation of the payment for whose result we go to file servers

    @property
    def view(self) -> PurchaseView:
        """The job as it stands."""
        return PurchaseView(self.job, self.version)

    # ---- life

    def _start(self) -> Start:
        """The first event: the request, made and signed. If none can be made the job ends, unsent."""
        now = self._desk.clock.millis()
        try:
            made = request_of(self._desk, self.job)
        except InvalidInput as error:
            log.warning("A request cannot be made: %s", error.code, extra={"action": "job_unsent"})
            return Start(now, "", "", now // 1000, error.message)
        raw, request_id = (made[0].to_json(), str(made[1])) if made is not None else ("", "")
        return Start(now, raw, request_id, now // 1000 + self.job.timeout_s)

    async def begin(self) -> None:
        """The staged rows are durable: make the request and start."""
        await self.insist(self._start())

    async def prepare(self) -> tuple[Write, ...]:
        """The job's first rows with its start in them, so that one commit does for both; `started` acts on it.

        A job that would end with its start is not started: that end is others' concern too.
        """
        after, effects = step(self.job, self._start())
        if after.state in ENDED:
            return (row_of(self.job),)
        rows, moved = self._sync_rows(after, effects, None), await self._moved(PurchaseView(after, self.version))
        self.job, self._booked = after, (effects, rows)
        return (row_of(after), *moved, *rows)

    def started(self) -> None:
        """What `prepare` gave is durable."""
        if not self.booked():
            self.resume()

    def resume(self) -> None:
        """After a restart: do again whatever the state implies."""
        if self.job.state is State.STAGED:
            self._run(self.begin(), "begin")
            return
        self._listen()
        self._act(resumed(self.job, self._desk.clock.millis()), ())
        self._tell_again()

    def _tell_again(self) -> None:
        if self._desk.moved and self.job.state is State.WORKING and self.job.seat is None:
            self._run(self._announce(), "announce")

    def _listen(self) -> None:
        if self.job.request_id and self.job.private == Scheme.WRAP:
            self._desk.hear()
        elif self.job.request_id:
            kinds = frozenset({JOB_FEEDBACK, result_of(self.job.kind)})
            answers = Filter(kinds=kinds, tags={"e": frozenset({self.job.request_id})})
            # Not remembered over a restart: what was paid for may still wait to be written when the handler returns
            self._desk.pool.subscribe(self._subscription, [answers], self._on_answer, remember=False)

    @property
    def _subscription(self) -> str:
        return f"job/{self.job.job_id}"

    # ---- what comes in

    async def on_rumor(self, rumor: Rumor, relay: str) -> None:
        """An answer out of a gift wrap."""
        if self.job.private == Scheme.WRAP and rumor.kind in (JOB_FEEDBACK, result_of(self.job.kind)):
            await self._on_answer(as_event(rumor), relay)

    async def _on_answer(self, event: NostrEvent, relay: str) -> None:
        """A verified event that e-tags our request."""
        desk = self._desk
        if event.pubkey == desk.key.pubkey:
            return
        now = desk.clock.millis()
        event = open_answer(desk.key, event)
        told = translate(
            event,
            self.job,
            ourselves=desk.key.pubkey,
            at_ms=now,
            lock_cost=desk.wallet.lock_cost,
            judge=self._judge,
            checkout=self._checkout(event),
            proven=desk.envelope.proven,
            settle=self._settle,
            seal_key=desk.envelope.half(self.job),
            drawable=desk.prepaying.drawable if desk.prepaying is not None else undrawable,
            parcel_bytes=parcel_bytes(desk, self.job),
        )
        if ours_to_fetch(told, self.job):
            return self._fetch(told)
        try:
            await self.tell(told, self._all_answered)
        except (Conflict, StoreUncertain, Unavailable):
            payment = self.job.payment
            if not isinstance(told, ResultArrived | SealedArrived) or payment is None or told.seller != payment.seller:
                raise
            self._run(self.insist(told), "result")  # it is paid for, and no relay may ever show it again
        if isinstance(told, Progress) and told.word == "success" and told.seller == self.job.seller:
            self._till.hurry()  # a receipt is a hint; the mint's word is what counts

    def _all_answered(self, job: Purchase) -> Event | None:
        """The early end of the first window: nobody is known who has not answered. Written together with the answer."""
        if job.state is not State.QUOTING or job.round > 0:
            return None
        known = frozenset({job.to}) if job.to else self._desk.known_sellers(job.kind)
        return WindowClosed(self._desk.clock.millis(), job.round) if known and known <= answered(job.offers) else None

    def _judge(self, seller: str, price: Msat) -> Standing:
        return self._desk.repute.standing(seller, self.job.kind, price.value, self._desk.clock.now())

    def _checkout(self, event: NostrEvent) -> Checkout | None:
        """Invoices are read while there is something to choose, and not without end: strangers send them."""
        if self.job.state is not State.QUOTING or self._read_invoices >= MAX_READ:
            return None
        self._read_invoices += any(len(tag) > 2 for tag in event.all("amount"))
        return self._desk.checkout

    def _settle(self, terms: Sequence[Terms], price: Msat, seller: str) -> tuple[tuple[Terms, ...], str]:
        return choose(terms, price, self._desk.envelope.settlement, self._desk.unsecured(seller, self.job.job_id))

    @property
    def foreseen(self) -> Purchase:
        """The job as it will be once what is decided is written: so it counts for what other jobs decide."""
        return self._decided or self.job

    def _fetch(self, told: ResultArrived | SealedArrived) -> None:
        """One at a time, for the payment that stands: who was chosen before must not hold up its successor."""
        assert self.job.payment is not None  # else it is not ours to fetch
        task = self._tasks.get("parcel")
        if task is None or task.done() or self._fetched_for != self.job.payment.op_id:
            self._fetched_for = self.job.payment.op_id
            self._run(self._bring(told), "parcel")

    async def _bring(self, told: ResultArrived | SealedArrived) -> None:
        """Fetch a large result; until it is here its time is not over, since it was announced in time."""
        assert self._desk.unpacking is not None  # nothing else makes it ours to fetch
        brought = await self._desk.unpacking.bring(self.job, told)
        while self.job.state is State.PAYING:  # our wallet tells us in a moment what the seller knows already
            await self._desk.clock.sleep(0.2)
        await self.insist(brought)

    async def show(self, preimage: str) -> None:
        """Tell what the preimage that the mint shows opens."""
        before, unpacking = self.job, self._desk.unpacking
        event = await shown(self._desk.envelope, unpacking, before, preimage)
        await self.insist(event)
        if isinstance(event, KeyShown) and unpacking is not None:
            await unpacking.release(before)

    async def insist(self, event: Event) -> None:
        """Tell the machine something of our own, again and again if the database fails meanwhile."""
        wait = 0.2
        while True:
            try:
                return await self.tell(event)
            except (Conflict, StoreUncertain, Unavailable) as error:
                log.warning("A job's step was not written: %s", error.code, extra={"action": "job_unsaved"})
                self.version = -1
                await self._desk.clock.sleep(wait)
                wait = min(wait * 2, 10.0)

    async def tell(self, event: Event, then: Callable[[Purchase], Event | None] = lambda job: None) -> None:
        """Step, commit, act. What `then` says of the job after it is a second event in the same commit.

        Raises:
            Conflict: another process changes this job's row.
            StoreUncertain, Unavailable: the database failed; nothing was acted on.
        """
        async with self._lock:
            for _ in range(MAX_RETRIES):
                self._decided = None  # what was decided and not written was not decided
                if self.version < 0:
                    await self._catch_up()
                base = self.version
                after, effects, writes = await self._decide(event, then)
                if not effects and after.refused_count != self.job.refused_count and self._same(after):
                    self.job = after  # kept in memory: strangers' noise is no reason to write
                    return
                if not effects and after == self.job:
                    return
                rows = self._sync_rows(after, effects, None) + await self._cosign_rows(after, effects)
                writes += await self._async_writes(after, effects)
                if self.version != base:
                    continue  # the wallet booked a lock meanwhile: decide again
                if await self._commit(after, [*writes, *rows]):
                    self._acted = max(self._acted, base + 1)
                    self._desk.learn(self.job)
                    self._act(effects, rows)
                    return
            raise Conflict("The job changes faster than it can be written.")

    def _same(self, after: Purchase) -> bool:
        return (after.state, after.money, after.offers, after.notes) == (
            self.job.state,
            self.job.money,
            self.job.offers,
            self.job.notes,
        )

    async def _decide(
        self, event: Event, then: Callable[[Purchase], Event | None]
    ) -> tuple[Purchase, list[Effect], list[Write]]:
        """Step; where the gate has no room for the chosen seller, go on as if that quote had not come."""
        after, effects = step(self.job, event)
        if (second := then(after)) is not None:
            after, more = step(after, second)
            effects += more
        while (ask := next((item for item in effects if isinstance(item, Allocate)), None)) is not None:
            amount = after.limit.cost(ask.amount)
            reason = await self._desk.exposure.refusal(after) if self._desk.exposure is not None else ""
            try:
                if not reason:
                    self._check_unsecured(after.payment)
                    self._decided = after  # nothing was awaited since the sums that other jobs have out were made
                    return after, effects, list(await self._desk.gate.allocate(self._effect, ask.seller, amount))
            except BudgetExceeded as error:
                reason = error.message
            rest = [item for item in effects if not isinstance(item, Allocate | Lock | Pay | PublishOrder)]
            after, effects = step(after, BudgetDenied(self._desk.clock.millis(), ask.op_id, reason))
            effects = rest + effects
        return after, effects, []

    def _check_unsecured(self, payment: Payment | None) -> None:
        """Other jobs may have been decided since the quote came.

        Raises:
            BudgetExceeded: too much is out to this seller.
        """
        if payment is None or payment.method not in UNSECURED:
            return
        out = self._desk.unsecured(payment.seller, self.job.job_id) + payment.ceiling
        if out > self._desk.envelope.settlement.max_unsecured:
            raise BudgetExceeded("Too much is out to this seller already without it having to deliver.")

    async def _commit(self, after: Purchase, writes: Sequence[Write]) -> bool:
        """False if the row was not as expected; then it was read again."""
        base = self.version
        row = self._row(after)
        self.job, self.version, self._decided = after, base + 1, None
        is_known = False
        try:
            await self._desk.unit.commit([row, *writes])
            is_known = True
        except Conflict:
            await self._read()
            is_known = True
            if self.job.closed:
                self._close()  # it had ended when its row was taken up
            return False
        finally:
            if not is_known:
                self.version = -1  # uncertain, or cancelled in the middle: nothing more is decided on this state
        return True

    async def reload(self) -> None:
        """A lock was not booked as `book` wanted it: take the committed row for the truth."""
        self._booked = None
        await self._catch_up()

    async def _catch_up(self) -> None:
        """What is in memory was not written, or may not have been. If it was after all, act on it like a restart."""
        await self._read()
        if self.version > self._acted:
            self._acted = self.version
            self._desk.outbox.kick()
            if self.job.closed:
                self._close()
            else:
                self.resume()

    async def _read(self) -> None:
        rows = await self._desk.unit.select(TABLE, {"id": self.job.job_id})
        if rows:
            self.job, self.version = decode(Purchase, rows[0]["body"]), int(rows[0]["version"])

    # ---- what is written

    @property
    def _effect(self) -> EffectId:
        return EffectId(self.job.effect_id)

    def _row(self, after: Purchase) -> Update:
        return Update(
            TABLE,
            {"id": after.job_id, "version": self.version},
            {
                "request_id": after.request_id,
                "state": after.state.value,
                "money": after.money.value,
                "body": encode(after),
                "updated_at": self._desk.clock.now(),
                "version": self.version + 1,
            },
        )

    def _sync_rows(
        self, after: Purchase, effects: Iterable[Effect], payload: Mapping[str, Any] | None
    ) -> tuple[Insert, ...]:
        """Outbox rows for what the effects publish."""
        rows: tuple[Insert, ...] = ()
        for effect in effects:
            match effect:
                case PublishRequest():
                    rows += self._desk.outbox.rows(parse_json(after.request), after.effect_id)
                case PublishCancel():
                    draft = cancel_draft(after.request_id, after.kind, self._desk.clock.now())
                    word = sealed_cancel(self._desk.key, PubKey(after.to), draft, Scheme(after.private))
                    rows += self._desk.outbox.rows(word, after.effect_id)
                case PublishOrder(payment):
                    wrapped = self._desk.envelope.ordered(after, payment)
                    rows += self._desk.outbox.rows(wrapped, after.effect_id, self._payment_relays(payment))
                case PublishPayment(payment):
                    payload = payload or self._till.payload
                    if payload is None:
                        raise NotNow("The locked coins are not at hand.")
                    wrapped = self._desk.envelope.paid(after, payment, payload)
                    rows += self._desk.outbox.rows(wrapped, after.effect_id, self._payment_relays(payment))
        return rows

    async def _cosign_rows(self, after: Purchase, effects: Iterable[Effect]) -> tuple[Insert, ...]:
        """Outbox rows for our signatures: only ever in the commit that makes the sealed result durable."""
        rows: tuple[Insert, ...] = ()
        for effect in effects:
            if isinstance(effect, PublishCosign):
                wrapped = await self._desk.envelope.cosigned(after, effect.payment)
                rows += self._desk.outbox.rows(wrapped, after.effect_id, self._payment_relays(effect.payment))
        return rows

    def _payment_relays(self, payment: Payment) -> tuple[str, ...] | None:
        directory = self._desk.directory
        taken_at = directory.known_for_dm(PubKey(payment.seller)) if directory is not None else None
        return payment_relays(self._desk.pool.urls, taken_at)

    async def _find_seller(self, seller: str) -> None:
        """Where the seller takes messages; the payment does not wait for it."""
        if self._desk.directory is not None:
            await self._desk.directory.relays_for_dm(PubKey(seller))

    async def _async_writes(self, after: Purchase, effects: Iterable[Effect]) -> list[Write]:
        """What others add to this commit: whoever asked for the job, and the gate."""
        writes: list[Write] = []
        if after.seat is None and after.state is not self.job.state and after.state not in ENDED:
            writes += await self._moved(PurchaseView(after, self.version + 1))
        for effect in effects:
            if isinstance(effect, Notify):
                view = PurchaseView(after, self.version + 1)
                for callback in self._desk.finished if after.seat is None else ():  # else it is the panel that ends
                    writes += await callback(view)
            elif isinstance(effect, CountVoucher) and self._desk.prepaying is not None:
                writes += await self._desk.prepaying.counted(effect.payment.deposit, after.job_id, ok=effect.ok)
            elif isinstance(effect, Finish):
                ok = after.state is State.DELIVERED
                detail: dict[str, str | int] = {
                    "job": after.job_id,
                    "state": after.state.value,
                    "money": after.money.value,
                    "cost_msat": effect.cost.value,
                }
                cost = after.limit.cost(effect.cost) if "dvm" in after.route else None
                outcome = Outcome(OutcomeState.COMMIT if ok else OutcomeState.FAIL, cost, detail)
                if after.copied and after.money is Funds.NONE:
                    outcome = Outcome(OutcomeState.UNKNOWN, detail=detail)  # it may have been paid to another seller
                writes += await self._desk.gate.settle(self._effect, outcome)
                for callback in self._desk.closing if after.seat is None else ():
                    writes += await callback(PurchaseView(after, self.version + 1))
                if self._desk.exposure is not None:
                    writes += self._desk.exposure.remember(after)
        return writes

    async def _moved(self, view: PurchaseView) -> list[Write]:
        return [write for callback in self._desk.moved for write in await callback(view)]

    async def _announce(self) -> None:
        """Tell of a state that came with the wallet's booking. It is told once, so a restart may tell it again."""
        wait = 0.2
        while self.job.state not in ENDED:
            try:
                return await self._desk.unit.commit(await self._moved(self.view))
            except (Conflict, StoreUncertain, Unavailable):
                await self._desk.clock.sleep(wait)
                wait = min(wait * 2, 10.0)

    # ---- the wallet's booking, in the wallet's own unit

    def book(self, locked: Locked) -> Sequence[Write]:
        """`Wallet.lock`'s `then`: the writes that go with the booking. Called at most once per lock."""
        event = LockDone(self._desk.clock.millis(), locked.op_id, locked.gross, locked.amount, locked.ys)
        after, effects = step(self.job, event)
        if after == self.job or self.version < 0:
            return ()
        rows = self._sync_rows(after, effects, locked.payload)
        row = self._row(after)
        self.job, self.version = after, self.version + 1
        self._booked = (effects, rows)
        return [row, *rows]

    def booked(self) -> bool:
        """After `Wallet.lock` returned: act on what was committed with the booking. False if nothing was."""
        done, self._booked = self._booked, None
        if done is not None:
            self._acted = max(self._acted, self.version)
            self._act(*done)
            self._tell_again()
        return done is not None

    # ---- acting

    def _act(self, effects: Iterable[Effect], rows: Sequence[Insert]) -> None:
        if rows:
            self._desk.outbox.kick(rows)
        for effect in effects:
            match effect:
                case PublishRequest():
                    self._listen()
                case StartTimer():
                    self._run(self._timer(effect), f"timer {effect.name}")
                case Lock(payment):
                    self._run(self._way(payment).lock(payment), "lock")
                    self._run(self._find_seller(payment.seller), "relays")
                case Pay(payment):
                    self._run(self._payer.pay(payment), "pay")
                case WatchSpent(payment):
                    self._run(self._way(payment).watch(payment), "watch")
                case Refund(payment):
                    self._run(self._till.refund(payment), "refund")
                case SeekKey(payment):
                    self._run(self._till.seek(payment), "seek")
                case RunFallback(name):
                    self._run(self._fallback(name), "fallback")
                case CountVoucher(payment) if self._desk.prepaying is not None:
                    self._desk.prepaying.recount(payment.deposit)
                case Notify():
                    self._stop("timer window", "timer deadline", "timer reveal", "seek", "fallback", "parcel")
                    self._till.expect()
                case Finish():
                    self._close()
            if self.job.seat is not None and isinstance(effect, Notify | Finish):
                self._desk.seated(self.job.seat.panel)

    def _way(self, payment: Payment) -> Till | Drawer:
        return self._drawer if payment.deposit and self._drawer is not None else self._till

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._stop(name)
        self._tasks[name] = self._desk.spawn(work, f"job {self.job.job_id[:8]} {name}")

    def _stop(self, *names: str) -> None:
        current = asyncio.current_task()
        for name in names:
            task = self._tasks.pop(name, None)
            if task is not None and task is not current:
                task.cancel()

    def _close(self) -> None:
        self._stop(*self._tasks)
        self._desk.pool.unsubscribe(self._subscription)
        self._desk.closed(self.job.job_id)

    async def _timer(self, timer: StartTimer) -> None:
        clock = self._desk.clock
        while (left := timer.at_ms - clock.millis()) > 0:
            await clock.sleep(left / 1000)
        if timer.name == "deadline":
            await self._brought()
        now = clock.millis()
        event: Event
        if timer.name == "window" and (late := now - timer.at_ms) > _LATE_MS:
            # We stood still when it ended, and quotes that came in time are still to be read: give them as long.
            await clock.sleep(min(late, self.job.window_ms) / 1000)
            now = clock.millis()
        if timer.name == "window":
            event = WindowClosed(now, timer.round)
        elif timer.name == "deadline":
            event = DeadlinePassed(now)
        elif timer.name == "reveal":
            event = RevealPassed(now)
        else:
            event = LocktimePassed(now)
        await self.insist(event)

    async def _brought(self) -> None:
        """Wait for a result that is being fetched, unless that waits for our payment, which may take for ever."""
        while self.job.state is not State.PAYING:
            task = self._tasks.get("parcel")
            if task is None or task.done():
                return
            await asyncio.wait({task})

    async def _fallback(self, name: str) -> None:
        await self.insist(await done_by(self._desk, self.job, name))
