"""A listener with nothing but streams behind it, logs to watch, and a client that reads as slowly as it is told."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from core.error import VendoError
from fs.batch import Batch
from fs.feed import Feed
from fs.protocol import Record
from node.http.guard import problem
from node.http.hub import Hub
from node.http.stream import cursor


class Log:
    """Records with rising ids; every reading of it is counted.

    Args:
        page: how many records a reading hands over before others have their turn.
        delay_s: what looking for records takes.
    """

    def __init__(self, page: int = 200, delay_s: float = 0.0) -> None:
        self.records: list[Record] = []
        self.page, self.delay_s = page, delay_s
        self.opened = self.closed = self.pulled = 0
        self.ended = False
        self.fault: Exception | None = None
        self._feed = Feed()

    def add(self, count: int = 1, size: int = 20) -> None:
        for _ in range(count):
            number = len(self.records) + 1
            self.records.append(Record(number, f"{number} ".encode().ljust(size, b"x"), "said"))
        self._feed.grew("log")

    def finish(self, fault: Exception | None = None) -> None:
        self.ended, self.fault = True, fault
        self._feed.grew("log")

    @property
    def readings(self) -> int:
        return self.opened - self.closed

    async def watch(self, after: int | None) -> AsyncIterator[Record]:
        self.opened += 1
        try:
            at = len(self.records) if after is None else after
            while True:
                count = self._feed.count("log")
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                page = self.records[at : at + self.page]
                for record in page:
                    at = record.id
                    self.pulled += 1
                    yield record
                if page:
                    continue
                if self.fault is not None:
                    raise self.fault
                if self.ended:
                    return
                await self._feed.wait("log", count, 15.0)
        finally:
            self.closed += 1

    def batched(self, after: int | None) -> "Batches":
        return Batches(self, after)


class Batches:
    """The same reading; all records that are there come at once."""

    def __init__(self, log: Log, after: int | None) -> None:
        self._log, self._at = log, len(log.records) if after is None else after
        log.opened += 1

    def __aiter__(self) -> "Batches":
        return self

    async def __anext__(self) -> Record:
        return (await self._next(1)).records[0]

    async def batch(self) -> Batch:
        return await self._next(self._log.page)

    async def _next(self, most: int) -> Batch:
        while True:
            count = self._log._feed.count("log")
            if found := self._log.records[self._at : self._at + most]:
                after, self._at = self._at, found[-1].id
                self._log.pulled += len(found)
                return Batch(found, after, self._at)
            if self._log.ended:
                raise StopAsyncIteration
            await self._log._feed.wait("log", count, 15.0)

    async def aclose(self) -> None:
        self._log.closed += 1


@dataclass
class Booth:
    """The listener: `/<name>` is a stream."""

    hub: Hub
    streams: dict[str, Callable[[int | None], AsyncIterator[Record]]] = field(default_factory=dict)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        name = request.path.strip("/")
        try:
            return await self.hub.serve(request, ("a", name, "me"), self.streams[name], cursor(request), self.stop)
        except VendoError as error:
            return problem(error)

    async def listen(self, name: str, after: int | None = None, **how: Any) -> "Listener":
        return await Listener.connect(self.port, name, after, **how)


@dataclass
class Listener:
    """One client. `ids` are of the records so far, `end` is the data of the last event."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes
    ids: list[int] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    comments: int = 0
    end: str = ""
    _text: bytes = b""

    @classmethod
    async def connect(
        cls, port: int, name: str, after: int | None, version: str = "1.1", buffer: int = 0
    ) -> "Listener":
        plug = socket.socket()
        if buffer:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plug.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plug, ("127.0.0.1", port))
        reader, writer = await asyncio.open_connection(sock=plug, limit=buffer or 1 << 16)
        past = "" if after is None else f"Last-Event-ID: {after}\r\n"
        writer.write(f"GET /{name} HTTP/{version}\r\nHost: x\r\n{past}\r\n".encode())
        async with asyncio.timeout(60):
            return cls(reader, writer, await reader.readuntil(b"\r\n\r\n"))

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    async def until(self, reached: Callable[["Listener"], bool], within: float = 60.0) -> "Listener":
        """Read until this holds."""
        async with asyncio.timeout(within):
            while not reached(self):
                assert await self._more(), f"it ended after {self.ids[-3:]} with {self.end!r}"
        return self

    async def to_the_end(self, within: float = 60.0) -> "Listener":
        async with asyncio.timeout(within):
            while await self._more():
                pass
        return self

    async def _more(self) -> bool:
        if self.end:
            return False
        if b"chunked" in self.head:
            size = int(await self.reader.readline() or b"0", 16)
            piece = (await self.reader.readexactly(size + 2))[:-2]
        else:
            piece = await self.reader.read(1 << 16)
        self._text += piece
        *events, self._text = self._text.split(b"\n\n")
        for event in events:
            self._take(event.decode())
        return bool(piece)

    def _take(self, event: str) -> None:
        if event.startswith(":"):
            self.comments += 1
            return
        fields = [line.partition(": ") for line in event.split("\n")]
        found = {name: value for name, _, value in fields}
        if found.get("event") == "end":
            self.end = found["data"]
        elif "id" in found:
            self.ids.append(int(found["id"]))
            self.data.append("\n".join(value for name, _, value in fields if name == "data"))

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def booth(**how: Any) -> AsyncIterator[Booth]:
    """A listener, and everything gone when the block is left."""
    made = Booth(Hub(**how))
    runner = web.ServerRunner(web.Server(made.handle, access_log=None), shutdown_timeout=2.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.port = int(runner.addresses[0][1])
    try:
        yield made
    finally:
        made.stop.set()
        await runner.cleanup()


async def soon(holds: Callable[[], bool], within: float = 60.0) -> None:
    """Wait until this holds."""
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.01)
