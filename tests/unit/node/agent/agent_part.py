"""An engine over a database in memory, and programs that do as the test says."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict

from core.clock import SystemClock
from core.identifier import PubKey
from core.unit import Row
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.session import Session
from fs.tree import File, Folder, Tree
from node.agent.inbox.mailbox import AgentInbox
from node.agent.inbox.row import envelope
from node.agent.log import AgentLog
from node.agent.program import AnyProgram, Context, Nothing, Program, Trigger
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits
from node.storage.memory import MemoryDatabase
from tests.unit_part import Base

PUBKEY = PubKey("ab" * 32)
QUICK = TickLimits(seconds=5, tries=3, parallel=8, back_off_ms=5, pause_ms=10)


class Seen(BaseModel):
    """What was dealt with, and whatever a test likes to keep."""

    model_config = ConfigDict(extra="allow")
    seen: list[str] = []


Here: TypeAlias = Context[Seen, Nothing]


class Scripted(Program[Seen, Nothing]):
    """A program that runs a function."""

    name = "scripted"
    version = 2
    state_type, config_type = Seen, Nothing

    def __init__(self, act: Callable[[Here, Trigger], Awaitable[None]]) -> None:
        self._act = act

    def migrate(self, version: int, state: dict[str, Any]) -> dict[str, Any]:
        return {"seen": [], "was": version}

    async def on_trigger(self, ctx: Here, trigger: Trigger) -> None:
        await self._act(ctx, trigger)


async def remember(ctx: Here, trigger: Trigger) -> None:
    ctx.state.seen.append(trigger.envelope_id)


class Hands(SystemClock):
    """A clock that a test can set. Those who sleep are not woken by it."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now(self) -> int:
        return self.millis() // 1000

    def millis(self) -> int:
        return super().millis() + self.ahead_ms


@dataclass
class Bench:
    """One engine and what it stands on."""

    unit: Base = field(default_factory=MemoryDatabase)
    programs: dict[str, AnyProgram] = field(default_factory=lambda: {"scripted": Scripted(remember)})
    services: dict[str, Tree] = field(default_factory=dict)
    limits: TickLimits = QUICK
    clock: Any = field(default_factory=SystemClock)
    feed: Feed = field(default_factory=Feed)

    def __post_init__(self) -> None:
        self.engine = self.fresh()

    def fresh(self) -> Engine:
        return Engine(self.unit, self.clock, self.programs, self.namespace, self.feed, self.limits)

    def namespace(self, agent: str) -> Namespace:
        return Namespace([Mount(path, tree, Access.WRITE) for path, tree in self.services.items()])

    @asynccontextmanager
    async def running(self, *agents: str) -> AsyncIterator[Engine]:
        for name in agents:
            await self.engine.create(name, "scripted", PUBKEY)
        ready, stop = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(self.engine.run(ready, stop))
        await ready.wait()
        try:
            yield self.engine
        finally:
            stop.set()
            await asyncio.wait_for(task, 60)

    async def put(
        self, agent: str, envelope_id: str, sender: str = "operator", payload: Mapping[str, Any] | None = None
    ) -> None:
        row = envelope(
            agent,
            envelope_id,
            cause="message",
            source="test",
            sender=sender,
            payload=orjson.dumps(payload or {}).decode(),
            at=1,
        )
        await self.unit.commit([row])
        self.engine.notify(agent)

    async def row(self, agent: str) -> Row:
        return (await self.unit.select("agent", {"name": agent}))[0]

    async def until_row(self, agent: str, good: Callable[[Row], bool], seconds: float = 30.0) -> Row:
        async with asyncio.timeout(seconds):
            while not good(row := await self.row(agent)):
                await asyncio.sleep(0.002)
        return row

    async def state(self, agent: str) -> Any:
        return orjson.loads((await self.row(agent))["state"])

    async def inbox(self, agent: str) -> dict[str, Row]:
        return {row["envelope_id"]: row for row in await self.unit.select("inbox", {"agent": agent})}

    async def until(self, agent: str, good: Callable[[dict[str, Row]], bool], seconds: float = 30.0) -> dict[str, Row]:
        async with asyncio.timeout(seconds):
            while not good(rows := await self.inbox(agent)):
                await asyncio.sleep(0.002)
        return rows

    async def idle(self, agent: str) -> dict[str, Row]:
        return await self.until(agent, lambda rows: all(row["state"] != "new" for row in rows.values()))

    def files(self, agent: str) -> AgentInbox:
        return AgentInbox(agent, self.unit, self.clock, self.engine.notify)

    def trace(self, agent: str) -> AgentLog:
        return AgentLog(agent, self.unit, self.feed)


def effect_tree(
    calls: list[tuple[str, str | None]], writes: Callable[[Session], list[Any]], then: Callable[[], None]
) -> Tree:
    """A service whose file `new` stages writes."""

    async def call(body: bytes, session: Session) -> bytes:
        calls.append((body.decode(), session.key))
        await session.apply(writes(session), then)
        return b"staged" if session.staged else b"done"

    return Tree(Folder("effects", {"new": File("stages", call=call)}))
