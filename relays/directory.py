"""Where other people read, write and take private messages: their own lists, looked up, kept and refreshed.

A list is asked for at our own relays, at the configured indexers and, for private messages, where the person says that
they write. The newest one that its author signed wins. What nobody has is remembered too, for a while, so that a
message to somebody unknown does not ask the whole network each time.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.clock import Clock
from core.error import InvalidInput, VendoError
from core.identifier import PubKey
from core.unit import Delete, Insert, UnitOfWork, Update, Value, Write
from relays.address import canonical, is_nameable
from relays.error import MalformedEvent
from relays.event import Event, parse_json
from relays.filter import Filter
from relays.kind import DM_RELAYS, RELAY_LIST
from relays.nip65 import read_dm_relays, read_relay_list

log = logging.getLogger(__name__)

TABLE = "relay_list"
FRESH_S = 86_400
NEGATIVE_S = 600
FETCH_S = 3.0
WAIT_S = 8.0  # how long a question is waited for, with its turn; then what is known counts, old or not
MAX_PARALLEL = 8
MAX_HOPS = 3  # a person's own relays that are asked
MAX_KEPT = 4_096  # in memory
MAX_ROWS = 10_000  # in the database: two for each person
MAX_CHARS = 16_384  # a longer list counts as none
_PRUNE_EVERY = 256
_AHEAD_S = 900
_KINDS = (RELAY_LIST, DM_RELAYS)


class Fetcher(Protocol):
    """What a directory needs of the relay pool."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Our own relays."""

    def is_up(self, url: str) -> bool:
        """Whether a relay is connected now."""

    async def fetch(
        self, filters: Sequence[Filter], timeout: float, relays: Sequence[str] | None = None
    ) -> list[Event]:
        """Verified events that our relays, or these, have stored."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A person's newest list of one kind; no event: we asked, and there was none."""

    event: Event | None
    fetched_at: int

    @property
    def rank(self) -> tuple[int, str]:
        """Greater is newer; of two from one second the smaller id counts (NIP-01)."""
        if self.event is None:
            return -1, ""
        return self.event.created_at, "".join(f"{15 - int(digit, 16):x}" for digit in self.event.id)

    def fresh(self, now: int) -> bool:
        return now - self.fetched_at < (FRESH_S if self.event is not None else NEGATIVE_S)


_NOTHING = _Entry(None, 0)


