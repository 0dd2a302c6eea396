"""Agents that were idle for long hibernate by themselves, and make room where too many are awake."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.unit import Row, Update
from node.agent.inbox.row import envelope
from node.agent.tick.repose import Repose
from node.config import AgentSection
from node.error import AgentTaken
from node.storage.chain import unsigned_seal
from tests.unit.node.agent.agent_part import PUBKEY, Bench, Hands
from tests.unit_part import ENGINES, EVERY, Base

MINUTE_MS = 60_000
NAMES = [f"a{number}" for number in range(6)]


class House:
    """Who is awake, with room for so many."""

    def __init__(self, most: int, serving: tuple[str, ...] = ()) -> None:
        self.most, self.serving, self.names = most, serving, set[str]()

    @property
    def awake(self) -> int:
        return len(self.names)

    @property
    def room(self) -> int:
        return self.most - len(self.names)

    def is_awake(self, name: str) -> bool:
        return name in self.names

    def find(self, name: str) -> AgentSection:
        return AgentSection(name=name, strangers="all" if name in self.serving else "none")

    async def rouse(self, name: str, row: Row | None = None) -> bool:
        if name not in self.names and self.room <= 0:
            raise AgentTaken
        self.names.add(name)
        return True

    def rest(self, name: str) -> None:
        self.names.discard(name)


@pytest.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    yield base
    await base.aclose()


@asynccontextmanager
async def village(house: House, unit: Base | None = None) -> AsyncIterator[Bench]:
    """Six agents that have had their first tick, one minute after the other."""
    clock = Hands()
    bench = Bench(clock=clock) if unit is None else Bench(clock=clock, unit=unit)
    bench.engine.attend(house)
    async with bench.running():
        for name in NAMES:
            await bench.engine.create(name, "scripted", PUBKEY)
            house.names.add(name)
            await bench.idle(name)
            await quiet(bench)
            clock.ahead_ms += MINUTE_MS
        clock.ahead_ms += MINUTE_MS // 2
        yield bench


async def quiet(bench: Bench) -> None:
    async with asyncio.timeout(60):
        while bench.engine.busy:
            await asyncio.sleep(0.002)


def repose(bench: Bench, house: House, idle_minutes: int = 4, keep: int = 2, room: int = 0) -> Repose:
    return Repose(bench.unit, bench.clock, bench.engine, house, idle_minutes, keep=keep, room=room)


async def asleep(bench: Bench) -> set[str]:
    return {row["name"] for row in await bench.unit.select("agent", {"status": "dormant"})}


async def test_who_was_idle_for_long_hibernates_and_the_next_trigger_wakes_it(unit: Base) -> None:
    house = House(100)
    async with village(house, unit) as bench:
        assert await repose(bench, house).look() == 3
        assert await asleep(bench) == {"a0", "a1", "a2"}, "the others had a tick in the last four minutes"
        assert house.names == {"a3", "a4", "a5"}
        await bench.put("a0", "m1")
        await bench.idle("a0")
        await quiet(bench)
        assert house.is_awake("a0")
        assert await repose(bench, house).look() == 0, "it has just had a tick"
        assert (await bench.state("a0"))["seen"] == ["initialize", "m1"]


async def test_of_few_agents_nobody_is_laid_down_and_of_more_the_longest_idle(unit: Base) -> None:
    house = House(100)
    async with village(house, unit) as bench:
        assert await repose(bench, house, keep=6).look() == 0
        assert await repose(bench, house, idle_minutes=0).look() == 0, "0 is never"
        assert await repose(bench, house, idle_minutes=1, keep=4).look() == 2
        assert await asleep(bench) == {"a0", "a1"}


async def test_nobody_is_laid_down_for_whom_something_waits_who_fails_who_serves_or_was_just_woken() -> None:
    house = House(100, serving=("a0",))
    async with village(house) as bench:
        later = envelope("a1", "later", cause="message", source="test", sender="x", payload="{}", at=1)
        far_ms = bench.clock.millis() + 60 * MINUTE_MS
        await bench.unit.commit([later, Update("inbox", {"envelope_id": "later"}, set={"next_at_ms": far_ms})])
        await bench.unit.commit([Update("agent", {"name": "a2"}, set={"failures": 1})])
        await bench.engine.hibernate("a3")
        await bench.engine.wake("a3")
        assert await repose(bench, house, idle_minutes=2, keep=0).look() == 1
        assert await asleep(bench) == {"a4"}, "and the last one is not idle yet"
        assert (await bench.row("a2"))["failures"] == 1
        bench.clock.ahead_ms += 3 * MINUTE_MS
        await repose(bench, house, idle_minutes=2, keep=0).look()
        assert await asleep(bench) == {"a3", "a4", "a5"}


async def test_a_start_lays_nobody_down_who_was_idle_before_it() -> None:
    house = House(100)
    async with village(house) as bench:
        made, ready, stop = repose(bench, house), asyncio.Event(), asyncio.Event()
        service = asyncio.create_task(made.run(ready, stop))
        await ready.wait()
        stop.set()
        await asyncio.wait_for(service, 60)
        assert await made.look() == 0
        bench.clock.ahead_ms += 4 * MINUTE_MS
        assert await made.look() == 4


async def test_where_too_many_are_awake_the_longest_idle_make_room_and_a_trigger_is_dealt_with(unit: Base) -> None:
    house = House(6, serving=("a0", "a1"))
    async with village(house, unit) as bench:
        await bench.engine.hibernate("a5")
        house.most = 5
        await bench.put("a5", "m1")
        async with asyncio.timeout(60):
            await bench.engine.crowded.wait()
        await quiet(bench)
        assert (await bench.inbox("a5"))["m1"]["state"] == "new", "there is no room for it yet"
        ready, stop = asyncio.Event(), asyncio.Event()
        service = asyncio.create_task(repose(bench, house, idle_minutes=0, room=1).run(ready, stop))
        await bench.until("a5", lambda rows: rows["m1"]["state"] == "done", 60)
        stop.set()
        await asyncio.wait_for(service, 60)
        assert "a2" in await asleep(bench), "who serves strangers comes last"
        assert not await asleep(bench) & {"a0", "a1"}
