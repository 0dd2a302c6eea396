"""The floor for small reads: a bare aiohttp handler with the same bytes, behind the same check of who asks.

`python -m bench.http_floor TOKEN FILES` with FILES a JSON file of path → {type, body} prints `{"port"}`. It checks the
Host header, compares the token by its digest and answers what it has in memory; nothing else.
"""

import asyncio
import hashlib
import hmac
import json
import signal
import sys
from pathlib import Path

from aiohttp import web

HEADERS = {"Server": "floor", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Floor:
    """The handler."""

    def __init__(self, token: str, files: dict[str, dict[str, str]]) -> None:
        self._known = hashlib.sha256(token.encode()).hexdigest()
        self._files = {path: (one["body"].encode(), one["type"]) for path, one in files.items()}
        self.hosts: set[str] = set()

    async def handle(self, request: web.BaseRequest) -> web.Response:
        if request.headers.get("Host") not in self.hosts:
            return web.Response(status=421, headers=HEADERS)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        offered = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(offered, self._known):
            return web.Response(status=401, headers=HEADERS)
        found = self._files.get(request.raw_path.partition("?")[0])
        if found is None:
            return web.Response(status=404, headers=HEADERS)
        return web.Response(body=found[0], content_type=found[1], headers=HEADERS)


async def main(token: str, files: dict[str, dict[str, str]]) -> None:
    """Serve until SIGTERM."""
    floor = Floor(token, files)
    runner = web.ServerRunner(web.Server(floor.handle, access_log=None, keepalive_timeout=20.0))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = int(runner.addresses[0][1])
    floor.hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    print(json.dumps({"port": port}), flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))))