class Directory:
    """Other people's relay lists.

    Args:
        pool: asks relays.
        unit: keeps what was found.
        clock: time.
        indexers: relays that are asked besides our own, because many people publish their lists there.
    """

    def __init__(self, pool: Fetcher, unit: UnitOfWork, clock: Clock, *, indexers: Sequence[str] = ()) -> None:
        self._pool, self._unit, self._clock = pool, unit, clock
        self._indexers = tuple(dict.fromkeys(canonical(url) for url in indexers))
        self._known: OrderedDict[tuple[PubKey, int], _Entry] = OrderedDict()
        self._asking: dict[PubKey, asyncio.Future[None]] = {}
        self._slots = asyncio.Semaphore(MAX_PARALLEL)
        self._since_prune = 0

    # ---- questions

    async def relays_for_dm(self, pubkey: PubKey) -> tuple[str, ...] | None:
        """Where a person takes private messages (kind 10050); None if they do not say, or nobody could be asked.

        NIP-17: who has no such list is not ready for such messages.
        """
        await self._look_up(pubkey)
        return self.known_for_dm(pubkey)

    async def read_relays(self, pubkey: PubKey) -> tuple[str, ...]:
        """Where to send what is for a person (kind 10002); empty if unknown."""
        await self._look_up(pubkey)
        return self.known_read_relays(pubkey)

    async def write_relays(self, pubkey: PubKey) -> tuple[str, ...]:
        """Where to find what a person says (kind 10002); empty if unknown."""
        await self._look_up(pubkey)
        return self.known_write_relays(pubkey)

    def known_for_dm(self, pubkey: PubKey) -> tuple[str, ...] | None:
        """As `relays_for_dm`, from memory alone."""
        event = self._known.get((pubkey, DM_RELAYS), _NOTHING).event
        return self._allowed(read_dm_relays(event)) or None if event is not None else None

    def known_read_relays(self, pubkey: PubKey) -> tuple[str, ...]:
        """As `read_relays`, from memory alone: for who must not wait."""
        event = self._known.get((pubkey, RELAY_LIST), _NOTHING).event
        return self._allowed(read_relay_list(event).read) if event is not None else ()

    def known_write_relays(self, pubkey: PubKey) -> tuple[str, ...]:
        """As `write_relays`, from memory alone."""
        event = self._known.get((pubkey, RELAY_LIST), _NOTHING).event
        return self._allowed(read_relay_list(event).write) if event is not None else ()

    async def learn(self, event: Event) -> None:
        """A verified list that came from elsewhere; another kind, or one older than what is known, changes nothing."""
        if event.kind in _KINDS:
            await self._keep(event.pubkey, [event])

    def _allowed(self, urls: Sequence[str]) -> tuple[str, ...]:
        """Relays that a stranger may send us to: public ones, and those that we use anyway."""
        ours = {*self._pool.urls, *self._indexers}
        return tuple(url for url in urls if url in ours or is_nameable(url))

    # ---- finding out

    async def _look_up(self, pubkey: PubKey) -> None:
        """Have both lists of a person in memory, no older than a day if anybody answers; asked once at a time."""
        if self._is_fresh(pubkey):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._find_out(pubkey)

    async def _find_out(self, pubkey: PubKey) -> None:
        running = self._asking.get(pubkey)
        if running is not None:
            await asyncio.wait((running,))
            return
        done = self._asking[pubkey] = asyncio.get_running_loop().create_future()
        try:
            await self._load(pubkey)
            if not self._is_fresh(pubkey):
                async with self._slots:
                    await self._ask(pubkey)
        finally:
            del self._asking[pubkey]
            done.set_result(None)

    def _is_fresh(self, pubkey: PubKey) -> bool:
        now = self._clock.now()
        return all(self._known.get((pubkey, kind), _NOTHING).fresh(now) for kind in _KINDS)

    async def _load(self, pubkey: PubKey) -> None:
        for row in await self._unit.select(TABLE, {"pubkey": pubkey}):
            try:
                event = parse_json(row["raw"]) if row["raw"] else None
            except MalformedEvent:
                continue
            entry = _Entry(event, int(row["fetched_at"]))
            if entry.rank >= self._known.get((pubkey, int(row["kind"])), _NOTHING).rank:
                self._remember((pubkey, int(row["kind"])), entry)

    async def _ask(self, pubkey: PubKey) -> None:
        """Our relays and the indexers; then, if only the message list is missing, where the person writes."""
        asked = (*self._pool.urls, *self._indexers)
        if not self._indexers and not any(self._pool.is_up(url) for url in self._pool.urls):
            return  # nobody to ask is not "none"
        found = await self._fetch(pubkey, _KINDS, self._indexers and asked)
        if not any(event.kind == DM_RELAYS for event in found):
            lists = [event for event in found if event.kind == RELAY_LIST]
            newest = max(lists, key=lambda event: event.created_at, default=None)
            writes = self._allowed(read_relay_list(newest).write) if newest is not None else ()
            further = [url for url in writes if url not in asked][:MAX_HOPS]
            if further:
                found += await self._fetch(pubkey, (DM_RELAYS,), further)
        await self._keep(pubkey, found, whole=True)

    async def _fetch(self, pubkey: PubKey, kinds: Sequence[int], relays: Sequence[str]) -> list[Event]:
        wanted = Filter(kinds=frozenset(kinds), authors=frozenset({pubkey}), limit=2 * len(kinds))
        try:
            if relays:
                events = await self._pool.fetch([wanted], FETCH_S, relays=relays)
            else:
                events = await self._pool.fetch([wanted], FETCH_S)
        except InvalidInput:
            return []
        latest = self._clock.now() + _AHEAD_S
        return [
            event
            for event in events
            if event.pubkey == pubkey and event.kind in kinds and event.created_at <= latest
            if len(event.to_json()) <= MAX_CHARS
        ]

    # ---- keeping

    async def _keep(self, pubkey: PubKey, events: Sequence[Event], *, whole: bool = False) -> None:
        """Take the newest of what was found and what is known; `whole`: what was not found is known not to be there."""
        now = self._clock.now()
        writes: list[Write] = []
        for kind in _KINDS:
            known = self._known.get((pubkey, kind), _NOTHING)
            found = [_Entry(event, now) for event in events if event.kind == kind]
            if not whole and not found:
                continue
            best = max([known, *found], key=lambda entry: entry.rank)
            if not whole and best is known:
                continue
            entry = _Entry(best.event, now if whole else best.fetched_at)
            self._remember((pubkey, kind), entry)
            writes += _rows(pubkey, kind, entry)
        if not writes:
            return
        try:
            await self._unit.commit([*writes, *await self._pruned(len(writes))])
        except VendoError as error:  # what is not kept is asked for again
            log.warning("A relay list was not kept: %s", error.code, extra={"action": "relay_list_lost"})

    def _remember(self, key: tuple[PubKey, int], entry: _Entry) -> None:
        self._known[key] = entry
        self._known.move_to_end(key)
        while len(self._known) > MAX_KEPT:
            self._known.popitem(last=False)

    async def _pruned(self, more: int) -> list[Write]:
        """Now and then: the writes that forget who was not looked up for longest."""
        self._since_prune += more
        if self._since_prune < _PRUNE_EVERY:
            return []
        self._since_prune = 0
        rows = await self._unit.select(
            TABLE, order=("-fetched_at", "pubkey", "kind"), limit=MAX_ROWS + 2 * _PRUNE_EVERY
        )
        return [Delete(TABLE, {"pubkey": row["pubkey"], "kind": row["kind"]}) for row in rows[MAX_ROWS:]]


def _rows(pubkey: PubKey, kind: int, entry: _Entry) -> list[Write]:
    values: dict[str, Value] = {
        "created_at": entry.event.created_at if entry.event is not None else 0,
        "raw": entry.event.to_json() if entry.event is not None else "",
        "fetched_at": entry.fetched_at,
    }
    where: dict[str, Value] = {"pubkey": pubkey, "kind": kind}
    return [Insert(TABLE, {**where, **values}, or_ignore=True), Update(TABLE, where, values)]
