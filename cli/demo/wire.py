"""A bare relay client for the demo: it sees what any stranger on the relay could see, and verifies all of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import orjson

from core.error import Unavailable
from relays.error import ForgedEvent, MalformedEvent
from relays.event import Event, verified

_PAGE = 400
_WAIT = 30.0


class Wire:
    """One connection that keeps every verified event of the relay, in order of arrival."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._stored = asyncio.Event()
        self._answers: dict[str, asyncio.Future[tuple[bool, str]]] = {}
        self._changed = asyncio.Condition()
        self.events: dict[str, Event] = {}
        self.bad = 0
        self.listeners: list[Callable[[Event], None]] = []

    async def _read(self) -> None:
        async for message in self._socket:
            frame = orjson.loads(message.data)
            if frame[0] == "EVENT":
                await self._take(frame[2])
            elif frame[0] == "EOSE":
                self._stored.set()
            elif frame[0] == "OK" and (waiting := self._answers.pop(frame[1], None)) and not waiting.done():
                waiting.set_result((frame[2], frame[3]))

    async def _take(self, value: object) -> None:
        try:
            event = verified(value)
        except (MalformedEvent, ForgedEvent):
            self.bad += 1
            return
        if event.id in self.events:
            return
        self.events[event.id] = event
        for listener in self.listeners:
            listener(event)
        async with self._changed:
            self._changed.notify_all()

    async def publish(self, event: Event) -> None:
        """Hand an event to the relay.

        Raises:
            Unavailable: it did not say OK in time, or refused.
        """
        answer: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()
        self._answers[event.id] = answer
        await self._socket.send_str('["EVENT",' + event.to_json() + "]")
        good, reason = await asyncio.wait_for(answer, _WAIT)
        if not good:
            raise Unavailable(f"The relay refused the event: {reason}.")

    async def until(self, found: Callable[[Event], bool], timeout: float) -> Event:
        """The first event, old or new, for which `found` holds.

        Raises:
            Unavailable: none came in time.
        """
        end = time.monotonic() + timeout
        done = 0
        while True:
            for event in list(self.events.values())[done:]:
                done += 1
                if found(event):
                    return event
            left = end - time.monotonic()
            if left <= 0:
                raise Unavailable("What was expected did not appear on the relay in time.")
            async with self._changed:
                if len(self.events) == done:
                    try:
                        await asyncio.wait_for(self._changed.wait(), left)
                    except TimeoutError:
                        continue


@asynccontextmanager
async def watching(http: aiohttp.ClientSession, url: str) -> AsyncIterator[Wire]:
    """Follow everything on a relay, live."""
    async with http.ws_connect(url, max_msg_size=1 << 20) as socket:
        wire = Wire(socket)
        reader = asyncio.create_task(wire._read())
        try:
            await socket.send_str('["REQ","all",{"limit":1000}]')
            await asyncio.wait_for(wire._stored.wait(), _WAIT)
            yield wire
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)


async def stored(http: aiohttp.ClientSession, url: str) -> list[Event]:
    """Every event the relay holds, oldest first, each verified; pages past the relay's result limit."""
    found: dict[str, Event] = {}
    until: int | None = None
    async with http.ws_connect(url, max_msg_size=1 << 20) as socket:
        while True:
            filter_: dict[str, int] = {"limit": _PAGE} | ({"until": until} if until is not None else {})
            await socket.send_str(orjson.dumps(["REQ", "page", filter_]).decode())
            page: list[Event] = []
            while (frame := orjson.loads((await asyncio.wait_for(socket.receive(), _WAIT)).data))[0] != "EOSE":
                if frame[0] == "EVENT":
                    page.append(verified(frame[2]))
            await socket.send_str('["CLOSE","page"]')
            fresh = [event for event in page if event.id not in found]
            found.update((event.id, event) for event in fresh)
            if len(page) < _PAGE or not fresh:
                return sorted(found.values(), key=lambda event: event.created_at)
            until = min(event.created_at for event in page)
