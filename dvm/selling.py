"""Selling: strangers' requests become quotes and results. It judges cheaply first and never works unpaid without limit.

On the hot path of a free job there are two commits: admission with `processing`, and the result. Each request runs in a
task of its own; their number, and what one key may take of it, are bounded.
"""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Repeated
from core.error import Conflict, InvalidInput, Refused, StoreUncertain
from core.guard import Crew
from core.identifier import derived_id
from core.money import Rate
from core.unit import Among, Row, UnitOfWork, Write
from dvm.admission import (
    MAX_REQUEST_AGE_S,
    RETRY_S,
    Decision,
    Decline,
    Ignore,
    Limits,
    Load,
    MakeQuote,
    Meter,
    Serve,
    judge,
    note,
    screen,
)
from dvm.arrival import caller_of, path_of, sale_of
from dvm.bill import Invoice
from dvm.chain import as_compute, previewed
from dvm.clientele import Clientele
from dvm.credit import credit_of
from dvm.custodian import Custodian
from dvm.earning import shown
from dvm.error import Unpriced
from dvm.lending import Lending
from dvm.material import Material
from dvm.prepaid import TAG as PREPAID
from dvm.provider.retired import Retired
from dvm.quoting import Quoting
from dvm.ration import Ration
from dvm.record import decode
from dvm.refusal import REFUSED, REFUSED_S, Refusals
from dvm.sale import TABLE, Counter, OpenSale
from dvm.seller import ENDED, Sale, State
from dvm.seller_event import Admitted, AskedAgain, Cancelled, CreditTaken, InvoiceWanted, Lent, Quoted
from dvm.service import Service
from dvm.settlement import Settlement
from dvm.shipping import Shipping
from dvm.stock import Stock
from dvm.stowage import Stowage
from dvm.trust import STRANGER, Standing, Trust
from relays.directory import Directory
from relays.error import MalformedEvent, NotForUs
from relays.event import Event
from relays.filter import Filter
from relays.key import Keyring
from relays.kind import DELETION, DM, GIFT_WRAP, is_request
from relays.nip17 import unwrap
from relays.nip90 import JobRequest, read_request
from relays.outbox import Outbox
from relays.pool import Pool
from relays.private_job import as_event, cancellation, open_request, wrapped_request
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

_TRIES = 4  # to open a sale, while others take what its customer is owed
MAX_TASKS = 2_048
QUOTE_TTL_S = 60
LISTED = 200
KEPT_S = 86_400  # a request that comes again gets its result again for so long
AGAIN_PER_SECOND, AGAIN_BURST = 5.0, 50  # look-ups of requests that are too old to be new
TRUSTED_BURST, TRUSTED_PER_SECOND = 16, 1.0  # quotes to one key beyond what all share: a sat once paid is no free pass
QUIET_S = 30.0  # a copy from another relay is no new question
OVERLAP_S = 60  # when something more is sold: it is asked for what came meanwhile
_OPEN = tuple(state.value for state in State if state not in ENDED)


