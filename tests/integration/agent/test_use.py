"""What agents may use: limits stop them gracefully, nothing is lost, and `/status` says what and until when."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.unit import Delete
from fs.service.goals import goals_service
from fs.session import Batch, Role, Session
from node.agent.error import StorageFull
from node.agent.goal import AgentGoals
from node.agent.program import Trigger
from node.agent.tick.limit import COMPUTE, RATE, STORAGE, Own, TickLimits
from node.agent.view import AgentView
from node.storage.chain import unsigned_seal
from tests.unit.node.agent.agent_part import PUBKEY, Bench, Hands, Here, Scripted, remember
from tests.unit_part import ENGINES, EVERY, Base

DAY_MS = 86_400_000


@pytest.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    yield base
    await base.aclose()


class Stands(Hands):
    """Moves only as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self._at = SystemClock().millis()

    def millis(self) -> int:
        return self._at + self.ahead_ms


async def status(bench: Bench, name: str = "a") -> dict[str, Any]:
    return await AgentView(name, bench.unit, bench.clock, bench.limits).status()


async def told(bench: Bench, kind: str) -> list[dict[str, Any]]:
    return [one["data"] for one in await bench.trace("a").recent(200) if one["type"] == kind]


async def quiet(bench: Bench) -> None:
    async with asyncio.timeout(60):
        while bench.engine.busy:
            await asyncio.sleep(0.002)


async def test_an_agent_that_had_its_ticks_of_a_minute_waits_and_then_goes_on(unit: Base) -> None:
    clock = Stands()
    bench = Bench(unit=unit, clock=clock, limits=TickLimits(seconds=5, per_minute=10))
    async with bench.running("a"):
        for number in range(20):
            await bench.put("a", f"m{number}")
        await bench.until("a", lambda rows: sum(row["state"] == "done" for row in rows.values()) == 10)
        await quiet(bench)
        found = await status(bench)
        assert found["limited"]["limit"] == RATE
        assert 0 < found["limited"]["until_ms"] - clock.millis() <= 6_000
        assert found["queue_depth"] == 11
        assert found["limits"][RATE]["limit"] == 10
        bench.engine.notify("a")
        await quiet(bench)
        assert [one["limit"] for one in await told(bench, "limit_reached")] == [RATE], "it is told once"
        assert [one["limit"] for one in await told(bench, "limit_near")] == [RATE]
        clock.ahead_ms += 30_000
        bench.engine.notify("a")
        await bench.until("a", lambda rows: sum(row["state"] == "done" for row in rows.values()) == 15)
        clock.ahead_ms += 120_000
        bench.engine.notify("a")
        await bench.idle("a")
        assert (await status(bench))["limited"] is None
    assert (await bench.state("a"))["seen"] == ["initialize", *(f"m{number}" for number in range(20))]


async def test_the_engine_goes_on_by_itself_when_the_limit_renews() -> None:
    bench = Bench(limits=TickLimits(seconds=5, per_minute=60))
    await bench.engine.create("a", "scripted", PUBKEY)
    for number in range(61):
        await bench.put("a", f"m{number}")
    async with bench.running():
        await bench.until("a", lambda rows: all(row["state"] != "new" for row in rows.values()), 100)
    assert len((await bench.state("a"))["seen"]) == 62
    assert await bench.unit.select("log", {"type": "limit_reached"})


