"""A client that speaks to any relay in raw frames and takes its answers in whatever order they come (NIP-01).

Nothing of the node's own pool is used: what a relay answers is judged by the NIPs' texts alone.
"""

import asyncio
import json
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from relays.event import Draft, Event
from relays.key import Key

PATIENCE = 20.0
QUIET = 0.4


class NoAnswer(AssertionError):
    """The relay said nothing, where a NIP asks for an answer."""


class Refused(AssertionError):
    """CLOSED, where an answer was expected; its reason."""


@dataclass
class Sub:
    """A live subscription."""

    id: str
    frames: asyncio.Queue[list[Any]]
    stored: list[dict[str, Any]] = field(default_factory=list)

    async def frame(self, patience: float = PATIENCE) -> list[Any]:
        try:
            return await asyncio.wait_for(self.frames.get(), patience)
        except TimeoutError as error:
            raise NoAnswer(f"nothing came for {self.id} within {patience} s") from error

    async def event(self, patience: float = PATIENCE) -> dict[str, Any]:
        found = await self.frame(patience)
        assert found[0] == "EVENT", found
        event: dict[str, Any] = found[2]
        return event

    async def is_silent(self, patience: float = QUIET) -> bool:
        try:
            await self.frame(patience)
        except NoAnswer:
            return True
        return False


class Wire:
    """One websocket to a relay."""

    def __init__(self, url: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.url, self._socket = url, socket
        self._oks: dict[str, asyncio.Future[tuple[bool, str]]] = {}
        self._frames: defaultdict[str, asyncio.Queue[list[Any]]] = defaultdict(asyncio.Queue)
        self.notices: asyncio.Queue[str] = asyncio.Queue()
        self._challenge: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            match json.loads(message.data):
                case ["OK", str() as event_id, bool() as accepted, *rest]:
                    if (found := self._oks.get(event_id)) is not None and not found.done():
                        found.set_result((accepted, str(rest[0]) if rest else ""))
                case ["NOTICE", text]:
                    self.notices.put_nowait(text)
                case ["AUTH", str() as challenge]:
                    if self._challenge.done():
                        self._challenge = asyncio.get_running_loop().create_future()
                    self._challenge.set_result(challenge)
                case [str(), str() as sub, *_] as frame:
                    self._frames[sub].put_nowait(frame)

    @property
    def is_open(self) -> bool:
        return not self._socket.closed and not self.reading.done()

    async def say(self, *parts: Any) -> None:
        await self._socket.send_str(json.dumps(parts))

    async def say_raw(self, text: str) -> None:
        await self._socket.send_str(text)

    async def challenge(self) -> str:
        """The relay's challenge; some give it on connecting, some when something is asked that needs it."""
        await asyncio.wait({self._challenge}, timeout=QUIET)
        if not self._challenge.done():
            await self.say("REQ", "provoke", {"kinds": [1059], "limit": 1})
        try:
            return await asyncio.wait_for(asyncio.shield(self._challenge), PATIENCE)
        except TimeoutError as error:
            raise NoAnswer("no challenge came") from error

    async def publish(self, event: Event | dict[str, Any]) -> tuple[bool, str]:
        """The relay's OK and its reason."""
        body = event if isinstance(event, dict) else json.loads(event.to_json())
        return await self._answered("EVENT", body)

    async def put(self, *events: Event) -> None:
        """Publish what must be accepted."""
        for event in events:
            accepted, reason = await self.publish(event)
            assert accepted, f"refused kind {event.kind}: {reason}"

    async def _answered(self, verb: str, body: dict[str, Any]) -> tuple[bool, str]:
        answer = self._oks[body["id"]] = asyncio.get_running_loop().create_future()
        await self.say(verb, body)
        try:
            return await asyncio.wait_for(answer, PATIENCE)
        except TimeoutError as error:
            raise NoAnswer(f"no OK for {verb}") from error

    async def open(self, *filters: dict[str, Any], sub: str | None = None) -> Sub:
        """Subscribe and read up to EOSE."""
        sub = sub or secrets.token_hex(4)
        await self.say("REQ", sub, *filters)
        found = Sub(sub, self._frames[sub])
        while (frame := await found.frame())[0] == "EVENT":
            found.stored.append(frame[2])
        if frame[0] == "CLOSED":
            raise Refused(str(frame[2]) if len(frame) > 2 else "")
        assert frame == ["EOSE", sub], frame
        return found

    async def close(self, sub: Sub) -> None:
        await self.say("CLOSE", sub.id)

    async def ask(self, *filters: dict[str, Any]) -> list[dict[str, Any]]:
        """What is stored."""
        found = await self.open(*filters)
        await self.close(found)
        return found.stored

    async def ids(self, *filters: dict[str, Any]) -> list[str]:
        return [str(event["id"]) for event in await self.ask(*filters)]

    async def count(self, *filters: dict[str, Any]) -> int:
        sub = secrets.token_hex(4)
        await self.say("COUNT", sub, *filters)
        frame = await Sub(sub, self._frames[sub]).frame()
        if frame[0] == "CLOSED":
            raise Refused(str(frame[2]) if len(frame) > 2 else "")
        assert frame[:2] == ["COUNT", sub], frame
        return int(frame[2]["count"])

    async def raw(self, sub: str, *parts: Any) -> list[Any]:
        """Send a frame and give the first one that comes back for a subscription id."""
        await self.say(*parts)
        return await Sub(sub, self._frames[sub]).frame()

    async def auth(self, key: Key, **change: Any) -> tuple[bool, str]:
        """Answer the challenge (NIP-42), rightly or with something changed."""
        challenge = change.get("challenge") or await self.challenge()
        tags = (("relay", change.get("relay", self.url)), ("challenge", challenge))
        made = key.sign(Draft(change.get("kind", 22242), "", tags, int(change.get("at", time.time()))))
        body = json.loads(made.to_json()) | change.get("body", {})
        return await self._answered("AUTH", body)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    """A fresh connection."""
    async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0, compress=0) as socket:
        wire = Wire(url, socket)
        try:
            yield wire
        finally:
            wire.reading.cancel()
            await asyncio.wait({wire.reading})
