"""The relay pool: all relays of the node over one socket each, under one name for each subscription.

Everything about what to say to a relay is in `relays.connection`; here are tasks, sockets, threads and rows.
A handler gets every matching event at least once and, within memory (kept over restarts in table `handled`), not
twice; what it does durably must be guarded by its own row (table `seen`), written in the same unit as what it causes.
"""

import asyncio
import contextlib
import itertools
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import aiohttp

from core.clock import Clock
from core.effect import Permit
from core.error import VendoError
from core.identifier import PubKey
from core.unit import UnitOfWork
from relays.address import canonical
from relays.audience import Audience
from relays.authentication import Authenticator, Keys
from relays.connection import Connection
from relays.cursor import Cursors
from relays.delivery import Delivery, Handler
from relays.event import MAX_EVENT_BYTES, Event
from relays.fact import Facts
from relays.filter import Filter
from relays.guard import guarded
from relays.handled import Handled
from relays.health import RelayHealth, absorb
from relays.limitation import event_room
from relays.link import HEARTBEAT_S, Link
from relays.publication import Done
from relays.shard import Shards
from relays.spare import Spares
from relays.subscription import Spec
from relays.verdict import Verdict, lost

log = logging.getLogger(__name__)

TICK_S = 0.2
SAVE_S = 1.0
WAIT_UP_S = 5.0
GRACE_S = 3.0
MAX_FOREIGN = 64


