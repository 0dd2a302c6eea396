"""Nodes between which an agent moves: an engine, keys and a home on one database each, without relays."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from core.clock import SystemClock
from core.error import VendoError
from core.identifier import PubKey
from core.unit import Insert, Row, Write
from node.agent.goal import AgentGoals
from node.agent.program import AnyProgram, Trigger
from node.backup.arrive import Arrival, Wish
from node.backup.depart import Departure
from node.backup.manifest import MANIFEST, AgentManifest, seal_draft
from node.backup.reader import read_through
from node.config import AgentSection
from node.identity.registry import Identities
from relays.key import Keyring
from tests.unit.node.agent.agent_part import Bench, Here, Scripted
from tests.unit_part import Base

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
OTHER_WORDS = "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"
MOUNTS = ("/inbox", "/goals", "/compute")
FAR_MS = 4_000_000_000_000
SECTION = AgentSection(
    name="a", program="scripted", about="it moves", contacts=("cd" * 32,), tick_seconds=1.5, storage_mb=1
)


async def busy(ctx: Here, trigger: Trigger) -> None:
    """A tick that leaves something of every kind."""
    ctx.state.seen.append(trigger.envelope_id)
    if trigger.cause == "initialize":
        ctx.memory.set("shopping", {"eggs": 6, "note": "ü\N{SNOWMAN}"})
        ctx.memory.set("empty", "")
        ctx.memory.set("/patterns/anna", "likes tea")
        ctx.memory.set("/notes/", None)
        ctx.mark_seen("first")
        ctx.mark_seen("second")
        ctx.set_alarm("once", at_ms=FAR_MS, payload={"say": "now"})
        ctx.set_alarm("often", every_ms=86_400_000)
        ctx.set_alarm("monday", cron="CRON_TZ=Europe/Berlin 0 9 * * 1")
        ctx.watch("news", "payment.received", {"data.unit": "sat"})
    if trigger.payload.get("fail"):
        raise RuntimeError("as it was told")


class Desk:
    """Which agents there are, and nothing else of them."""

    def __init__(self) -> None:
        self.sections: dict[str, AgentSection] = {}

    @asynccontextmanager
    async def arriving(self, section: AgentSection) -> AsyncIterator[Sequence[Write]]:
        yield [Insert("meta", {"key": f"agent/{section.name}", "value": "{}"})]
        self.sections[section.name] = section

    @asynccontextmanager
    async def returning(self, section: AgentSection) -> AsyncIterator[tuple[AgentSection, Sequence[Write]]]:
        yield section, []
        self.sections[section.name] = section


@dataclass
class Port:
    """One node. `files`: of programs, by their names."""

    unit: Base
    home: Path
    words: str = WORDS
    act: Any = busy
    mounts: tuple[str, ...] = MOUNTS
    files: dict[str, Path] = field(default_factory=dict)
    programs: dict[str, AnyProgram] | None = None

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        made = {"scripted": Scripted(self.act)} if self.programs is None else self.programs
        self.bench = Bench(unit=self.unit, programs=made)
        self.ring, self.desk = Keyring(self.words), Desk()
        clock = SystemClock()
        self.keys = Identities(self.unit, clock, self.ring, None)  # no signer is far away
        node = self.ring.node
        self.departure = Departure(
            self.unit, clock, self.bench.engine, made, self.files.get, self.home, lambda: self.mounts, node.pubkey,
            lambda raw: node.sign(seal_draft(raw, clock.now())).to_json().encode(),
        )  # fmt: skip
        self.touched = 0
        self.arrival = self.arrival_with(lambda: 1 << 30)

    def arrival_with(self, room: Callable[[], int]) -> Arrival:
        return Arrival(
            self.unit, SystemClock(), self.bench.engine, self.bench.programs, self.home, lambda: self.mounts, self.keys,
            self.desk, self._touch, room, self.ring.node.pubkey,
        )  # fmt: skip

    def _touch(self) -> None:
        self.touched += 1

    async def settle(self, section: AgentSection = SECTION) -> None:
        """An agent that has lived a little: it has something in every table that travels."""
        signer = await self.keys.add(section.name)
        await self.bench.engine.create(section.name, section.program, signer.pubkey, section.config, section.limits())
        async with self.bench.running():
            await self.bench.idle(section.name)
            await self.bench.put(section.name, "m1", "anna")
            await self.bench.idle(section.name)
            await self.bench.engine.stop(section.name)
            await self.bench.put(section.name, "m2", "bert", {"text": "later"})
        name, at = section.name, SystemClock().now()
        said = {"agent": name, "protocol": "nip17", "kind": 14, "created_at": at, "effect_id": "secret-effect"}
        await self.unit.commit(
            [
                *AgentGoals(name, self.unit, SystemClock()).writes("win", None, '{"by":"noon"}'),
                Insert("hook", {
                    "id": "0" * 32, "agent": name, "name": "shop", "event": "webhook.shop", "scheme": "hmac",
                    "created_at": at,
                }),
                Insert("message", said | {
                    "id": "aa" * 32, "peer": "bb" * 32, "direction": "in", "text": "hello", "state": "received",
                    "changed_ms": at * 1_000,
                }),
                Insert("message", said | {
                    "id": "ab" * 32, "peer": "bb" * 32, "direction": "out", "text": "on its way", "state": "queued",
                    "changed_ms": at * 1_000 + 1,
                }),
                Insert("meta", {"key": f"admission/{name}", "value": orjson.dumps({"per_minute": 7}).decode()}),
            ]
        )  # fmt: skip
        await self.bench.engine.start(name)

    async def export(self, file: Path, section: AgentSection = SECTION, **wish: Any) -> AgentManifest:
        with file.open("wb") as out:
            manifest, _ = await self.departure.export(section, out, **wish)
        return manifest

    async def bring(self, file: Path, **wish: Any) -> dict[str, Any]:
        """With the node named that signed it, as an operator does who knows it."""
        return await self.arrival.bring(file, Wish(**{"node": _signer(file)} | wish))

    async def rows(self, table: str, name: str = "a") -> list[Row]:
        key = "name" if table in ("agent", "identity") else "agent"
        return await self.unit.select(table, {key: name})

    async def all_of(self, name: str = "a") -> dict[str, list[tuple[Any, ...]]]:
        """Everything of an agent that is its own, without numbers that every node gives itself."""
        found: dict[str, list[tuple[Any, ...]]] = {}
        for table in ("item", "goal", "mark", "alarm", "interest", "inbox", "message"):
            rows = await self.rows(table, name)
            told = [tuple((k, v) for k, v in sorted(row.items()) if k not in ("n", "agent")) for row in rows]
            found[table] = sorted(told, key=repr)
        own = ("state", "state_version", "ticks", "last_cause", "last_tick_at", "config", "limits", "inbox", "program")
        found["agent"] = [tuple(row[column] for column in own) for row in await self.rows("agent", name)]
        return found


def _signer(file: Path) -> PubKey | None:
    """Who says to have signed an archive; None if that cannot be read."""
    try:
        _, held = read_through(file, 1 << 30, lambda part: None)
        return PubKey(str(orjson.loads(held[MANIFEST])["node"]))
    except (VendoError, OSError, ValueError, KeyError, TypeError):
        return None
