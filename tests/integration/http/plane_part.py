"""A control plane over a database in memory, and a client that knows the token."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from core.clock import SystemClock
from core.error import NotFound
from core.identifier import PubKey
from core.unit import Insert
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.protocol import Record
from fs.service.goals import goals_service
from fs.service.identity import identity_service
from fs.service.inbox import inbox_service
from fs.service.logs import logs_service
from fs.session import Role, Session
from fs.tree import File, Folder, Tree
from node.agent.goal import AgentGoals
from node.agent.inbox.mailbox import AgentInbox
from node.agent.log import AgentLog, topic
from node.http.control import ControlPlane
from node.http.token import Grant, Tokens, digest
from node.storage.memory import MemoryDatabase

TOKEN = "operator-token"
AGENT_TOKEN = "agent-token"


class Someone:
    """An agent with a key and nothing else."""

    pubkey = PubKey("ab" * 32)

    async def profile(self) -> dict[str, Any]:
        return {}

    async def nip05(self) -> str:
        return ""

    async def relays(self) -> dict[str, Any]:
        return {}

    async def keys(self) -> list[dict[str, Any]]:
        return []


@dataclass
class Plane:
    """What a test talks to."""

    unit: MemoryDatabase = field(default_factory=MemoryDatabase)
    feed: Feed = field(default_factory=Feed)
    woken: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    checks: dict[str, Any] = field(default_factory=dict)
    more: list[Mount] = field(default_factory=list)

    def __post_init__(self) -> None:
        grants = [
            (digest(TOKEN), Grant("operator", Role.OPERATOR)),
            (digest(AGENT_TOKEN), Grant("agent:a", Role.AGENT)),
        ]
        self.control = ControlPlane(self.namespace, self.agents, Tokens(grants), self.unit, checks=self.checks)

    async def agents(self) -> AsyncIterator[dict[str, Any]]:
        for name in ("b", "a"):
            yield {"name": name}

    def namespace(self, name: str) -> Namespace:
        if name not in ("a", "b"):
            raise NotFound("There is no agent with this name.")
        inbox = AgentInbox(name, self.unit, SystemClock(), self.woken.append)
        return Namespace(
            [
                Mount("/inbox", inbox_service(inbox), Access.READ, "what waits"),
                Mount("/goals", goals_service(AgentGoals(name, self.unit, SystemClock())), Access.WRITE, "goals"),
                Mount("/identity", identity_service(Someone()), Access.SIGN, "who"),
                Mount("/logs", logs_service(AgentLog(name, self.unit, self.feed)), Access.READ, "what it did"),
                Mount("/odd", self._odd(), Access.WRITE, "for tests"),
                Mount("/admin", self._odd(), Access.ADMIN, "for the operator"),
                *self.more,
            ]
        )

    def _odd(self) -> Tree:
        async def crash(session: Session) -> bytes:
            raise RuntimeError("secret words")

        async def echo(body: bytes, session: Session) -> bytes:
            self.keys.append(session.key)
            return body

        async def binary(session: Session) -> bytes:
            return b"\xff\x00"

        async def short(session: Session, after: int | None) -> AsyncIterator[Record]:
            for number in range((after or 0) + 1, 4):
                yield Record(number, f"line {number}\nof two".encode(), "chunk")

        return Tree(
            Folder(
                "odd",
                {
                    "crash": File("fails", read=crash),
                    "echo": File("answers", call=echo, max_bytes=2_000_000),
                    "binary": File("bytes", read=binary),
                    "short": File("a stream that ends", watch=short),
                },
            )
        )

    async def log(self, word: str, agent: str = "a") -> None:
        await self.unit.commit([Insert("log", {"agent": agent, "at_ms": 1, "type": "said", "data": f'"{word}"'})])
        self.feed.grew(topic(agent))

    async def raw(self, request: bytes) -> tuple[int, bytes]:
        """Send exactly these bytes; the status and the whole answer."""
        port = int(self.control.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(60):
            answer = await reader.read()
        writer.close()
        return int(answer.split(b" ", 2)[1]), answer


@asynccontextmanager
async def plane(**parts: Any) -> AsyncIterator[tuple[Plane, aiohttp.ClientSession]]:
    made = Plane(**parts)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(made.control.run(ready, stop))
    await ready.wait()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        async with aiohttp.ClientSession(made.control.url, headers=headers) as http:
            yield made, http
            stop.set()
            await asyncio.wait_for(task, 60)
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)
