"""Server-sent events: a stream file over HTTP, with ids to go on from, keep-alives and an end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from fs.protocol import Record
from node.http.error import BadRequest
from node.http.guard import HEADERS

KEEP_ALIVE_S = 15.0
_STALLED_S = 30.0
_MAX_CURSOR = 1 << 63


def cursor(request: web.BaseRequest) -> int | None:
    """Where to go on: `Last-Event-ID`, or `?after=`; None is from now on.

    Raises:
        BadRequest: it is not a whole number.
    """
    text = request.headers.get("Last-Event-ID") or request.query.get("after") or ""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) >= _MAX_CURSOR:
        raise BadRequest("The cursor of a stream is a whole number from 0.")
    return int(text)


def frame(record: Record) -> bytes:
    """One record as one event; text of several lines is several `data` lines."""
    name = "".join(char for char in record.type if char.isprintable()) or "message"
    lines = record.data.decode("utf-8", "replace").splitlines() or [""]
    data = "".join(f"data: {line}\n" for line in lines)
    return f"id: {record.id}\nevent: {name}\n{data}\n".encode()


async def serve_stream(
    request: web.BaseRequest,
    records: AsyncIterator[Record],
    stop: asyncio.Event,
    keep_alive_s: float = KEEP_ALIVE_S,
) -> web.StreamResponse:
    """Send records as they come until they end, the client leaves or stalls, or the node stops."""
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    stopping = asyncio.create_task(stop.wait())
    reason = "complete"
    try:
        await _write(response, b"retry: 1000\n\n")
        async for chunk in _chunks(records, stopping, keep_alive_s):
            await _write(response, chunk)
        if stop.is_set():
            reason = "shutdown"
        await _write(response, f'event: end\ndata: {{"reason":"{reason}"}}\n\n'.encode())
        await response.write_eof()
    except (ConnectionResetError, TimeoutError):
        if request.transport is not None:
            request.transport.abort()
    finally:
        stopping.cancel()
    return response


async def _write(response: web.StreamResponse, chunk: bytes) -> None:
    async with asyncio.timeout(_STALLED_S):
        await response.write(chunk)


async def _next(records: AsyncIterator[Record]) -> Record | None:
    return await anext(records, None)


async def _chunks(
    records: AsyncIterator[Record], stopping: asyncio.Task[bool], keep_alive_s: float
) -> AsyncIterator[bytes]:
    """Frames, and a comment whenever nothing came for a while."""
    pending: asyncio.Task[Record | None] | None = None
    try:
        while not stopping.done():
            pending = pending or asyncio.create_task(_next(records))
            await asyncio.wait({pending, stopping}, timeout=keep_alive_s, return_when=asyncio.FIRST_COMPLETED)
            if pending.done():
                record, pending = pending.result(), None
                if record is None:
                    return
                yield frame(record)
            elif not stopping.done():
                yield b": keep-alive\n\n"
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
        if (close := getattr(records, "aclose", None)) is not None:
            with contextlib.suppress(RuntimeError):
                await close()
