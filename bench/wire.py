"""A raw client of a relay: frames are signed, masked and joined beforehand, so that it costs little of the machine
that it shares with what is measured. It is an ordinary client: TCP_NODELAY as asyncio sets it, no TCP_QUICKACK.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

import orjson

from relays.event import Draft, Event
from relays.key import Key

_UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_PING, _PONG = 0x9, b"\x8a\x80\0\0\0\0"
_CONNECT_S = _ANSWER_S = 15.0


class Cut(RuntimeError):
    """A relay ended the connection, or refused what it should take."""


def masked(text: bytes) -> bytes:
    """A client's frame; a mask of zeros is a mask."""
    size = len(text)
    if size < 126:
        return bytes((0x81, 0x80 | size)) + bytes(4) + text
    if size < 65_536:
        return bytes((0x81, 0xFE)) + size.to_bytes(2, "big") + bytes(4) + text
    return bytes((0x81, 0xFF)) + size.to_bytes(8, "big") + bytes(4) + text


def offer(event: Event) -> bytes:
    """The frame that publishes an event."""
    return masked(f'["EVENT",{event.to_json()}]'.encode())


def ask(sub_id: str, *filters: object) -> bytes:
    """The frame of a REQ."""
    return masked(orjson.dumps(["REQ", sub_id, *filters]))


def signed(count: int, kind: int = 1, *, keys: Sequence[Key] = (), content: int = 250) -> list[Event]:
    """Events of about 0.75 KB with three tags, by twenty authors, none alike."""
    keys = keys or [Key.generate() for _ in range(20)]
    many, start, salt = len(keys), int(time.time()) - count, Key.generate().pubkey[:8]
    return [
        keys[n % many].sign(
            Draft(
                kind,
                f"{salt} {n} " + "x" * content,
                (("t", f"topic {n % 50}"), ("p", keys[n * 7 % many].pubkey), ("e", f"{n % 100:064x}")),
                start + n,
            )
        )
        for n in range(count)
    ]


class Client(asyncio.Protocol):
    """Splits what arrives into messages and gives those of each read together to `heard`."""

    def __init__(self, host: str) -> None:
        self.heard: Callable[[list[bytes]], None] = lambda _messages: None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host = host
        self._left = b""
        self._parts: list[bytes] = []
        self._upgraded = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(_UPGRADE % self._host.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.done():
            self.gone.set_result(None)
        self._upgraded.set()

    def data_received(self, data: bytes) -> None:
        data = self._left + data
        if not self._upgraded.is_set():
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._left = head
                return
            if b" 101 " not in head[:20]:
                self.transport.close()
                return
            self._upgraded.set()
        self._left, messages = self._split(data)
        if messages:
            self.heard(messages)

    def _split(self, data: bytes) -> tuple[bytes, list[bytes]]:
        at, end, messages = 0, len(data), []
        while end - at >= 2:
            size, head = data[at + 1], 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if end - at < head:
                    break
                size = int.from_bytes(data[at + 2 : at + head], "big")
            if end - at < head + size:
                break
            if data[at] & 0xF < 8:
                body = data[at + head : at + head + size]
                if data[at] & 0x80 and not self._parts:
                    messages.append(body)
                else:  # a message in several frames
                    self._parts.append(body)
                    if data[at] & 0x80:
                        messages.append(b"".join(self._parts))
                        self._parts = []
            elif data[at] & 0xF == _PING:
                self.transport.write(_PONG)
            at += head + size
        return data[at:], messages

    async def wait_for(self, *starts: bytes) -> float:
        """When the next message that begins so was read.

        Raises:
            Cut: the connection ended first.
        """
        found: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def heard(messages: list[bytes]) -> None:
            if not found.done() and any(message.startswith(starts) for message in messages):
                found.set_result(time.perf_counter())

        self.heard = heard
        await asyncio.wait((found, self.gone), return_when=asyncio.FIRST_COMPLETED)
        if not found.done():
            raise Cut(f"the relay ended the connection before {starts[0]!r}")
        return found.result()

    async def subscribe(self, sub_id: str, *filters: object) -> None:
        """REQ, and wait for the EOSE.

        Raises:
            Cut: the relay refused, or ended the connection.
            TimeoutError: it said nothing.
        """
        self.transport.write(ask(sub_id, *filters))
        refused: list[bytes] = []
        ended = asyncio.Event()

        def heard(messages: list[bytes]) -> None:
            refused.extend(message for message in messages if b'"CLOSED"' in message[:10])
            if refused or any(b'"EOSE"' in message[:8] for message in messages):
                ended.set()

        self.heard = heard
        self.gone.add_done_callback(lambda _: ended.set())
        async with asyncio.timeout(_ANSWER_S):
            await ended.wait()
        if refused or self.gone.done():
            raise Cut(f"the relay refused a subscription: {refused[0][:200] if refused else 'it left'!r}")

    def close(self) -> None:
        self.transport.close()

    @classmethod
    async def connect(cls, url: str) -> "Client":
        """Raises Cut if the relay does not speak websocket there."""
        host = url.removeprefix("ws://").rstrip("/")
        name, _, port = host.rpartition(":")
        async with asyncio.timeout(_CONNECT_S):
            _, client = await asyncio.get_running_loop().create_connection(lambda: cls(host), name, int(port))
            await client._upgraded.wait()
        if client.gone.done():
            raise Cut(f"{url} refused the connection")
        return client


class Counter(asyncio.Protocol):
    """A subscriber that only counts EVENT messages in the stream, so that a hundred of them cost little."""

    MARK = b'"EVENT"'

    def __init__(self, client: Client, counted: Callable[[int], None]) -> None:
        self._counted = counted
        self._left = b""
        client.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        data = self._left + data
        self._left = data[1 - len(self.MARK) :]  # too short to hold a whole mark, so none is counted twice
        number = data.count(self.MARK)
        if number:
            self._counted(number)


async def publish(url: str, frames: Sequence[bytes], connections: int, in_flight: int, limit_s: float) -> float:
    """Publish all, so many unanswered on each connection at most. Returns the seconds that it took.

    Raises:
        Cut: an event was refused, or a connection ended.
        TimeoutError: not all were answered in `limit_s`.
    """
    clients = [await Client.connect(url) for _ in range(connections)]
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    left = len(frames)

    def lost(_gone: asyncio.Future[None]) -> None:
        if not done.done():
            done.set_exception(Cut("the relay ended a connection"))

    def begin(client: Client, mine: Sequence[bytes]) -> None:
        sent = min(in_flight, len(mine))

        def heard(messages: list[bytes]) -> None:
            nonlocal sent, left
            oks = [message for message in messages if b'"OK"' in message[:8]]
            bad = next((message for message in oks if b"true" not in message[64:90]), None)
            if bad is not None and not done.done():
                done.set_exception(Cut(f"refused: {bad[:200]!r}"))
            more = mine[sent : sent + len(oks)]
            sent += len(more)
            if more:
                client.transport.write(b"".join(more))
            left -= len(oks)
            if not left and not done.done():
                done.set_result(None)

        client.heard = heard
        client.gone.add_done_callback(lost)
        client.transport.write(b"".join(mine[:in_flight]))

    started = time.perf_counter()
    for number, client in enumerate(clients):
        begin(client, frames[number::connections])
    try:
        async with asyncio.timeout(limit_s):
            await done
        return time.perf_counter() - started
    finally:
        for client in clients:
            client.close()
