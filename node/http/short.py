"""Short answers to reads: the same bytes as aiohttp's own `Response` sends, put together in one go.

A small file is read more often than anything else is asked. Most of what such an answer costs would be the building,
checking and writing of headers that are always the same.
"""

import time
from email.utils import formatdate
from functools import lru_cache

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter

from node.http.guard import HEADERS


class Short(web.StreamResponse):
    """A whole answer with status 200.

    Args:
        media: its Content-Type.
        body: its content.
    """

    def __init__(self, media: str, body: bytes) -> None:
        super().__init__()
        self._media = media
        self._content: bytes | None = body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it, once; waits if the client does not take what it was sent before.

        Raises:
            ConnectionResetError: the client has left.
        """
        body, self._content = self._content, None
        if body is None:
            return None
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError
        self._keep_alive = request.keep_alive
        head = _head(self._media, request.version.major, request.version.minor)
        transport.write(b"%b%d\r\n%b%b" % (head, len(body), _rest(request), body))
        self._eof_sent = True
        if request.protocol.writing_paused:
            await request.writer.drain()
        return None


@lru_cache(16)
def _head(media: str, major: int, minor: int) -> bytes:
    """Everything up to the length."""
    lines = [f"{name}: {value}" for name, value in {**HEADERS, "Content-Type": media}.items()]
    return "\r\n".join([f"HTTP/{major}.{minor} 200 OK", *lines, "Content-Length: "]).encode()


def _rest(request: web.BaseRequest) -> bytes:
    """What comes after the length."""
    if request.version >= HttpVersion11:
        connection = b"" if request.keep_alive else b"Connection: close\r\n"
    else:
        connection = b"Connection: keep-alive\r\n" if request.keep_alive else b""
    return b"Date: %b\r\n%b\r\n" % (_date(int(time.time())), connection)


@lru_cache(1)
def _date(second: int) -> bytes:
    """As RFC 9110, 5.6.7 wants it; made once a second."""
    return formatdate(second, usegmt=True).encode()
