"""The socket to one relay: connects, reads, writes, and tells the pure `Connection` what came."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from core.clock import Clock
from core.error import VendoError
from relays.authentication import Ask, Authenticator
from relays.connection import Connection
from relays.crowd import PROBE
from relays.delivery import Delivery
from relays.error import MalformedEvent
from relays.event import MAX_EVENT_BYTES, Event
from relays.fact import Facts
from relays.health import RelayHealth
from relays.inquiry import information_of
from relays.limitation import MESSAGE_BYTES
from relays.message import (
    MAX_FRAME_BYTES,
    Answered,
    Challenged,
    Closed,
    Compared,
    Delivered,
    Ended,
    Noticed,
    RelayFrame,
    Uncompared,
    parse_relay,
)
from relays.publication import Done
from relays.subscription import Stream

log = logging.getLogger(__name__)

CONNECT_S = 10.0
INFORMATION_S = 2.0  # what a relay takes to say what it can do must not keep us from asking it
HEARTBEAT_S = 10.0
IDLE_S = 60.0
MAX_FAULTS = 1_000  # per connection; an honest relay sends none
MAX_FOREIGN_FAILURES = 5
_ENVELOPE_BYTES = 512
# A longer frame is dropped; only one far longer ends the connection, so that one oversized stored event
# cannot keep us from ever reading past it.
_HARD_LIMIT = 4 * MAX_FRAME_BYTES
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class Link:
    """One relay. `foreign` ones were named by strangers: they only take events, and are left when idle."""

    def __init__(
        self,
        connection: Connection,
        *,
        session: aiohttp.ClientSession,
        clock: Clock,
        deliveries: Mapping[str, Delivery],
        on_up: Callable[[str], None],
        facts: Facts,
        authenticator: Authenticator | None = None,
        foreign: bool = False,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self.connection = connection
        self.health = RelayHealth(connection.url)
        self.foreign = foreign
        self.used_at = 0.0
        self.opened = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._session = session
        self._clock = clock
        self._deliveries = deliveries
        self._on_up = on_up
        self._facts = facts
        self._authenticator = authenticator
        self._signing: set[asyncio.Task[None]] = set()
        self._heartbeat_s = heartbeat_s
        self._wake = asyncio.Event()
        self._faults = 0
        self._ws: aiohttp.ClientWebSocketResponse | None = None

    def flush(self) -> None:
        """Let the writer look at `connection.out`, and have signed what is to be signed."""
        if self.connection.out:
            self._wake.set()
        while self.connection.asks and self._ws is not None:
            task = asyncio.create_task(self._sign(self.connection.asks.popleft()), name="relay authentication")
            self._signing.add(task)
            task.add_done_callback(self._signing.discard)

    async def _sign(self, ask: Ask) -> None:
        """Have one AUTH signed. A key that cannot sign now is not shown on this connection."""
        assert self._authenticator is not None
        url, event = self.connection.url, None
        lists: Sequence[Event] = ()
        try:
            if ask.pubkey is None:
                most = self.connection.information.max_message_length or MESSAGE_BYTES
                lists = await self._authenticator.lists(url, most)
            else:
                event = await self._authenticator.answer(url, ask.challenge, ask.pubkey)
        except VendoError as error:
            log.warning(
                "Not authenticated to %s: %s", url, error, extra={"action": "auth_unsigned", "code": error.code}
            )
        now, mono = self._clock.now(), self._clock.monotonic()
        if ask.pubkey is None:
            self.connection.listed(lists, now, mono)
        else:
            self.connection.signed(ask, event, now, mono)
        self.flush()

    def fault(self) -> None:
        """Count something that no honest relay sends."""
        self._faults += 1

    async def run(self) -> None:
        """Stay connected until cancelled; a foreign link ends when it is idle or hopeless."""
        try:
            await self._stay()
        finally:
            if self.health.up:
                self._down()

    async def _stay(self) -> None:
        while True:
            try:
                await self._connect()
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.health.last_error = f"{type(error).__name__}: {error}"[:200]
            pause = self._down()
            if self.foreign and (self._idle() or self.connection.failures >= MAX_FOREIGN_FAILURES):
                return
            await self._clock.sleep(pause)

    async def _inquire(self) -> None:
        url = self.connection.url
        if not self._facts.is_fresh(url):
            self._facts.note(url, await information_of(url, self._session, INFORMATION_S))

    async def _connect(self) -> None:
        asking = asyncio.create_task(self._inquire(), name=f"information {self.connection.url}")
        ws: aiohttp.ClientWebSocketResponse | None = None
        try:
            async with asyncio.timeout(CONNECT_S):
                ws = await self._session.ws_connect(
                    self.connection.url,
                    max_msg_size=_HARD_LIMIT,
                    compress=0,
                    heartbeat=self._heartbeat_s,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                )
        finally:
            if ws is None:
                asking.cancel()
                await asyncio.wait([asking])
        try:
            await asking
            self.connection.information = self._facts.information(self.connection.url)
            self._up(ws)
            await self._talk(ws)
        finally:
            self._ws = None
            await self._end_signing()
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await ws.close()

    async def _end_signing(self) -> None:
        for task in self._signing:
            task.cancel()
        if self._signing:
            await asyncio.wait(self._signing)

    def _up(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws, self._faults = ws, 0
        self.health.up, self.health.since = True, self._clock.now()
        self.health.connects += 1
        self.health.stopped.clear()
        self.used_at = self._clock.monotonic()
        self.connection.opened(self._clock.now(), self._clock.monotonic())
        log.info("Connected to %s", self.connection.url, extra={"action": "relay_up", "relay": self.connection.url})
        self.flush()
        self.opened.set()
        self._on_up(self.connection.url)

    def _down(self) -> float:
        was_up = self.health.up
        self.opened.clear()
        self.health.up = False
        pause = self.connection.closed(self._clock.monotonic())
        self.health.failures = self.connection.failures
        if was_up:
            self.health.since = self._clock.now()
            log.info(
                "Lost %s: %s",
                self.connection.url,
                self.health.last_error,
                extra={"action": "relay_down", "relay": self.connection.url},
            )
        return pause

    def _idle(self) -> bool:
        connection = self.connection
        busy = connection.publications or connection.streams
        return not busy and self._clock.monotonic() - self.used_at > IDLE_S

    def publish(self, event_id: str, raw: str, done: Done) -> None:
        """Put an event on the wire; `done` is called once with the verdict."""
        self.used_at = self._clock.monotonic()
        self.connection.publish_raw(event_id, raw, done, self._clock.now(), self.used_at)
        self._wake.set()

    async def leave(self) -> None:
        """End this connection; `run` decides whether there will be another."""
        if self._ws is not None:
            await self._ws.close()

    def retire(self) -> None:
        """End for good."""
        if self.task is not None:
            self.task.cancel()

    @property
    def superfluous(self) -> bool:
        """Whether it is a foreign link that nobody uses any more."""
        return self.foreign and self.health.up and self._idle()

    async def _talk(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        writer = asyncio.create_task(self._write(ws), name=f"writer {self.connection.url}")
        try:
            await self._read(ws)
        finally:
            writer.cancel()
            await asyncio.wait([writer])
            error = None if writer.cancelled() else writer.exception()
            if error is not None and not isinstance(error, aiohttp.ClientError | OSError):
                raise error

    async def _write(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        out = self.connection.out
        while True:
            if not out:
                self._wake.clear()
                await self._wake.wait()
                continue
            frame = out.popleft()
            self.health.bytes_out += len(frame)
            await ws.send_str(frame)

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        sock = ws.get_extra_info("socket")
        async for message in ws:
            if sock is not None and _QUICKACK is not None:
                # Linux forgets it after each packet; without it a relay that leaves Nagle on stalls for 40 ms
                with contextlib.suppress(OSError):  # it is closed already, and this message came before that
                    sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            if message.type is aiohttp.WSMsgType.TEXT:
                crowded = self._on_frame(message.data)
                if crowded is not None:
                    await crowded.room(self.connection.url)
            else:
                self._malformed()
            if self._faults > MAX_FAULTS:
                self.health.last_error = f"more than {MAX_FAULTS} faults in one connection"
                return
        error = ws.exception()
        self.health.last_error = f"{type(error).__name__}: {error}"[:200] if error else f"closed ({ws.close_code})"

    def _malformed(self) -> None:
        self.health.malformed += 1
        self._faults += 1

    def _on_frame(self, raw: str) -> Delivery | None:
        """Act on a frame. Returns the delivery whose queue should first get room, if one is crowded."""
        self.health.bytes_in += len(raw)
        try:
            frame = parse_relay(raw)
        except MalformedEvent:
            self._malformed()
            return None
        if type(frame) is Delivered:
            return self._on_event(frame, len(raw))
        self._on_word(frame)
        self.flush()
        return None

    def _on_word(self, frame: RelayFrame) -> None:
        connection = self.connection
        now, mono = self._clock.now(), self._clock.monotonic()
        if type(frame) is Answered:
            connection.answered(frame, now, mono)
            if connection.publications.round_trip:
                self.health.round_trip.add(connection.publications.round_trip)
                connection.publications.round_trip = 0.0
        elif type(frame) is Ended:
            self._on_end(frame)
        elif type(frame) is Closed:
            self._on_closed(frame, now, mono)
        elif type(frame) is Challenged:
            connection.challenged(frame, now, mono)
        elif type(frame) is Compared:
            self._on_whole(connection.compared(frame, now, mono))
        elif type(frame) is Uncompared:
            connection.uncompared(frame, now, mono)
        elif type(frame) is Noticed:
            self.health.notices += 1
            log.debug("NOTICE %s", frame.text[:200], extra={"action": "relay_notice", "relay": connection.url})
        else:
            self.health.unasked += 1  # a COUNT: we never ask for one

    def _on_event(self, frame: Delivered, size: int) -> Delivery | None:
        if size > MAX_EVENT_BYTES + _ENVELOPE_BYTES:
            self._malformed()
            return None
        stream = self.connection.route(frame.sub)
        delivery = None if stream is None else self._deliveries.get(stream.spec.delivery)
        if stream is not None and stream.spec.name == PROBE:
            stream.got += 1
            return None
        if stream is None or delivery is None:
            self.health.unasked += 1  # also what was on its way when we closed the subscription
            return None
        return delivery if delivery.offer(self, stream, frame.sub, frame.value, size) else None

    def _on_end(self, frame: Ended) -> None:
        stream = self.connection.route(frame.sub)
        delivery = None if stream is None else self._deliveries.get(stream.spec.delivery)
        if delivery is not None:
            delivery.end(self, frame)
        elif stream is not None and stream.spec.name == PROBE:
            self.connection.ended(frame, self._clock.now(), self._clock.monotonic())

    def _on_whole(self, stream: Stream | None) -> None:
        delivery = None if stream is None else self._deliveries.get(stream.spec.delivery)
        if delivery is not None:
            delivery.changed.set()

    def _on_closed(self, frame: Closed, now: int, mono: float) -> None:
        stream = self.connection.route(frame.sub)
        reason = self.connection.refused(frame, now, mono)
        if reason and stream is not None:
            self.health.stopped[stream.spec.delivery] = reason
            log.warning(
                "%s will not serve %s: %s",
                self.connection.url,
                stream.spec.delivery,
                reason[:200],
                extra={"action": "subscription_stopped", "relay": self.connection.url},
            )

    def tick(self) -> None:
        """Called a few times a second."""
        now, mono = self._clock.now(), self._clock.monotonic()
        connection = self.connection
        self.count()
        if not self.health.up:
            return
        for stream in connection.tick(now, mono):
            self._on_end(Ended(stream.page_id, None))
        for name in connection.checks(now):
            connection.check(name, now, mono)
        self.flush()

    def count(self) -> None:
        """Bring those figures of `health` up to date that are counted elsewhere."""
        connection, health = self.connection, self.health
        health.in_flight = len(connection.publications)
        health.requests, health.queued = connection.open_requests, connection.queued
        health.sockets = int(health.up)
        health.authenticated, health.refused_keys = len(connection.auth.accepted), len(connection.auth.failed)
        for stream in connection.streams.values():
            if stream.stopped and not stream.spec.passing:
                health.stopped[stream.spec.delivery] = stream.stopped
