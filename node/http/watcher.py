"""One client of a stream: what it is sent, how much of it waits, and how it ends.

What is sent goes to the transport as it is, one object for all clients, and never waits: a client that takes nothing
costs the others nothing. How much waits for it, and whether any of it moves, is looked at from outside.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from node.http.guard import HEADERS
from node.http.stream import RETRY, End, Reason, end_frame

if TYPE_CHECKING:
    from node.http.channel import Channel

MOST_WAITING = 128 << 10
"""Bytes that may wait for a client; with more it is cut off, if others of its stream are quicker."""

STALLED_S = 30.0
"""So long may bytes wait without any of them moving."""

_LINGER_S = 10.0  # what waits, and the last event, may take so long
_HURRY_S = 2.0  # the same while the node stops
_SEND_BUFFER = 64 << 10  # the kernel's own; it would else take megabytes for somebody who reads nothing
_HEAD = {**HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


class Chunk(NamedTuple):
    """The same bytes for all: as they are, and as HTTP/1.1 wants a stream cut (RFC 9112 §7.1)."""

    plain: bytes
    framed: bytes


def chunk(data: bytes) -> Chunk:
    """Both forms, made once."""
    return Chunk(data, b"%x\r\n%b\r\n" % (len(data), data))


class Watcher:
    """One client.

    Args:
        request: what is answered.
        holds: whether whoever asked may still see it; looked at about once a second.

    Attributes:
        response: what it is answered.
        ended: is set to the reason when nothing more is to be sent.
        channel: where its records come from.
    """

    __slots__ = (
        "_holds", "_is_chunked", "_moved_at", "_request", "_taken", "_transport", "_written", "channel", "ended",
        "response",
    )  # fmt: skip

    def __init__(self, request: web.BaseRequest, holds: Callable[[], bool] = lambda: True) -> None:
        self._request, self._holds = request, holds
        self._transport: asyncio.Transport | None = None
        self._is_chunked = False
        self._written = self._taken = 0
        self._moved_at = 0.0
        self.response = web.StreamResponse(headers=_HEAD)
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.channel: Channel | None = None

    @property
    def is_open(self) -> bool:
        """Whether the answer has begun."""
        return self._transport is not None

    @property
    def waiting(self) -> int:
        """Bytes that it has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def open(self) -> None:
        """Begin the answer.

        Raises:
            ConnectionResetError: the client has left.
        """
        await self.response.prepare(self._request)
        transport = self._request.transport
        if transport is None:
            raise ConnectionResetError
        self._is_chunked = self.response.headers.get("Transfer-Encoding") == "chunked"
        self._transport, self._moved_at = transport, asyncio.get_running_loop().time()
        plug = transport.get_extra_info("socket")
        if plug is not None:
            with contextlib.suppress(OSError):
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.push(chunk(RETRY))

    def push(self, data: Chunk) -> None:
        """Send; whoever is too far behind gets nothing but the end."""
        transport = self._transport
        if transport is None or self.ended.done():
            return
        if transport.is_closing():
            self.finish(End(Reason.GONE))
        elif transport.get_write_buffer_size() > MOST_WAITING:
            self.finish(End(Reason.TOO_SLOW))
        else:
            sent = data.framed if self._is_chunked else data.plain
            self._written += len(sent)
            transport.write(sent)

    def finish(self, end: End) -> None:
        """Nothing more is sent but the end. The first reason holds."""
        if not self.ended.done():
            self.ended.set_result(end)
        if self.channel is not None:
            self.channel.drop(self)

    def look(self, now: float) -> None:
        """Whether it is still there and takes anything; `now` is the loop's time."""
        transport = self._transport
        if transport is None or self.ended.done():
            return
        if transport.is_closing():
            self.finish(End(Reason.GONE))
            return
        if not self._holds():
            self.finish(End(Reason.REVOKED))
            return
        waiting = transport.get_write_buffer_size()
        taken = self._written - waiting
        if not waiting or taken != self._taken:
            self._taken, self._moved_at = taken, now
        elif now - self._moved_at >= STALLED_S:
            self.finish(End(Reason.TOO_SLOW))

    async def leave(self, end: End) -> None:
        """Say why it ends, and end the answer. What a client does not take in time is dropped with its connection."""
        if end.reason is Reason.GONE or self._transport is None:
            self.abort()
            return
        last, transport = chunk(end_frame(end)), self._transport
        if end.reason is not Reason.COMPLETE:
            self.response.force_close()
        try:
            async with asyncio.timeout(_HURRY_S if end.reason is Reason.SHUTDOWN else _LINGER_S):
                transport.set_write_buffer_limits(high=0)  # the end has been written once nothing waits
                transport.write(last.framed if self._is_chunked else last.plain)
                await self.response.write_eof()
                transport.set_write_buffer_limits()
        except (ConnectionResetError, TimeoutError):
            self.abort()

    def abort(self) -> None:
        """Cut the connection: a stream that broke off must not look like one that ended."""
        if self._request.transport is not None:
            self._request.transport.abort()
