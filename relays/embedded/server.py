"""The relay's HTTP side: the websocket, NIP-11 and a page, all on `/`. Every other path is 404."""

import asyncio
import socket

from aiohttp import WSMsgType, web

from relays.embedded import frame
from relays.embedded.client import Client
from relays.embedded.error import RelayBusy
from relays.embedded.hub import Hub
from relays.embedded.information import Description, Rules, document
from relays.embedded.page import POLICY, page
from relays.embedded.store import Store

_NIP11 = "application/nostr+json"
_OPEN_TO_ALL = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "GET, OPTIONS",
}
_HEARTBEAT_S = 30.0
_IDLE_S = 20.0


class Server:
    """Listens for one hub."""

    def __init__(self, hub: Hub, store: Store, rules: Rules, description: Description) -> None:
        self._hub, self._store, self._rules, self._description = hub, store, rules, description
        self._limits = rules.limits
        self.url = ""

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 takes a free one; `url` says which.

        Raises:
            RelayBusy: the address is taken.
        """
        app = web.Application()
        app.router.add_get("/", self._get)
        app.router.add_route("OPTIONS", "/", self._options)
        # also ends connections that never finish a request; a websocket is not such a one
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.3, keepalive_timeout=_IDLE_S)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, host, port, backlog=1024)
        try:
            await self._site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise RelayBusy(f"Cannot listen on {host}:{port} ({error.strerror}).") from error
        taken: int = self._runner.addresses[0][1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (not bound here)
        self.url = f"ws://[{shown}]:{taken}" if ":" in shown else f"ws://{shown}:{taken}"

    async def refuse_new(self) -> None:
        """Stop listening; open connections stay."""
        await self._site.stop()

    async def close(self) -> None:
        """End what is left."""
        await self._runner.cleanup()

    async def _options(self, _request: web.Request) -> web.Response:
        return web.Response(status=204, headers=_OPEN_TO_ALL)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            if len(self._hub.clients) >= self._limits.connections:
                return web.Response(status=503, text="The relay has no room for another connection.\n")
            return await self._websocket(request)
        accepted = request.headers.get("Accept", "")
        if "text/html" in accepted and _NIP11 not in accepted:
            return self._page()
        body = document(self._description, self._rules)
        return web.json_response(body, content_type=_NIP11, headers=_OPEN_TO_ALL)

    def _page(self) -> web.Response:
        text = page(self._description, self._rules, self.url, self._store.total, len(self._hub.clients))
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return web.Response(text=text, content_type="text/html", headers=headers)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(
            compress=False, max_msg_size=self._limits.message_bytes, heartbeat=_HEARTBEAT_S, decode_text=False
        )
        await ws.prepare(request)
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):  # the client has gone already
            return ws
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.TaskGroup() as group:
            client = self._hub.join(transport, group)
            try:
                await self._read(ws, client)
            finally:
                self._hub.leave(client)
        return ws

    async def _read(self, ws: "web.WebSocketResponse", client: Client) -> None:
        async for message in ws:
            if client.gone:
                return
            if message.type is WSMsgType.TEXT:
                self._hub.receive(client, message.data)
            elif message.type is WSMsgType.BINARY:
                client.send(frame.notice("invalid: messages are text"))
            else:
                return
            await client.room()
