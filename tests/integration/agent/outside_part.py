"""Agents outside of the process, with their real parts: engine, inbox, control plane over HTTP, receivers, commands."""

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from sqlmodel import SQLModel

from core.clock import SystemClock
from core.error import NotFound, Paused, Unpermitted
from core.identifier import PubKey
from core.unit import Row
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.service.goals import goals_service
from fs.service.logs import logs_service
from fs.session import Role, Session
from fs.tree import File, Folder, Tree
from node.agent.goal import AgentGoals
from node.agent.inbox.row import envelope
from node.agent.log import AgentLog
from node.agent.outside.command import Command
from node.agent.outside.host import Turns
from node.agent.outside.webhook import Webhook
from node.agent.replay import reel
from node.agent.replay.recording import Recording
from node.agent.replay.redactor import Redactor
from node.agent.tick.engine import Engine
from node.agent.tick.limit import Own, TickLimits
from node.http.control import ControlPlane
from node.http.token import Grant, Tokens, digest
from node.secret.reference import Reveal, no_secrets
from node.storage.memory import MemoryDatabase

OPERATOR_TOKEN, AGENT_TOKEN = "operator-token", "agent-token"
PUBKEY = PubKey("ab" * 32)
QUICK = TickLimits(seconds=5, tries=3, away_tries=4, back_off_ms=10, pause_ms=20)
SECRET = "whsec_of-{}-{}"


@dataclass
class Receiver:
    """Somebody's own service: what it was sent, and what it answers."""

    answer: Callable[["Call"], Awaitable[web.StreamResponse]] | None = None
    calls: list["Call"] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        call = Call(request, raw, orjson.loads(raw) if raw else {})
        self.calls.append(call)
        return await self.answer(call) if self.answer is not None else web.Response(status=202)


@dataclass
class Call:
    """One webhook as it came."""

    request: web.Request
    raw: bytes
    body: dict[str, Any]

    @property
    def token(self) -> str:
        return str(self.body["turn"]["token"])

    @property
    def url(self) -> str:
        return str(self.body["turn"]["url"])

    @property
    def delivery(self) -> str:
        return self.request.headers["X-Vendo-Delivery"]

    def is_signed(self, secret: str) -> bool:
        signed = self.request.headers["X-Vendo-Timestamp"].encode() + b"." + self.raw
        wanted = "sha256=" + hmac.new(secret.encode(), signed, sha256).hexdigest()
        return hmac.compare_digest(wanted, self.request.headers["X-Vendo-Signature"])


def ends(value: Any, status: int = 200) -> Callable[[Call], Awaitable[web.StreamResponse]]:
    """A receiver's answer."""

    async def answer(call: Call) -> web.StreamResponse:
        body = value if isinstance(value, bytes) else orjson.dumps(value)
        return web.Response(status=status, body=body)

    return answer


