"""Who sells what (NIP-89): announces our own services, and keeps the newest announcement of everybody else.

Announcements, relay lists (NIP-65, NIP-17) and the profile go out at the start and once a day, a heartbeat (kind 11998)
every five minutes as long as something is sold, under the gate's standing permit. Others' texts are strangers' words:
they are shown, and choose nothing.
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
from dvm.sale import Service
from relays.error import MalformedEvent
from relays.event import Event, parse_json
from relays.filter import Filter
from relays.key import Key, Keyring
from relays.kind import HANDLER
from relays.nip65 import relay_drafts
from relays.nip89 import Announcement, announcement_draft, read_announcement
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
BURST, PER_SECOND = 2 * MAX_SELLERS, 5.0  # announcements that are looked at, from all authors together
D = "vendo"


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
        load: how many jobs are open, and how many may be, for the heartbeat.
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
        load: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self._unit, self._pool, self._outbox, self._clock = unit, pool, outbox, clock
        self._key: Key = keyring.node
        self._services, self._mints = tuple(services), tuple(mints)
        self._name, self._about, self._nip05 = name, about, nip05
        self._indexers, self._load = tuple(indexers), load
        self._announced_at: float | None = None
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
                asleep = asyncio.ensure_future(self._clock.sleep(wait))
                await asyncio.wait((asleep, stopped), return_when=asyncio.FIRST_COMPLETED)
                asleep.cancel()
        finally:
            stopped.cancel()
            self._pool.unsubscribe(SUBSCRIPTION)

    async def _announce(self) -> float:
        """Say what is due; the seconds until something is again."""
        mono = self._clock.monotonic()
        whole = self._announced_at is None or mono - self._announced_at >= AGAIN_S
        rows = [row for event in self.identity() for row in self._everywhere(event)] if whole else []
        rows += [row for event in self.presence(whole=whole) for row in self._outbox.rows(event, ANNOUNCE)]
        try:
            await self._unit.commit(rows)
        except VendoError as error:
            log.warning("Nothing was announced: %s", error.code, extra={"action": "announce_failed"})
            return RETRY_S
        self._outbox.kick(rows)
        if whole:
            self._announced_at = mono
        return float(HEARTBEAT_S) if self._services else AGAIN_S

    def _everywhere(self, event: Event) -> tuple[Insert, ...]:
        return self._outbox.rows(event, ANNOUNCE, (*self._pool.urls, *self._indexers))

    def identity(self) -> list[Event]:
        """Profile and relay lists, signed now."""
        now = self._clock.now()
        profile = Profile(name=self._name, about=self._about, nip05=self._nip05)
        return [self._key.sign(draft) for draft in (profile_draft(profile, now), *relay_drafts(self._pool.urls, now))]

    def presence(self, *, whole: bool = True) -> list[Event]:
        """If anything is sold, the word that we are up and, when it is due (`whole`), the announcement; signed now."""
        if not self._services:
            return []
        now = self._clock.now()
        queue, capacity = self._load()
        drafts = [heartbeat_draft(D, now, queue=queue, capacity=capacity)]
        if whole:
            drafts.append(announcement_draft(self._own(now)))
        return [self._key.sign(draft) for draft in drafts]

    def _own(self, now: int) -> Announcement:
        return Announcement(
            pubkey=self._key.pubkey,
            d=D,
            kinds=tuple(service.kind for service in self._services),
            prices={service.kind: service.price for service in self._services},
            mints=self._mints if any(service.price for service in self._services) else (),
            name=self._name,
            about=self._about,
            created_at=now,
        )

    # ---- others

    async def _on_announcement(self, event: Event, relay: str) -> None:
        """A verified kind 31990. The newest per author and `d` counts; on a tie the smaller id (NIP-01)."""
        if event.pubkey == self._key.pubkey or event.created_at < self._clock.now() - FRESH_S:
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
