"""What stands around an agent on its workbench: a clock, files, and stand-ins that only note what was asked of them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.clock import Clock
from core.identifier import PubKey, derived_id
from core.unit import UnitOfWork
from fs.feed import Feed
from fs.namespace import Access, Mount
from fs.service.goals import goals_service
from fs.service.logs import logs_service
from fs.service.memory import memory_service
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_object
from node.agent.goal import AgentGoals
from node.agent.item import AgentItems
from node.agent.log import AgentLog
from relays.key import parse_pubkey

START_S = 1_767_225_600  # 2026-01-01T00:00Z


@dataclass(slots=True)
class BenchClock:
    """Time that only `Bench.wait` moves."""

    ms: int = START_S * 1_000

    def now(self) -> int:
        """Unix seconds."""
        return self.ms // 1_000

    def millis(self) -> int:
        """Unix milliseconds."""
        return self.ms

    def monotonic(self) -> float:
        """Seconds."""
        return self.ms / 1_000

    async def sleep(self, seconds: float) -> None:
        """Let others run; nothing waits for time to pass by itself."""
        await asyncio.sleep(0)


@dataclass(slots=True)
class Tick:
    """What one tick did.

    Attributes:
        cause: why it was.
        error: why it was not committed (code and message), or empty.
        sent: encrypted messages: to whom (hex), and what.
        calls: everything else that was called: the path, and the body as JSON, or as text.
        log: what it said in its trace: the type, and the data.
    """

    cause: str
    error: str = ""
    sent: list[tuple[str, str]] = field(default_factory=list)
    calls: list[tuple[str, Any]] = field(default_factory=list)
    log: list[tuple[str, Any]] = field(default_factory=list)


def surroundings(
    agent: str, pubkey: PubKey, unit: UnitOfWork, clock: Clock, feed: Feed, noted: Callable[[], Tick]
) -> Sequence[Mount]:
    """The files of an agent on a workbench. What is sent is noted in the tick that `noted` answers, at its commit."""

    async def own(session: Session) -> bytes:
        return f"{pubkey}\n".encode()

    identity = Folder("Who it is.", {"pubkey": File("its key, hex", read=own)})
    return [
        Mount("/goals", goals_service(AgentGoals(agent, unit, clock)), Access.WRITE, "what it is to reach"),
        Mount("/memory", memory_service(AgentItems(agent, unit)), Access.WRITE, "what it remembers beside its state"),
        Mount("/logs", logs_service(AgentLog(agent, unit, feed)), Access.READ, "what it did"),
        Mount("/identity", Tree(identity), Access.READ, "who it is"),
        Mount("/nostr", Tree(_nostr(noted)), Access.BUDGETED, "messages"),
        Mount("/compute", Tree(_compute(noted)), Access.BUDGETED, "buy work"),
    ]


def _nostr(noted: Callable[[], Tick]) -> Folder:
    async def find(name: str, session: Session) -> File:
        async def send(body: bytes, session: Session) -> bytes:
            to, text = parse_pubkey(name), body.decode()
            await session.apply((), lambda: noted().sent.append((to, text)))
            return json_bytes({"message_id": derived_id("dm", session.effect_key()), "status": "staged"})

        return File("send a message", call=send)

    return Folder("Messages.", {"dm": Folder("To people.", {}, None, find, "<npub>", "one person")})


def _compute(noted: Callable[[], Tick]) -> Folder:
    async def new(body: bytes, session: Session) -> bytes:
        value = json_object(body)
        await session.apply((), lambda: noted().calls.append(("/compute/new", value)))
        return json_bytes({"job_id": derived_id("job", session.effect_key()), "status": "staged"})

    return Folder("Work.", {"new": File("buy a job", call=new)})
