"""Who sells what (NIP-89): announces our own services, and keeps the newest announcement of everybody else.

Announcements, relay lists (NIP-65, NIP-17) and the profile go out at the start and once a day, a heartbeat (kind 11998)
every five minutes as long as something is sold, and what changes in between at once, under the gate's standing permit.
Others' texts are strangers' words: they are shown, and choose nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.clock import Clock
from core.error import Conflict, VendoError
from core.identifier import PubKey
from core.money import Msat
from core.unit import Delete, Insert, Row, UnitOfWork, Update, Value, Write
from dvm.admission import Meter
from dvm.service import Service
from dvm.tariff import NEEDS, Tariff
from relays.blob import servers_draft
from relays.error import MalformedEvent
from relays.event import Draft, Event, parse_json
from relays.filter import Filter
from relays.key import Key, Keyring
from relays.kind import DELETION, HANDLER
from relays.nip65 import relay_drafts
from relays.nip89 import Announcement, Price, announcement_draft, read_announcement
from relays.outbox import Outbox
from relays.pool import Pool
from relays.presence import HEARTBEAT_S, Profile, heartbeat_draft, profile_draft

log = logging.getLogger(__name__)

TABLE = "announcement"
ANNOUNCE = "market.announce"  # the standing purpose
SUBSCRIPTION = "market/announcements"
AGAIN_S = 86_400
RETRY_S = 60
FRESH_S = 30 * 86_400
MAX_SELLERS = 5_000
MAX_PER_AUTHOR = 8
MAX_CHARS = 16_384  # so much is kept of every seller, on disk and in memory
MAX_KINDS = 64
BURST, PER_SECOND = MAX_SELLERS // 10, 5.0  # announcements that are looked at, from all authors together
AHEAD_S = 60  # a date that is later than this would outlive everybody else's in the index
D = "vendo"
TOPICS = {5_001: "summarization", 5_050: "text-generation", 5_970: "proof-of-work"}  # what clients list by


class Discovery:
    """Announces and finds sellers.

    Args:
        unit: the database.
        pool: relays.
        outbox: sends announcements.
        keyring: its node key signs them.
        clock: time.
        services: what is sold here; none means that nothing is announced but profile and relay lists.
        mints: where we are paid.
        name: shown to others.
        about: shown to others.
        nip05: our address in a domain's names (NIP-05), or nothing.
        indexers: relays besides our own that shall have our profile and relay lists, because others look there.
        lud16: a lightning address at which zaps for jobs count, or nothing.
        load: how many jobs are open, and how many may be, for the heartbeat.
        file_servers: where our large results lie (BUD-03); none means that no list is published.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        pool: Pool,
        outbox: Outbox,
        keyring: Keyring,
        clock: Clock,
        services: Sequence[Service] = (),
        *,
        mints: Sequence[str] = (),
        name: str = "vendo",
        about: str = "",
        nip05: str = "",
        indexers: Sequence[str] = (),
        lud16: str = "",
        load: Callable[[], tuple[int, int]] = lambda: (0, 0),
        file_servers: Sequence[str] = (),
    ) -> None:
        self._unit, self._pool, self._outbox, self._clock = unit, pool, outbox, clock
        self._key: Key = keyring.node
        self._mints = tuple(mints)
        self._services = tuple(one for one in services if not one.paused)
        self._name, self._about, self._nip05 = name, about, nip05
        self._indexers, self._load, self._lud16 = tuple(indexers), load, lud16
        self._file_servers = tuple(file_servers)
        self._announced_at: float | None = None
        self._changed, self._stale = asyncio.Event(), False
        self._stamp = 0
        self._found: dict[str, Announcement] = {}
        self._meter = Meter(BURST, PER_SECOND)
        self._loaded = False

    # ---- life

    async def resume(self) -> None:
        """At start: read what is known of others."""
        rows = await self._unit.select(TABLE, order=("-created_at", "id"), limit=MAX_SELLERS)
        for row in rows:
            try:
                self._found[row["id"]] = read_announcement(parse_json(row["raw"]))
            except MalformedEvent:
                continue
        self._loaded = True

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Announce, and listen to others, until `stop`."""
        if not self._loaded:
            await self.resume()
        self._pool.subscribe(SUBSCRIPTION, [Filter(kinds=frozenset({HANDLER}))], self._on_announcement)
        ready.set()
        stopped = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                wait = await self._announce()
                waiting = (
                    asyncio.ensure_future(self._clock.sleep(wait)),
                    asyncio.ensure_future(self._changed.wait()),
                )
                await asyncio.wait((*waiting, stopped), return_when=asyncio.FIRST_COMPLETED)
                for task in waiting:
                    task.cancel()
        finally:
            stopped.cancel()
            self._pool.unsubscribe(SUBSCRIPTION)

    def offer(self, services: Sequence[Service]) -> None:
        """Announce that this is sold now; what is paused is not."""
        sold = tuple(one for one in services if not one.paused)
        if sold != self._services:
            self._services, self._stale = sold, True
            self._changed.set()

    async def _announce(self) -> float:
        """Say what is due; the seconds until something is again."""
        mono = self._clock.monotonic()
        whole = self._announced_at is None or mono - self._announced_at >= AGAIN_S
        changed = self._stale
        self._changed.clear()
        rows = [row for event in self.identity() for row in self._everywhere(event)] if whole else []
        told = self.presence(whole=whole or changed) or ([self._nothing()] if changed else [])
        rows += [row for event in told for row in self._outbox.rows(event, ANNOUNCE)]
        try:
            await self._unit.commit(rows)
        except VendoError as error:
            log.warning("Nothing was announced: %s", error.code, extra={"action": "announce_failed"})
            return RETRY_S
        if not self._changed.is_set():  # nothing more has changed meanwhile
            self._stale = False
        self._outbox.kick(rows)
        if whole:
            self._announced_at = mono
        return float(HEARTBEAT_S) if self._services else AGAIN_S

    def _everywhere(self, event: Event) -> tuple[Insert, ...]:
        return self._outbox.rows(event, ANNOUNCE, (*self._pool.urls, *self._indexers))

    def identity(self) -> list[Event]:
        """Profile, relay lists and the list of file servers, signed now."""
        now = self._clock.now()
        profile = Profile(name=self._name, about=self._about, nip05=self._nip05, lud16=self._lud16)
        drafts = [profile_draft(profile, now), *relay_drafts(self._pool.urls, now)]
        if self._file_servers:
            drafts.append(servers_draft(self._file_servers, now))
        return [self._key.sign(draft) for draft in drafts]

    def presence(self, *, whole: bool = True) -> list[Event]:
        """If anything is sold, the word that we are up and, when it is due (`whole`), the announcement; signed now."""
        if not self._services:
            return []
        now = self._clock.now()
        queue, capacity = self._load()
        drafts = [heartbeat_draft(D, now, queue=queue, capacity=capacity)]
        if whole:
            own = self._own(self._later(now))
            topics = [TOPICS[kind] for kind in own.kinds if kind in TOPICS]
            drafts.append(announcement_draft(own, topics))
        return [self._key.sign(draft) for draft in drafts]

    def _later(self, now: int) -> int:
        """A time after that of the announcement before: of two in one second relays keep any (NIP-01)."""
        self._stamp = max(now, self._stamp + 1)
        return self._stamp

    def _nothing(self) -> Event:
        """Nothing is sold any more: the announcement is taken back (NIP-09)."""
        tags = (("a", f"{HANDLER}:{self._key.pubkey}:{D}"), ("k", str(HANDLER)))
        return self._key.sign(Draft(DELETION, "", tags, self._later(self._clock.now())))

    def _own(self, now: int) -> Announcement:
        fixed = {one.kind: one.terms.fixed for one in self._services}
        return Announcement(
            pubkey=self._key.pubkey,
            d=D,
            kinds=tuple(service.kind for service in self._services),
            prices={kind: price for kind, price in fixed.items() if price is not None},
            mints=self._mints if any(not service.is_free for service in self._services) else (),
            name=self._name,
            about=self._about,
            created_at=now,
            params=_params(self._services),
            tariffs={one.kind: _price(one.terms) for one in self._services if fixed[one.kind] is None},
        )

    # ---- others

    async def _on_announcement(self, event: Event, relay: str) -> None:
        """A verified kind 31990. The newest per author and `d` counts; on a tie the smaller id (NIP-01)."""
        now = self._clock.now()
        if event.pubkey == self._key.pubkey or not now - FRESH_S <= event.created_at <= now + AHEAD_S:
            return
        raw = event.to_json()
        if len(raw) > MAX_CHARS or not self._meter.take("", self._clock.monotonic()):
            return  # what a flood displaces comes again: sellers announce daily
        try:
            found = read_announcement(event)
        except MalformedEvent:
            return
        if len(found.kinds) > MAX_KINDS:
            return
        name = f"{found.pubkey}:{found.d[:64]}"
        known = self._found.get(name)
        if known is not None and known.created_at >= found.created_at:
            return
        if known is None and not self._room(found.pubkey):
            return
        values: dict[str, Value] = {"pubkey": found.pubkey, "created_at": found.created_at, "raw": raw}
        writes: list[Write] = [
            Insert(TABLE, {"id": name, **values}, or_ignore=True),
            Update(TABLE, {"id": name}, values),
        ]
        while len(self._found) >= MAX_SELLERS and name not in self._found:
            oldest = min(self._found, key=lambda one: self._found[one].created_at)
            del self._found[oldest]
            writes.append(Delete(TABLE, {"id": oldest}))
        self._found[name] = found
        try:
            await self._unit.commit(writes)
        except Conflict:
            log.info("An announcement was not kept", extra={"action": "announcement_lost"})

    def _room(self, author: PubKey) -> bool:
        return sum(1 for one in self._found.values() if one.pubkey == author) < MAX_PER_AUTHOR

    def sellers(self, kind: int) -> list[Announcement]:
        """Who announced to serve a kind lately, newest first."""
        since = self._clock.now() - FRESH_S
        found = [one for one in self._found.values() if kind in one.kinds and one.created_at >= since]
        return sorted(found, key=lambda one: -one.created_at)

    def known_sellers(self, kind: int) -> frozenset[PubKey]:
        """The keys of `sellers`; none while the index is full.

        Keys cost nothing: whoever fills the index displaces others, and must not become the only one who is asked.
        """
        if len(self._found) >= MAX_SELLERS:
            return frozenset()
        return frozenset(one.pubkey for one in self.sellers(kind))

    def list_sellers(self) -> list[Row]:
        """Everybody who is known, as plain values for `/compute/providers`."""
        return [_shown(one) for one in sorted(self._found.values(), key=lambda one: -one.created_at)]


def _price(terms: Tariff) -> Price:
    bounds = [None if one is None else one.value for one in (terms.minimum, terms.maximum)]
    return Price(terms.price.unit, terms.per, terms.price.value, *bounds)


def _params(services: Sequence[Service]) -> dict[str, Any]:
    """Parameters that a request must have for its price to be known, in nostrdvm's and Amethyst's form."""
    names = {NEEDS[one.terms.per] for one in services if one.terms.per in NEEDS}
    return {name: {"required": True, "values": []} for name in sorted(names)}


def _shown(one: Announcement) -> Row:
    prices: Mapping[int, Msat] = one.prices
    shown: dict[str, Any] = {
        "id": one.pubkey,
        "name": one.name[:64],
        "about": one.about[:280],
        "kinds": list(one.kinds),
        "prices_msat": {str(kind): price.value for kind, price in prices.items()},
        "mints": list(one.mints),
        "created_at": one.created_at,
    }
    return shown
