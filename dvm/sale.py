"""One open sale: the driver of the seller's machine. State and outbox are committed together, then it acts."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from core.clock import Clock
from core.effect import Gate, Outcome, OutcomeState
from core.error import Conflict, StoreUncertain, Unavailable, VendoError
from core.guard import attempted, caught
from core.identifier import EffectId, PubKey, derived_id
from core.money import Msat
from core.unit import Insert, UnitOfWork, Update, Write
from dvm.bill import Bill, Invoice, wanted_until
from dvm.credit import credit_of
from dvm.custodian import Custodian
from dvm.destination import answer_relays
from dvm.error import VoucherRefused
from dvm.line import Line
from dvm.making import Making
from dvm.material import Material
from dvm.prepaid import read_voucher
from dvm.record import decode, encode
from dvm.schedule import Ticket, weight_of
from dvm.seal import SEAL_KEY, Pair, preimage_of
from dvm.seller import ENDED, UNSIGNED_S, Sale, State, resumed, step
from dvm.seller_event import (
    AwaitInvoice,
    AwaitSignatures,
    Claim,
    Claimed,
    ClaimRefused,
    Cosigned,
    CountVoucher,
    CreditTaken,
    Effect,
    Event,
    InvoiceFailed,
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
    WorkFailed,
)
from dvm.service import Service
from dvm.settlement import CLAIM_NEED_S, COSIGN_MARGIN_S, MODE_A, MODE_B
from dvm.shipping import Shipping
from dvm.stowage import Load, Stowage
from dvm.trust import Trust
from relays.directory import Directory
from relays.event import Event as NostrEvent
from relays.event import parse_json
from relays.key import Key, Keyring
from relays.nip17 import Rumor, unwrap
from relays.nip90 import SUCCESS, JobRequest, feedback_draft
from relays.outbox import TABLE as OUTBOX
from relays.outbox import Outbox
from relays.pool import Pool
from relays.private_job import open_request, sealed_answer
from wallet.cashu.signature import is_signed
from wallet.error import MintRefused, TokenRejected, TokenSpent
from wallet.invoice import read_invoice
from wallet.model import Unlock, VerifyTerms
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

TABLE = "sale"
CLAIM_MARGIN_S = 60  # the claim is made so long before the customer could take the money back
GIVE_UP_S = 86_400  # so long after the locktime a claim is still tried; the customer may have taken the money back
LONGEST_WAIT_S = 30.0
MAX_PAYMENTS = 4  # messages that are looked at for one quote


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
    lapsed: Callable[["OpenSale"], None]
    revived: Callable[["OpenSale"], None]
    quote: Callable[["OpenSale", Invoice | None], Quoted]
    quote_ttl_s: int
    keyring: Keyring
    directory: Directory | None = None
    material: Material | None = None
    custodian: Custodian | None = None  # without one nothing is drawn from deposits
    shipping: Shipping | None = None
    stowage: Stowage | None = None


class OpenSale:
    """One sale that has not ended. `version` is -1 until its row is written."""

    def __init__(
        self,
        counter: Counter,
        service: Service,
        line: Line,
        request: JobRequest,
        sale: Sale,
        version: int,
    ) -> None:
        self.sale = sale
        self.service = service
        self.request = request
        self._counter = counter
        self.trust = Trust.UNKNOWN
        self._line = line
        self._version = version
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._payments: set[str] = set()
        self._tries = 0
        self._bill = Bill(counter.wallet, counter.gate, counter.clock, self)
        self._making = Making(counter, line, self, self._bill)
        self.lent = sale.lent  # served before it is paid, from the moment that is decided
        self.offered = sale.mode  # in which mode, from the moment that is decided
        self.load = Load(sale.packed.size if sale.packed is not None else 0)

    @classmethod
    def reopened(cls, counter: Counter, service: Service, line: Line, sale: Sale, version: int) -> "OpenSale":
        """From its row, after a restart."""
        return cls(counter, service, line, open_request(counter.key, parse_json(sale.request)), sale, version)

    def resume(self) -> None:
        """After a restart: do again whatever the state implies."""
        self._act(resumed(self.sale), ())
        self.watch_expiry()

    def watch_expiry(self) -> None:
        """A quote gives its place back when its time is over; its invoice may be paid even later."""
        if self.sale.state is State.QUOTED:
            self._run(self._expire(), "expiry")
        if self.sale.state in (State.QUOTED, State.LAPSED) and self.sale.invoice:
            self._run(self._bill.watch(), "invoice")

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
            before = self.sale.state
            if after != self.sale:
                self.sale, self._version = after, self._version + 1
            self._place(before)
            self._act(effects, rows)
            if after.state in ENDED:
                self._end()

    def _place(self, before: State) -> None:
        """A quote that is over takes nobody's place, until its invoice is paid after all."""
        counter, now = self._counter, self.sale.state
        if now is State.LAPSED and before is not State.LAPSED:
            counter.lapsed(self)
        elif before is State.LAPSED and now is State.WORKING:
            counter.revived(self)

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
        before = self.sale.state
        self.sale, self._version = decode(Sale, found[0]["body"]), int(found[0]["version"])
        self._place(before)
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
                case CountVoucher(ok) if self._counter.custodian is not None:
                    writes += await self._counter.custodian.ended(after.deposit, after.request_id, ok=ok)
                case SendReceipt():
                    rows += self._rows(self._word(SUCCESS, "", (after.mint, *after.ys)), after)
                case Settle(ok):
                    state = OutcomeState.COMMIT if ok else OutcomeState.FAIL
                    detail: dict[str, str | int] = {"state": after.state.value, "earned_msat": after.claimed.value}
                    writes += await self._counter.gate.settle(EffectId(after.effect_id), Outcome(state, None, detail))
        return rows, writes

    def _word(self, status: str, info: str, receipt: Sequence[str] = ()) -> NostrEvent:
        now = self._counter.clock.now()
        draft = feedback_draft(request=self.request, status=status, created_at=now, info=info[:200], receipt=receipt)
        return sealed_answer(self._counter.key, self.request, draft)

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
            elif isinstance(effect, Ship):
                self._run(self._ship(), "ship")
            elif isinstance(effect, AwaitSignatures):
                self._run(self._unsigned(), "signatures")
            elif isinstance(effect, Claim):
                self._run(self._claim(), "claim")
            elif isinstance(effect, AwaitInvoice):
                self._run(self._bill.watch(), "invoice")
            elif isinstance(effect, MakeInvoice):
                self._run(self._invoice(), "invoice")
            elif isinstance(effect, LookAtInvoice):
                self._run(self._bill.look(), "look")

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

    async def _invoice(self) -> None:
        """Have the invoice made, and quote; without one the quote is for ecash, if the customer may have some."""
        made = await self._bill.make(self._counter.clock.now() + self._counter.quote_ttl_s)
        if made is None and not self.sale.mints:
            return await self.insist(InvoiceFailed("no invoice can be made now, try again later"))
        quoted, error = caught(lambda: self._counter.quote(self, made))
        if quoted is None:
            log.error("A quote failed by a fault of ours", exc_info=error, extra={"action": "quote_broke"})
            return await self.insist(InvoiceFailed("something broke here"))
        await self.insist(quoted)
        self.watch_expiry()

    async def _expire(self) -> None:
        clock = self._counter.clock
        while self.sale.state is State.QUOTED:
            await clock.sleep(max(0, self.sale.expires_at - clock.now()) + 0.5)
            if not self._payments:  # a payment that came in time is still being looked at
                await self.insist(QuoteLapsed(clock.now()))

    async def _work(self) -> None:
        """Let the provider do it, outside the loop and within the time that the money leaves."""
        await self._told_of(self._making.made())

    async def _ship(self) -> None:
        """Put a large result on our servers; only what is there is announced."""
        await self._told_of(self._making.shipped())
        await self._making.release()

    async def _told_of(self, made: Coroutine[Any, Any, Event]) -> None:
        event, error = await attempted(made)
        if event is None:  # whatever it is: at work for ever it would keep its place, and again after each restart
            if isinstance(error, VendoError):
                return await self.insist(WorkFailed(error.message))
            log.error("A job failed by a fault of ours", exc_info=error, extra={"action": "work_broke"})
            return await self.insist(WorkFailed("Something broke here."))
        await self.insist(event)

    def ticket(self) -> Ticket:
        """The job as its line sees it."""
        sale, expected_s = self.sale, self.service.eta_s
        ends = [
            self.request.deadline,
            self.request.expiration,
            sale.locktime - CLAIM_MARGIN_S if sale.locktime else None,
        ]
        end = min((at for at in ends if at is not None), default=self.request.raw.created_at + self.service.timeout_s)
        weight = weight_of(sale.price, expected_s, self.trust)
        return Ticket(sale.request_id, sale.customer, 1_000 * expected_s, weight, end)

    @property
    def pair(self) -> Pair:
        """Our half of this job's seal with the customer's."""
        key = self._counter.keyring.key(SEAL_KEY, self.sale.request_id)
        return Pair(key, self.request.seal_key, self.sale.request_id)

    @property
    def preimage(self) -> bytes:
        """What opens the sealed result. It leaves only with the claim."""
        return preimage_of(self._counter.keyring, self.sale.request_id)

    def time_left(self) -> float:
        """Seconds that the work may take."""
        if not self.sale.locktime:
            return float(self.service.timeout_s)
        needs = COSIGN_MARGIN_S + CLAIM_NEED_S if self.sale.paid_by else CLAIM_MARGIN_S
        left = self.sale.locktime - needs - self._counter.clock.now()
        return float(max(0, min(self.service.timeout_s, left)))

    # ---- money

    @property
    def invoiced(self) -> str:
        """The payment hash of its invoice; empty if it has none."""
        return read_invoice(self.sale.invoice).payment_hash if self.sale.invoice else ""

    async def look(self) -> None:
        """Somebody says that the invoice was paid: the mint is asked now."""
        if self.sale.invoice:
            await self._bill.look()

    async def take_credit(self) -> bool:
        """Have the work, or a result that is out and not paid yet, paid by what its customer is owed; whether it was.

        Raises:
            Conflict, StoreUncertain, Unavailable: not written, or nobody knows; it may be asked for again.
        """
        now = self._counter.clock.now()
        if self.sale.state not in (State.QUOTED, State.LAPSED, State.BILLED):
            return False
        credit = await credit_of(self._counter.unit, self.sale, now)
        if credit is not None:
            taken = CreditTaken(self.sale.price, credit.fresh, now, wanted_until(self.request))
            await self.tell(taken, first=credit.writes)
        return self.sale.by_credit

    async def hear(self, event: NostrEvent, rumor: Rumor) -> None:
        """A message about this sale's quote: an order, signatures, or a payment."""
        signatures = next((tag[1:] for tag in rumor.tags if tag[0] == "cosig"), None)
        if rumor.value("order") == MODE_A:
            await self.order(rumor.sender)
        elif signatures is not None:
            await self.cosigned(rumor.sender, signatures)
        elif rumor.value("voucher") is not None:
            await self.drawn(rumor)
        else:
            await self.receive(event, rumor.content, rumor.id, rumor.sender, rumor.value("seal") or "")

    async def receive(self, event: NostrEvent, content: str, rumor_id: str, sender: str, mode: str = "") -> None:
        """A payment message for this sale's quote, verified as a message. It is looked at once, in its own task.

        `mode` if it says that it pays for the key of a sealed result.
        """
        if mode and mode != self.sale.mode:
            return
        if sender != self.sale.customer or not self._open_to_pay(mode) or rumor_id in self._payments:
            return
        self._tries += 1
        if self._tries > MAX_PAYMENTS:
            return
        self._payments.add(rumor_id)
        self._run(self._verify(event, content, rumor_id, sender, self._counter.clock.now(), mode), "verify")

    async def drawn(self, rumor: Rumor) -> None:
        """A voucher: taken with the price of this sale in one commit, or refused."""
        counter, custodian = self._counter, self._counter.custodian
        if custodian is None or rumor.sender != self.sale.customer:
            return  # a quote's id is public: what strangers send to it costs its customer no try
        while self._tries < MAX_PAYMENTS:
            if self.sale.state is not State.QUOTED:
                return
            self._tries += 1
            try:
                shown = read_voucher(_payload(rumor.content).get("voucher"))
                kept, held = await custodian.take(shown, rumor.sender, self.sale.request_id, self.sale.price)
                until = kept.due_at + CLAIM_MARGIN_S  # the work ends before the deposit is claimed
                taken = VoucherTaken(counter.clock.now(), rumor.sender, kept.id, kept.mint, until)
                return await self.tell(taken, first=held)
            except VoucherRefused as error:
                return await self.insist(PaymentRefused(rumor.sender, error.code))
            except (Conflict, StoreUncertain):
                await self._catch_up()

    def _open_to_pay(self, mode: str) -> bool:
        """Whether a payment is looked at now: before the work, or in mode A after it."""
        return self.sale.state is (State.SEALED if mode == MODE_A else State.QUOTED)

    async def order(self, sender: str) -> None:
        """The customer accepts the quote without paying yet (mode A)."""
        await self.insist(Ordered(self._counter.clock.now(), sender))

    def _wanted(self, came_at: int, mode: str) -> VerifyTerms:
        """What a payment must be like. In a mode it needs time for the signatures as well."""
        needs = COSIGN_MARGIN_S + CLAIM_NEED_S if mode == MODE_B else CLAIM_MARGIN_S
        work_s = 0 if mode == MODE_A else self.service.eta_s
        return VerifyTerms(
            quote_id=self.sale.quote_id,
            price=self.sale.price,
            mints=self.sale.mints,
            wallet_pubkey=self._counter.wallet.key.compressed,
            min_locktime=came_at + work_s + needs,
            hash=self.sale.hash if mode else "",
            cosigner=self.request.cosign_key if mode == MODE_B else "",
        )

    async def _verify(
        self, event: NostrEvent, content: str, rumor_id: str, sender: str, came_at: int, mode: str
    ) -> None:
        try:
            payload = _payload(content)
            terms = self._wanted(came_at, mode)
            wait = 0.5
            while self._open_to_pay(mode):
                try:
                    good = await self._counter.wallet.verify(payload, terms)
                except Unavailable as error:
                    if not mode and self._counter.clock.now() > self.sale.expires_at + LONGEST_WAIT_S:
                        return
                    log.warning("A payment waits to be verified: %s", error.code, extra={"action": "verify_waits"})
                    await self._counter.clock.sleep(wait)
                    wait = min(wait * 2, LONGEST_WAIT_S)
                    continue
                return await self.insist(
                    PaymentVerified(
                        came_at, event.to_json(), rumor_id, sender, good.mint, good.ys, good.net, good.locktime, mode
                    )
                )
        except TokenRejected as error:
            log.info("A payment was refused: %s", error.code, extra={"action": "payment_refused", "code": error.code})
            await self.insist(PaymentRefused(sender, error.code))
        finally:
            self._payments.discard(rumor_id)

    async def cosigned(self, sender: str, signatures: Sequence[str]) -> None:
        """The customer's signatures: taken if each is good for its coin. Nothing else is kept of them."""
        if self.sale.state is not State.SEALED or sender != self.sale.customer:
            return
        rumor = unwrap(self._counter.key, parse_json(self.sale.payment))
        proofs = _payload(rumor.content)["proofs"]
        if len(signatures) != len(proofs) or not all(
            is_signed(proof["secret"], signature, self.request.cosign_key)
            for proof, signature in zip(proofs, signatures, strict=True)
        ):
            log.info("Signatures for a sealed result are not good", extra={"action": "cosign_refused"})
            return
        await self.insist(Cosigned(sender, tuple(signatures)))

    async def _unsigned(self) -> None:
        clock = self._counter.clock
        while self.sale.state is State.SEALED:
            await clock.sleep(max(0, self.sale.locktime + UNSIGNED_S - clock.now()) + 0.5)
            await self.insist(Unsigned(clock.now()))

    def _unlock(self) -> Unlock | None:
        return Unlock(self.preimage.hex(), self.sale.cosigned) if self.sale.paid_by else None

    async def _claim(self) -> None:
        """Swap the payment at the mint, under one id, until that is certain."""
        effect = EffectId(self.sale.effect_id)
        rumor = unwrap(self._counter.key, parse_json(self.sale.payment))
        op_id = derived_id("claim", self.sale.request_id)
        wait = 0.5
        while self.sale.state is State.DELIVERED:
            try:
                permit = self._counter.gate.permit(effect)
                received = await self._counter.wallet.claim(
                    op_id, _payload(rumor.content), effect, permit, unlock=self._unlock()
                )
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


def _payload(content: str) -> Mapping[str, Any]:
    """The NUT-18 payload of a payment message; what is not one is refused by the wallet."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
