"""From frames to a handler: one worker per subscription, so that a slow handler holds up nothing but itself.

Events are handled in order of arrival; where a subscription is for many keys, in order for each key, and some keys
beside each other: a handler that waits for its commit then shares it with others, and one that is slow (it fetches a
file) holds up its own key and not the next thousand for as long.

The order per event is fixed: size (at the socket) → parse → verify → filter → not seen → handler → seen. Events of
all relays and their EOSEs pass one queue in order of arrival. When it fills, the socket is read no further for a
moment; if the handler is stuck all the same, what comes is dropped, counted and asked for again, since answers to
what we publish come over the same socket. A single event is verified in place; bursts are verified in a thread,
where the C code runs beside the loop.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

from core.clock import Clock
from core.error import Conflict, StoreUncertain, Unavailable, VendoError
from core.guard import attempted
from relays.connection import Connection
from relays.error import ForgedEvent, MalformedEvent
from relays.event import MAX_EVENT_BYTES, Event, parse, verify
from relays.health import RelayHealth
from relays.message import Ended
from relays.seen import Seen
from relays.subscription import Spec, Stream

log = logging.getLogger(__name__)

Handler = Callable[[Event, str], Awaitable[None]]

MAX_WAITING = 5_000  # events per relay and subscription
MAX_WAITING_BYTES = 16 << 20
CROWDED = 2_000
ROOM_S = 0.5
MAX_AHEAD_S = 900
BURST = 48
_BATCH = 256
_ON_ITS_WAY_S = 5  # a younger event may still be on its way
_TURN = 16
_BESIDE = 16  # lanes at once: what they do until they first wait is one turn of the loop


class Source(Protocol):
    """The relay that events come from, as a delivery sees it."""

    connection: Connection
    health: RelayHealth

    def flush(self) -> None:
        """Frames may have been added to `connection.out`."""

    def fault(self) -> None:
        """The relay sent something that no honest relay sends."""


class _Item(NamedTuple):
    source: Source
    stream: Stream
    sub: str
    value: Any
    size: int
    at: int


class _End(NamedTuple):
    source: Source
    frame: Ended


def _good(events: Sequence[Event]) -> list[bool]:
    return [_is_genuine(event) for event in events]


def _is_genuine(event: Event) -> bool:
    try:
        verify(event)
    except (ForgedEvent, MalformedEvent):
        return False
    return True


class Delivery:
    """The queue, memory and worker of one subscription.

    Args:
        spec: what is wanted.
        handler: called once for each event.
        clock: time.
        matches: whether an event is wanted; by default, whether a filter of the spec says so.
        remember: gather in `fresh` what is to be remembered over restarts.
        lane: events with the same are handled in order; by default all of them.
        repeated: told of the id of an event that was handled and comes once more, not among what is stored.

    Attributes:
        changed: set whenever a relay was read to its end.
        remembers: as `remember`.
        fresh: (id, created_at) of events that were handled since somebody took the list.
    """

    def __init__(
        self,
        spec: Spec,
        handler: Handler,
        clock: Clock,
        matches: Callable[[Event], bool] | None = None,
        *,
        remember: bool = False,
        lane: Callable[[Event], str] | None = None,
        repeated: Callable[[str], None] | None = None,
    ) -> None:
        self.spec = spec
        self.repeated = repeated
        self.handler = handler
        self.fresh: list[tuple[str, int]] = []
        self._matches = matches or self._filters_match
        self._lane = lane
        self.remembers = remember
        self.changed = asyncio.Event()
        self._clock = clock
        self._queue: deque[_Item | _End] = deque()
        self._waiting: dict[str, tuple[int, int]] = {}  # relay -> events, bytes
        self._stuck: set[str] = set()  # relays for which waiting has not helped
        self._room = asyncio.Event()
        self._seen = Seen()
        self._wake = asyncio.Event()
        self._stopped = False

    def _filters_match(self, event: Event) -> bool:
        return any(one.matches(event) for one in self.spec.filters)

    def recall(self, handled: Iterable[tuple[str, int]]) -> None:
        """Remember (id, created_at) of events that were handled in an earlier run."""
        for event_id, created_at in handled:
            self._seen.add(event_id, created_at)

    def held(self, since: int, until: int) -> list[tuple[int, str]]:
        """(created_at, id) of what was handled and is dated from `since` to `until`."""
        return self._seen.between(since, until)

    def offer(self, source: Source, stream: Stream, sub: str, value: Any, size: int) -> bool:
        """An event came; it waits for the worker, or is dropped if too many wait. True: first wait for `room`."""
        url = source.connection.url
        count, total = self._waiting.get(url, (0, 0))
        if count >= MAX_WAITING or total >= MAX_WAITING_BYTES:
            stream.missed = True
            source.health.dropped += 1
            return False
        self._waiting[url] = (count + 1, total + size)
        self._queue.append(_Item(source, stream, sub, value, size, self._clock.now()))
        self._wake.set()
        return count >= CROWDED and url not in self._stuck

    async def room(self, url: str) -> None:
        """Wait until few events of this relay wait, but not for ever."""
        try:
            async with asyncio.timeout(ROOM_S):
                while self._waiting[url][0] > CROWDED // 2 and not self._stopped:
                    self._room.clear()
                    await self._room.wait()
        except TimeoutError:
            self._stuck.add(url)

    def end(self, source: Source, frame: Ended) -> None:
        """An EOSE came; it is acted on when everything before it was handled."""
        if len(self._queue) <= 2 * MAX_WAITING:  # a flood of EOSEs alone must not grow it either
            self._queue.append(_End(source, frame))
            self._wake.set()

    def stop(self) -> None:
        """End after the event that is being handled. A handler may stop its own subscription."""
        self._stopped = True
        self._wake.set()
        self._room.set()

    async def run(self, executor: Executor) -> None:
        """Work until stopped."""
        while not self._stopped:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            first = self._queue[0]
            if isinstance(first, _End):
                self._queue.popleft()
                self._ended(first)
                continue
            await self._handle_batch(self._take(), executor)
            if self._queue:
                await asyncio.sleep(0)

    def _take(self) -> list[_Item]:
        batch: list[_Item] = []
        while self._queue and len(batch) < _BATCH:
            item = self._queue[0]
            if isinstance(item, _End):
                break
            batch.append(item)
            self._queue.popleft()
        return batch

    async def _handle_batch(self, batch: list[_Item], executor: Executor) -> None:
        found = [(item, event) for item in batch if (event := self._parsed(item)) is not None]
        if len(found) >= BURST:
            events = [event for _, event in found]
            genuine = await asyncio.get_running_loop().run_in_executor(executor, _good, events)
        else:
            genuine = []
        lanes: dict[str, list[tuple[_Item, Event]]] = {}
        for at, (item, event) in enumerate(found):
            if self._stopped:
                return
            if at % _TURN == _TURN - 1:  # a burst of wraps that nobody can open must not hold up the loop
                await asyncio.sleep(0)
            if not (genuine[at] if genuine else _is_genuine(event)):
                item.source.health.forged += 1
                item.source.fault()
            elif self._lane is None:
                await self._handle(item, event)
            else:
                lanes.setdefault(self._lane(event), []).append((item, event))
        await self._handle_lanes(list(lanes.values()))
        if self._stopped:
            return
        for item in batch:
            self._release(item)

    async def _handle_lanes(self, lanes: Sequence[Sequence[tuple[_Item, Event]]]) -> None:
        left = iter(lanes)

        async def work() -> None:
            for lane in left:
                for item, event in lane:
                    if not self._stopped:
                        await self._handle(item, event)
                await asyncio.sleep(0)

        if len(lanes) == 1:
            await work()
        elif lanes:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_BESIDE, len(lanes))):
                    group.create_task(work())

    def _release(self, item: _Item) -> None:
        connection = item.source.connection
        count, total = self._waiting[connection.url]
        self._waiting[connection.url] = (count - 1, total - item.size)
        if count <= CROWDED // 2:
            self._stuck.discard(connection.url)
            self._room.set()
        if count == 1:
            item.stream.settle()
            if item.stream.missed:
                connection.again(item.stream, self._clock.monotonic())

    def _parsed(self, item: _Item) -> Event | None:
        """The event, unless it is none or this very id was handled before (then nothing new can be in it)."""
        try:
            event = parse(item.value)
        except MalformedEvent:
            item.source.health.malformed += 1
            item.source.fault()
            return None
        if item.size > MAX_EVENT_BYTES and len(event.to_json()) > MAX_EVENT_BYTES:
            # The frame had room for it. What is kept of it could not be read again after a restart.
            item.source.health.malformed += 1
            return None
        return None if self._known(item, event.id) else event

    def _known(self, item: _Item, event_id: str) -> bool:
        created_at = self._seen.get(event_id)
        if created_at is None:
            return False
        # the time is the verified one: a forgery under this id moves nothing
        item.source.health.duplicates += 1
        item.stream.note(item.sub, created_at, self._clock.now())
        if self.repeated is not None and item.stream.whole and not item.stream.spec.checking:
            self.repeated(event_id)
        return True

    async def _handle(self, item: _Item, event: Event) -> None:
        source, now = item.source, self._clock.now()
        if event.created_at > now + MAX_AHEAD_S:
            source.health.future += 1
            return
        if not self._matches(event):
            source.health.off_filter += 1
            source.fault()
            return
        if self._known(item, event.id):  # twice in one batch
            return
        handled = await self._call(item, event)
        if handled:
            self._seen.add(event.id, event.created_at)
            source.health.received += 1
            if self.remembers:
                self.fresh.append((event.id, event.created_at))
            self._measure(item, event)
        item.stream.note(item.sub, event.created_at, now, handled=handled)

    @staticmethod
    def _measure(item: _Item, event: Event) -> None:
        """How late a live event is; and whether live delivery had missed it."""
        if item.stream.spec.checking:
            if item.at - event.created_at > _ON_ITS_WAY_S:
                item.source.health.missed += 1
                item.stream.found += 1
        elif item.stream.whole and not item.stream.spec.backdated:
            item.source.health.delay.add(item.at - event.created_at)

    async def _call(self, item: _Item, event: Event) -> bool:
        source = item.source

        async def handle() -> None:
            await self.handler(event, source.connection.url)

        _, error = await attempted(handle())
        if error is None:
            return True
        if isinstance(error, VendoError):
            if isinstance(error, Unavailable | StoreUncertain | Conflict):
                item.stream.missed = True  # a full disk, say: it is asked for again, ever less often
            log.warning(
                "The handler of %s failed: %s",
                self.spec.name,
                error,
                extra={"action": "handler_failed", "subscription": self.spec.name, "code": error.code},
            )
        else:
            about = {"action": "handler_fault", "subscription": self.spec.name}
            log.error("The handler of %s is at fault", self.spec.name, exc_info=error, extra=about)
        source.health.handler_errors += 1
        return False

    def _ended(self, end: _End) -> None:
        connection = end.source.connection
        if connection.ended(end.frame, self._clock.now(), self._clock.monotonic()) is not None:
            self.changed.set()
        end.source.flush()
