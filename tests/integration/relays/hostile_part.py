"""A small relay that does as a test tells it: forges, floods, freezes, forgets, refuses, caps. Loopback only.

By itself it behaves: stores what comes, answers newest first up to `cap`, says EOSE and OK, passes on live events.
A test changes `on_req` or `on_event`, or speaks raw frames through `say`.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from core.clock import SystemClock
from core.effect import Permit
from core.error import Unpermitted
from core.identifier import EffectId, PubKey
from core.unit import UnitOfWork
from relays.authentication import Authenticator
from relays.event import Draft, Event, parse
from relays.filter import Filter, parse_filter
from relays.key import Key
from relays.negentropy import Vector, respond
from relays.outbox import Outbox
from relays.pool import Pool

PERMIT = Permit(EffectId("effect"))


def check(permit: Permit) -> None:
    if permit is not PERMIT:
        raise Unpermitted


class Session:
    """One client's connection."""

    def __init__(self, ws: web.WebSocketResponse) -> None:
        self.ws = ws
        self.subs: dict[str, list[Filter]] = {}

    async def say(self, *parts: Any) -> None:
        await self.raw(orjson.dumps(list(parts)).decode())

    async def raw(self, text: str) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self.ws.send_str(text)


ReqHook = Callable[[Session, str, list[Filter]], Awaitable[bool | None]]
EventHook = Callable[[Session, dict[str, Any]], Awaitable[bool | None]]