async def test_an_agent_that_has_computed_enough_waits_for_the_next_day(unit: Base) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        await remember(ctx, trigger)
        if trigger.cause == "message":
            ctx.add_compute(400)

    clock = Hands()
    limits = TickLimits(seconds=5, compute_s=1)
    bench = Bench(unit=unit, clock=clock, limits=limits, programs={"scripted": Scripted(act)})
    clock.ahead_ms = DAY_MS - clock.millis() % DAY_MS + 1_000  # the beginning of a day
    async with bench.running("a"):
        for number in range(5):
            await bench.put("a", f"m{number}")
        await bench.until("a", lambda rows: rows["m2"]["state"] == "done")
        await quiet(bench)
        found = await status(bench)
        assert found["limited"] == {"limit": COMPUTE, "until_ms": (clock.millis() // DAY_MS + 1) * DAY_MS}
        assert found["limits"][COMPUTE]["used"] >= 1_200
        assert [one["limit"] for one in await told(bench, "limit_near")] == [COMPUTE]
        assert (await bench.inbox("a"))["m3"]["state"] == "new"
        clock.ahead_ms += DAY_MS
        bench.engine.notify("a")
        await bench.idle("a")
    assert (await bench.state("a"))["seen"][-1] == "m4"


async def test_failed_ticks_count_as_well() -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        ctx.add_compute(400)
        raise ValueError("no")

    bench = Bench(limits=TickLimits(seconds=5, compute_s=1, tries=50, back_off_ms=1, quarantine=99))
    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        async with asyncio.timeout(60):
            while (await status(bench))["limited"] is None:
                await asyncio.sleep(0.005)
        await quiet(bench)
        assert (await bench.inbox("a"))["initialize"]["tries"] == 3


async def test_an_agent_that_keeps_too_much_waits_with_that_trigger_and_others_may_make_room(unit: Base) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        match trigger.envelope_id:
            case "fill":
                for number in range(9):
                    ctx.memory.set(f"k{number}", "x" * 100)
            case "more":
                ctx.memory.set("more", "x" * 300)
            case "free":
                for number in range(9):
                    ctx.memory.delete(f"k{number}")
        await remember(ctx, trigger)

    limits = TickLimits(seconds=5, storage_bytes=1_200, full_ms=40)
    bench = Bench(unit=unit, limits=limits, programs={"scripted": Scripted(act)})
    async with bench.running("a"):
        await bench.put("a", "fill", "anna")
        await bench.until("a", lambda rows: rows["fill"]["state"] == "done")
        assert [one["limit"] for one in await told(bench, "limit_near")] == [STORAGE]
        await bench.put("a", "more", "bert")
        await bench.until("a", lambda rows: rows["more"]["error"] != "")
        row = (await bench.inbox("a"))["more"]
        assert (row["state"], row["tries"]) == ("new", 0)
        assert row["error"].startswith(StorageFull.code)
        found = await status(bench)
        assert 800 < found["limits"][STORAGE]["used"] <= 1_200
        assert (found["failures"], found["status"]) == (0, "active")
        assert found["limited"] == {"limit": STORAGE, "until_ms": None}
        assert [one["code"] for one in await told(bench, "waits")] == [StorageFull.code]
        assert await told(bench, "limit_reached") == [{"limit": STORAGE, "until_ms": None}], "once for this trigger"
        await bench.put("a", "free", "carl")
        await bench.idle("a")
        await quiet(bench)
        assert (await status(bench))["limited"] is None
    assert (await bench.state("a"))["seen"] == ["initialize", "fill", "free", "more"]
    assert {row["key"] for row in await unit.select("item", {"agent": "a"})} == {"more"}
    row = await bench.row("a")
    assert row["stored"] == len(row["state"]) + len("more") + 302


async def goal_bytes(unit: Base) -> int:
    return sum(len(row["body"].encode()) for row in await unit.select("goal", {"agent": "a"}))


async def test_what_goals_take_is_counted_however_they_are_written(unit: Base) -> None:
    bench = Bench(unit=unit)
    async with bench.running("a"):
        await bench.idle("a")
    before = (await bench.row("a"))["stored"]
    goals = goals_service(AgentGoals("a", unit, SystemClock()))
    operator = Session("operator", Role.OPERATOR, unit=unit)
    await goals.write(("x",), b'{"description": "1"}', operator)
    await goals.write(("x",), b'{"description": "longer"}', operator)
    assert (await bench.row("a"))["stored"] == before + await goal_bytes(unit)
    batch = Batch()
    tick = Session("agent:a", Role.AGENT, batch=batch)
    for words in ("x", "ü", "ünf"):
        await goals.write(("x",), orjson.dumps({"description": words}), tick)
    await unit.commit(batch.writes)
    assert (await bench.row("a"))["stored"] == before + await goal_bytes(unit)
    assert not await unit.select("goal", {"agent": "b"})
    await unit.commit([Delete("goal", {"agent": "a"})])


async def test_an_agents_goals_count_against_its_own_limit() -> None:
    bench = Bench(limits=TickLimits(seconds=5, storage_bytes=600, full_ms=20))
    goals = goals_service(AgentGoals("a", bench.unit, bench.clock))
    bench.services["/goals"] = goals

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.cause == "message":
            await ctx.fs.write("/goals/big", orjson.dumps({"description": "y" * int(trigger.payload["size"])}))
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.put("a", "m1", "anna", {"size": 500})
        await bench.put("a", "m2", "bert", {"size": 200})
        await bench.until("a", lambda rows: rows["m2"]["state"] == "done" and rows["m1"]["error"] != "")
        assert (await bench.inbox("a"))["m1"]["state"] == "new"
    assert 300 < (await bench.row("a"))["stored"] < 600


async def test_an_agents_own_limits_are_those_that_count() -> None:
    bench = Bench(limits=TickLimits(seconds=5, per_minute=5))
    await bench.engine.create("a", "scripted", PUBKEY, None, Own(per_minute=0))
    async with bench.running("b"):
        for name in ("a", "b"):
            for number in range(10):
                await bench.put(name, f"m{number}")
        await bench.idle("a")
        await bench.until("b", lambda rows: sum(row["state"] == "done" for row in rows.values()) == 5)
        await quiet(bench)
        assert (await status(bench, "a"))["limited"] is None
        assert (await status(bench, "b"))["limited"]["limit"] == RATE


async def test_status_says_why_an_agent_does_not_run() -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        raise ValueError("no")

    bench = Bench(programs={"scripted": Scripted(act)}, limits=TickLimits(tries=9, back_off_ms=1, quarantine=2))
    async with bench.running("a"):
        await bench.until_row("a", lambda row: row["status"] == "quarantined")
        found = await status(bench)
    assert found["status"] == "quarantined"
    assert found["reason"].startswith("agent.failing: 2 ticks in a row failed, the last with agent.failed")
    assert (found["failures"], found["ticks"], found["queue_depth"], found["dead_letters"]) == (2, 0, 1, 0)
    assert found["limits"][RATE]["limit"] == 6_000
