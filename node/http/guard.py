"""The edge of the control plane: what is checked before any file is touched, and how an error is answered.

A web page in the owner's browser can reach a loopback listener. It cannot guess the token; a name that was rebound to
127.0.0.1 fails the Host check, and a page of any other origin fails the Origin check, before the token is looked at.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from core.error import VendoError
from node.http.error import BadRequest, Encoded, RequestTooLarge, TooSlow

log = logging.getLogger(__name__)

MAX_BODY = 1 << 20
_PIECE_S = 30.0
_LEAST_PER_S = 1_024  # bytes of a body, beyond the first half a minute
_TAKEN = web.RequestKey("taken", bytes)  # a request's whole body, once somebody had to read it before the file did
HEADERS = {"Server": "vendo", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Internal(VendoError):
    """Something failed inside the node; its log says what."""

    code = "http.internal"
    unchanged = ""
    remedy = "Try again; if it goes on, look at the node's log."


async def read_body(request: web.BaseRequest, most: int = MAX_BODY) -> bytes:
    """The whole body, at most `most` bytes (1 MiB).

    Raises:
        RequestTooLarge: it is longer; the rest was not read.
        Encoded: it is compressed.
        BadRequest: it is not what its head says, or whoever sent it is gone.
    """
    body = bytearray()
    async for piece in body_pieces(request, most):
        body += piece
    return bytes(body)


async def body_pieces(request: web.BaseRequest, most: int | None = MAX_BODY) -> AsyncIterator[bytes]:
    """The body in pieces as they come; `most` None: however long it is. Ends in an error if it is not whole.

    Raises:
        RequestTooLarge, Encoded, BadRequest: as `read_body`, before the first piece or after any.
        TooSlow: 30 s went by between two pieces.
    """
    taken: bytes | None = request.get(_TAKEN)
    if taken is None and request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Encoded
    size = (request.content_length or 0) if taken is None else len(taken)
    if most is not None and size > most:
        raise RequestTooLarge(f"A body has at most {most} bytes.")
    if taken is not None:
        yield taken
        return
    size, began = 0, time.monotonic()
    while piece := await _piece(request):
        size += len(piece)
        if time.monotonic() - began > _PIECE_S + size / _LEAST_PER_S:
            raise TooSlow
        if most is not None and size > most:
            raise RequestTooLarge(f"A body has at most {most} bytes.")
        yield piece


async def _piece(request: web.BaseRequest) -> bytes:
    """What has come of the body since the last piece; nothing at its end."""
    try:
        async with asyncio.timeout(_PIECE_S):
            return await request.content.readany()
    except TimeoutError as error:
        raise TooSlow from error
    except (ConnectionError, RequestPayloadError) as error:
        raise BadRequest("The request's body ended early, or is not as its headers say.") from error


async def take_body(request: web.BaseRequest) -> bytes:
    """Read the whole body (1 MiB at most) before anybody else does; `read_body` and `body_pieces` give it once more.

    Raises:
        RequestTooLarge, Encoded, BadRequest: as `read_body`.
    """
    body = request[_TAKEN] = await read_body(request)
    return body


def problem(error: VendoError) -> web.Response:
    """An error as problem JSON (RFC 9457): the stable code, what happened, what was not changed, what to do."""
    body = {
        "type": "about:blank",
        "title": (type(error).__doc__ or "").strip().splitlines()[0],
        "status": error.status,
        "code": error.code,
        "detail": error.message,
        "unchanged": error.unchanged,
        "remedy": error.advice,
    }
    headers = dict(HEADERS)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if allow := error.context.get("allow"):
        headers["Allow"] = str(allow)
    if (seconds := error.context.get("retry_after_s")) is not None:
        headers["Retry-After"] = str(seconds)
    return web.Response(
        status=error.status, body=orjson.dumps(body), content_type="application/problem+json", headers=headers
    )
