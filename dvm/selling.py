"""Selling: strangers' requests become quotes and results. It judges cheaply first and never works unpaid without limit.

On the hot path of a free job there are two commits: admission with `processing`, and the result. Each request runs in a
task of its own; their number, and what one key may take of it, are bounded.
"""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Sequence

from core.clock import Clock
from core.effect import EffectClass, Gate, Intent, Repeated
from core.error import Conflict, InvalidInput, Refused, StoreUncertain
from core.guard import Crew
from core.identifier import PubKey, derived_id
from core.unit import Among, Row, UnitOfWork
from dvm.admission import Decline, Ignore, Limits, Load, MakeQuote, Meter, Offering, Serve, admit
from dvm.destination import answer_relays
from dvm.provider.retired import Retired
from dvm.record import decode
from dvm.sale import TABLE, Counter, OpenSale, Service, as_compute
from dvm.seller import ENDED, Admitted, AskedAgain, Cancelled, Quoted, Sale, State
from relays.directory import Directory
from relays.error import MalformedEvent, NotForUs
from relays.event import Event, parse_json
from relays.filter import Filter
from relays.key import Keyring
from relays.kind import DELETION, DM, GIFT_WRAP
from relays.nip17 import unwrap
from relays.nip90 import ERROR, JobRequest, PayMethod, feedback_draft, quote_draft, read_request
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

