"""The server under the control plane: what is no HTTP is answered with a code, like everything else.

aiohttp parses requests before anything of ours sees them; what it refuses (a broken header, two lengths, a line that is
too long) it would answer in words of its own.
"""

import asyncio
import contextlib
import socket

from aiohttp import web

from node.http.error import BadRequest
from node.http.guard import Internal, problem

_FAULT = 500
_TAKES_NOTHING_MS = 60_000
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux; it also ends a window that stays shut


class Server(web.Server):
    """aiohttp's server, whose connections answer as the control plane does."""

    def __call__(self) -> web.RequestHandler:
        """A connection."""
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let the kernel give up a client that takes nothing of what it was sent for a minute."""
        super().connection_made(transport)
        plug = transport.get_extra_info("socket")
        if plug is not None and _USER_TIMEOUT is not None:
            with contextlib.suppress(OSError):
                plug.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, _TAKES_NOTHING_MS)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, and close the connection: nobody knows where the next request would begin.

        Raises:
            ConnectionError: a part of an answer was sent already.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer was sent already")
        refused = "This is not a valid HTTP request, or its first line or a header is too long."
        answer = problem(BadRequest(refused) if status < _FAULT else Internal())
        answer.force_close()
        return answer
