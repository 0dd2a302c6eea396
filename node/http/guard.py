"""The edge of the control plane: what is checked before any file is touched, and how an error is answered.

A web page in the owner's browser can reach a loopback listener. It cannot guess the token; a name that was rebound to
127.0.0.1 fails the Host check, and a page of any other origin fails the Origin check, before the token is looked at.
"""

import logging

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from core.error import VendoError
from node.http.error import BadRequest, Encoded, ForeignOrigin, RequestTooLarge, Unauthorized, WrongHost
from node.http.token import Grant, Tokens

log = logging.getLogger(__name__)

MAX_BODY = 1 << 20
_NAMES = ("127.0.0.1", "localhost", "[::1]")
HEADERS = {"Server": "vendo", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Internal(VendoError):
    """Something failed inside the node; its log says what."""

    code = "http.internal"
    unchanged = ""
    remedy = "Try again; if it goes on, look at the node's log."


def check_host(request: web.BaseRequest, port: int) -> None:
    """Whether the request is meant for this listener and does not come from a foreign web page.

    Raises:
        WrongHost: the Host header is not a loopback name with our port.
        ForeignOrigin: there is an Origin header that is not our own.
    """
    host = request.headers.getall("Host", [])
    hosts = {f"{name}:{port}" for name in _NAMES}
    if len(host) != 1 or host[0].lower() not in hosts:
        raise WrongHost
    origins = request.headers.getall("Origin", [])
    if any(origin.lower() != f"http://{host[0].lower()}" for origin in origins):
        raise ForeignOrigin


def check_token(request: web.BaseRequest, tokens: Tokens) -> Grant:
    """Who asks.

    Raises:
        Unauthorized: no token, more than one, or one that is not known.
    """
    headers = request.headers.getall("Authorization", [])
    grant = tokens.find(headers[0]) if len(headers) == 1 else None
    if grant is None:
        raise Unauthorized
    return grant


async def read_body(request: web.BaseRequest, most: int = MAX_BODY) -> bytes:
    """The whole body, at most `most` bytes (1 MiB).

    Raises:
        RequestTooLarge: it is longer; the rest was not read.
        Encoded: it is compressed.
        BadRequest: it is not what its head says, or whoever sent it is gone.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Encoded
    if (request.content_length or 0) > most:
        raise RequestTooLarge(f"A body has at most {most} bytes.")
    body = bytearray()
    try:
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > most:
                raise RequestTooLarge(f"A body has at most {most} bytes.")
    except (ConnectionError, RequestPayloadError) as error:
        raise BadRequest("The request's body ended early, or is not as its headers say.") from error
    return bytes(body)


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
    return web.Response(
        status=error.status, body=orjson.dumps(body), content_type="application/problem+json", headers=headers
    )
