"""A Blossom server (BUD-01, BUD-02) in the test's process: it checks uploads as the text asks, and can misbehave.

`mode` may be changed while it runs:

- `honest`; `lying` answers with other bytes of the right length; `truncating` closes early; `oversize` never ends;
  `slow` sends a byte and then nothing; `redirecting` points to itself for ever; `paid` wants money (BUD-07);
  `down` drops every connection; `mute` takes an upload and does not answer until `speak` is set.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

import orjson
from aiohttp import web

from core.clock import SystemClock
from relays.event import Event, verified

MODES = ("honest", "lying", "truncating", "oversize", "slow", "redirecting", "paid", "down", "mute")
_CHUNK = 65_536


@dataclass
class BlossomServer:
    """Blobs by hash; `uploads` are the events that authorised them, `asked` what was read, with the mode then."""

    mode: str = "honest"
    url: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    uploads: list[Event] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    heads: int = 0
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    speak: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, request: web.Request) -> web.StreamResponse:
        if self.mode == "down":
            return await _hang_up(request)
        if self.mode == "paid":
            return web.Response(status=402, headers={"X-Cashu": "creqA", "X-Reason": "one sat"})
        body = await request.read()
        x = sha256(body).hexdigest()
        if (fault := _fault(request, x)) is not None:
            return web.Response(status=401, headers={"X-Reason": fault})
        self.blobs[x] = body
        self.uploads.append(_token(request))
        self.taken.set()
        if self.mode == "mute":
            await self.speak.wait()
        return web.json_response({"url": f"{self.url}/{x}", "sha256": x, "size": len(body)}, status=201)

    async def get(self, request: web.Request) -> web.StreamResponse:
        x = request.match_info["x"]
        body = self.blobs.get(x)
        if self.mode == "down":
            return await _hang_up(request)
        if request.method == "HEAD":
            self.heads += 1
            return web.Response(status=200 if body is not None else 404)
        self.asked.append((x, self.mode))
        if body is None:
            return web.Response(status=404)
        if self.mode == "redirecting":
            return web.Response(status=302, headers={"Location": f"{self.url}/{x}"})
        if self.mode == "lying":
            return web.Response(body=bytes(len(body)))
        if self.mode in ("truncating", "oversize", "slow"):
            return await self._badly(request, body)
        return web.Response(body=body)

    async def _badly(self, request: web.Request, body: bytes) -> web.StreamResponse:
        answer = web.StreamResponse()
        if self.mode == "truncating":
            answer.content_length = len(body)
        await answer.prepare(request)
        if self.mode == "slow":
            await answer.write(body[:1])
            await self.speak.wait()
        elif self.mode == "truncating":
            await answer.write(body[: len(body) // 2])
            return await _hang_up(request, answer)
        else:
            await answer.write(body)
            for _ in range(64):
                await answer.write(bytes(_CHUNK))
        return answer


def _token(request: web.Request) -> Event:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    assert scheme == "Nostr"
    return verified(orjson.loads(base64.b64decode(token)))


def _fault(request: web.Request, x: str) -> str | None:
    """What is wrong with the authorisation of an upload (BUD-01, BUD-02); None if nothing is."""
    if "Authorization" not in request.headers:
        return "who are you"
    event, now = _token(request), SystemClock().now()
    if event.kind != 24242 or event.value("t") != "upload":
        return "not an upload"
    if x not in event.values("x"):
        return "another blob"
    if not event.created_at <= now < int(event.value("expiration") or 0):
        return "out of time"
    return None


async def _hang_up(request: web.Request, answer: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.close()
    return answer or web.Response()


@asynccontextmanager
async def blossom_servers(*modes: str) -> AsyncIterator[list[BlossomServer]]:
    """One server for each mode, on this machine."""
    runners: list[web.AppRunner] = []
    servers = [BlossomServer(mode) for mode in modes]
    try:
        for server in servers:
            app = web.Application(client_max_size=64 << 20)
            app.add_routes([web.put("/upload", server.put), web.get("/{x}", server.get)])
            runner = web.AppRunner(app, shutdown_timeout=0.2)
            await runner.setup()
            runners.append(runner)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield servers
    finally:
        for server in servers:
            server.speak.set()
        for runner in runners:
            await runner.cleanup()
