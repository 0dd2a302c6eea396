"""An inbox on any engine, and a clock that stands where a test puts it."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson

from core.unit import Insert, Row, UnitOfWork
from fs.service.inbox import Letter
from fs.session import Role, Session
from node.agent.inbox.intake import Intake
from node.agent.inbox.mailbox import AgentInbox
from node.agent.inbox.overflow import Overflow
from node.agent.inbox.row import envelope

START = 1_767_225_600  # 2026-01-01T00:00Z


@dataclass
class StillClock:
    """Time that a test moves. Who sleeps wakes when it has passed, whatever the wall says."""

    ms: int = START * 1_000
    mono: float = 0.0
    sleeping: list[tuple[float, asyncio.Event]] = field(default_factory=list)

    def now(self) -> int:
        return self.ms // 1_000

    def millis(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.mono

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.Event()
        self.sleeping.append((self.mono + seconds, woken))
        await woken.wait()

    async def advance(self, seconds: float, *, wall: float | None = None) -> None:
        """Let time pass; the clock on the wall may go another way."""
        self.mono += seconds
        self.ms += round((seconds if wall is None else wall) * 1_000)
        for due, woken in list(self.sleeping):
            if due <= self.mono:
                self.sleeping.remove((due, woken))
                woken.set()
        for _ in range(20):
            await asyncio.sleep(0)


def agent_row(name: str, **more: Any) -> Insert:
    row: Row = {
        "name": name, "program": "p", "pubkey": "ab" * 32, "status": "dormant", "state_version": 1, "state": "{}",
        "created_at": START, **more,
    }  # fmt: skip
    return Insert("agent", row)


def letter(agent: str, name: str, sender: str = "eve", source: str = "web", **more: Any) -> Insert:
    payload = orjson.dumps({"text": name}).decode()
    return envelope(agent, name, cause="message", source=source, sender=sender, payload=payload, at=START, **more)


@dataclass
class Desk:
    """One node's inboxes."""

    unit: UnitOfWork
    clock: StillClock
    intake: Intake
    woken: list[str] = field(default_factory=list)

    def inbox(self, agent: str = "a") -> AgentInbox:
        return AgentInbox(agent, self.unit, self.clock, self.woken.append, self.intake)

    def operator(self, key: str | None = None) -> Session:
        return Session("operator", Role.OPERATOR, key, unit=self.unit)

    async def arrive(self, row: Insert) -> None:
        async with self.intake.room(row) as writes:
            await self.unit.commit(writes)

    async def leave(self, name: str, agent: str = "a", **more: Any) -> str:
        return await self.inbox(agent).leave(self.operator(), name, Letter(name, **more))

    async def states(self, agent: str = "a") -> dict[str, str]:
        return {
            row["envelope_id"]: row["state"] for row in await self.unit.select("inbox", {"agent": agent}, order=["n"])
        }


def desk(unit: UnitOfWork, **overflow: Any) -> Desk:
    clock = StillClock()
    return Desk(unit, clock, Intake(unit, clock, Overflow().changed(overflow)))
