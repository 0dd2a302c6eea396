"""Publishes the wallet's memo to the node's relays, and reads what is there.

The database is first and the memo follows: a second or so after the wallet's rows have changed it is made anew, and if
it says something else it is signed, counted and put into the outbox in one unit. Under load it is written once in
`REST_S`. What was begun in the seconds before a loss is not in it; free coins need none.
"""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import Protocol

import orjson

from core.clock import Clock
from core.error import Unavailable, VendoError
from core.unit import Delete, Insert, UnitOfWork, Update, Write
from relays.event import Event
from relays.filter import Filter
from relays.health import RelayHealth
from relays.key import Key
from relays.kind import APP_DATA
from relays.outbox import Outbox
from wallet.copy import LIFE
from wallet.error import MemoInvalid
from wallet.memo import Chunk, Memo, bodies, drafts, is_memo, merged, open_event
from wallet.recollection import Recollection
from wallet.teller import first_of

log = logging.getLogger(__name__)

PURPOSE = "wallet.memo"  # the standing purpose
SOON_S, REST_S, RETRY_S = 1.0, 5.0, 30.0
FETCH_S = 30.0
MAX_EVENTS = 1_000  # that are looked at in one reading


class Relays(Protocol):
    """Reads relays: `relays.pool.Pool`."""

    @property
    def urls(self) -> Sequence[str]:
        """Our own."""

    async def fetch(
        self, filters: Sequence[Filter], timeout: float, relays: Sequence[str] | None = None
    ) -> Sequence[Event]:
        """What they have stored, verified."""

    def health(self) -> Sequence[RelayHealth]:
        """Which of ours are connected."""


@dataclass(frozen=True, slots=True)
class Said:
    """What this database has published: its name, how often, when last (Unix seconds), what, in how many parts."""

    life: str
    seq: int = 0
    at: int = 0
    digest: str = ""
    parts: int = 0
    events: tuple[str, ...] = ()


class WalletMemo:
    """One per node. A service: `run` publishes.

    Args:
        unit: the database.
        pool: reads relays.
        outbox: carries the events.
        recollection: what there is to say.
        key: the node's; the memo is signed by it and encrypted to it.
        clock: time.
        enabled: whether anything is published; reading works in any case.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        pool: Relays,
        outbox: Outbox,
        recollection: Recollection,
        key: Key,
        clock: Clock,
        *,
        enabled: bool = True,
    ) -> None:
        self._unit, self._pool, self._outbox, self._mind = unit, pool, outbox, recollection
        self._key, self._clock, self._enabled = key, clock, enabled
        self._changed = asyncio.Event()
        self._left_out = 0
        self._compared = False

    def changed(self) -> None:
        """The wallet's rows have changed."""
        self._changed.set()

    # ---- reading

    async def read(self, relays: Sequence[str]) -> tuple[Memo, int]:
        """What relays hold of this node's memos but the own one's, and in how many events.

        Our own relays are asked, and those that are named besides.

        Raises:
            InvalidInput: one of `relays` is no relay's address.
            VendoError: the database failed.
        """
        chunks = await self._chunks(tuple(dict.fromkeys((*self._pool.urls, *relays))))
        life = (await self._said()).life
        return merged(chunks, but=life), len({(one.life, one.part) for one in chunks if one.life != life})

    async def _chunks(self, relays: Sequence[str]) -> list[Chunk]:
        wanted = Filter(authors=frozenset({self._key.pubkey}), kinds=frozenset({APP_DATA}), limit=MAX_EVENTS)
        found = await self._pool.fetch([wanted], FETCH_S, relays) if relays else []
        chunks = []
        for event in [one for one in found if is_memo(one, self._key.pubkey)][:MAX_EVENTS]:
            try:
                chunks.append(open_event(event, self._key))
            except MemoInvalid:
                log.warning("an event is no memo that can be read", extra={"action": "memo_invalid", "event": event.id})
        if unread := sum(one.unread for one in chunks):
            log.error("entries of a memo cannot be read", extra={"action": "memo_unread", "count": unread})
        return chunks

    # ---- publishing

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Publish whenever there is something new to say, until `stop`."""
        ready.set()
        self._changed.set()  # what changed before this process began
        while not stop.is_set():
            if not self._enabled or not self._pool.urls or not self._changed.is_set():
                await first_of(stop, SOON_S, self._clock)
                continue
            await first_of(stop, SOON_S, self._clock)  # much of it is over in a moment
            self._changed.clear()
            try:
                rest = REST_S if await self.publish() else 0.0
            except VendoError as error:
                log.warning("the memo is not written", extra={"action": "memo_unwritten", "code": error.code})
                self._changed.set()
                rest = RETRY_S
            await first_of(stop, rest, self._clock)

    async def publish(self) -> bool:
        """Say what there is to say, if that is something else than the last time. Whether it was.

        Raises:
            VendoError: the database failed, or a row of the wallet was changed from outside.
        """
        if not self._compared:
            await self._compare()
            self._compared = True
        said, memo = await self._said(), await self._mind.memo()
        parts, left_out = bodies(memo)
        if left_out > self._left_out:
            log.error("operations have no room in the memo", extra={"action": "memo_full", "count": left_out})
        self._left_out = left_out
        digest = sha256(orjson.dumps(parts)).hexdigest()
        if digest == said.digest or (not said.seq and memo == Memo()):
            return False
        count = len(parts)
        while len(parts) < said.parts:  # what an earlier one had more is emptied
            parts.append({"mints": [], "counters": [], "pending": []})
        at = max(self._clock.now(), said.at + 1)  # relays keep what is newest
        made = drafts(parts, said.life, said.seq + 1, at, self._key)
        events = [self._key.sign(draft) for draft in made]
        names = tuple(event.id for event in events)
        now = replace(said, seq=said.seq + 1, at=at, digest=digest, parts=count, events=names)
        await self._send(said, now, events)
        return True

    async def _compare(self) -> None:
        """If relays hold a later writing under our name, then this database is an old copy: it takes another name."""
        said = await self._said()
        if not said.seq:
            return
        own = [one for one in await self._chunks(self._pool.urls) if one.life == said.life]
        if not own and not any(one.up for one in self._pool.health()):  # no answer is not the answer that there is none
            raise Unavailable("No relay has said what it holds of the memo.")
        if any(one.seq > said.seq for one in own):
            log.error("the database is older than its memo", extra={"action": "memo_old_copy"})
            await self._unit.commit([Delete("meta", {"key": LIFE})])

    async def _send(self, said: Said, now: Said, events: Sequence[Event]) -> None:
        """The counter and the events are one unit. The last writing is replaced everywhere: nobody needs its rows."""
        rows = [row for event in events for row in self._outbox.rows(event, PURPOSE)]
        writes: list[Write] = [Delete("outbox", {"event_id": one}) for one in said.events]
        value = orjson.dumps(asdict(now)).decode()
        writes.append(Update("meta", {"key": LIFE}, {"value": value}))
        await self._unit.commit([*writes, *rows])
        self._outbox.kick(rows)

    async def _said(self) -> Said:
        rows = await self._unit.select("meta", {"key": LIFE})
        if not rows:
            first = orjson.dumps(asdict(Said(secrets.token_hex(8)))).decode()
            await self._unit.commit([Insert("meta", {"key": LIFE, "value": first}, or_ignore=True)])
            rows = await self._unit.select("meta", {"key": LIFE})
        body = orjson.loads(rows[0]["value"])
        return Said(**{**body, "events": tuple(body["events"])})