class Selling:
    """Sells services.

    Args:
        unit: the database.
        gate: the node's gate.
        pool: relays.
        outbox: sends what was committed.
        wallet: verifies and claims. Its mints are the ones at which we are paid.
        keyring: its node key signs quotes and results.
        clock: time.
        services: what is sold; one per kind.
        limits: what strangers may take.
        quote_ttl_s: how long a quote stands.
        directory: finds where those who paid read.
        rate: what a dollar is worth, if that is known now; nothing is asked for it.
        ending: the service with which sales of a kind that is sold no more end.
        settlement: which jobs are sold sealed, and in which mode.
        proven: whether a mint was found to show preimages; at no other is a sealed result sold.
        shipping: takes what is too large for an event.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        gate: Gate,
        pool: Pool,
        outbox: Outbox,
        wallet: Wallet,
        keyring: Keyring,
        clock: Clock,
        services: Sequence[Service],
        *,
        limits: Limits | None = None,
        quote_ttl_s: int = QUOTE_TTL_S,
        directory: Directory | None = None,
        rate: Callable[[], Rate | None] = lambda: None,
        ending: Callable[[int], Service | None] = lambda kind: None,
        settlement: Settlement | None = None,
        proven: Callable[[str], bool] = lambda mint: False,
        shipping: Shipping | None = None,
    ) -> None:
        self.dropped: Tally[str] = Tally()
        self._unit, self._gate, self._pool, self._outbox, self._clock = unit, gate, pool, outbox, clock
        self._wallet = wallet
        self._key = keyring.node
        self._settlement, self._proven = settlement or Settlement(), proven
        self._limits = limits or Limits()
        self._quote_ttl_s = quote_ttl_s
        self._stock = Stock(services, clock, lambda: wallet.mints, rate)
        self._ending = ending
        self._clients = Clientele(unit, clock, self._limits, lambda: self._stock.priced_kinds)
        self._open: dict[str, OpenSale] = {}
        self._quotes: dict[str, OpenSale] = {}
        self._answered: dict[str, float] = {}
        self._heard: frozenset[int] | None = None
        self._per_customer: Tally[str] = Tally()
        self._meter = Meter(self._limits.burst, self._limits.per_second)
        self._refusals = Refusals(unit, lambda: pool.urls, outbox, self._key, clock, self._limits, self.dropped)
        self._late = Meter(AGAIN_BURST, AGAIN_PER_SECOND)
        self._strangers = Meter(self._limits.unknown_burst, self._limits.unknown_per_second)
        self._free = Meter(self._limits.free_burst, self._limits.free_per_second)
        self._unpaid = Meter(0, 0)
        self._trusted = Meter(TRUSTED_BURST, TRUSTED_PER_SECOND)
        self._measure()
        self._waiting: dict[str, OpenSale] = {}  # lapsed: their invoices may still be paid
        self._ration = Ration(self._limits, clock)
        self._crew = Crew(log, "sale_task_failed")
        self._running = self._resumed = False
        self.custodian = Custodian(unit, gate, pool, outbox, wallet, clock, self._key, self._settlement)
        stowage = Stowage(unit, clock, self._settlement, lambda: [(one.sale, one.load) for one in self._open.values()])
        self._counter = Counter(
            unit, gate, pool, outbox, wallet, clock, self._key, self._crew.spawn, self._closed,
            self._lapsed, self._revived, self._quote, quote_ttl_s, keyring, directory,
            Material(pool.fetch, clock, self._limits.max_input_bytes), self.custodian, shipping,
            stowage,
        )  # fmt: skip
        self._quoting = Quoting(
            unit, clock, self._key, wallet.key, quote_ttl_s, settlement or Settlement(), proven,
            lambda: self._open.values(), self.custodian, stowage,
        )  # fmt: skip

        self._lending = Lending(unit, self._settlement, lambda: self._open.values())

    @property
    def load(self) -> tuple[int, int]:
        """How many sales are open, and how many may be."""
        return len(self._open), self._stock.places

    @property
    def services(self) -> Mapping[int, Service]:
        """What is sold, by kind; also what is paused."""
        return self._stock.services

    # ---- what is sold

    def put(self, service: Service) -> None:
        """Sell this from now on, in place of what was sold of its kind. What is open ends on the terms of its quote."""
        self._stock.put(service)
        self._changed()

    def withdraw(self, kind: int) -> None:
        """Begin nothing more of this kind."""
        self._stock.withdraw(kind)
        self._changed()

    def _changed(self) -> None:
        self._measure()
        if self._running:
            self._subscribe(OVERLAP_S)

    def _measure(self) -> None:
        # A quote that is cancelled frees its place at once: without this, asking and cancelling would fill the ledger
        places = self._stock.priced_places
        self._unpaid.burst = max(256, places)
        self._unpaid.per_second = places / self._quote_ttl_s + self._limits.unpaid_per_second

    # ---- life

    async def resume(self) -> None:
        """At start: read every sale that has not ended. `run` then goes on with each."""
        for row in await self._unit.select(TABLE, {"state": Among(_OPEN)}):
            sale = decode(Sale, row["body"])
            service = self._service(sale)
            if sale.request_id not in self._open:
                line = self._stock.line(service)
                try:
                    reopened = OpenSale.reopened(self._counter, service, line, sale, int(row["version"]))
                except (MalformedEvent, NotForUs, InvalidInput) as error:  # one row must not stop the start
                    log.error("A sale cannot be read: %s", error.code, extra={"action": "sale_unreadable"})
                    continue
                if sale.state is State.LAPSED:
                    self._waiting[sale.request_id] = reopened
                else:
                    self._admit(reopened)
        if (shipping := self._counter.shipping) is not None:
            await shipping.sweep({one.sale.packed.x for one in self._open.values() if one.sale.packed})
        self._resumed = True

    def _service(self, sale: Sale) -> Service:
        """With what a sale of an earlier run ends."""
        service = self.services.get(sale.kind) or self._ending(sale.kind)
        if service is None:
            log.warning("A sale of a kind that is sold no more", extra={"action": "sale_orphaned"})
            service = Service(sale.kind, sale.price, Retired())
        return service

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Serve until `stop`; what is then open goes on at the next start."""
        if not self._resumed:
            await self.resume()
        self._running = True
        await self.custodian.start()
        for sale in [*self._open.values(), *self._waiting.values()]:
            sale.resume()
        self._subscribe(MAX_REQUEST_AGE_S)
        ready.set()
        try:
            await stop.wait()
        finally:
            self._running, self._heard = False, None
            for name in ("market/requests", "market/cancels", "market/payments"):
                self._pool.unsubscribe(name)
            await self._crew.end()
            await self.custodian.end()
            for table in (self._open, self._quotes, self._per_customer, self._stock, self._waiting):
                table.clear()
            self._resumed = False

    def _subscribe(self, past_s: int) -> None:
        """Listen for what concerns what is sold; quotes that stand are still paid when nothing is."""
        kinds = self._stock.kinds
        since = self._clock.now() - past_s
        if kinds != self._heard:  # what is heard already stays as it is: subscribed anew, it would be read again
            open_kinds = {one.sale.kind for one in (*self._open.values(), *self._waiting.values())}
            if asked := frozenset(str(kind) for kind in {*self.services, *open_kinds}):
                cancels = Filter(kinds=frozenset({DELETION}), tags={"k": asked}, since=since)
                self._pool.subscribe("market/cancels", [cancels], self._on_cancel)
            if kinds:
                requests = Filter(kinds=kinds, since=since)
                self._pool.subscribe("market/requests", [requests], self._on_request, repeated=self._on_repeat)
            else:
                self._pool.unsubscribe("market/requests")
        self._heard = kinds
        if self._quotes or self.services:  # payments, and private requests
            wraps = Filter(kinds=frozenset({GIFT_WRAP}), tags={"p": frozenset({self._key.pubkey})})
            self._pool.subscribe("market/payments", [wraps], self._on_wrap, backdated=True)

    def _admit(self, sale: OpenSale) -> None:
        self._open[sale.sale.request_id] = sale
        self._stock.take(sale)
        self._per_customer[sale.sale.customer] += 1
        if sale.sale.quote_id:
            self._quotes[sale.sale.quote_id] = sale
        if sale.sale.state is State.QUOTED:
            self._stock.line(sale.service).promise(sale.ticket())

    def _lapsed(self, sale: OpenSale) -> None:
        self._closed(sale)
        self._waiting[sale.sale.request_id] = sale

    def _revived(self, sale: OpenSale) -> None:
        self._waiting.pop(sale.sale.request_id, None)
        self._admit(sale)

    def _closed(self, sale: OpenSale) -> None:
        request_id = sale.sale.request_id
        if self._waiting.get(request_id) is sale:
            del self._waiting[request_id]
        if self._open.get(request_id) is not sale:
            return
        del self._open[request_id]
        self._stock.give(sale)
        self._per_customer[sale.sale.customer] -= 1
        if not self._per_customer[sale.sale.customer]:
            del self._per_customer[sale.sale.customer]
        self._quotes.pop(self._quote_id(sale), None)  # also if its quote was made and never written
        if sale.sale.paid:
            self._unpaid.give("")
            self._trusted.give(sale.sale.customer)
            if sale.sale.invoice:
                self._ration.give(sale.sale.customer)
        if sale.sale.earned:
            self._clients.settled(sale.sale.customer, sale.sale.earned)

    # ---- requests

    async def _on_request(self, event: Event, relay: str) -> None:
        """A verified request."""
        await self._on_asked(event, self._opened)

    def _opened(self, event: Event) -> JobRequest:
        """The request in clear, if it is encrypted to us; only what we could serve is worth the decryption."""
        request = read_request(event)
        if request.encrypted and self._key.pubkey in request.providers:
            try:
                return open_request(self._key, event)
            except NotForUs:
                self.dropped["not_for_us"] += 1
        return request

    async def _on_asked(self, event: Event, read: Callable[[Event], JobRequest]) -> None:
        """Cheap checks here, the cheapest first; what passes goes on in a task of its own."""
        known = self.find(event.id)
        if known is not None:
            if self._meter.take(event.pubkey, self._clock.monotonic()):
                self._crew.spawn(known.tell(AskedAgain(self._clock.now())), "asked again")
            else:
                self.dropped["rate"] += 1
            return
        now = self._clock.now()
        if self._refusals.stands(event.id):
            self.dropped["repeated"] += 1
            return
        reason = screen(event, ourselves=self._key.pubkey, now=now, kinds=self._stock.kinds, limits=self._limits)
        if reason:
            self.dropped[reason] += 1
            if reason in ("out_of_time", "expired") and event.created_at >= now - KEPT_S:
                await self._came_late(event)
            return
        self._note(event.id)
        request = read(event)
        decision = await self._judged(request)
        if not isinstance(decision, Ignore):
            decision = await self._metered(request, decision)
        if isinstance(decision, MakeQuote) and decision.invoice and not self._may_invoice(request):
            busy = Decline("busy, try again later", retry_after_s=RETRY_S, word="busy")
            decision = replace(decision, invoice=False) if decision.mints else busy
        if isinstance(decision, Ignore):
            self.dropped[decision.reason] += 1
        elif isinstance(decision, Decline):
            await self._refusals.say(request, decision)
        else:
            self._begin(request, decision)

    def _on_repeat(self, event_id: str) -> None:
        """A request that was handled came once more, and perhaps because its answer was lost."""
        at = self._clock.monotonic()
        if at - self._answered.get(event_id, -QUIET_S) < QUIET_S or not self._late.take("", at):
            return
        self._note(event_id)
        known = self.find(event_id)
        if known is not None:
            self._crew.spawn(known.tell(AskedAgain(self._clock.now())), "asked again")
        else:
            self._crew.spawn(self._again(event_id), "asked again")

    def find(self, request_id: str) -> OpenSale | None:
        """The sale of a request, if it has not ended."""
        return self._open.get(request_id) or self._waiting.get(request_id)

    def _note(self, event_id: str) -> None:
        """It is being answered now."""
        note(self._answered, event_id, self._clock.monotonic(), REFUSED)

    async def _came_late(self, event: Event) -> None:
        """Too old to be new: perhaps it was answered, and the answer was lost."""
        if self._late.take("", self._clock.monotonic()):
            await self._again(event.id)

    async def _judged(self, request: JobRequest) -> Decision:
        """Judge it as a stranger's, and only if it makes a difference as that of whom it is from."""
        standing = STRANGER
        if request.customer in self._limits.allow:
            standing = await self._clients.standing(request.customer)
        decision = self._judge(request, standing)
        word = getattr(decision, "word", getattr(decision, "reason", ""))
        dearer = isinstance(decision, MakeQuote) and bool(self._limits.floor)
        if standing is STRANGER and (dearer or word in ("pow", "open", "busy")):
            standing = await self._clients.standing(request.customer)
            if standing != STRANGER:
                decision = self._judge(request, standing)
        return decision

    def _judge(self, request: JobRequest, standing: Standing) -> Decision:
        taken = self._per_customer.get(request.customer, 0)
        service = self.services.get(request.kind)
        if service is None:  # sold no more since it came
            return Ignore("kind_not_served")
        try:
            offering = self._stock.offering(request, standing.trust)
        except Unpriced:
            return Decline("busy: there is no fresh exchange rate", retry_after_s=REFUSED_S, word="unpriced")
        except InvalidInput as error:
            return Decline(error.message)
        load = Load(taken, taken)
        decision = judge(request, offering, load, self._limits, now=self._clock.now(), standing=standing)
        if isinstance(decision, MakeQuote | Serve):
            try:
                service.provider.check(previewed(as_compute(request)))
            except InvalidInput as error:
                return Decline(error.message)
            if isinstance(decision, MakeQuote):
                return replace(decision, price=decision.price or offering.price)
        return decision

    async def _metered(self, request: JobRequest, decision: Decision) -> Decision:
        """What the buckets leave of a decision: that of the key, that of unknown keys, and what all share.

        Who is known, or has paid before, does not wait because of those who are not.
        """
        at = self._clock.monotonic()
        if not self._meter.take(request.customer, at):
            return Ignore("rate")
        if not self._strangers.take("", at) and await self._is_unknown(request):
            return Ignore("class_rate")
        if len(self._crew) >= MAX_TASKS:
            return Ignore("overloaded")
        beyond = isinstance(decision, MakeQuote) and not self._unpaid.take("", at)
        if beyond and (await self._is_unknown(request) or not self._trusted.take(request.customer, at)):
            return Decline("busy, try again later", retry_after_s=RETRY_S, word="busy")
        if isinstance(decision, Serve) and not self._free.take("", at):
            return Decline("busy: the free allowance is used up for the moment", retry_after_s=RETRY_S, word="busy")
        return decision

    async def _is_unknown(self, request: JobRequest) -> bool:
        return (await self._clients.standing(request.customer)).trust is Trust.UNKNOWN

    def _may_invoice(self, request: JobRequest) -> bool:
        """Whether the mint is asked for one more invoice that may never be paid."""
        unpaid = len(self._waiting) + sum(bool(one.sale.invoice) and not one.sale.paid for one in self._open.values())
        return self._ration.take(request.customer, unpaid)

    def _begin(self, request: JobRequest, decision: MakeQuote | Serve) -> None:
        """Take the place at once, so that the limits hold, and go on in a task."""
        service = self.services.get(request.kind)
        if service is None or self.find(request.event_id) is not None:  # while it was judged
            return
        if isinstance(decision, Serve) and not service.is_free:
            self._clients.served(request.customer)
        sale = sale_of(request, decision)
        place = OpenSale(self._counter, service, self._stock.line(service), request, sale, -1)
        self._admit(place)
        invoice = isinstance(decision, MakeQuote) and decision.invoice
        self._crew.spawn(self._open_sale(place, invoice), f"admit {request.event_id[:8]}")

    async def _open_sale(self, place: OpenSale, invoice: bool = False, tries: int = _TRIES) -> None:
        request = place.request
        begun = again = False
        try:
            place.trust = (await self._clients.standing(request.customer)).trust
            admission = await self._gate.stage(
                Intent(
                    caller=caller_of(request),
                    path=path_of(request),
                    key=request.event_id,
                    body=request.event_id.encode(),  # the id is the hash of the whole request
                    effect=EffectClass.EXTERNAL,
                    subject=request.event_id,
                    note={"kind": request.kind, "price_msat": place.sale.price.value},
                )
            )
            if not isinstance(admission, Repeated):
                await self._first_step(place, invoice, admission.writes, credit=tries > 1)
                begun = True
        except Refused as error:
            self.dropped[error.code] += 1
        except Conflict:  # it is here already, or what its customer is owed went into another request just now
            again = tries > 1 and not await self._unit.select(TABLE, {"id": request.event_id}, columns=("id",))
            log.info("A request was admitted twice", extra={"action": "request_repeated"})
        except StoreUncertain:
            begun = await place.was_written()
        finally:
            if not begun and not again:
                self._closed(place)
                if not (place.sale.price or place.service.is_free):
                    self._clients.served(request.customer, -1)
        if again:
            return await self._open_sale(place, invoice, tries - 1)
        if not begun:
            await self._again(request.event_id)

    async def _first_step(self, place: OpenSale, invoice: bool, writes: Sequence[Write], *, credit: bool) -> None:
        if not place.sale.price:
            return await place.tell(Admitted(), first=writes)
        owed = await credit_of(self._unit, place.sale, self._clock.now()) if credit else None
        if owed is not None:
            taken = CreditTaken(place.sale.price, owed.fresh, quote_id=self._quote_id(place))
            return await place.tell(taken, first=[*writes, *owed.writes])
        if invoice and await self._lending.may(place, await self._clients.standing(place.sale.customer)):
            return await place.tell(Lent(self._quote_id(place)), first=writes)
        if invoice:
            return await place.tell(InvoiceWanted(), first=writes)
        trusted = await self._quoting.may_order(place.request, place.sale.price)
        await self.custodian.look(place.sale.customer)
        await place.tell(self._quote(place, None, trusted=trusted), first=writes)
        place.watch_expiry()

    def _quote_id(self, place: OpenSale) -> str:
        return derived_id("quote", place.sale.request_id, self._key.pubkey)

    def _quote(self, place: OpenSale, invoice: Invoice | None, *, trusted: bool = False) -> Quoted:
        """The quote, payable by the invoice if there is one, else with ecash."""
        quote_id = self._quote_id(place)
        self._quotes[quote_id] = place
        return self._quoting.quote(place, quote_id, self._stock.line(place.service), invoice, trusted=trusted)

    async def _again(self, request_id: str) -> None:
        """A request that was dealt with before: what was answered is sent again, in the same bytes."""
        rows = await self._unit.select(TABLE, {"id": request_id})
        if not rows or self.find(request_id) is not None:
            return
        sale = decode(Sale, rows[0]["body"])
        if not sale.request:  # nobody paid in time: nothing is kept of it
            return
        service = self._service(sale)
        past = OpenSale.reopened(self._counter, service, self._stock.line(service), sale, int(rows[0]["version"]))
        await past.tell(AskedAgain(self._clock.now()))

    async def _on_cancel(self, event: Event, relay: str) -> None:
        """NIP-09: only the customer itself may delete its request."""
        await self._cancel(event.values("e"), event.pubkey)

    async def _cancel(self, named: Iterable[str], sender: str) -> None:
        for request_id in named:
            if (sale := self.find(request_id)) is not None:
                await sale.tell(Cancelled(sender))

    # ---- payments

    async def _on_wrap(self, event: Event, relay: str) -> None:
        """A gift wrap for the node's own key: a payment, a private request, or nothing that concerns us."""
        try:
            rumor = unwrap(self._key, event)
        except (NotForUs, MalformedEvent):
            self.dropped["not_for_us"] += 1
            return
        if is_request(rumor.kind):  # whoever sealed it is the customer
            # Another wrap of it is no new question
            if rumor.id in self._answered and not self._refusals.knows(rumor.id):
                return self._on_repeat(rumor.id)
            return await self._on_asked(as_event(rumor), lambda _: wrapped_request(rumor, event))
        if cancelled := cancellation(rumor):
            return await self._cancel(cancelled, rumor.sender)
        if rumor.kind == DM and rumor.value(PREPAID) is not None:
            return await self.custodian.hear(event, rumor)
        quote_id = rumor.value("quote")
        sale = self._quotes.get(quote_id) if rumor.kind == DM and quote_id is not None else None
        if sale is None or rumor.value("e") not in (None, sale.sale.request_id):
            self.dropped["no_such_quote"] += 1
            return
        await sale.hear(event, rumor)

    # ---- reading

    async def list_sales(self) -> list[Row]:
        """The latest sales, newest first, as plain values without anybody's content."""
        rows = await self._unit.select(TABLE, order=("-created_at", "id"), limit=LISTED)
        return [shown(decode(Sale, row["body"]), row) for row in rows]

    def facts(self) -> Row:
        """How selling is doing: what is open, what waits, and what was not answered, by reason."""
        kinds = self._stock.facts()
        return {
            "open": len(self._open),
            "capacity": self._stock.places,
            "quotes": sum(1 for one in self._quotes.values() if one.sale.state is State.QUOTED),
            "kinds": kinds,
            "dropped": dict(sorted(self.dropped.items())),
        }

    def open_count(self) -> int:
        """How many sales have not ended."""
        return len(self._open)