MAX_TASKS = 2_048
QUOTE_TTL_S = 60
LISTED = 200
DECLINE = "market.decline"  # the standing purpose under which refusals go out
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
    ) -> None:
        self.services = {service.kind: service for service in services}
        self.dropped: Tally[str] = Tally()
        self._unit, self._gate, self._pool, self._outbox, self._clock = unit, gate, pool, outbox, clock
        self._wallet = wallet
        self._key = keyring.node
        self._limits = limits or Limits()
        self._quote_ttl_s = quote_ttl_s
        self._slots = {service.kind: asyncio.Semaphore(service.max_parallel) for service in services}
        self._open: dict[str, OpenSale] = {}
        self._quotes: dict[str, OpenSale] = {}
        self._per_kind: Tally[int] = Tally()
        self._per_customer: Tally[str] = Tally()
        self._meter = Meter(self._limits.burst, self._limits.per_second)
        self._declines = Meter(2 * self._limits.declines_per_second, self._limits.declines_per_second)
        # A quote that is cancelled frees its place at once: without this, asking and cancelling would fill the ledger
        places = sum(service.capacity for service in services if service.price)
        self._free = Meter(self._limits.free_burst, self._limits.free_per_second)
        self._unpaid = Meter(max(256, places), places / quote_ttl_s + self._limits.unpaid_per_second)
        self._crew = Crew(log, "sale_task_failed")
        self._running = self._resumed = False
        self._counter = Counter(
            unit, gate, pool, outbox, wallet, clock, self._key, self._crew.spawn, self._closed, directory
        )

    @property
    def load(self) -> tuple[int, int]:
        """How many sales are open, and how many may be."""
        return len(self._open), sum(service.capacity for service in self.services.values())

    # ---- life

    async def resume(self) -> None:
        """At start: read every sale that has not ended. `run` then goes on with each."""
        for row in await self._unit.select(TABLE, {"state": Among(_OPEN)}):
            sale = decode(Sale, row["body"])
            service = self.services.get(sale.kind)
            if service is None:
                log.warning("A sale of a kind that is sold no more", extra={"action": "sale_orphaned"})
                service = Service(sale.kind, sale.price, Retired())
            if sale.request_id not in self._open:
                slots = self._slots.setdefault(sale.kind, asyncio.Semaphore(service.max_parallel))
                try:
                    reopened = OpenSale.reopened(self._counter, service, slots, sale, int(row["version"]))
                except MalformedEvent as error:  # one stranger's row must not keep the node from starting
                    log.error("A sale cannot be read: %s", error.code, extra={"action": "sale_unreadable"})
                    continue
                self._admit(reopened)
        self._resumed = True

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Serve until `stop`; what is then open goes on at the next start."""
        if not self._resumed:
            await self.resume()
        self._running = True
        for sale in list(self._open.values()):
            sale.resume()
        if self.services:
            self._subscribe()
        ready.set()
        try:
            await stop.wait()
        finally:
            self._running = False
            for name in ("market/requests", "market/cancels", "market/payments"):
                self._pool.unsubscribe(name)
            await self._crew.end()
            for table in (self._open, self._quotes, self._per_kind, self._per_customer):
                table.clear()
            self._resumed = False

    def _subscribe(self) -> None:
        kinds = frozenset(self.services)
        since = self._clock.now() - 600
        asked = frozenset(str(kind) for kind in kinds)
        ours = frozenset({self._key.pubkey})
        self._pool.subscribe("market/requests", [Filter(kinds=kinds, since=since)], self._on_request)
        self._pool.subscribe(
            "market/cancels", [Filter(kinds=frozenset({DELETION}), tags={"k": asked}, since=since)], self._on_cancel
        )
        if any(service.price for service in self.services.values()):
            wraps = Filter(kinds=frozenset({GIFT_WRAP}), tags={"p": ours})
            self._pool.subscribe("market/payments", [wraps], self._on_wrap, backdated=True)

    def _admit(self, sale: OpenSale) -> None:
        self._open[sale.sale.request_id] = sale
        self._per_kind[sale.sale.kind] += 1
        self._per_customer[sale.sale.customer] += 1
        if sale.sale.quote_id:
            self._quotes[sale.sale.quote_id] = sale

    def _closed(self, sale: OpenSale) -> None:
        if self._open.pop(sale.sale.request_id, None) is None:
            return
        self._per_kind[sale.sale.kind] -= 1
        self._per_customer[sale.sale.customer] -= 1
        if not self._per_customer[sale.sale.customer]:
            del self._per_customer[sale.sale.customer]
        self._quotes.pop(sale.sale.quote_id, None)
        if sale.sale.paid:
            self._unpaid.give("")

    # ---- requests

    async def _on_request(self, event: Event, relay: str) -> None:
        """A verified request. Cheap checks here; what passes goes on in a task of its own."""
        if event.pubkey == self._key.pubkey:
            return
        if not self._meter.take(event.pubkey, self._clock.monotonic()):
            self.dropped["rate"] += 1
            return
        if len(self._crew) >= MAX_TASKS:
            self.dropped["overloaded"] += 1
            return
        request = read_request(event)
        known = self._open.get(request.event_id)
        if known is not None:
            self._crew.spawn(known.tell(AskedAgain(self._clock.now())), "asked again")
            return
        decision = self._judge(request)
        if isinstance(decision, MakeQuote) and not self._unpaid.take("", self._clock.monotonic()):
            decision = Decline("busy, try again later")
        if isinstance(decision, Serve) and not self._free.take("", self._clock.monotonic()):
            decision = Decline("busy: the free allowance is used up for the moment")
        if isinstance(decision, Ignore):
            self.dropped[decision.reason] += 1
        elif isinstance(decision, Decline):
            await self._decline(request, decision)
        else:
            self._begin(request, decision)

    def _judge(self, request: JobRequest) -> MakeQuote | Serve | Decline | Ignore:
        taken = self._per_customer.get(request.customer, 0)
        service = self.services.get(request.kind)
        offerings = {}
        if service is not None:
            room = service.capacity - self._per_kind[service.kind]
            offerings[service.kind] = Offering(service.price, self._wallet.mints if service.price else (), room)
        decision = admit(
            request,
            ourselves=self._key.pubkey,
            now=self._clock.now(),
            offerings=offerings,
            load=Load(taken, taken),
            limits=self._limits,
        )
        if service is not None and isinstance(decision, MakeQuote | Serve):
            try:
                service.provider.check(as_compute(request))
            except InvalidInput as error:
                return Decline(error.message)
        return decision

    async def _decline(self, request: JobRequest, decision: Decline) -> None:
        """Say no, at a bounded rate; a stranger's request is not worth a ledger entry of its own."""
        self.dropped["declined"] += 1
        if not self._declines.take("", self._clock.monotonic()):
            return
        draft = feedback_draft(
            request=request,
            status=ERROR,
            created_at=self._clock.now(),
            info=decision.reason[:200],
            amount=decision.floor,
        )
        rows = self._outbox.rows(self._key.sign(draft), DECLINE, answer_relays(self._pool.urls, request.relays))
        await self._unit.commit(rows)
        self._outbox.kick(rows)

    def _begin(self, request: JobRequest, decision: MakeQuote | Serve) -> None:
        """Take the place at once, so that the limits hold, and go on in a task."""
        service = self.services[request.kind]
        sale = Sale(
            request_id=request.event_id,
            effect_id=derived_id(_caller(request), _path(request), request.event_id),
            customer=request.customer,
            kind=request.kind,
            request=request.raw.to_json(),
            price=service.price,
            mints=decision.mints if isinstance(decision, MakeQuote) else (),
        )
        place = OpenSale(self._counter, service, self._slots[request.kind], request, sale, -1)
        self._admit(place)
        self._crew.spawn(self._open_sale(place), f"admit {request.event_id[:8]}")

    async def _open_sale(self, place: OpenSale) -> None:
        request = place.request
        begun = False
        try:
            admission = await self._gate.stage(
                Intent(
                    caller=_caller(request),
                    path=_path(request),
                    key=request.event_id,
                    body=request.event_id.encode(),  # the id is the hash of the whole request
                    effect=EffectClass.EXTERNAL,
                    subject=request.event_id,
                    note={"kind": request.kind, "price_msat": place.sale.price.value},
                )
            )
            if not isinstance(admission, Repeated):
                if place.sale.price:
                    quote = self._quote(place)
                    self._quotes[quote.quote_id] = place
                    await place.tell(quote, first=admission.writes)
                    place.watch_expiry()
                else:
                    await place.tell(Admitted(), first=admission.writes)
                begun = True
        except Refused as error:
            self.dropped[error.code] += 1
        except Conflict:
            log.info("A request was admitted twice", extra={"action": "request_repeated"})
        except StoreUncertain:
            begun = await place.was_written()
        finally:
            if not begun:
                self._closed(place)
                if self._quotes.get(self._quote_id(place)) is place:
                    del self._quotes[self._quote_id(place)]
        if not begun:
            await self._again(request)

    def _quote_id(self, place: OpenSale) -> str:
        return derived_id("quote", place.sale.request_id, self._key.pubkey)

    def _quote(self, place: OpenSale) -> Quoted:
        now = self._clock.now()
        quote_id = self._quote_id(place)
        pubkey = self._wallet.key.compressed
        sat = place.sale.price.sat_up()
        draft = quote_draft(
            request=place.request,
            quote_id=quote_id,
            amount=place.sale.price,
            expires_at=now + self._quote_ttl_s,
            eta_s=place.service.eta_s,
            methods=[PayMethod("cashu", mint, "sat", pubkey) for mint in place.sale.mints],
            created_at=now,
            text=f"{sat} sat, about {place.service.eta_s} s",
        )
        return Quoted(quote_id, now + self._quote_ttl_s, self._key.sign(draft).to_json())

    async def _again(self, request: JobRequest) -> None:
        """A request that was dealt with before: what was answered is sent again, in the same bytes."""
        rows = await self._unit.select(TABLE, {"id": request.event_id})
        if not rows or request.event_id in self._open:
            return
        sale = decode(Sale, rows[0]["body"])
        service = self.services.get(sale.kind)
        if service is not None:
            slots = self._slots[sale.kind]
            past = OpenSale(self._counter, service, slots, request, sale, int(rows[0]["version"]))
            await past.tell(AskedAgain(self._clock.now()))

    async def _on_cancel(self, event: Event, relay: str) -> None:
        """NIP-09: only the customer itself may delete its request."""
        for request_id in event.values("e"):
            sale = self._open.get(request_id)
            if sale is not None:
                await sale.tell(Cancelled(event.pubkey))

    # ---- payments

    async def _on_wrap(self, event: Event, relay: str) -> None:
        """A gift wrap for the node's own key: a payment, or nothing that concerns us."""
        try:
            rumor = unwrap(self._key, event)
        except (NotForUs, MalformedEvent):
            self.dropped["not_for_us"] += 1
            return
        quote_id = rumor.value("quote")
        sale = self._quotes.get(quote_id) if rumor.kind == DM and quote_id is not None else None
        if sale is None or rumor.value("e") not in (None, sale.sale.request_id):
            self.dropped["no_such_quote"] += 1
            return
        await sale.receive(event, rumor.content, rumor.id, rumor.sender)

    # ---- reading

    async def list_sales(self) -> list[Row]:
        """The latest sales, newest first, as plain values without anybody's content."""
        rows = await self._unit.select(TABLE, order=("-created_at", "id"), limit=LISTED)
        return [_shown(decode(Sale, row["body"]), row) for row in rows]

    def open_count(self) -> int:
        """How many sales have not ended."""
        return len(self._open)


def _caller(request: JobRequest) -> str:
    return f"customer:{PubKey(request.customer)}"


def _path(request: JobRequest) -> str:
    return f"/serve/{request.kind}"


def _shown(sale: Sale, row: Row) -> Row:
    return {
        "request_id": sale.request_id,
        "customer": sale.customer,
        "kind": sale.kind,
        "state": sale.state.value,
        "price_msat": sale.price.value,
        "quote_id": sale.quote_id or None,
        "earned_msat": sale.claimed.value,
        "mint": sale.mint or None,
        "error": sale.error or None,
        "result_id": parse_json(sale.answer).id if sale.answer and sale.state is not State.QUOTED else None,
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
