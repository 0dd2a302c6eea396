"""Listens at a mint's websocket (NUT-17), so that a change is seen in a moment and not at the next look.

One socket per mint, open while something is watched and a little longer: one payment follows another. What comes over
it is never believed, only looked up: a mint without a websocket, or one that lies there, costs time and nothing else.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp

from core.clock import Clock
from wallet.cashu.address import canonical_url
from wallet.cashu.subscription import MAX_FRAME, Topic, changed, granted, subscribe, unsubscribe
from wallet.model import Watch

_log = logging.getLogger(__name__)

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 300.0
STEADY_S = 30.0  # a socket that held so long was a good one
IDLE_S = 30.0  # so long it stays open when nothing is watched any more
MAX_WATCHED = 500  # subscriptions at one mint; mints take a thousand
_HEARTBEAT_S = 20.0
_PAUSE_S = 0.005  # between two frames: each costs a look-up, and the mint sets their number
_CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class _Watched:
    topic: Topic
    names: tuple[str, ...]
    hurry: Callable[[], None]
    watch: Watch


class _Moved(aiohttp.ClientError):
    """The mint sends us elsewhere."""


async def _refuse(_: object, __: object, redirect: aiohttp.TraceRequestRedirectParams) -> None:
    redirect.response.close()
    raise _Moved


def _straight() -> aiohttp.TraceConfig:
    """No redirect is followed. `ws_connect` cannot be told so, and a mint could have us ask what only we reach."""
    told = aiohttp.TraceConfig()
    told.on_request_redirect.append(_refuse)
    return told


class Watcher:
    """The websocket of one mint.

    Args:
        url: the mint's address.
        http: makes the connection; its owner closes it.
        clock: the pace of tries.
    """

    def __init__(self, url: str, http: aiohttp.ClientSession, clock: Clock) -> None:
        self.url = canonical_url(url)
        self._http, self._clock = http, clock
        self._watched: dict[str, _Watched] = {}
        self._told: set[str] = set()  # subscriptions that the mint knows on the present socket
        self._numbers = count(1)
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @contextmanager
    def watching(self, topic: Topic, names: Sequence[str], hurry: Callable[[], None]) -> Iterator[Watch]:
        """Call `hurry` whenever the mint says that one of these has changed, until the block is left."""
        watch = Watch()
        if len(self._watched) >= MAX_WATCHED or not names:
            yield watch
            return
        name = f"v{next(self._numbers)}"
        self._watched[name] = _Watched(topic, tuple(names), hurry, watch)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name=f"watch {self.url}")
        try:
            yield watch
        finally:
            del self._watched[name]
            self._changed.set()

    async def aclose(self) -> None:
        """End the connection. What is watched then is looked at in the usual way."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self) -> None:
        wait = FIRST_WAIT_S
        while self._watched:
            began = self._clock.monotonic()
            try:
                await self._converse()
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                _log.debug("no word from a mint: %s", type(error).__name__, extra={"action": "mint_socket"})
            if not self._watched:
                return
            wait = FIRST_WAIT_S if self._clock.monotonic() - began >= STEADY_S else min(2 * wait, LONGEST_WAIT_S)
            await self._clock.sleep(wait)

    async def _converse(self) -> None:
        """One connection, until it ends or nothing is watched any more."""
        address = f"ws{self.url.removeprefix('http')}/v1/ws"
        trace = [_straight()]
        async with aiohttp.ClientSession(
            connector=self._http.connector, connector_owner=False, trace_configs=trace
        ) as http:
            async with asyncio.timeout(_CONNECT_S):
                link = await http.ws_connect(address, max_msg_size=MAX_FRAME, heartbeat=_HEARTBEAT_S)
            await self._talk(link)

    async def _talk(self, link: aiohttp.ClientWebSocketResponse) -> None:
        self._told = set()
        try:
            reading = asyncio.create_task(self._read(link))
            try:
                while not reading.done():
                    self._changed.clear()
                    await self._tell(link)
                    if not await self._stirs(reading):
                        return
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        finally:
            for one in self._watched.values():
                one.watch.heard = False
            await link.close()

    async def _stirs(self, reading: asyncio.Task[None]) -> bool:
        """Wait for something new, or for the end of the socket; false if for a while nothing is watched."""
        waits: set[asyncio.Task[Any]] = {asyncio.create_task(self._changed.wait())}
        if not self._watched:
            waits.add(asyncio.create_task(self._clock.sleep(IDLE_S)))
        try:
            await asyncio.wait({reading, *waits}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
        return bool(self._watched) or self._changed.is_set()

    async def _tell(self, link: aiohttp.ClientWebSocketResponse) -> None:
        """Have the mint know what is watched now, and no more."""
        for name in self._told - self._watched.keys():
            self._told.discard(name)
            await link.send_str(unsubscribe(next(self._numbers), name))
        for name, one in list(self._watched.items()):
            if name not in self._told:
                self._told.add(name)
                await link.send_str(subscribe(next(self._numbers), one.topic, name, one.names))

    async def _read(self, link: aiohttp.ClientWebSocketResponse) -> None:
        async for message in link:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            if (one := self._watched.get(granted(message.data) or "")) is not None:
                one.watch.heard = True
            elif (one := self._watched.get(changed(message.data) or "")) is not None:
                one.hurry()
            await self._clock.sleep(_PAUSE_S)


def watchers(urls: Sequence[str], http: aiohttp.ClientSession, clock: Clock) -> dict[str, Watcher]:
    """One for each mint, by canonical address. Connects to nothing yet."""
    made = (Watcher(url, http, clock) for url in urls)
    return {one.url: one for one in made}
