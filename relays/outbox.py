"""The durable outbox: events committed with the state that wants them, then sent until each relay has spoken.

A driver puts `rows(event, …)` into its own unit and calls `kick(rows)` after the commit; that puts them on the
wire at once, without reading the table. Always the same bytes are sent, so a lost OK costs a `duplicate:` and
nothing else. Rows that were pending when the process died go out again at the next start.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from core.clock import Clock
from core.effect import Permit
from core.error import InvalidInput, VendoError
from core.identifier import EffectId
from core.unit import Insert, UnitOfWork, Update, Within, Write
from relays.address import canonical
from relays.error import MalformedEvent
from relays.event import Event, parse_json
from relays.lane import MAX_HELD, Item, Lane
from relays.pool import Pool
from relays.verdict import Verdict, VerdictState

log = logging.getLogger(__name__)

TABLE = "outbox"
TICK_S = 0.25
SCAN_S = 15.0
REACH_S = 300.0
MAX_ROUNDS = 12
_PAGE_ROWS = 2_000
SCAN_OVERLAP_S = 5.0
_GROUP = 1_000
_FINAL_SAVE_S = 3.0
_ENDED_S = 3.0


class Outbox:
    """Sends what is in table `outbox`. `permit_for(effect_id)` gives the gate's leave for a row.

    Where several processes share the table one of them sends. `overlap_s` says how long the others may take from making
    a row to committing it, clocks that differ included; `look` finds what they have committed.
    """

    def __init__(
        self,
        pool: Pool,
        unit: UnitOfWork,
        clock: Clock,
        permit_for: Callable[[str], Permit],
        overlap_s: float = SCAN_OVERLAP_S,
    ) -> None:
        self._overlap_ms = int(overlap_s * 1_000)
        self._pool = pool
        self._unit = unit
        self._clock = clock
        self._permit_for = permit_for
        self._lanes: dict[str, Lane] = {}
        self._settled: list[Update] = []
        self._ended: dict[tuple[str, str], float] = {}  # of late, by event and relay: a scan may still see it pending
        self._wake = asyncio.Event()
        self._running = self._asked = self._unread = False
        self._scanned_ms = 0
        self._jitter = random.SystemRandom().uniform
        pool.on_up(self._on_up)

    # ---- for drivers

    def rows(self, event: Event, effect_id: str, relays: Sequence[str] | None = None) -> tuple[Insert, ...]:
        """The rows that send an event to these relays, or to all relays of the pool. Nothing happens yet.

        A row that is there already stays as it is, so that a driver may act again after a crash.

        Raises:
            InvalidInput: a relay's address is none.
        """
        raw = event.to_json()
        urls = self._pool.urls if relays is None else dict.fromkeys(canonical(url) for url in relays)
        now = self._clock.millis()
        return tuple(
            Insert(
                TABLE,
                {
                    "event_id": event.id,
                    "relay": url,
                    "raw": raw,
                    "effect_id": effect_id,
                    "state": "pending",
                    "tries": 0,
                    "next_at_ms": now,
                    "reason": "",
                },
                or_ignore=True,
            )
            for url in urls
        )

    def kick(self, rows: Iterable[Write] = ()) -> None:
        """Send these rows now; they were just committed. Writes to other tables among them are passed over.

        Without any, the table is read for what is pending. A row that was sent before is sent once more. Where the
        outbox does not run, the rows wait in the table for the process in which it does.
        """
        if not self._running:
            return
        touched: dict[str, Lane] = {}
        for row in rows:
            if type(row) is Insert and row.table == TABLE:
                lane = touched.setdefault(str(row.row["relay"]), self._lane(str(row.row["relay"])))
                lane.add((_item(row.row),))
        if not touched:
            for url in (*self._pool.urls, *list(self._lanes)):
                self._lane(url).overflow = True
            self._asked = True
            self._wake.set()
        for lane in touched.values():
            lane.reach_at = 0.0
            self._pump(lane)

    def look(self) -> None:
        """Read what was committed lately, also by others."""
        self._asked = True
        self._wake.set()

    # ---- sending

    def _lane(self, relay: str) -> Lane:
        lane = self._lanes.get(relay)
        if lane is None:
            foreign = relay not in self._pool.urls
            lane = self._lanes[relay] = Lane(relay, lambda most: self._jitter(0.0, most), foreign=foreign)
        return lane

    def _on_up(self, url: str) -> None:
        lane = self._lanes.get(url)
        if lane is not None:
            lane.rounds = 0
            self._pump(lane)

    def _pump(self, lane: Lane) -> None:
        """Give the relay as much as it may have in flight."""
        if not self._running or lane.pumping:
            return
        if not self._pool.is_up(lane.relay):
            if lane.waiting and lane.relay not in self._pool.urls:
                self._reach(lane)
            return
        lane.pumping = True  # a verdict that comes at once would pump again from within
        try:
            self._post_all(lane)
        finally:
            lane.pumping = False

    def _post_all(self, lane: Lane) -> None:
        while (item := lane.take()) is not None:
            try:
                sent = self._send(lane, item)
            except VendoError as error:
                log.error(
                    "An event may not be sent: %s",
                    error,
                    extra={"action": "outbox_unpermitted", "event": item.event_id, "effect": item.effect_id},
                )
                lane.postpone(item, self._clock.monotonic())
                continue
            if not sent:
                lane.put_back(item)
                return

    def _reach(self, lane: Lane) -> None:
        """Try a relay that is not ours, now and then, and in the end no more."""
        mono = self._clock.monotonic()
        if mono < lane.reach_at:
            return
        lane.reach_at = mono + REACH_S
        reason = "the relay could not be reached"
        try:
            if lane.rounds < MAX_ROUNDS:
                tried = self._pool.reach(lane.relay) is not None  # else too many others are talked to
                lane.rounds += tried
                return
        except InvalidInput as error:
            reason = str(error)
        while (item := lane.take()) is not None:
            self._done(lane, item, Verdict(VerdictState.REFUSED, reason))

    def _send(self, lane: Lane, item: Item) -> bool:
        if item.tries and _expired(item.raw, self._clock.now()):
            self._done(lane, item, Verdict(VerdictState.REFUSED, "expired before any relay took it"))
            return True
        permit = self._permit_for(EffectId(item.effect_id))
        return self._pool.post(
            lane.relay, item.event_id, item.raw, permit, lambda verdict: self._done(lane, item, verdict)
        )

    def _done(self, lane: Lane, item: Item, verdict: Verdict) -> None:
        verdict, wait = lane.settle(item, verdict, self._clock.monotonic())
        change: dict[str, int | str | bytes | None] = {
            "tries": item.tries,
            "reason": verdict.reason[:500],
            "next_at_ms": self._clock.millis() + int(wait * 1000),
        }
        if verdict.state is not VerdictState.UNKNOWN:
            change["state"] = "sent" if verdict.state is VerdictState.STORED else "refused"
            self._ended[item.event_id, lane.relay] = self._clock.monotonic()
        if verdict.state is VerdictState.REFUSED:
            log.warning(
                "%s refused an event: %s",
                lane.relay,
                verdict.reason[:200],
                extra={"action": "outbox_refused", "relay": lane.relay, "event": item.event_id},
            )
        self._settled.append(Update(TABLE, {"event_id": item.event_id, "relay": lane.relay}, change, rows=None))
        self._wake.set()
        if lane.waiting:
            self._pump(lane)

    # ---- life

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Send until `stop`. What is then still pending goes out at the next start."""
        self._running = True
        for url in self._pool.urls:
            self._lane(url)
        await self._load()
        for lane in self._lanes.values():
            self._pump(lane)
        ready.set()
        async with asyncio.TaskGroup() as tasks:
            recorder = tasks.create_task(self._record(), name="outbox recorder")
            ticker = tasks.create_task(self._tick(), name="outbox ticker")
            await stop.wait()
            self._running = False
            ticker.cancel()
            recorder.cancel()
        deadline = self._clock.monotonic() + _FINAL_SAVE_S
        while self._settled and self._clock.monotonic() < deadline and await self._save():
            pass

    async def _record(self) -> None:
        """Write verdicts in groups: while one commit is under way the next group gathers."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._settled and await self._save():
                pass
            if self._asked or any(lane.hungry for lane in self._lanes.values()):
                self._asked = False
                await self._scan()

    async def _save(self) -> bool:
        group, self._settled = self._settled[:_GROUP], self._settled[_GROUP:]
        try:
            await self._unit.commit(group)
        except VendoError as error:
            self._settled = group + self._settled
            log.error("Verdicts were not written: %s", error, extra={"action": "outbox_unsaved", "code": error.code})
            return False
        except asyncio.CancelledError:
            self._settled = group + self._settled  # written twice does no harm
            raise
        return True

    async def _tick(self) -> None:
        scanned = self._clock.monotonic()
        while True:
            await self._clock.sleep(TICK_S)
            mono = self._clock.monotonic()
            for lane in list(self._lanes.values()):
                lane.due(mono)
                if lane.waiting:
                    self._pump(lane)
                elif lane.foreign and not lane.overflow and not len(lane):
                    del self._lanes[lane.relay]
            if self._settled:
                self._wake.set()
            if mono - scanned >= SCAN_S:
                scanned = mono
                await self._scan()

    async def _scan(self) -> None:
        """Read more for those lanes that had more than they could hold, and what came lately without a kick."""
        since, self._scanned_ms = self._scanned_ms, self._clock.millis()
        try:
            lately = await self._read(Within(since - self._overlap_ms, self._scanned_ms + 1))
            for lane in self._lanes.values():
                lane.overflow = lane.overflow or len(lately) == _PAGE_ROWS
            for lane in [lane for lane in self._lanes.values() if lane.hungry]:
                lane.overflow = False
                where: dict[str, Any] = {"state": "pending", "relay": lane.relay}
                limit = MAX_HELD + len(lane)  # those that are held already come back too
                found = await self._unit.select(TABLE, where, order=("next_at_ms",), limit=limit)
                lane.add(_item(row) for row in found)
                lane.overflow = lane.overflow or len(found) == limit
            self._unread = False
        except VendoError as error:
            if not self._unread:  # once, and not at each look
                log.error("The outbox was not read: %s", error, extra={"action": "outbox_unread", "code": error.code})
            self._unread = True
        for lane in list(self._lanes.values()):
            self._pump(lane)

    async def _read(self, when: Within) -> list[dict[str, Any]]:
        where: dict[str, Any] = {"state": "pending", "next_at_ms": when}
        before = self._clock.monotonic() - _ENDED_S
        self._ended = {key: at for key, at in self._ended.items() if at > before}
        rows = await self._unit.select(TABLE, where, order=("next_at_ms",), limit=_PAGE_ROWS)
        for row in rows:
            if (row["event_id"], row["relay"]) not in self._ended:
                self._lane(str(row["relay"])).add((_item(row),))
        return rows

    async def _load(self) -> None:
        """At the start: everything that is pending, for whichever relay, as far as the lanes hold it."""
        low = 0
        while True:
            rows = await self._read(Within(low, None))
            if len(rows) < _PAGE_ROWS:
                break
            last = int(rows[-1]["next_at_ms"])
            if last == low:  # more of one millisecond than a page holds: the lanes ask for the rest by relay
                for lane in self._lanes.values():
                    lane.overflow = True
                last += 1
            low = last
        self._scanned_ms = self._clock.millis()


def _item(row: Any) -> Item:
    return Item(str(row["event_id"]), str(row["raw"]), str(row["effect_id"]), int(row.get("tries", 0)))


def _expired(raw: str, now: int) -> bool:
    """Whether NIP-40 says that the event is of no use any more."""
    try:
        text = parse_json(raw).value("expiration") or ""
    except MalformedEvent:
        return False
    return text.isascii() and text.isdigit() and int(text) <= now