class HostileRelay:
    """See the module. A hook that returns True has dealt with the frame."""

    def __init__(self) -> None:
        self.cap = 500
        self.stored: dict[str, dict[str, Any]] = {}
        self.published: list[dict[str, Any]] = []
        self.requests: list[tuple[str, list[dict[str, Any]]]] = []
        self.auths: list[dict[str, Any]] = []
        self.sessions: list[Session] = []
        self.connections = 0
        self.on_req: ReqHook | None = None
        self.on_event: EventHook | None = None
        self.on_auth: EventHook | None = None
        self.information: dict[str, Any] | None = None
        self.asked_information = 0
        self.compared: list[tuple[str, dict[str, Any]]] = []
        self.refuse_compare = ""
        self._vectors: dict[tuple[Session, str], Vector] = {}
        self.frozen = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.frozen.set()
        for session in list(self.sessions):
            await session.ws.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def abort(self) -> None:
        """Cut every connection without a word."""
        for session in list(self.sessions):
            transport = session.ws._req.transport if session.ws._req is not None else None
            if transport is not None:
                transport.abort()

    def keep(self, *events: Event) -> None:
        for event in events:
            self.stored[event.id] = event.to_dict() | {"tags": [list(tag) for tag in event.tags]}

    async def broadcast(self, value: dict[str, Any] | Event) -> None:
        """Send an event live to whoever asked for it."""
        wire = value.to_dict() if isinstance(value, Event) else value
        event = parse(orjson.loads(orjson.dumps(wire)))
        for session in list(self.sessions):
            for sub, filters in list(session.subs.items()):
                if any(one.matches(event) for one in filters):
                    await session.say("EVENT", sub, wire)

    def found(self, filters: list[Filter]) -> list[dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for one in filters:
            hits = [value for value in self.stored.values() if one.matches(parse(value))]
            hits.sort(key=lambda value: (-value["created_at"], value["id"]))
            rows.update({value["id"]: value for value in hits[: min(self.cap, one.limit)]})
        return sorted(rows.values(), key=lambda value: (-value["created_at"], value["id"]))[: self.cap]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if "nostr+json" in request.headers.get("Accept", ""):
            self.asked_information += 1
            if self.information is None:
                return web.Response(status=404)
            return web.json_response(self.information)
        ws = web.WebSocketResponse(autoping=True)
        await ws.prepare(request)
        session = Session(ws)
        self.sessions.append(session)
        self.connections += 1
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    await self._on(session, orjson.loads(message.data))
        finally:
            self.sessions.remove(session)
        return ws

    async def _on(self, session: Session, frame: list[Any]) -> None:
        label = frame[0]
        if label == "REQ":
            filters = [parse_filter(value) for value in frame[2:]]
            self.requests.append((frame[1], frame[2:]))
            session.subs[frame[1]] = filters
            if self.on_req is None or not await self.on_req(session, frame[1], filters):
                await self.answer(session, frame[1], filters)
        elif label in ("NEG-OPEN", "NEG-MSG", "NEG-CLOSE"):
            await self._compare(session, frame)
        elif label == "CLOSE":
            session.subs.pop(frame[1], None)
        elif label == "EVENT":
            self.published.append(frame[1])
            if self.on_event is None or not await self.on_event(session, frame[1]):
                await self.take(session, frame[1])
        elif label == "AUTH":
            self.auths.append(frame[1])
            if self.on_auth is None or not await self.on_auth(session, frame[1]):
                await session.say("OK", frame[1]["id"], True, "")

    async def _compare(self, session: Session, frame: list[Any]) -> None:
        """NIP-77, over what is stored."""
        label, sub = frame[0], frame[1]
        key = (session, sub)
        if label == "NEG-CLOSE":
            self._vectors.pop(key, None)
            return
        if label == "NEG-OPEN":
            self.compared.append((sub, frame[2]))
            if self.refuse_compare:
                await session.say("NEG-ERR", sub, self.refuse_compare)
                return
            wanted = parse_filter(frame[2])
            held = [value for value in self.stored.values() if wanted.matches(parse(value))]
            self._vectors[key] = Vector((value["created_at"], value["id"]) for value in held)
        await session.say("NEG-MSG", sub, respond(self._vectors[key], frame[-1]))

    async def answer(self, session: Session, sub: str, filters: list[Filter]) -> None:
        for value in self.found(filters):
            await session.say("EVENT", sub, value)
        await session.say("EOSE", sub)

    async def take(self, session: Session, value: dict[str, Any]) -> None:
        known = value["id"] in self.stored
        self.stored[value["id"]] = value
        await session.say("OK", value["id"], not known, "duplicate: we have it" if known else "")
        if not known:
            await self.broadcast(value)


@contextlib.asynccontextmanager
async def relay() -> AsyncIterator[HostileRelay]:
    """A running relay on a free port."""
    part = HostileRelay()
    await part.start()
    try:
        yield part
    finally:
        await part.stop()


@contextlib.asynccontextmanager
async def serving(*services: Pool | Outbox) -> AsyncIterator[None]:
    """Run services; stop them in reverse order and wait for them."""
    stops, tasks = [], []
    for service in services:
        ready, stop = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(service.run(ready, stop))
        stops.append(stop)
        tasks.append(task)
        waiter = asyncio.create_task(ready.wait())
        await asyncio.wait([waiter, task], return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if task.done():
            await task
    try:
        yield
    finally:
        for stop, task in zip(reversed(stops), reversed(tasks), strict=True):
            stop.set()
            await asyncio.wait_for(task, 60)


class Keychain:
    """An authenticator over keys at hand; it notes what it was asked for."""

    def __init__(self, *keys: Key, calls: list[tuple[str, str]] | None = None) -> None:
        self.by_key = {key.pubkey: key for key in keys}
        self.calls = [] if calls is None else calls

    def keys(self, relay: str) -> Sequence[PubKey]:
        return list(self.by_key)

    async def answer(self, relay: str, challenge: str, pubkey: PubKey) -> Event | None:
        self.calls.append((relay, challenge))
        tags = (("relay", relay), ("challenge", challenge))
        return self.by_key[pubkey].sign(Draft(22242, "", tags, int(time.time())))

    async def lists(self, relay: str, message_bytes: int) -> Sequence[Event]:
        return ()


def make_pool(
    unit: UnitOfWork,
    *urls: str,
    heartbeat_s: float = 10.0,
    auth: Authenticator | None = None,
    known: Sequence[str] = (),
) -> Pool:
    return Pool(urls, unit=unit, clock=SystemClock(), check=check, auth=auth, heartbeat_s=heartbeat_s, known=known)


def make_outbox(pool: Pool, unit: UnitOfWork) -> Outbox:
    return Outbox(pool, unit, SystemClock(), lambda _: PERMIT)


class Collector:
    """A handler that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def __call__(self, event: Event, url: str) -> None:
        self.events.append(event)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for something to become true; fail if it does not."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def note(key: Key, text: str, created_at: int, *, kind: int = 1, tags: tuple[tuple[str, ...], ...] = ()) -> Event:
    return key.sign(Draft(kind, text, tags, created_at))