class Pool:
    """All relays of the node.

    Args:
        urls: the node's own relays.
        unit: where cursors and facts are kept.
        clock: time.
        check: refuses what the gate has not permitted.
        auth: the keys to authenticate with (NIP-42); None stays unknown everywhere.
        heartbeat_s: seconds between pings; a relay that does not answer one within half of that is left.
        known: further relays that the operator named: connected only while they are needed, and not held to
            public addresses.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        unit: UnitOfWork,
        clock: Clock,
        check: Callable[[Permit], None],
        auth: Authenticator | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        known: Sequence[str] = (),
    ) -> None:
        self.urls = tuple(dict.fromkeys(canonical(url) for url in urls))
        self._clock = clock
        self._check = check
        self._auth = auth
        self._heartbeat_s = heartbeat_s
        self._known = frozenset(canonical(url) for url in known)
        self._cursors = Cursors(unit)
        self._facts = Facts(unit, clock)
        self._handled = Handled(unit, clock)
        self._audiences: dict[str, Audience] = {}
        self._stale: set[str] = set()
        self._spares = Spares(self._open_spare, lambda link: self._cursors.gather(link.connection), clock)
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
        await self._facts.load()
        with ThreadPoolExecutor(1, thread_name_prefix="verify") as self._executor:
            async with (
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._own,
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, socket_factory=guarded)) as self._guest,
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
        deliveries = list(self._deliveries.values())
        for delivery in deliveries:
            delivery.stop()
        self._deliveries.clear()
        if self._workers:
            await asyncio.wait(self._workers, timeout=GRACE_S)
        await self._save([*deliveries])
        self._tasks = None  # nothing more is started
        for task in [*self._workers, *self._talks]:
            task.cancel()

    async def _tick(self) -> None:
        saved_at = self._clock.monotonic()
        while True:
            await self._clock.sleep(TICK_S)
            for link in [*self._links.values(), *self._spares.links]:
                link.tick()
                if link.superfluous or link.connection.anew:
                    await link.leave()
            for url, link in list(self._links.items()):
                if link.connection.traits.keys == "one":
                    self._spares.turn(url, self._keys_apart(link))
            if self._clock.monotonic() - saved_at >= SAVE_S:
                saved_at = self._clock.monotonic()
                deliveries = list(self._deliveries.values())
                await self._save(deliveries)
                await self._handled.prune([one for one in deliveries if one.remembers])

    async def _save(self, deliveries: Sequence[Delivery]) -> None:
        """Events before cursors: a cursor that is behind costs a second look, one that is ahead would cost more."""
        await self._handled.save(deliveries)
        await self._cursors.save(link.connection for link in [*self._links.values(), *self._spares.links])
        await self._facts.save()

    def _keys_apart(self, link: Link) -> list[str]:
        """The keys that need a socket of their own, since the relay takes one key per connection."""
        keys = self._auth.keys(link.connection.url)[1:] if self._auth is not None else ()
        guarded = [shards.audience for shards in link.connection.shards.values() if shards.guarded]
        return [key for key in keys if any(key in audience for audience in guarded)]

    def _open_spare(self, url: str, key: str) -> Link:
        """A further socket to one of our relays, for one key."""
        assert self._own is not None
        link = self._make(url, self._own, lambda: (PubKey(key),), foreign=False)
        for audience in self._audiences.values():
            if key in audience:
                self._attend(link, audience, frozenset({key}))
        self._run(link)
        return link

    def _open(self, url: str, session: aiohttp.ClientSession, *, foreign: bool) -> Link:
        link = self._links[url] = self._make(url, session, lambda: self._keys(url), foreign=foreign)
        if not foreign:
            for delivery in self._deliveries.values():
                self._ask(link, delivery.spec)
        self._run(link)
        return link

    def _keys(self, url: str) -> Sequence[PubKey]:
        """The keys that the main connection to a relay may show."""
        if self._auth is None:
            return ()
        keys = self._auth.keys(url)
        return keys[:1] if self._facts.traits(url).keys == "one" else keys

    def _make(self, url: str, session: aiohttp.ClientSession, keys: Keys, *, foreign: bool) -> Link:
        connection = Connection(
            url,
            token=lambda: secrets.token_hex(4) + ".",
            jitter=lambda most: self._jitter(0.0, most),
            keys=keys,
            traits=self._facts.traits(url),
            held=self._held,
        )
        return Link(
            connection,
            session=session,
            clock=self._clock,
            deliveries=self._deliveries,
            on_up=self._announce_up,
            facts=self._facts,
            authenticator=self._auth,
            foreign=foreign,
            heartbeat_s=self._heartbeat_s,
        )

    def _run(self, link: Link) -> None:
        assert self._tasks is not None
        talk = self._tasks.create_task(link.run(), name=f"relay {link.connection.url}")
        self._talks.add(talk)
        talk.add_done_callback(lambda task: self._closed(task, link))
        link.task = talk

    def _held(self, name: str, since: int, until: int) -> list[tuple[int, str]]:
        delivery = self._deliveries.get(name)
        return [] if delivery is None else delivery.held(since, until)

    def _closed(self, task: asyncio.Task[None], link: Link) -> None:
        self._talks.discard(task)
        if self._links.get(link.connection.url) is link:
            del self._links[link.connection.url]
        self._spares.settled(link)

    def _start(self, delivery: Delivery) -> None:
        assert self._tasks is not None
        assert self._executor is not None
        worker = self._tasks.create_task(
            self._work(delivery, self._executor), name=f"subscription {delivery.spec.name}"
        )
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def _work(self, delivery: Delivery, executor: ThreadPoolExecutor) -> None:
        if delivery.remembers:
            try:
                await self._handled.recall(delivery)
            except VendoError as error:  # then some events are handed over once more
                log.warning("What was handled was not read: %s", error, extra={"action": "handled_unread"})
        await delivery.run(executor)

    def _announce_up(self, url: str) -> None:
        for listener in self._listeners:
            listener(url)

    def on_up(self, listener: Callable[[str], None]) -> None:
        """Have it called with a relay's address each time it is connected."""
        self._listeners.append(listener)

    # ---- subscriptions

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
        """Have the handler called for every event that matches, from all relays, in order of arrival.

        `name` is stable over restarts: reading resumes under it. Subscribing again under a name replaces it; with
        other filters it is read from the beginning. `backdated` is for gift wraps, dated up to two days back.
        With `remember` an event that the handler took is not handed over again after a restart: right if what the
        handler does is durable when it returns. `repeated` is told of the id of an event that was handled and is sent
        once more; that is not verified again, and the same from every further relay.
        """
        self._subscribe(Spec(name, tuple(filters), backdated), handler, remember=remember).repeated = repeated

    def audience(
        self, name: str, kinds: frozenset[int], tag: str, handler: Handler, *, backdated: bool = False
    ) -> Audience:
        """Have the handler called once for every event of these kinds that names, by `tag`, a key of the audience.

        Events for one key are handled in order, those for some others at the same time. Keys come and go by
        `Audience.add` and `remove`; thousands share a few REQs. Names as in `subscribe`. A name
        that exists with the same kinds and tag gets the new handler and keeps its keys.
        """
        known, delivery = self._audiences.get(name), self._deliveries.get(name)
        if known is not None and delivery is not None and (known.kinds, known.tag) == (kinds, tag):
            delivery.handler = handler
            return known
        self.unsubscribe(name)
        audience = self._audiences[name] = Audience(
            name,
            kinds,
            tag,
            lambda key: self._joined(name, key),
            lambda key: self._parted(name, key),
            backdated=backdated,
        )
        spec = Spec(name, (), backdated)
        delivery = self._deliveries[name] = Delivery(
            spec, self._listened(audience, handler), self._clock, audience.matches, remember=True, lane=audience.lane
        )
        if self._tasks is not None:
            self._start(delivery)
            for link in self._links.values():
                if not link.foreign:
                    self._attend(link, audience, None)
        return audience

    def _listened(self, audience: Audience, handler: Handler) -> Handler:
        """The handler, and beside it word for relays where keys take turns."""
        spares = self._spares

        async def listen(event: Event, url: str) -> None:
            if url in spares:
                spares.heard(url, audience.concerned(event))
            await handler(event, url)

        return listen

    def _attend(self, link: Link, audience: Audience, only: frozenset[str] | None) -> None:
        url, name = link.connection.url, audience.name
        own = self._cursors.keys(url, name)
        if only is not None:
            own = {key: high for key, high in own.items() if key in only}
        shards = Shards(audience, self._cursors.high(url, name), own, only)
        link.connection.attend(shards, self._clock.now(), self._clock.monotonic())
        link.flush()

    def _joined(self, name: str, key: str) -> None:
        for link in [*self._links.values(), *self._spares.links]:
            shards = link.connection.shards.get(name)
            if shards is not None:
                shards.add(key)
        if self._tasks is not None and not self._stale:
            asyncio.get_running_loop().call_soon(self._plan)
        self._stale.add(name)

    def _parted(self, name: str, key: str) -> None:
        self._cursors.forget_key(name, key)
        for link in [*self._links.values(), *self._spares.links]:
            shards = link.connection.shards.get(name)
            if shards is not None:
                shards.remove(key)

    def _plan(self) -> None:
        stale, self._stale = self._stale, set()
        for link in list(self._links.values()):
            for name in stale:
                link.connection.plan(name, self._clock.now(), self._clock.monotonic())
            link.flush()

    def _subscribe(self, spec: Spec, handler: Handler, *, remember: bool = False) -> Delivery:
        known = self._deliveries.get(spec.name)
        if known is not None:
            if known.spec == spec:
                known.handler = handler
                return known
            self.unsubscribe(spec.name)
        delivery = self._deliveries[spec.name] = Delivery(spec, handler, self._clock, remember=remember)
        if self._tasks is not None:
            self._start(delivery)
            for link in self._links.values():
                if not link.foreign or spec.relays is not None:
                    self._ask(link, spec)
                    link.flush()
        return delivery

    def _ask(self, link: Link, spec: Spec) -> None:
        audience = self._audiences.get(spec.name)
        if audience is not None:
            self._attend(link, audience, None)
            return
        if spec.relays is not None and link.connection.url not in spec.relays:
            return
        high = self._cursors.high(link.connection.url, spec.name) if spec.durable else None
        link.connection.add(spec, high, self._clock.now(), self._clock.monotonic())

    def unsubscribe(self, name: str) -> None:
        """End a subscription and forget how far it had read. The event that is being handled is finished."""
        delivery = self._deliveries.pop(name, None)
        if delivery is None:
            return
        delivery.stop()
        self._audiences.pop(name, None)
        if delivery.spec.durable:
            self._cursors.forget(name)
            self._handled.forget(name)
        for link in [*self._links.values(), *self._spares.links]:
            link.connection.leave(name)
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
        if name in self._audiences:
            groups = ((link.health.up, link.connection.shards.get(name)) for link in self._links.values())
            return any(up and shards is not None and shards.whole for up, shards in groups)
        streams = (link.connection.streams.get(name) for link in self._links.values())
        return any(stream is not None and stream.whole for stream in streams)

    async def fetch(
        self, filters: Sequence[Filter], timeout: float, relays: Sequence[str] | None = None
    ) -> list[Event]:
        """What relays have stored now, newest first; what came within `timeout` seconds.

        Args:
            filters: what is wanted.
            timeout: in seconds.
            relays: which relays are asked; None for those of our own that are connected. Others are connected for
                a while; a stranger's only at a public address.

        Raises:
            InvalidInput: one of `relays` is no relay's address.
        """
        found: dict[str, Event] = {}

        async def keep(event: Event, _: str) -> None:
            found[event.id] = event

        only = None if relays is None else frozenset(canonical(url) for url in relays)
        if only is not None and not [link for url in sorted(only) if (link := self.reach(url)) is not None]:
            return []
        spec = Spec(f"fetch/{next(self._serial)}", tuple(filters), durable=False, relays=only)
        delivery = self._subscribe(spec, keep)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    while not self._fetched(spec):
                        delivery.changed.clear()
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(delivery.changed.wait(), TICK_S)
        finally:
            self.unsubscribe(spec.name)
            for url in only or ():
                if url in self._links:
                    self._links[url].used_at = self._clock.monotonic()
        return sorted(found.values(), key=lambda event: (-event.created_at, event.id))

    def _fetched(self, spec: Spec) -> bool:
        """Whether every relay that is asked has answered; of our own, those that are connected, and at least one."""
        if spec.relays is None:
            asked = [link for link in self._links.values() if link.health.up and not link.foreign]
            if not asked:
                return False
        else:
            links = [self._links.get(url) for url in spec.relays]
            asked = [link for link in links if link is not None and (link.health.up or not link.connection.failures)]
        streams = [link.connection.streams.get(spec.name) for link in asked]
        return all(one is None or one.whole or bool(one.stopped) for one in streams)

    def health(self) -> list[RelayHealth]:
        """What is known about each relay; copies."""
        copies = {}
        for url, link in self._links.items():
            link.count()
            copies[url] = replace(link.health, stopped=dict(link.health.stopped))
        for health in self._spares.health:
            if health.url in copies:
                absorb(copies[health.url], health)
        return list(copies.values())

    # ---- publishing

    def room(self) -> int:
        """Bytes of an event that all of the node's own relays take, as far as they say."""
        links = [self._links[url] for url in self.urls if url in self._links]
        return min((event_room(link.connection.information) for link in links), default=MAX_EVENT_BYTES)

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
        if url in self._known and self._own is not None:
            return self._open(url, self._own, foreign=True)
        if len(self._links) - len(self.urls) >= MAX_FOREIGN:
            return None
        return self._open(url, self._guest, foreign=True)