@dataclass
class Outskirts:
    """One node's agents, and whoever stands outside."""

    folder: Path
    unit: MemoryDatabase = field(default_factory=MemoryDatabase)
    limits: TickLimits = QUICK
    commands: int = 2
    feed: Feed = field(default_factory=Feed)
    sent: list[tuple[str, bytes, str | None]] = field(default_factory=list)
    paused: bool = False
    stop_s: float = 0.1
    asked: int = 0
    refuses: bool = False
    receiver: Receiver = field(default_factory=Receiver)
    reveal: Reveal = no_secrets
    redactor: Redactor = field(default_factory=Redactor)

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.turns = Turns(clock, lambda: self.control.url, self.limits.state_bytes, self.stop_s)
        self.webhook = Webhook(self.turns, clock, SECRET.format, self._leave, self.reveal)
        self.command = Command(self.turns, clock, self.folder / "work", self.commands, self._leave, self.reveal)
        programs = {one.name: one for one in (self.webhook, self.command)}
        self.engine = Engine(self.unit, clock, programs, self.namespace, self.feed, self.limits, redactor=self.redactor)
        grants = [
            (digest(OPERATOR_TOKEN), Grant("operator", Role.OPERATOR)),
            (digest(AGENT_TOKEN), Grant("agent:a", Role.AGENT)),
        ]
        self.control = ControlPlane(self.namespace, self._agents, Tokens(grants), self.unit, turns=self.turns)
        self.services = [self.webhook, self.engine, self.control, self.turns]

    def _leave(self) -> None:
        self.asked += 1
        if self.refuses:
            raise Unpermitted

    async def _agents(self) -> list[dict[str, Any]]:
        return []

    def namespace(self, name: str) -> Namespace:
        if name not in ("a", "b", "c"):
            raise NotFound("There is no agent with this name.")
        clock = SystemClock()
        return Namespace(
            [
                Mount("/goals", goals_service(AgentGoals(name, self.unit, clock)), Access.WRITE),
                Mount("/logs", logs_service(AgentLog(name, self.unit, self.feed)), Access.READ),
                Mount("/post", self._post(), Access.WRITE),
                Mount("/secret", self._post(), Access.ADMIN),
            ]
        )

    def _post(self) -> Tree:
        async def send(body: bytes, session: Session) -> bytes:
            if self.paused:
                raise Paused
            await session.apply((), lambda: self.sent.append((session.caller, body, session.key)))
            return b'{"status":"staged"}' if session.staged else b'{"status":"sent"}'

        return Tree(Folder("Post.", {"new": File("send something", call=send)}))

    # ---- what a test does

    async def webhook_agent(self, name: str = "a", limits: Own | None = None, **config: Any) -> None:
        values = {"url": self.receiver.url, "internal": True, **config}
        await self.engine.create(name, "webhook", PUBKEY, values, limits)

    async def command_agent(self, *argv: str, name: str = "a", limits: Own | None = None, **config: Any) -> None:
        await self.engine.create(name, "command", PUBKEY, {"argv": argv, **config}, limits)

    async def say(self, text: str, agent: str = "a", envelope_id: str | None = None) -> str:
        envelope_id = envelope_id or f"m-{text}"
        payload = orjson.dumps({"text": text}).decode()
        await self.unit.commit(
            [envelope(agent, envelope_id, cause="message", source="test", sender="me", payload=payload, at=1)]
        )
        self.engine.notify(agent)
        return envelope_id

    async def row(self, envelope_id: str, agent: str = "a") -> Row:
        return (await self.unit.select("inbox", {"agent": agent, "envelope_id": envelope_id}))[0]

    async def until(self, good: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
        async with asyncio.timeout(seconds):
            while not (found := await good()):
                await asyncio.sleep(0.005)
        return found

    async def ended(self, envelope_id: str, agent: str = "a", seconds: float = 60) -> Row:
        """The row of a trigger that waits no more."""

        async def good() -> Row | None:
            row = await self.row(envelope_id, agent)
            return row if row["state"] != "new" else None

        return await self.until(good, seconds)

    async def tried(self, envelope_id: str, times: int = 1, agent: str = "a") -> Row:
        """The row of a trigger that was tried so often."""

        async def good() -> Row | None:
            row = await self.row(envelope_id, agent)
            return row if row["tries"] >= times else None

        return await self.until(good)

    async def called(self, count: int = 1) -> Call:
        """The receiver's latest call, once there were so many."""

        async def good() -> bool:
            return len(self.receiver.calls) >= count

        await self.until(good)
        return self.receiver.calls[count - 1]

    async def state(self, agent: str = "a") -> Any:
        return orjson.loads((await self.unit.select("agent", {"name": agent}))[0]["state"])

    async def trace(self, kind: str, agent: str = "a") -> list[Any]:
        rows = await self.unit.select("log", {"agent": agent, "type": kind}, order=("n",))
        return [orjson.loads(row["data"]) for row in rows]

    async def everything(self) -> str:
        """All that is stored, as text; recordings as they are read."""
        tables = [repr(await self.unit.select(name)) for name in SQLModel.metadata.tables]
        return "".join(tables) + repr(await self.recordings())

    async def recordings(self, agent: str = "a") -> list[Recording]:
        """Recorded ticks, in order."""
        rows = await self.unit.select("recording", {"agent": agent}, order=("n",))
        return [await reel.load(self.unit, agent, row["tick_id"]) for row in rows]


class Holder:
    """Whoever has a turn's token."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self._http, self._url, self.token = http, url, token

    @classmethod
    def of(cls, http: aiohttp.ClientSession, call: Call) -> "Holder":
        return cls(http, call.url, call.token)

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        raw = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        async with self._http.request(method, self._url + path, data=raw, headers=headers) as answer:
            text = await answer.read()
            return answer.status, orjson.loads(text) if text[:1] in (b"{", b"[") else text

    async def commit(self, body: Any = None) -> tuple[int, Any]:
        return await self.ask("POST", "/turn/commit", body)


async def start(stack: AsyncExitStack, service: Any) -> None:
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(service.run(ready, stop))

    async def end() -> None:
        stop.set()
        await asyncio.wait_for(task, 60)

    stack.push_async_callback(end)
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()


@asynccontextmanager
async def outskirts(folder: Path, **parts: Any) -> AsyncIterator[tuple[Outskirts, aiohttp.ClientSession]]:
    """A running node with a receiver beside it."""
    made = Outskirts(folder, **parts)
    async with AsyncExitStack() as stack:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_route("*", "/{tail:.*}", made.receiver.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        http = await stack.enter_async_context(aiohttp.ClientSession())
        for service in made.services:
            await start(stack, service)
        yield made, http
