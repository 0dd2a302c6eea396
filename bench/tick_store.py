"""Durable ticks of a trivial agent through the store alone: load, commit with a signed ledger entry, no engine.

As the engine does, a turn loads the agent and some of its messages, and then knows the row from one commit to the next:
each commit compares the row's version, so that it would conflict if anybody else had changed it.
"""

import asyncio
import gc
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import orjson

from bench.tick_floor import Ground, Store
from bench.tick_row import ENTRY_BODY, LETTER, RELAY, fill, mark, messages, names
from bench.tick_row import agent as agent_row
from core.clock import SystemClock
from core.unit import Append, Insert, Row, Update
from node.gate.ledger import ledger_seal
from relays.key import Key

_PROBE_S = 0.005
_AGENT, _FIRST = ("state", "version", "epoch"), ("priority", "n")
IN_A_ROW = 16  # ticks of a turn, as many as an agent has in the engine while others wait


@dataclass(slots=True)
class Run:
    """What many ticks took: wall time, each tick's own, and how late the loop was with something else meanwhile."""

    ticks: int
    seconds: float
    took: list[float]
    late: list[float] = field(default_factory=list)
    groups: int = 0

    @property
    def per_s(self) -> float:
        """Ticks a second."""
        return self.ticks / self.seconds


async def lateness(into: list[float]) -> None:
    """How late the loop gets round to a timer, until it is cancelled."""
    while True:
        due = time.perf_counter() + _PROBE_S
        await asyncio.sleep(_PROBE_S)
        into.append(time.perf_counter() - due)


async def tick(store: Store, name: str, agent: Row, envelope: Row, serial: int) -> None:
    """One tick of an agent for what waits for it; its row is changed as the commit changes it."""
    now = time.time_ns() // 1_000_000
    state = orjson.loads(agent["state"])
    await store.commit(
        [
            Update(
                "agent",
                {"name": name, "version": agent["version"], "epoch": agent["epoch"]},
                set={
                    "state": orjson.dumps(state).decode(), "state_version": 1, "last_tick_at": now // 1000,
                    "last_cause": "message",
                },
                add={"version": 1, "ticks": 1},
            ),
            Update(
                "inbox",
                {"n": envelope["n"], "state": "new"},
                set={"state": "done", "payload": "", "ended_at": now // 1000},
            ),
            Insert(
                "tick",
                {
                    "id": mark("tick", serial), "agent": name, "envelope_id": envelope["envelope_id"],
                    "cause": "message", "at_ms": now, "duration_ms": 1, "version": agent["version"],
                },
            ),
            Insert("outbox", {"event_id": mark("event", serial), "relay": RELAY, "raw": LETTER, "effect_id": "bench"}),
            Append("bench", "begin", mark("effect", serial), ENTRY_BODY),
        ]
    )  # fmt: skip
    agent["version"] += 1


async def turn(store: Store, name: str) -> tuple[Row, list[Row]]:
    """The agent, and what waits for it."""
    (agent,) = await store.select("agent", {"name": name, "status": "active"}, columns=_AGENT)
    return agent, await store.select("inbox", {"agent": name, "state": "new"}, order=_FIRST, limit=IN_A_ROW)


async def measured(store: Store, ticks: int, work: Callable[[list[float]], Awaitable[None]]) -> Run:
    """What `work` took for so many ticks; it notes each tick's seconds."""
    run = Run(ticks, 0.0, [])
    gc.unfreeze()
    gc.collect()
    gc.freeze()  # as a node does once it has started
    probe = asyncio.create_task(lateness(run.late))
    await asyncio.sleep(0)
    before, begun = store.stats()["groups"], time.perf_counter()
    await work(run.took)
    run.seconds, run.groups = time.perf_counter() - begun, store.stats()["groups"] - before
    probe.cancel()
    return run


async def through_store(ground: Ground, ticks: int, agents: int) -> Run:
    """So many ticks of so many agents, all of them at once, on an empty database."""
    store = await ground.open(ledger_seal(Key.generate()), SystemClock())
    every = names(agents)
    await fill(store, map(agent_row, every))
    await fill(store, messages(every, ticks))
    serial = itertools.count()

    async def one(name: str, took: list[float]) -> None:
        begun = time.perf_counter()
        agent, waiting = await turn(store, name)
        while waiting:
            for envelope in waiting:
                await tick(store, name, agent, envelope, next(serial))
                took.append(time.perf_counter() - begun)
                begun = time.perf_counter()
            agent, waiting = await turn(store, name)

    async def all_of_them(took: list[float]) -> None:
        await asyncio.gather(*(one(name, took) for name in every))

    run = await measured(store, ticks, all_of_them)
    if await store.count("entry") != ticks:
        raise RuntimeError("ticks were lost on the way")
    await store.aclose()
    return run
