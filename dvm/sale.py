"""One open sale: the driver of the seller's machine. State and outbox are committed together, then it acts."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from core.clock import Clock
from core.effect import Gate, Outcome, OutcomeState
from core.error import Conflict, InvalidInput, StoreUncertain, Unavailable, VendoError
from core.identifier import EffectId, PubKey, derived_id
from core.money import Msat
from core.unit import Insert, UnitOfWork, Update, Write
from dvm.destination import answer_relays
from dvm.error import ProviderFailed
from dvm.provider.provider import Provider
from dvm.provider.supervision import supervised
from dvm.record import decode, encode
from dvm.request import ComputeRequest, Datum
from dvm.seller import (
    ENDED,
    Claim,
    Claimed,
    ClaimRefused,
    Effect,
    Event,
    PaymentRefused,
    PaymentVerified,
    QuoteLapsed,
    Sale,
    Send,
    SendReceipt,
    SendWord,
    Settle,
    State,
    Work,
    WorkDone,
    WorkFailed,
    resumed,
    step,
)
from relays.directory import Directory
from relays.error import MalformedEvent
from relays.event import MAX_EVENT_BYTES, parse_json
from relays.event import Event as NostrEvent
from relays.key import Key
from relays.nip17 import unwrap
from relays.nip90 import SUCCESS, JobRequest, feedback_draft, read_request, result_draft
from relays.outbox import TABLE as OUTBOX
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.error import MintRefused, TokenRejected, TokenSpent
from wallet.model import VerifyTerms
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

TABLE = "sale"
CLAIM_MARGIN_S = 60  # the claim is made so long before the customer could take the money back
GIVE_UP_S = 86_400  # so long after the locktime a claim is still tried; the customer may have taken the money back
LONGEST_WAIT_S = 30.0
MAX_PAYMENTS = 4  # messages that are looked at for one quote


@dataclass(frozen=True, slots=True)
class Service:
    """One kind for sale.

    Attributes:
        kind: request kind.
        price: net of the mint's fees; 0 is free.
        provider: does the work.
        eta_s: how long it usually takes; stands in the quote.
        max_parallel: jobs worked on at once.
        timeout_s: one job may take so long.
        max_open: quotes, waiting and running jobs together; 0 means 256 for a free service, else 8 per worker.
    """

    kind: int
    price: Msat
    provider: Provider
    eta_s: int = 10
    max_parallel: int = 4
    timeout_s: int = 120
    max_open: int = 0

    @property
    def capacity(self) -> int:
        """How many jobs may be promised at once."""
        return self.max_open or (8 * self.max_parallel if self.price else 256)


@dataclass(slots=True)
class Counter:
    """What all open sales share. `spawn` starts a task that the selling service owns."""

    unit: UnitOfWork
    gate: Gate
    pool: Pool
    outbox: Outbox
    wallet: Wallet
    clock: Clock
    key: Key
    spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    closed: Callable[["OpenSale"], None]
    directory: Directory | None = None


class OpenSale:
    """One sale that has not ended. `version` is -1 until its row is written."""

    def __init__(
        self,
        counter: Counter,
        service: Service,
        slots: asyncio.Semaphore,
        request: JobRequest,
        sale: Sale,
        version: int,
    ) -> None:
        self.sale = sale
        self.service = service
        self.request = request
        self._counter = counter
        self._slots = slots
        self._version = version
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._payments: set[str] = set()
        self._tries = 0

    @classmethod
    def reopened(
        cls, counter: Counter, service: Service, slots: asyncio.Semaphore, sale: Sale, version: int
    ) -> "OpenSale":
        """From its row, after a restart."""
        return cls(counter, service, slots, read_request(parse_json(sale.request)), sale, version)

    def resume(self) -> None:
        """After a restart: do again whatever the state implies."""
        self._act(resumed(self.sale), ())
        self.watch_expiry()

    def watch_expiry(self) -> None:
        """A quote gives its place back when its time is over."""
        if self.sale.state is State.QUOTED:
            self._run(self._expire(), "expiry")

    # ---- telling the machine

    async def insist(self, event: Event) -> None:
        """Tell the machine, again and again if the database fails meanwhile."""
        wait, stale = 0.2, False
        while True:
            try:
                if stale:
                    await self._catch_up()
                return await self.tell(event)
            except (Conflict, StoreUncertain, Unavailable) as error:
                log.warning("A sale's step was not written: %s", error.code, extra={"action": "sale_unsaved"})
                stale = True
                await self._counter.clock.sleep(wait)
                wait = min(wait * 2, 10.0)

    async def tell(self, event: Event, *, first: Sequence[Write] = ()) -> None:
        """Step, commit (with the gate's `first` writes), act.

        Raises:
            Conflict: the row is not as expected.
            StoreUncertain, Unavailable: the database failed; nothing was acted on.
        """
        async with self._lock:
            after, effects = step(self.sale, event)
            if after == self.sale and not effects:
                return
            rows, writes = await self._writes(after, effects)
            if after != self.sale:
                writes.append(self._row(after))
            await self._counter.unit.commit([*first, *writes, *rows])
            if after != self.sale:
                self.sale, self._version = after, self._version + 1
            self._act(effects, rows)
            if after.state in ENDED:
                self._end()

    async def was_written(self) -> bool:
        """After a first commit in doubt: whether it was durable; if so the sale goes on like after a restart."""
        await self._catch_up()
        self.watch_expiry()
        return self._version >= 0

    async def _catch_up(self) -> None:
        """Take the committed row for the truth. If a step was written after all, act on it like a restart."""
        found = await self._counter.unit.select(TABLE, {"id": self.sale.request_id})
        if not found or int(found[0]["version"]) == self._version:
            return
        self.sale, self._version = decode(Sale, found[0]["body"]), int(found[0]["version"])
        self._counter.outbox.kick()
        self._act(resumed(self.sale), ())
        if self.sale.state in ENDED:
            self._end()

    # ---- what is written

    def _row(self, after: Sale) -> Write:
        now = self._counter.clock.now()
        values = {
            "quote_id": after.quote_id,
            "state": after.state.value,
            "body": encode(after),
            "expires_at": after.expires_at,
            "updated_at": now,
            "version": self._version + 1,
        }
        if self._version < 0:
            values |= {
                "id": after.request_id,
                "effect_id": after.effect_id,
                "customer": after.customer,
                "kind": after.kind,
                "created_at": now,
            }
            return Insert(TABLE, values)
        return Update(TABLE, {"id": after.request_id, "version": self._version}, values)

    async def _writes(self, after: Sale, effects: Iterable[Effect]) -> tuple[tuple[Insert, ...], list[Write]]:
        rows: tuple[Insert, ...] = ()
        writes: list[Write] = []
        for effect in effects:
            match effect:
                case Send(again):
                    answer = parse_json(after.answer)
                    if again:
                        writes.append(
                            Update(OUTBOX, {"event_id": answer.id}, {"state": "pending", "next_at_ms": 0}, rows=None)
                        )
                    rows += self._rows(answer, after)
                case SendWord(status, info):
                    rows += self._rows(self._word(status, info), after)
                case SendReceipt():
                    rows += self._rows(self._word(SUCCESS, "", (after.mint, *after.ys)), after)
                case Settle(ok):
                    state = OutcomeState.COMMIT if ok else OutcomeState.FAIL
                    detail: dict[str, str | int] = {"state": after.state.value, "earned_msat": after.claimed.value}
                    writes += await self._counter.gate.settle(EffectId(after.effect_id), Outcome(state, None, detail))
        return rows, writes

    def _word(self, status: str, info: str, receipt: Sequence[str] = ()) -> NostrEvent:
        now = self._counter.clock.now()
        return self._counter.key.sign(
            feedback_draft(request=self.request, status=status, created_at=now, info=info[:200], receipt=receipt)
        )

    def _rows(self, event: NostrEvent, after: Sale) -> tuple[Insert, ...]:
        counter = self._counter
        read = counter.directory.known_read_relays(PubKey(after.customer)) if counter.directory is not None else ()
        relays = answer_relays(counter.pool.urls, self.request.relays, read, paid=after.paid)
        return counter.outbox.rows(event, after.effect_id, relays)

    async def _find_customer(self) -> None:
        """Whoever has paid is worth a look-up of where they read; the result does not wait for it."""
        if self._counter.directory is not None:
            await self._counter.directory.read_relays(PubKey(self.sale.customer))

    # ---- acting

    def _act(self, effects: Iterable[Effect], rows: Sequence[Insert]) -> None:
        if rows:
            self._counter.outbox.kick(rows)
        for effect in effects:
            if isinstance(effect, Work):
                self._run(self._work(), "work")
                if self.sale.paid and self._counter.directory is not None:
                    self._run(self._find_customer(), "relays")
            elif isinstance(effect, Claim):
                self._run(self._claim(), "claim")

    def _run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._counter.spawn(work, f"sale {self.sale.request_id[:8]} {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self) -> None:
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._counter.closed(self)

    async def _expire(self) -> None:
        clock = self._counter.clock
        while self.sale.state is State.QUOTED:
            await clock.sleep(max(0, self.sale.expires_at - clock.now()) + 0.5)
            if not self._payments:  # a payment that came in time is still being looked at
                await self.insist(QuoteLapsed(clock.now()))

    async def _work(self) -> None:
        """Let the provider do it, outside the loop and within the time that the money leaves."""
        async with self._slots:
            try:
                answer = await supervised(self.service.provider, as_compute(self.request), self._time_left())
            except (InvalidInput, ProviderFailed) as error:
                return await self.insist(WorkFailed(error.message))
        draft = result_draft(
            request=self.request,
            content=answer.content,
            created_at=self._counter.clock.now(),
            amount=None if self.sale.price else Msat(0),
        )
        try:
            whole = self._counter.key.sign(draft).to_json()
        except MalformedEvent as error:
            return await self.insist(WorkFailed(error.message))
        if len(whole) > MAX_EVENT_BYTES:  # found out later it would leave the sale at work for ever
            return await self.insist(WorkFailed("The result is too long for one event."))
        await self.insist(WorkDone(whole))

    def _time_left(self) -> float:
        if not self.sale.paid:
            return float(self.service.timeout_s)
        left = self.sale.locktime - CLAIM_MARGIN_S - self._counter.clock.now()
        return float(max(0, min(self.service.timeout_s, left)))

    # ---- money

    async def receive(self, event: NostrEvent, content: str, rumor_id: str, sender: str) -> None:
        """A payment message for this sale's quote, verified as a message. It is looked at once, in its own task."""
        if sender != self.sale.customer or self.sale.state is not State.QUOTED or rumor_id in self._payments:
            return
        self._tries += 1
        if self._tries > MAX_PAYMENTS:
            return
        self._payments.add(rumor_id)
        self._run(self._verify(event, content, rumor_id, sender, self._counter.clock.now()), "verify")

    async def _verify(self, event: NostrEvent, content: str, rumor_id: str, sender: str, came_at: int) -> None:
        try:
            payload = _payload(content)
            terms = VerifyTerms(
                quote_id=self.sale.quote_id,
                price=self.sale.price,
                mints=self.sale.mints,
                wallet_pubkey=self._counter.wallet.key.compressed,
                min_locktime=came_at + self.service.eta_s + CLAIM_MARGIN_S,
            )
            wait = 0.5
            while self.sale.state is State.QUOTED:
                try:
                    good = await self._counter.wallet.verify(payload, terms)
                except Unavailable as error:
                    if self._counter.clock.now() > self.sale.expires_at + LONGEST_WAIT_S:
                        return
                    log.warning("A payment waits to be verified: %s", error.code, extra={"action": "verify_waits"})
                    await self._counter.clock.sleep(wait)
                    wait = min(wait * 2, LONGEST_WAIT_S)
                    continue
                return await self.insist(
                    PaymentVerified(
                        came_at, event.to_json(), rumor_id, sender, good.mint, good.ys, good.net, good.locktime
                    )
                )
        except TokenRejected as error:
            log.info("A payment was refused: %s", error.code, extra={"action": "payment_refused", "code": error.code})
            await self.insist(PaymentRefused(sender, error.code))
        finally:
            self._payments.discard(rumor_id)

    async def _claim(self) -> None:
        """Swap the payment at the mint, under one id, until that is certain."""
        effect = EffectId(self.sale.effect_id)
        rumor = unwrap(self._counter.key, parse_json(self.sale.payment))
        op_id = derived_id("claim", self.sale.request_id)
        wait = 0.5
        while self.sale.state is State.DELIVERED:
            try:
                permit = self._counter.gate.permit(effect)
                received = await self._counter.wallet.claim(op_id, _payload(rumor.content), effect, permit)
            except (TokenRejected, MintRefused) as error:
                # Only "spent by somebody else" is certain; the rest (a mint that is away, off our list, or without
                # its keysets for a moment) may pass, and the coins stay ours to take as long as nobody else does.
                late = self._counter.clock.now() >= self.sale.locktime + GIVE_UP_S
                if late or isinstance(error, TokenSpent):
                    return await self.insist(ClaimRefused(error.code))
                log.warning("A claim was refused: %s", error.code, extra={"action": "claim_refused"})
            except VendoError as error:
                log.warning("A claim waits: %s", error.code, extra={"action": "claim_waits", "code": error.code})
            else:
                return await self.insist(Claimed(Msat.of_sat(received.amount_sat)))
            await self._counter.clock.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_S)


def as_compute(request: JobRequest) -> ComputeRequest:
    """A stranger's request as a provider sees it."""
    inputs = tuple(Datum(item.data, item.type) for item in request.inputs)
    return ComputeRequest(request.kind, inputs, request.params, None, None, request.output)


def _payload(content: str) -> Mapping[str, Any]:
    """The NUT-18 payload of a payment message; what is not one is refused by the wallet."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
