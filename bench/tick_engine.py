"""Durable ticks through the whole engine: inbox, hooks, typed state, limits, trace and recording of a trivial agent.

Its one service stages what the store's bench writes by itself: an outbox row and a signed ledger entry.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

from pydantic import BaseModel

from bench.tick_floor import Ground, Store
from bench.tick_row import ENTRY_BODY, LETTER, RELAY, fill, mark, messages, names
from bench.tick_row import agent as agent_row
from bench.tick_store import Run, measured
from core.clock import SystemClock
from core.unit import Append, Insert
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.session import Session
from fs.tree import File, Folder, Tree
from node.agent.program import Context, Nothing, Program, Trigger
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits
from node.gate.ledger import ledger_seal
from relays.key import Key

LIMITS = TickLimits(per_minute=0, compute_s=0, storage_bytes=0)


class Seen(BaseModel):
    """The state of `bench.tick_row.STATE`."""

    seen: int = 0
    last: str = ""
    topics: dict[str, int] = {}


class Trivial(Program[Seen, Nothing]):
    """Counts, and has one effect."""

    name = "trivial"
    state_type, config_type = Seen, Nothing

    async def on_trigger(self, ctx: Context[Seen, Nothing], trigger: Trigger) -> None:
        """Count what came, and answer it."""
        ctx.state.seen += 1
        await ctx.fs.call("/effects/new", b"yes")


class Line:
    """Where ticks come to their end: it notes when, and says when so many have."""

    def __init__(self) -> None:
        self._note: Callable[[float], None] = lambda _seconds: None
        self._last, self._left = 0.0, 0
        self._done: asyncio.Future[None] | None = None
        self._serial = itertools.count()

    def tree(self) -> Tree:
        """The service that ticks call."""

        async def call(_body: bytes, session: Session) -> bytes:
            serial = next(self._serial)
            letter = {"event_id": mark("event", serial), "relay": RELAY, "raw": LETTER, "effect_id": "bench"}
            await session.apply(
                [Insert("outbox", letter), Append("bench", "begin", mark("effect", serial), ENTRY_BODY)], self._ended
            )
            return b"staged"

        return Tree(Folder("effects", {"new": File("stages", call=call)}))

    def begin(self, count: int, note: Callable[[float], None]) -> "asyncio.Future[None]":
        """Done when so many ticks from now on are durable; `note` gets the seconds between them."""
        self._note, self._left, self._last = note, count, time.perf_counter()
        self._done = asyncio.get_running_loop().create_future()
        return self._done

    def _ended(self) -> None:
        now = time.perf_counter()
        self._note(now - self._last)
        self._last, self._left = now, self._left - 1
        if self._left == 0 and self._done is not None:
            self._done.set_result(None)


def engine(store: Store, line: Line) -> Engine:
    """An engine that has this one program and this one service."""
    space = Namespace([Mount("/effects", line.tree(), Access.WRITE)])
    return Engine(store, SystemClock(), {"trivial": Trivial()}, lambda _agent: space, Feed(), LIMITS)


@asynccontextmanager
async def running(one: Engine) -> AsyncIterator[None]:
    """The engine's service, for the time of the block."""
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(one.run(ready, stop))
    await ready.wait()
    try:
        yield
    finally:
        stop.set()
        await task


@asynccontextmanager
async def inhabited(ground: Ground, agents: int, ticks: int) -> AsyncIterator[tuple[Store, list[str]]]:
    """An empty database with so many agents for whom so many messages wait."""
    store = await ground.open(ledger_seal(Key.generate()), SystemClock())
    try:
        every = names(agents)
        await fill(store, map(agent_row, every))
        await fill(store, messages(every, ticks))
        yield store, every
    finally:
        await store.aclose()


async def through_engine(ground: Ground, ticks: int, agents: int) -> Run:
    """So many ticks of so many agents, all of whom have messages waiting."""
    async with inhabited(ground, agents, ticks) as (store, every):
        line = Line()
        one = engine(store, line)

        async def drain(took: list[float]) -> None:
            done = line.begin(ticks, took.append)
            async with running(one):
                notify_all(one.notify, every)
                await done

        run = await measured(store, ticks, drain)
        if await store.count("entry") != ticks:
            raise RuntimeError("ticks were lost on the way")
        return run


def notify_all(notify: Callable[[str], None], agents: Iterable[str]) -> None:
    """Each of them has something waiting."""
    for name in agents:
        notify(name)
