"""A wire that drops, repeats, reorders, delays and forges, in place of relay and sockets.

`SimRelay` holds what was published. A `SimPool` is one node's view of it, with the interface of `relays.pool.Pool` that
drivers use; between it and a handler stands the real `relays.delivery.Delivery`, which verifies, filters and remembers.
Nothing is lost for good: as a real pool resumes, a dropped event comes again at the next resync.
"""

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

from core.clock import Clock, SystemClock
from core.effect import Permit
from relays.delivery import Delivery
from relays.error import ForgedEvent
from relays.event import Draft, Event, digest, parse_json, verify
from relays.filter import Filter
from relays.health import RelayHealth
from relays.seen import Seen
from relays.subscription import Spec, Stream
from relays.verdict import STORED, Verdict, VerdictState, lost
from tests.simulation.virtual import VirtualClock, VirtualLoop

Handler = Callable[[Event, str], Awaitable[None]]
URL = "wss://relay.sim"


@dataclass(slots=True)
class Weather:
    """How bad the wire is, as chances from 0 to 1. `delay` and `resync` are in seconds."""

    drop: float = 0.0
    repeat: float = 0.0
    forge: float = 0.0
    lose_ok: float = 0.0
    delay: float = 0.2
    resync: float = 3.0


class _Inline(Executor):
    """Bursts are verified in place: a thread has no part in made-up time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class _Connection:
    """What a delivery asks of a connection."""

    url = URL

    def again(self, stream: Stream, mono: float) -> None:
        return None


class _Source:
    """The one relay, as a delivery sees it."""

    def __init__(self) -> None:
        self.connection: Any = _Connection()
        self.health = RelayHealth(URL)
        self.faults = 0

    def flush(self) -> None:
        return None

    def fault(self) -> None:
        self.faults += 1


@dataclass(slots=True)
class _Sub:
    filters: tuple[Filter, ...]
    delivery: Delivery
    stream: Stream
    task: "asyncio.Task[None]"

    def wants(self, event: Event) -> bool:
        return any(one.matches(event) for one in self.filters)


def as_wire(event: Event) -> dict[str, Any]:
    """An event as decoded JSON."""
    return {**event.to_dict(), "tags": [list(tag) for tag in event.tags]}


class SimRelay:
    """Stores every event once, and shows it to those who subscribed."""

    def __init__(self, seed: int, weather: Weather, clock: Any = None) -> None:
        self.random = random.Random(seed)
        self.clock = clock  # of its pools; the running loop's if there is none
        self.weather = weather
        self.events: dict[str, Event] = {}
        self.wire: dict[str, dict[str, Any]] = {}
        self.pools: list[SimPool] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.on_stored: list[Callable[[Event], None]] = []
        self.forgeries: list[Event] = []

    def store(self, event: Event) -> None:
        if event.id in self.events:
            return
        self.events[event.id] = event
        self.wire[event.id] = as_wire(event)
        for listener in self.on_stored:
            listener(event)
        for pool in self.pools:
            pool.offer(event)

    def inject(self, event: Event) -> None:
        """A lying relay hands out an event that it never verified."""
        self.forgeries.append(event)
        for pool in self.pools:
            pool.offer(event)

    def later(self, seconds: float, make: Callable[[], Awaitable[None]]) -> None:
        """The wire's own work: it belongs to nobody's process."""

        async def go() -> None:
            await asyncio.sleep(seconds)
            await make()

        task = asyncio.get_running_loop().create_task(go(), context=contextvars.Context())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class SimPool:
    """One node's connection; gone when the node crashes."""

    def __init__(self, relay: SimRelay, check: Callable[[Permit], None]) -> None:
        loop: Any = asyncio.get_running_loop()
        self._relay, self._check = relay, check
        real = VirtualClock(loop) if isinstance(loop, VirtualLoop) else SystemClock()
        self._clock: Clock = relay.clock or real
        self._subs: dict[str, _Sub] = {}
        self._missed: dict[tuple[str, str], Event] = {}
        self._source = _Source()
        self._listeners: list[Callable[[str], None]] = []
        self._errors = 0
        self.urls: tuple[str, ...] = (URL,)
        self.alive = self.up = True
        relay.pools.append(self)
        relay.later(relay.weather.resync, self._resync)

    @property
    def forged(self) -> int:
        """Events that were dropped since they were not genuine."""
        return self._source.health.forged

    # ---- what drivers use

    def subscribe(
        self,
        name: str,
        filters: Sequence[Filter],
        handler: Handler,
        *,
        backdated: bool = False,
        remember: bool = True,
        repeated: Callable[[str], None] | None = None,
    ) -> None:
        self.unsubscribe(name)
        spec = Spec(name, tuple(filters), backdated)
        delivery = Delivery(spec, handler, self._clock, repeated=repeated)
        task = asyncio.get_running_loop().create_task(delivery.run(_Inline()), name=f"delivery {name}")
        self._subs[name] = _Sub(spec.filters, delivery, Stream(spec, None), task)
        for event in list(self._relay.events.values()):
            self._offer_to(name, event)

    def unsubscribe(self, name: str) -> None:
        sub = self._subs.pop(name, None)
        if sub is not None:
            sub.delivery.stop()

    async def caught_up(self, name: str, timeout: float) -> bool:
        return True

    async def fetch(
        self, filters: Sequence[Filter], timeout: float, relays: Sequence[str] | None = None
    ) -> list[Event]:
        return [event for event in self._relay.events.values() if any(one.matches(event) for one in filters)]

    def on_up(self, listener: Callable[[str], None]) -> None:
        self._listeners.append(listener)
        self._relay.later(0.0, self._tell_up)

    def is_up(self, url: str) -> bool:
        return self.alive and self.up

    def reach(self, url: str) -> None:
        return None

    def post(self, url: str, event_id: str, raw: str, permit: Permit, done: Callable[[Verdict], None]) -> bool:
        self._check(permit)
        if not self.is_up(url):
            return False

        async def go() -> None:
            verdict = await self._travel(parse_json(raw))
            if self.alive:
                done(verdict)

        self._relay.later(0.0, go)
        return True

    async def send(self, url: str, event: Event, permit: Permit) -> Verdict:
        self._check(permit)
        return await self._travel(event)

    # ---- what happens to it

    def cut(self) -> None:
        """The process is gone. What it had sent may still arrive."""
        self.alive = False
        for sub in self._subs.values():
            sub.task.cancel()
        if self in self._relay.pools:
            self._relay.pools.remove(self)

    def partition(self, seconds: float) -> None:
        """Nothing comes or goes for a while."""
        self.up = False

        async def heal() -> None:
            self.up = True
            await self._tell_up()

        self._relay.later(seconds, heal)

    async def _tell_up(self) -> None:
        for listener in list(self._listeners) if self.is_up(URL) else ():
            listener(URL)

    async def _travel(self, event: Event) -> Verdict:
        weather, chance = self._relay.weather, self._relay.random
        await asyncio.sleep(chance.random() * weather.delay)
        if chance.random() < weather.drop:
            return lost("lost on the way")
        try:
            verify(event)
        except ForgedEvent:
            return Verdict(VerdictState.REFUSED, "invalid: forged")
        self._relay.store(event)
        await asyncio.sleep(chance.random() * weather.delay)
        return lost("the OK was lost") if chance.random() < weather.lose_ok else STORED

    def offer(self, event: Event) -> None:
        for name in list(self._subs):
            self._offer_to(name, event)

    def _offer_to(self, name: str, event: Event) -> None:
        sub = self._subs[name]
        if not self.alive or not sub.wants(event):
            return
        weather, chance = self._relay.weather, self._relay.random
        for forged in self._forgeries(event):
            self._deliver_later(name, forged)
        if not self.up or chance.random() < weather.drop:
            self._missed[name, event.id] = event
            return
        self._deliver_later(name, event)
        if chance.random() < weather.repeat:
            if chance.random() < 0.5:  # long ago, as far as the memory of ids is concerned
                sub.delivery._seen = Seen()
            self._deliver_later(name, event)

    def _forgeries(self, event: Event) -> Iterable[Event]:
        """Another content under the same id, or under an id of its own and somebody else's signature; or unasked."""
        weather, chance = self._relay.weather, self._relay.random
        if chance.random() >= weather.forge:
            return
        changed = replace(event, content=event.content + " forged")
        if chance.random() < 0.5:
            draft = Draft(changed.kind, changed.content, changed.tags, changed.created_at)
            changed = replace(changed, id=type(event.id)(digest(changed.pubkey, draft).hex()))
        self._relay.forgeries.append(changed)
        yield changed
        if chance.random() < 0.3:
            yield chance.choice(list(self._relay.events.values()))

    def _deliver_later(self, name: str, event: Event) -> None:
        async def go() -> None:
            sub = self._subs.get(name)
            if self.alive and sub is not None:
                value = self._relay.wire.get(event.id)
                known = value is not None and self._relay.events[event.id] is event
                sub.delivery.offer(self._source, sub.stream, "", value if known else as_wire(event), 1_000)

        self._relay.later(self._relay.random.random() * self._relay.weather.delay, go)

    async def _resync(self) -> None:
        """As after a lost connection: what was missed is asked for again, and what a handler could not take."""
        if not self.alive:
            return
        if self.up:
            missed, self._missed = self._missed, {}
            for (name, _), event in missed.items():
                if name in self._subs:
                    self._offer_to(name, event)
            if self._source.health.handler_errors > self._errors:
                self._errors = self._source.health.handler_errors
                for event in list(self._relay.events.values()):
                    self.offer(event)
        self._relay.later(self._relay.weather.resync, self._resync)
