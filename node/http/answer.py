"""How files are answered over HTTP: JSON as JSON, text as text, everything else as bytes."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from aiohttp import web

from fs.protocol import let_go
from fs.tree import json_bytes
from node.http.guard import HEADERS
from node.http.short import Short


def wants_text(request: web.BaseRequest) -> bool:
    """Whether the client wants text for people, and no JSON."""
    accept = request.headers.get("Accept", "")
    return "text/plain" in accept and "application/json" not in accept


def body_answer(request: web.BaseRequest, body: bytes, more: Mapping[str, str] | None = None) -> web.Response:
    """A file's content, or what a call answered; nothing is 204."""
    headers = {**HEADERS, **(more or {})}
    if not body:
        return web.Response(status=204, headers=headers)
    if body[:1] in b"{[" and not wants_text(request) and _is_json(body):
        return web.Response(body=body, content_type="application/json", headers=headers)
    try:
        return web.Response(text=body.decode("utf-8"), headers=headers)
    except UnicodeDecodeError:
        return web.Response(body=body, content_type="application/octet-stream", headers=headers)


def read_answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """A file's content, as `body_answer` gives it without further headers, and sooner."""
    if not body:
        return body_answer(request, body)
    if body[:1] in b"{[" and not wants_text(request) and _is_json(body):
        return Short("application/json", body)
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return Short("application/octet-stream", body)
    return Short("text/plain; charset=utf-8", body)


async def answer_pieces(request: web.BaseRequest, media: str, pieces: AsyncIterator[bytes]) -> web.StreamResponse:
    """Send what comes in pieces. If they do not come to their end, neither does the answer."""
    response = web.StreamResponse(headers={**HEADERS, "Content-Type": media})
    await response.prepare(request)
    is_whole = False
    try:
        async for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        is_whole = True
    except ConnectionResetError:
        pass
    finally:
        if not is_whole and request.transport is not None:
            request.transport.abort()  # what was cut must not look like what ended
        await let_go(pieces)
    return response


def _is_json(body: bytes) -> bool:
    try:
        orjson.loads(bytes(body))  # it takes no subclass, as a secret is one
    except orjson.JSONDecodeError:
        return False
    return True


def json_answer(value: Any, status: int = 200) -> web.Response:
    """A value as JSON."""
    return web.Response(body=json_bytes(value), status=status, content_type="application/json", headers=HEADERS)
