"""A wire that drops, repeats, reorders, delays and forges, in place of relay and sockets.

`SimRelay` holds what was published. A `SimPool` is one node's view of it, with the interface of `relays.pool.Pool`
that drivers use. Nothing is lost for good: as a real pool resumes, a dropped event comes again at the next resync.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from core.effect import Permit
from relays.error import ForgedEvent
from relays.event import Event, parse, parse_json, verify
from relays.filter import Filter
from relays.verdict import STORED, Verdict, VerdictState, lost

Handler = Callable[[Event, str], Awaitable[None]]
URL = "sim://relay"


@dataclass(slots=True)
class Weather:
    """How bad the wire is, as chances from 0 to 1."""

    drop: float = 0.0
    repeat: float = 0.0
    forge: float = 0.0
    lose_ok: float = 0.0
    delay: float = 0.2
    resync: float = 3.0


class SimRelay:
    """Stores every event once, and shows it to those who subscribed."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self.random = random.Random(seed)
        self.weather = weather
        self.events: dict[str, Event] = {}
        self.pools: list[SimPool] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.on_stored: list[Callable[[Event], None]] = []

    def store(self, event: Event) -> None:
        if event.id in self.events:
            return
        self.events[event.id] = event
        for listener in self.on_stored:
            listener(event)
        for pool in self.pools:
            pool.offer(event)

    def later(self, seconds: float, make: Callable[[], Awaitable[None]]) -> None:
        async def go() -> None:
            await asyncio.sleep(seconds)
            await make()

        task = asyncio.get_running_loop().create_task(go())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class SimPool:
    """One node's connection; gone when the node crashes."""

    def __init__(self, relay: SimRelay, check: Callable[[Permit], None]) -> None:
        self._relay, self._check = relay, check
        self._subs: dict[str, tuple[tuple[Filter, ...], Handler]] = {}
        self._seen: set[tuple[str, str]] = set()
        self.urls = (URL,)
        self.alive = True
        self.forged = 0
        relay.pools.append(self)
        relay.later(relay.weather.resync, self._resync)

    def subscribe(self, name: str, filters: Sequence[Filter], handler: Handler, *, backdated: bool = False) -> None:
        self._subs[name] = (tuple(filters), handler)
        for event in list(self._relay.events.values()):
            self._offer_to(name, event)

    def unsubscribe(self, name: str) -> None:
        self._subs.pop(name, None)

    async def caught_up(self, name: str, timeout: float) -> bool:
        return True

    async def fetch(self, filters: Sequence[Filter], timeout: float) -> list[Event]:
        return [event for event in self._relay.events.values() if any(one.matches(event) for one in filters)]

    def cut(self) -> None:
        self.alive = False
        if self in self._relay.pools:
            self._relay.pools.remove(self)

    def on_up(self, listener: Callable[[str], None]) -> None:
        self._relay.later(0.0, _as_task(lambda: listener(URL)))

    def is_up(self, url: str) -> bool:
        return self.alive

    def reach(self, url: str) -> None:
        return None

    def post(self, url: str, event_id: str, raw: str, permit: Permit, done: Callable[[Verdict], None]) -> bool:
        self._check(permit)
        if not self.alive:
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
        filters, _ = self._subs[name]
        if not self.alive or not any(one.matches(event) for one in filters):
            return
        weather, chance = self._relay.weather, self._relay.random
        if chance.random() < weather.forge:
            forged = replace(event, content=event.content + " forged")
            self._relay.later(chance.random() * weather.delay, lambda: self._deliver(name, forged))
        if chance.random() < weather.drop:
            return
        for _ in range(2 if chance.random() < weather.repeat else 1):
            self._relay.later(chance.random() * weather.delay, lambda: self._deliver(name, event))

    async def _deliver(self, name: str, event: Event) -> None:
        if not self.alive or name not in self._subs:
            return
        try:
            verify(parse({**event.to_dict(), "tags": [list(tag) for tag in event.tags]}))
        except ForgedEvent:
            self.forged += 1
            return
        self._seen.add((name, event.id))
        await self._subs[name][1](event, URL)

    async def _resync(self) -> None:
        if not self.alive:
            return
        for name, (filters, _) in list(self._subs.items()):
            for event in list(self._relay.events.values()):
                if (name, event.id) not in self._seen and any(one.matches(event) for one in filters):
                    self._offer_to(name, event)
        self._relay.later(self._relay.weather.resync, self._resync)


def _as_task(act: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    async def go() -> None:
        act()

    return go
