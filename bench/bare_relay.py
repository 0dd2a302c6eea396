"""The least relay that can carry the bench: in memory, no signature checks, nothing kept. Loopback only.

`python -m bench.bare_relay` takes a free port and prints `{"url", "pid"}`. It exists to show what a responder costs
when the relay costs next to nothing; it is no relay for use.
"""

import argparse
import asyncio
import os
import signal
import socket
from collections import OrderedDict
from typing import Any

import orjson
from aiohttp import WSMsgType, web

MAX_EVENTS = 50_000  # the oldest go first, so that a long run stays small
MAX_CONNECTIONS = 64


class Filter:
    """A NIP-01 filter with its lists as sets."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.ids = set(raw["ids"]) if "ids" in raw else None
        self.kinds = set(raw["kinds"]) if "kinds" in raw else None
        self.authors = set(raw["authors"]) if "authors" in raw else None
        self.since, self.until = raw.get("since", 0), raw.get("until", 1 << 53)
        self.limit = raw.get("limit", 500)
        self.tags = [(name[1:], set(values)) for name, values in raw.items() if name[0] == "#"]

    def matches(self, event: dict[str, Any]) -> bool:
        """Whether the event has all that the filter asks."""
        if self.kinds is not None and event["kind"] not in self.kinds:
            return False
        if self.authors is not None and event["pubkey"] not in self.authors:
            return False
        if self.ids is not None and event["id"] not in self.ids:
            return False
        if not self.since <= event["created_at"] <= self.until:
            return False
        return all(
            any(len(tag) > 1 and tag[0] == name and tag[1] in wanted for tag in event["tags"])
            for name, wanted in self.tags
        )


class BareRelay:
    """Stores in a dict, and sends each new event to every subscription that matches."""

    def __init__(self) -> None:
        self._events: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._connections: dict[web.WebSocketResponse, dict[str, list[Filter]]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One websocket, or NIP-11 for whoever asks with plain HTTP."""
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.json_response({"name": "bare", "supported_nips": [1]}, content_type="application/nostr+json")
        if len(self._connections) >= MAX_CONNECTIONS:
            return web.Response(status=503)
        link = web.WebSocketResponse(compress=False, max_msg_size=1 << 20)
        await link.prepare(request)  # aiohttp has set TCP_NODELAY
        self._connections[link] = {}
        try:
            async for message in link:
                await self._frame(link, orjson.loads(message.data))
        except ConnectionResetError:
            pass  # the other side left while we were sending
        finally:
            del self._connections[link]
        return link

    async def _frame(self, link: web.WebSocketResponse, frame: list[Any]) -> None:
        if frame[0] == "EVENT":
            await self._publish(link, frame[1])
        elif frame[0] == "REQ":
            filters = [Filter(raw) for raw in frame[2:]]
            for event in self._stored(filters):
                await _send(link, ["EVENT", frame[1], event])
            self._connections[link][frame[1]] = filters
            await _send(link, ["EOSE", frame[1]])
        elif frame[0] == "CLOSE":
            self._connections[link].pop(frame[1], None)

    def _stored(self, filters: list[Filter]) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for one in filters:
            matching = [event for event in self._events.values() if one.matches(event)]
            matching.sort(key=lambda event: event["created_at"], reverse=True)
            found.update((event["id"], event) for event in matching[: one.limit])
        return list(found.values())

    async def _publish(self, link: web.WebSocketResponse, event: dict[str, Any]) -> None:
        known = event["id"] in self._events
        await _send(link, ["OK", event["id"], True, "duplicate: have it" if known else ""])
        if known:
            return
        if not 20_000 <= event["kind"] < 30_000:
            self._events[event["id"]] = event
            if len(self._events) > MAX_EVENTS:
                self._events.popitem(last=False)
        raw = orjson.dumps(event)
        for other, subscriptions in list(self._connections.items()):
            for name, filters in list(subscriptions.items()):
                if any(one.matches(event) for one in filters):
                    frame = b'["EVENT",' + orjson.dumps(name) + b"," + raw + b"]"
                    try:
                        await other.send_frame(frame, WSMsgType.TEXT)
                    except ConnectionResetError:
                        break  # its own task sees the end of it


async def _send(link: web.WebSocketResponse, frame: list[Any]) -> None:
    await link.send_frame(orjson.dumps(frame), WSMsgType.TEXT)


async def serve(port: int) -> None:
    """Listen until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = web.Application()
    app.router.add_get("/", BareRelay().handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", port))
    await web.SockSite(runner, listener).start()
    url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
    print(orjson.dumps({"url": url, "pid": os.getpid()}).decode(), flush=True)
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))
