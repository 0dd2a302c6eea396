"""The pool keeps its promises on every relay, ours and foreign, with all their limits and oddities."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.clock import SystemClock
from node.storage.memory import MemoryDatabase
from relays.event import Event
from relays.filter import Filter
from relays.key import Key
from relays.pool import Pool
from relays.verdict import VerdictState
from tests.contract.relay_check import event, now
from tests.contract.wire_part import Wire, connected
from tests.foreign_part import SORTS, Foreign, foreign_process

pytestmark = [pytest.mark.needs("relays"), pytest.mark.needs("node")]
PERMIT: Any = SimpleNamespace(effect_id="test")
STORED = 700  # more than any of them gives at once by default
NAMES = [name for name in SORTS if name != "khatru-normal"]


class Got:
    """What the handler was called with."""

    def __init__(self) -> None:
        self.ids: Counter[str] = Counter()

    async def __call__(self, one: Event, _: str) -> None:
        self.ids[one.id] += 1

    async def until(self, wanted: set[str], seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not wanted <= set(self.ids):
            assert time.monotonic() < end, f"{len(wanted - set(self.ids))} of {len(wanted)} events are missing"
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(url: str, author: Key, got: Got) -> AsyncIterator[Pool]:
    pool = Pool([url], unit=MemoryDatabase(), clock=SystemClock(), check=lambda _: None)
    pool.subscribe("test", [Filter(authors=frozenset({author.pubkey}))], got, remember=True)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(pool.run(ready, stop))
    try:
        await ready.wait()
        yield pool
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def publish(wire: Wire, events: list[Event]) -> set[str]:
    for first in range(0, len(events), 50):
        await asyncio.gather(*(wire.put(one) for one in events[first : first + 50]))
    return {one.id for one in events}


@pytest.fixture(params=NAMES)
async def relay(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Foreign]:
    async with foreign_process(request.param, tmp_path) as running:
        yield running


async def test_the_pool_works_as_promised(relay: Foreign) -> None:
    author, got = Key.generate(), Got()
    old = [event(author, content=str(number), at=now() - 5_000 + number // 3) for number in range(STORED)]
    async with connected(relay.url) as wire:
        stored = await publish(wire, old)
    async with serving(relay.url, author, got) as pool:
        await got.until(stored)  # past the relay's limit, with three events of each second
        async with connected(relay.url) as wire:
            live = await publish(wire, [event(author, 7, str(number)) for number in range(20)])
            await got.until(stored | live)

        mine = event(author, content="by the pool")
        assert (await pool.send(relay.url, mine, PERMIT)).state is VerdictState.STORED
        assert (await pool.send(relay.url, mine, PERMIT)).state is VerdictState.STORED
        everything = stored | live | {mine.id}
        await got.until(everything)

        await relay.kill()
        await relay.start()
        async with connected(relay.url) as wire:  # most likely before the pool is back
            gap = await publish(wire, [event(author, content=f"gap {number}") for number in range(20)])
        await got.until(everything | gap, 40)
        (health,) = pool.health()
        assert health.up
        assert health.connects >= 2
        assert health.forged == health.malformed == 0
    assert max(got.ids.values()) == 1, "an event was handled twice"
    assert set(got.ids) == everything | gap


async def test_a_relay_that_freezes_loses_nothing(tmp_path: Path) -> None:
    author, got = Key.generate(), Got()
    async with foreign_process("khatru", tmp_path) as relay, serving(relay.url, author, got) as pool:
        async with connected(relay.url) as wire:
            sent = await publish(wire, [event(author, content="before")])
            await got.until(sent)
            relay.freeze()
            waiting = asyncio.create_task(publish(wire, [event(author, content="frozen")]))
            await asyncio.sleep(2)
            relay.thaw()
            await got.until(sent | await waiting)
        assert pool.is_up(relay.url)
