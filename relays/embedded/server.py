"""The relay's HTTP side: websocket, NIP-11 and a page on `/`; NIP-05 names; a form for payments. All else is 404."""

import asyncio
import socket
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from core.error import InvalidInput, VendoError
from core.identifier import PubKey
from relays.embedded import frame
from relays.embedded.authority import names_of
from relays.embedded.client import Client
from relays.embedded.door import Door, Handler
from relays.embedded.error import RelayBusy
from relays.embedded.hub import Hub
from relays.embedded.information import Description, Rules, document
from relays.embedded.page import POLICY, answer_page, page
from relays.embedded.rate import network
from relays.embedded.store import Store
from relays.embedded.toll import Toll
from relays.key import parse_pubkey
from relays.nip05 import names_document

_NIP11 = "application/nostr+json"
_OPEN_TO_ALL = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "GET, OPTIONS",
}
_HEARTBEAT_S = 30.0
_MOST_WAIT_S = 10.0
_FORM_BYTES = 200_000
_TOKEN_CHARS = 66_000
_UNWANTED = "This relay does not serve your address.\n"
_PAY_COST = 10  # tries to pay are bounded as AUTH is, and weigh more: each asks a mint


class Server:
    """Listens for one hub.

    Args:
        hub: the relay's middle.
        store: for the page's numbers.
        rules: bounds, shown and held.
        description: what NIP-11 and the page say.
        names: NIP-05 names, a live view: local part → public key.
        toll: takes payments; None if nothing is to be paid.
    """

    def __init__(
        self,
        hub: Hub,
        store: Store,
        rules: Rules,
        description: Description,
        names: Mapping[str, PubKey],
        toll: Toll | None,
    ) -> None:
        self._hub, self._store, self._rules, self._description = hub, store, rules, description
        self._names, self._toll = names, toll
        self._door = Door(rules.access, rules.rates.exempt)
        self.url = ""

    async def start(self, host: str, port: int) -> None:
        """Listen. Port 0 takes a free one; `url` says which.

        Raises:
            RelayBusy: the address is taken.
        """
        app = web.Application(client_max_size=_FORM_BYTES)
        app.router.add_get("/", self._get)
        app.router.add_route("OPTIONS", "/", self._options)
        app.router.add_get("/.well-known/nostr.json", self._nostr_json)
        if self._toll is not None:
            app.router.add_post("/pay", self._pay)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.3)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(lambda: self._handler(loop), host, port, backlog=1024)
        except OSError as error:
            await self._runner.cleanup()
            raise RelayBusy(f"Cannot listen on {host}:{port} ({error.strerror}).") from error
        self.port: int = self._listener.sockets[0].getsockname()[1]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (not bound here)
        self.url = f"ws://[{shown}]:{self.port}" if ":" in shown else f"ws://{shown}:{self.port}"

    def _handler(self, loop: asyncio.AbstractEventLoop) -> Handler:
        server = self._runner.server
        if server is None:  # it is set up before anything is listened for
            raise RuntimeError("the runner has no server")
        # The idle timer also ends connections that never finish a request; a websocket is not such a one.
        return Handler(server, loop, self._door, self._rules.limits.handshake_s)

    async def refuse_new(self) -> None:
        """Stop listening; open connections stay."""
        self._listener.close()

    async def close(self) -> None:
        """End what is left."""
        await self._runner.cleanup()

    # -- plain HTTP -----------------------------------------------------------------------------------------------

    async def _options(self, _request: web.Request) -> web.Response:
        return web.Response(status=204, headers=_OPEN_TO_ALL)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._connect(request)
        accepted = request.headers.get("Accept", "")
        if "text/html" in accepted and _NIP11 not in accepted:
            return self._page()
        base = self._description.public_url.replace("ws", "http", 1).rstrip("/")
        body = document(self._description, self._rules, f"{base}/" if base else "")
        return web.json_response(body, content_type=_NIP11, headers=_OPEN_TO_ALL)

    def _page(self) -> web.Response:
        mints = self._toll.mints if self._toll is not None else ()
        events, connections = self._store.total, len(self._hub.clients)
        return _html(page(self._description, self._rules, self.url, events, connections, mints))

    async def _nostr_json(self, request: web.Request) -> web.Response:
        """NIP-05: one name, without saying which others there are."""
        url = self._description.public_url
        body = names_document(self._names, request.query.get("name"), (url,) if url else ())
        return web.Response(body=body, content_type="application/json", headers=_OPEN_TO_ALL)

    async def _pay(self, request: web.Request) -> web.Response:
        """A token for a key: by the page's form, or as JSON."""
        toll, is_json = self._toll, request.content_type == "application/json"
        address = self._door.address(request.remote or "", request.headers)
        if self._door.refuse(address):
            return web.Response(status=403, text=_UNWANTED)
        gauge, clock = self._hub.gauge, asyncio.get_running_loop().time()
        group = network(address)
        if not gauge.is_exempt(address) and not gauge.take("auth", group, gauge.rates.auths, clock, _PAY_COST):
            return web.Response(status=429, text="Too many tries. Wait a minute.\n")
        try:
            form: Mapping[str, Any] = orjson.loads(await request.read()) if is_json else await request.post()
            pubkey, token = form["pubkey"], form["token"]
            if toll is None or type(pubkey) is not str or type(token) is not str:
                raise InvalidInput("A payment has a pubkey and a token, both text.")
            if len(token) > _TOKEN_CHARS or not token.strip().isascii() or not token.strip().isprintable():
                raise InvalidInput("This is not a Cashu token.")
            until = await toll.pay(parse_pubkey(pubkey), token.strip())
        except (KeyError, TypeError, orjson.JSONDecodeError):
            return _refusal(InvalidInput("A payment has a pubkey and a token."), is_json)
        except VendoError as error:
            return _refusal(error, is_json)
        if is_json:
            return web.json_response({"paid_until": until})
        return _html(answer_page("Paid", f"This key may write until {until} (Unix time)."))

    # -- websockets -----------------------------------------------------------------------------------------------

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        address = self._door.address(request.remote or "", request.headers)
        if self._door.refuse(address):
            return web.Response(status=403, text=_UNWANTED)
        if len(self._hub.clients) >= self._rules.limits.connections:
            return web.Response(status=503, text="The relay has no room for another connection.\n")
        reason = self._hub.gauge.enter(address, asyncio.get_running_loop().time())
        if reason:
            return web.Response(status=429, text=reason + "\n")
        try:
            return await self._websocket(request, address)
        finally:
            self._hub.gauge.leave(address)

    async def _websocket(self, request: web.Request, address: str) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(
            compress=False,
            max_msg_size=self._rules.limits.message_bytes,
            heartbeat=_HEARTBEAT_S,
            decode_text=False,
        )
        await ws.prepare(request)
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):  # the client has gone already
            return ws
        if isinstance(request.protocol, Handler):
            request.protocol.seated()
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arrived = transport.get_extra_info("sockname")
        names = names_of(self._description.public_url, arrived[0], arrived[1])
        async with asyncio.TaskGroup() as group:
            client = self._hub.join(transport, group, address, names)
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
            wait = client.session.meter.read(len(message.data), asyncio.get_running_loop().time())
            if wait:  # too many bytes: read more slowly, and TCP holds the sender back
                await asyncio.sleep(min(wait, _MOST_WAIT_S))
            await client.room()


def _html(text: str, status: int = 200) -> web.Response:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, text=text, content_type="text/html", headers=headers)


def _refusal(error: VendoError, is_json: bool) -> web.Response:
    if is_json:
        return web.json_response({"code": error.code, "detail": str(error)}, status=error.status)
    return _html(answer_page("Not paid", str(error)), error.status)
