"""The relay pool: all relays of the node over one socket each, under one name for each subscription.

Everything about what to say to a relay is in `relays.connection`; here are tasks, sockets, threads and rows.
A handler gets every matching event at least once and, within memory, not twice; what it does durably must be
guarded by its own row (table `seen`), written in the same unit as what it causes.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import aiohttp

from core.clock import Clock
from core.effect import Permit
from core.unit import UnitOfWork
from relays.address import canonical, is_public
from relays.authentication import Signer
from relays.connection import Connection
from relays.cursor import Cursors
from relays.delivery import Delivery, Handler
from relays.event import Event
from relays.filter import Filter
from relays.health import RelayHealth
from relays.link import HEARTBEAT_S, Link
from relays.publication import Done
from relays.subscription import Spec
from relays.verdict import Verdict, lost

log = logging.getLogger(__name__)

TICK_S = 0.2
SAVE_S = 1.0
WAIT_UP_S = 5.0
GRACE_S = 3.0
MAX_FOREIGN = 32


def _guarded(info: Any) -> socket.socket:
    """A socket to the public internet only: a stranger's relay address must not reach into our own network."""
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        raise OSError(f"{address[0]} is not a public address")
    return socket.socket(family, kind, protocol)


class Pool:
    """All relays of the node. `auth(relay, challenge)` signs a NIP-42 answer, or returns None to stay unknown."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        unit: UnitOfWork,
        clock: Clock,
        check: Callable[[Permit], None],
        auth: Signer | None = None,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.urls = tuple(dict.fromkeys(canonical(url) for url in urls))
        self._clock = clock
        self._check = check
        self._auth = auth
        self._heartbeat_s = heartbeat_s
        self._cursors = Cursors(unit)
        self._deliveries: dict[str, Delivery] = {}
        self._links: dict[str, Link] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._own: aiohttp.ClientSession | None = None
        self._guest: aiohttp.ClientSession | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._jitter = random.SystemRandom().uniform
        self._serial = itertools.count(1)

    # ---- life

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Serve until `stop`. `ready` is set when started, not when connected."""
        await self._cursors.load()
        with ThreadPoolExecutor(1, thread_name_prefix="verify") as self._executor:
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._own,
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, socket_factory=_guarded)) as self._guest,
                asyncio.TaskGroup() as self._tasks,
            ):
                for url in self.urls:
                    self._open(url, self._own, foreign=False)
                for delivery in self._deliveries.values():
                    self._start(delivery)
                ticker = self._tasks.create_task(self._tick(), name="relay ticker")
                ready.set()
                await stop.wait()
                await self._drain()
                ticker.cancel()
        self._links.clear()

    async def _drain(self) -> None:
        """Let handlers finish what they have begun, while their publications can still be answered; then leave."""
        for delivery in self._deliveries.values():
            delivery.stop()
        self._deliveries.clear()
        if self._workers:
            await asyncio.wait(self._workers, timeout=GRACE_S)
        await self._cursors.save(link.connection for link in self._links.values())
        self._tasks = None  # nothing more is started
        for task in [*self._workers, *self._talks]:
            task.cancel()

    async def _tick(self) -> None:
        saved_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(TICK_S)
            for link in list(self._links.values()):
                link.tick()
                if link.superfluous:
                    await link.leave()
            if self._clock.monotonic() - saved_at >= SAVE_S:
                saved_at = self._clock.monotonic()
                await self._cursors.save(link.connection for link in list(self._links.values()))

    def _open(self, url: str, session: aiohttp.ClientSession, *, foreign: bool) -> Link:
        assert self._tasks is not None
        connection = Connection(
            url,
            token=lambda: secrets.token_hex(4) + ".",
            jitter=lambda most: self._jitter(0.0, most),
            auth=self._auth,
        )
        link = self._links[url] = Link(
            connection,
            session=session,
            clock=self._clock,
            deliveries=self._deliveries,
            on_up=self._announce_up,
            foreign=foreign,
            heartbeat_s=self._heartbeat_s,
        )
        if not foreign:
            for delivery in self._deliveries.values():
                self._ask(link, delivery.spec)
        talk = self._tasks.create_task(link.run(), name=f"relay {url}")
        self._talks.add(talk)
        talk.add_done_callback(lambda task: self._closed(task, link))
        return link

    def _closed(self, task: asyncio.Task[None], link: Link) -> None:
        self._talks.discard(task)
        if self._links.get(link.connection.url) is link:
            del self._links[link.connection.url]

    def _start(self, delivery: Delivery) -> None:
        assert self._tasks is not None
        assert self._executor is not None
        worker = self._tasks.create_task(delivery.run(self._executor), name=f"subscription {delivery.spec.name}")
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    def _announce_up(self, url: str) -> None:
        for listener in self._listeners:
            listener(url)

    def on_up(self, listener: Callable[[str], None]) -> None:
        """Have it called with a relay's address each time it is connected."""
        self._listeners.append(listener)

    # ---- subscriptions

    def subscribe(self, name: str, filters: Sequence[Filter], handler: Handler, *, backdated: bool = False) -> None:
        """Have the handler called for every event that matches, from all relays, in order of arrival.

        `name` is stable over restarts: reading resumes under it. Subscribing again under a name replaces it; with
        other filters it is read from the beginning. `backdated` is for gift wraps, dated up to two days back.
        """
        self._subscribe(Spec(name, tuple(filters), backdated), handler)

    def _subscribe(self, spec: Spec, handler: Handler) -> Delivery:
        known = self._deliveries.get(spec.name)
        if known is not None:
            if known.spec == spec:
                known.handler = handler
                return known
            self.unsubscribe(spec.name)
        delivery = self._deliveries[spec.name] = Delivery(spec, handler, self._clock)
        if self._tasks is not None:
            self._start(delivery)
            for link in self._links.values():
                if not link.foreign:
                    self._ask(link, spec)
                    link.flush()
        return delivery

    def _ask(self, link: Link, spec: Spec) -> None:
        high = self._cursors.high(link.connection.url, spec.name) if spec.durable else None
        link.connection.add(spec, high, self._clock.now(), self._clock.monotonic())

    def unsubscribe(self, name: str) -> None:
        """End a subscription and forget how far it had read. The event that is being handled is finished."""
        delivery = self._deliveries.pop(name, None)
        if delivery is None:
            return
        delivery.stop()
        if delivery.spec.durable:
            self._cursors.forget(name)
        for link in self._links.values():
            link.connection.remove(name)
            link.flush()

    async def caught_up(self, name: str, timeout: float) -> bool:
        """Wait until at least one relay has sent, and the handler has seen, all that it had stored.

        False if that does not happen within `timeout` seconds, or there is no such subscription.
        """
        delivery = self._deliveries.get(name)
        if delivery is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._whole(name):
                    delivery.changed.clear()
                    await delivery.changed.wait()
        return self._whole(name)

    def _whole(self, name: str) -> bool:
        streams = (link.connection.streams.get(name) for link in self._links.values())
        return any(stream is not None and stream.whole for stream in streams)

    async def fetch(self, filters: Sequence[Filter], timeout: float) -> list[Event]:
        """What the connected relays have stored now, newest first; what came within `timeout` seconds."""
        found: dict[str, Event] = {}

        async def keep(event: Event, _: str) -> None:
            found[event.id] = event

        spec = Spec(f"fetch/{next(self._serial)}", tuple(filters), durable=False)
        delivery = self._subscribe(spec, keep)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while not self._fetched(spec.name):
                        delivery.changed.clear()
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(delivery.changed.wait(), TICK_S)
        finally:
            self.unsubscribe(spec.name)
        return sorted(found.values(), key=lambda event: (-event.created_at, event.id))

    def _fetched(self, name: str) -> bool:
        """Whether every relay that is connected has answered, and at least one is."""
        up = [link for link in self._links.values() if link.health.up and not link.foreign]
        streams = [link.connection.streams.get(name) for link in up]
        return bool(up) and all(one is None or one.whole or bool(one.stopped) for one in streams)

    def health(self) -> list[RelayHealth]:
        """What is known about each relay; copies."""
        return [replace(link.health, stopped=dict(link.health.stopped)) for link in self._links.values()]

    # ---- publishing

    async def send(self, url: str, event: Event, permit: Permit) -> Verdict:
        """Send an event to one relay and wait for its word. Safe to repeat: the same event has the same id.

        Raises:
            Unpermitted: the gate did not give the permit.
            InvalidInput: `url` is no relay's address.
        """
        self._check(permit)
        link = self.reach(url)
        if link is None:
            return lost("the pool is not running, or talks to too many relays already")
        if not link.health.up:
            try:
                await asyncio.wait_for(link.opened.wait(), WAIT_UP_S)
            except TimeoutError:
                return lost("the relay is not connected")
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()

        def done(verdict: Verdict) -> None:
            if not answer.done():
                answer.set_result(verdict)

        link.publish(event.id, event.to_json(), done)
        return await answer

    def post(self, url: str, event_id: str, raw: str, permit: Permit, done: Done) -> bool:
        """Put an event of ours on the wire without waiting; `done` is called once with the verdict.

        False if the relay is not connected: then nothing was done. `raw` is the event's own JSON text.

        Raises:
            Unpermitted: the gate did not give the permit.
        """
        self._check(permit)
        link = self._links.get(url)
        if link is None or not link.health.up:
            return False
        link.publish(event_id, raw, done)
        return True

    def is_up(self, url: str) -> bool:
        """Whether `post` would send."""
        link = self._links.get(url)
        return link is not None and link.health.up

    def reach(self, url: str) -> Link | None:
        """The link to a relay, made if it is one that a stranger named (public addresses only, a bounded number).

        Raises:
            InvalidInput: `url` is no relay's address.
        """
        url = canonical(url)
        link = self._links.get(url)
        if link is not None or self._tasks is None or self._guest is None:
            return link
        if len(self._links) - len(self.urls) >= MAX_FOREIGN:
            return None
        return self._open(url, self._guest, foreign=True)
