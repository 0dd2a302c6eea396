"""The node's own relay on the control plane's port, under `/`, for clients of this machine (`share_port`).

The relay stays the process that it is; its bytes are handed through. Only `/` is: control routes are the control
plane's, and the relay's own listener knows none of them.
"""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp import WSMsgType, web

from core.error import Unavailable

_LONGEST = 1 << 20
_HANDED = ("Accept",)
_TIMEOUT = aiohttp.ClientTimeout(total=10)


class RelayFront:
    """Hands requests for `/` to the relay.

    Args:
        url: where the relay listens (`ws://…`), empty while it does not.
        http: connects to it.
    """

    def __init__(self, url: Callable[[], str], http: aiohttp.ClientSession) -> None:
        self._url, self._http = url, http

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request.

        Raises:
            Unavailable: the relay is not there.
        """
        url = self._url()
        if not url:
            raise Unavailable("The relay is not running.")
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._websocket(request, url)
            return await self._page(request, url.replace("ws", "http", 1))
        except aiohttp.ClientError as error:
            raise Unavailable("The relay does not answer.") from error

    async def _page(self, request: web.BaseRequest, url: str) -> web.Response:
        headers = {name: request.headers[name] for name in _HANDED if name in request.headers}
        async with self._http.get(url, headers=headers, timeout=_TIMEOUT) as answer:
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name in ("Content-Type", "Content-Security-Policy", "X-Content-Type-Options")
            }
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    async def _websocket(self, request: web.BaseRequest, url: str) -> web.WebSocketResponse:
        async with self._http.ws_connect(url, max_msg_size=0, compress=0) as inner:
            outer = web.WebSocketResponse(max_msg_size=_LONGEST, compress=False)
            await outer.prepare(request)
            ways = [asyncio.create_task(_in(outer, inner)), asyncio.create_task(_out(inner, outer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            code = inner.close_code or 1000
            await outer.close(code=code if 1000 <= code < 5000 and code not in (1005, 1006) else 1001)
            return outer


async def _in(outer: web.WebSocketResponse, inner: aiohttp.ClientWebSocketResponse) -> None:
    async for message in outer:
        if message.type is WSMsgType.TEXT:
            await inner.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await inner.send_bytes(message.data)


async def _out(inner: aiohttp.ClientWebSocketResponse, outer: web.WebSocketResponse) -> None:
    async for message in inner:
        if message.type is WSMsgType.TEXT:
            await outer.send_str(message.data)
