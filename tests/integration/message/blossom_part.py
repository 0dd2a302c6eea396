"""A Blossom server (BUD-01, BUD-02) in this process: checks uploads as the text asks, and can be told to misbehave."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import orjson
from aiohttp import web

from core.clock import SystemClock
from relays.event import verified


class FileServer:
    """Blobs by hash; `uploads` are the events that authorised them."""

    def __init__(self) -> None:
        self.url = ""
        self.blobs: dict[str, bytes] = {}
        self.uploads: list[dict] = []
        self.asked: list[str] = []
        self.refuse = 0
        self.redirect = ""

    async def put(self, request: web.Request) -> web.Response:
        if self.refuse:
            self.refuse -= 1
            return web.Response(status=503, headers={"X-Reason": "tired"})
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Nostr":
            return web.Response(status=401, headers={"X-Reason": "who are you"})
        event = verified(orjson.loads(base64.b64decode(token)))
        body = await request.read()
        x, now = sha256(body).hexdigest(), SystemClock().now()
        good = event.kind == 24242 and event.value("t") == "upload" and x in event.values("x")
        if not good or not event.created_at <= now < int(event.value("expiration") or 0):
            return web.Response(status=401, headers={"X-Reason": "not for this"})
        self.blobs[x] = body
        self.uploads.append(event.to_dict())
        return web.json_response({"url": f"{self.url}/{x}", "sha256": x, "size": len(body)})

    async def get(self, request: web.Request) -> web.Response:
        x = request.match_info["x"]
        self.asked.append(x)
        if self.redirect:
            return web.Response(status=302, headers={"Location": self.redirect + x})
        body = self.blobs.get(x)
        return web.Response(body=body) if body is not None else web.Response(status=404)


@asynccontextmanager
async def file_server() -> AsyncIterator[FileServer]:
    server, app = FileServer(), web.Application(client_max_size=64 << 20)
    app.add_routes([web.put("/upload", server.put), web.get("/{x}", server.get)])
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()
