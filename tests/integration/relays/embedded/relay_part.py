"""A running relay, and a client that speaks raw frames."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from core.clock import SystemClock
from relays.embedded.limit import Limits
from relays.embedded.service import EmbeddedRelay

ROOT = Path(__file__).resolve().parents[4]
PATIENCE = 10


class SetClock(SystemClock):
    """Shows the time that it was set to; sleeps as usual."""

    def __init__(self, now):
        self.time = now

    def now(self):
        return self.time


class Wire:
    """One websocket. `say` sends a list, `hear` returns the next one."""

    def __init__(self, ws):
        self.ws = ws

    async def say(self, *parts):
        await self.ws.send_str(json.dumps(parts))

    async def offer(self, event):
        await self.ws.send_str(f'["EVENT",{event.to_json()}]')

    async def hear(self, timeout=PATIENCE):
        message = await self.ws.receive(timeout)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return json.loads(message.data)

    async def publish(self, event):
        """The OK's two last parts; other messages meanwhile are an error."""
        await self.offer(event)
        verb, event_id, accepted, reason = await self.hear()
        assert (verb, event_id) == ("OK", event.id)
        return accepted, reason

    async def ask(self, *filters, sub="ask"):
        """Ids of the stored events, in order; the subscription is closed again."""
        await self.say("REQ", sub, *filters)
        found = []
        while (heard := await self.hear())[0] == "EVENT":
            found.append(heard[2]["id"])
        assert heard == ["EOSE", sub], heard
        await self.say("CLOSE", sub)
        return found

    async def is_silent(self, seconds=0.1):
        try:
            await self.ws.receive(seconds)
        except TimeoutError:
            return True
        return False


class Running:
    """A relay and the session that connects to it."""

    def __init__(self, relay, http, path):
        self.relay, self.http, self.path = relay, http, path
        self.url = relay.url

    async def connect(self, **options):
        """A client that has its challenge (NIP-42) already; `wire.challenge` says which."""
        wire = Wire(await self.http.ws_connect(self.url, max_msg_size=0, **options))
        verb, wire.challenge = await wire.hear()
        assert verb == "AUTH"
        return wire


@asynccontextmanager
async def running(path: Path, limits: Limits | None = None, clock=None, **more) -> AsyncIterator[Running]:
    """Serve in this process until the block ends; `more` goes to the relay."""
    relay = EmbeddedRelay(path, "127.0.0.1", 0, clock=clock or SystemClock(), limits=limits, **more)
    ready, stop = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(relay.run(ready, stop))
        await asyncio.wait_for(ready.wait(), PATIENCE)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
                yield Running(relay, http, path)
        finally:
            stop.set()


class Child:
    """`python -m cli.relay` in a process of its own."""

    def __init__(self, home: Path):
        argv = [sys.executable, "-m", "cli.relay", "--home", str(home), "--port", "0"]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.said = json.loads(line)
        self.url = self.said["url"]

    def end(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
        return code
