"""The engine with agents' whole interface, on every database."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field

from core.clock import SystemClock
from core.error import InvalidInput
from core.unit import Insert, Update
from node.agent.error import ConfigRefused, ProgramFailed, TickOver
from node.agent.program import Context, Nothing, Program, Trigger
from node.agent.tick.limit import Own, TickLimits
from node.storage.chain import unsigned_seal
from node.storage.memory import MemoryDatabase
from tests.unit.node.agent.agent_part import PUBKEY, QUICK, Bench, Here, Scripted, effect_tree, remember
from tests.unit_part import ENGINES, EVERY, Base


@pytest.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    yield base
    await base.aclose()


class Diary(BaseModel):
    pages: list[str] = []


class Pen(BaseModel):
    model_config = {"extra": "forbid"}
    colour: str = "blue"
    fails: list[str] = Field(default_factory=list)


class Writer(Program[Diary, Pen]):
    """Writes down which hook ran, and fails in those that its settings name."""

    name = "scripted"
    state_type, config_type = Diary, Pen

    def _page(self, ctx: Context[Diary, Pen], hook: str) -> None:
        ctx.state.pages.append(hook)
        ctx.log("page", hook=hook)
        if hook in ctx.config.fails:
            raise ValueError(hook)

    async def on_create(self, ctx: Context[Diary, Pen]) -> None:
        self._page(ctx, "create")

    async def on_wake(self, ctx: Context[Diary, Pen]) -> None:
        self._page(ctx, "wake")

    async def on_trigger(self, ctx: Context[Diary, Pen], trigger: Trigger) -> None:
        self._page(ctx, trigger.envelope_id)

    async def on_sleep(self, ctx: Context[Diary, Pen]) -> None:
        self._page(ctx, "sleep")

    async def on_error(self, ctx: Context[Diary, Pen], error: BaseException) -> None:
        ctx.log("failed", pages=len(ctx.state.pages), error=type(error).__name__)
        ctx.state.pages.append("never kept")
        for refused in (lambda: ctx.mark_seen("x"), ctx.hibernate, lambda: ctx.memory.set("x", 1)):
            with pytest.raises(TickOver):
                refused()
        with pytest.raises(TickOver):
            await ctx.fs.call("/do/new", b"x")

    async def on_terminate(self, ctx: Context[Diary, Pen]) -> None:
        self._page(ctx, "terminate")
        ctx.memory.set("last", "words")
        if ctx.config.colour == "red":
            await asyncio.sleep(30)


def writer(unit: Base, **limits: Any) -> Bench:
    quick = TickLimits(**{"seconds": 0.5, "tries": 2, "back_off_ms": 5, "grace_s": 0.1, **limits})
    return Bench(unit=unit, programs={"scripted": Writer()}, limits=quick)


async def pages(bench: Bench) -> list[str]:
    found: list[str] = (await bench.state("a"))["pages"]
    return found


async def records(bench: Bench, *kinds: str) -> list[dict[str, Any]]:
    return [one["data"] for one in await bench.trace("a").recent(200) if one["type"] in kinds]


async def test_hooks_run_in_their_order_and_on_create_once(unit: Base) -> None:
    bench = writer(unit)
    async with bench.running("a"):
        await bench.put("a", "m1")
        await bench.idle("a")
    assert await pages(bench) == ["create", "wake", "initialize", "sleep", "wake", "m1", "sleep"]


@pytest.mark.parametrize("hook", ["create", "wake", "initialize", "sleep"])
async def test_a_hook_that_fails_makes_the_tick_void_and_only_its_last_words_are_kept(unit: Base, hook: str) -> None:
    bench = writer(unit)
    await bench.engine.create("a", "scripted", PUBKEY, {"fails": [hook]})
    async with bench.running():
        rows = await bench.idle("a")
        assert rows["initialize"]["state"] == "dead"
        assert await records(bench, "page") == []
        assert await records(bench, "failed") == [{"pages": 0, "error": "ValueError"}] * 2
        assert (await bench.row("a"))["state"] == "{}"
    await bench.engine.create("a", "scripted", PUBKEY, {})
    again = writer(unit)
    async with again.running():
        await again.put("a", "m1")
        await again.idle("a")
    assert await pages(again) == ["create", "wake", "m1", "sleep"], "its first tick was none before"


async def test_settings_that_do_not_fit_set_the_agent_aside_until_they_do(unit: Base) -> None:
    bench = writer(unit)
    with pytest.raises(ConfigRefused, match="colour"):
        bench.engine.check("scripted", {"colour": 7})
    await bench.engine.create("a", "scripted", PUBKEY, {"colour": 7})
    async with bench.running("b"):
        await bench.idle("b")
        row = await bench.row("a")
        assert row["status"] == "quarantined"
        assert row["reason"].startswith("agent.config_invalid: The config does not fit 'scripted': colour")
        assert (await bench.inbox("a"))["initialize"]["state"] == "new"
        await bench.engine.create("a", "scripted", PUBKEY, {"colour": "red"})
        await bench.idle("a")
    assert (await bench.row("a"))["status"] == "active"
    assert (await bench.row("a"))["version"] > 1


async def test_the_last_hook_runs_when_an_agent_is_deleted_and_what_it_kept_goes_with_it(unit: Base) -> None:
    bench = writer(unit)
    async with bench.running("a") as engine:
        await bench.idle("a")
        await unit.commit(
            [Insert("alarm", {"agent": "a", "id": "x", "kind": "once", "due_ms": 1 << 50, "created_at": 1})]
        )
        await engine.delete("a")
        assert (await bench.row("a"))["status"] == "deleted"
        assert (await pages(bench))[-1] == "terminate"
        for table in ("alarm", "item"):
            assert not await unit.select(table), "what it kept, and what would wake it, goes with it"
        await bench.put("a", "late")
        await asyncio.sleep(0.05)
        assert (await bench.inbox("a"))["late"]["state"] == "new"
        assert engine.busy == 0
        await engine.delete("a")
        await engine.delete("nobody")
    assert len(await unit.select("tick", {"cause": "terminate"})) == 1


async def test_a_last_hook_that_fails_or_never_ends_keeps_no_agent_alive(unit: Base) -> None:
    bench = writer(unit)
    await bench.engine.create("a", "scripted", PUBKEY, {"fails": ["terminate"]})
    await bench.engine.create("b", "scripted", PUBKEY, {"colour": "red"})
    async with bench.running() as engine:
        await bench.idle("a")
        await bench.idle("b")
        for name in ("a", "b"):
            await engine.delete(name)
            assert (await bench.row(name))["status"] == "deleted"
    errors = {row["agent"]: row["error"] for row in await unit.select("tick", {"cause": "terminate"})}
    assert errors["a"].startswith("agent.failed")
    assert errors["b"].startswith("agent.too_slow")
    assert not await unit.select("item")


class Clinging(Writer):
    async def on_terminate(self, ctx: Context[Diary, Pen]) -> None:
        if ctx.config.colour == "red":
            for number in range(1_000):
                ctx.set_alarm(f"a{number}", after_ms=1_000)
        await ctx.fs.call("/do/new", b"x")


async def test_no_last_wish_keeps_an_agent_alive() -> None:
    """What it asks for can never be committed: it is deleted without it."""
    bench = writer(MemoryDatabase())
    bench.programs["scripted"] = Clinging()
    never = Update("meta", {"key": "is not there"}, {"value": "x"})
    bench.services["/do"] = effect_tree([], lambda _: [never], lambda: None)
    alarm = {"agent": "b", "id": "x", "kind": "once", "due_ms": 1 << 50, "created_at": 1}
    await bench.unit.commit([Insert("alarm", alarm)])
    await bench.engine.create("b", "scripted", PUBKEY, {"colour": "red"})
    async with bench.running("a") as engine:
        for name in ("a", "b"):
            await bench.idle(name)
            await engine.delete(name)
            assert (await bench.row(name))["status"] == "deleted"
            assert not await bench.unit.select("alarm", {"agent": name})


async def test_values_are_kept_beside_the_state_and_listed_by_their_beginning(unit: Base) -> None:
    found: list[Any] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        match trigger.envelope_id:
            case "m1":
                for key in ("a/1", "a/2", "b/1", "a0", "ä/1"):
                    ctx.memory.set(key, {"key": key})
                assert await ctx.memory.list("a/") == ["a/1", "a/2"]
                assert await ctx.memory.get("a/1") == {"key": "a/1"}
            case "m2":
                ctx.memory.delete("a/1")
                ctx.memory.set("a/3", [1, None, "x"])
                found.append([await ctx.memory.get("a/1"), await ctx.memory.get("a/2"), await ctx.memory.list("a/")])
                raise InvalidInput("nothing of this is kept")
            case "m3":
                found.append([await ctx.memory.list(), await ctx.memory.list("ä"), await ctx.memory.get("none")])
                ctx.memory.set("a/1", None)

    bench = Bench(unit=unit, programs={"scripted": Scripted(act)})
    async with bench.running("a"):
        for name in ("m1", "m2", "m3"):
            await bench.put("a", name, name)
            await bench.until("a", lambda rows, name=name: rows[name]["state"] != "new")
    assert found[0] == [None, {"key": "a/2"}, ["a/2", "a/3"]]
    assert found[-1] == [["a/1", "a/2", "a0", "b/1", "ä/1"], ["ä/1"], None]
    rows = {row["key"]: row["value"] for row in await unit.select("item", {"agent": "a"})}
    assert rows["a/1"] == "null"
    row = await bench.row("a")
    kept = sum(len(key.encode()) + len(value.encode()) for key, value in rows.items())
    assert row["stored"] == kept + len(row["state"].encode())


async def test_the_newest_1024_marks_are_remembered(unit: Base) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.cause != "message":
            return
        first, count = int(trigger.payload["first"]), int(trigger.payload["count"])
        for number in range(first, first + count):
            ctx.mark_seen(f"id{number}")
        ctx.state.seen = [str(number) for number in (0, 1, 2, 1_023, 1_024) if await ctx.seen(f"id{number}")]

    bench = Bench(unit=unit, programs={"scripted": Scripted(act)})
    bench.limits = QUICK
    async with bench.running("a"):
        for name, first, count in (("m1", 0, 1_000), ("m2", 998, 26), ("m3", 1_024, 2), ("m4", 0, 1)):
            await bench.put("a", name, payload={"first": first, "count": count})
            await bench.idle("a")
            ids = {row["id"] for row in await unit.select("mark", {"agent": "a"})}
            assert len(ids) <= 1_024
            if name == "m2":
                assert len(ids) == 1_024
                assert "id0" in ids
            if name == "m3":
                assert not ids & {"id0", "id1"}
                assert {"id2", "id1025"} <= ids
    assert "id0" in {row["id"] for row in await unit.select("mark", {"agent": "a"})}, "marked again, as the newest"
    assert await unit.count("mark", {"agent": "a"}) == 1_024


async def test_alarms_and_interests_are_set_with_the_tick_and_not_without_it(unit: Base) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id in ("m1", "m2"):
            ctx.set_alarm("daily", cron="0 7 * * *", payload={"what": "news"})
            ctx.set_alarm("once", at_ms=ctx.now_ms + 60_000)
            ctx.watch("paid", "payment.received", {"data.amount": {"min": 1_000}})
            ctx.watch("all", "*")
        if trigger.envelope_id == "m1":
            raise InvalidInput("no")
        if trigger.envelope_id == "m3":
            ctx.cancel_alarm("daily")
            ctx.cancel_alarm("never")
            ctx.unwatch("all")
            ctx.set_alarm("once", every_ms=5_000, after_ms=100)
            both: dict[str, Any] = {"at_ms": 1, "after_ms": 1}
            for wrong in ({}, both, {"cron": "x"}, {"cron": "0 7 * * *", "at_ms": 5}, {"every_ms": 5}):
                with pytest.raises(InvalidInput):
                    ctx.set_alarm("wrong", **wrong)  # that is what it is about
            with pytest.raises(InvalidInput):
                ctx.watch("wrong", "not a type!")

    bench = Bench(unit=unit, programs={"scripted": Scripted(act)})
    bench.engine._means.__class__  # noqa: B018
    async with bench.running("a"):
        await bench.put("a", "m1", "anna")
        await bench.until("a", lambda rows: rows["m1"]["state"] == "dead")
        assert not await unit.select("alarm")
        assert not await unit.select("interest")
        await bench.put("a", "m2", "bert")
        await bench.until("a", lambda rows: rows["m2"]["state"] == "done")
        assert {row["id"]: row["kind"] for row in await unit.select("alarm")} == {"daily": "cron", "once": "once"}
        assert {row["event"] for row in await unit.select("interest")} == {"payment.received", "*"}
        await bench.put("a", "m3", "carl")
        await bench.until("a", lambda rows: rows["m3"]["state"] == "done")
    (alarm,) = await unit.select("alarm")
    assert (alarm["id"], alarm["kind"], alarm["every_ms"]) == ("once", "every", 5_000)
    (interest,) = await unit.select("interest")
    assert (interest["id"], interest["event"]) == ("paid", "payment.received")


async def test_randomness_and_ids_derive_from_the_tick(unit: Base) -> None:
    drawn: list[Any] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        drawn.append((ctx.tick_id, ctx.new_id(), ctx.new_id(), ctx.random.random(), ctx.now_ms))
        assert ctx.now == ctx.now_ms // 1_000
        assert ctx.until_ms == ctx.now_ms + round(QUICK.seconds * 1_000)

    bench = Bench(unit=unit, programs={"scripted": Scripted(act)})
    async with bench.running("a"):
        await bench.put("a", "m1")
        await bench.idle("a")
    assert len({one for tick in drawn for one in tick[:3]}) == 6
    assert drawn[0][3] != drawn[1][3]
    assert {row["id"] for row in await unit.select("tick")} == {tick[0] for tick in drawn}


async def test_a_tick_says_what_it_used(unit: Base) -> None:
    bench, calls = Bench(unit=unit), []

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.cause == "message":
            await ctx.fs.read("/do/README")
            await ctx.fs.call("/do/new", b"x")
            ctx.log("said")
            ctx.add_compute(250)

    bench.programs["scripted"] = Scripted(act)
    bench.services["/do"] = effect_tree(calls, lambda _: [Insert("meta", {"key": "done", "value": "1"})], lambda: None)
    async with bench.running("a"):
        await bench.put("a", "m1")
        await bench.idle("a")
    (tick,) = await unit.select("tick", {"envelope_id": "m1"})
    usage = orjson.loads(tick["usage"])
    assert {name: usage[name] for name in ("reads", "calls", "records")} == {"reads": 1, "calls": 1, "records": 1}
    assert usage["compute_us"] >= 250_000
    assert 0 < usage["longest_us"] < 250_000
    assert tick["code"] == bench.programs["scripted"].digest == (await bench.row("a"))["code"]
    assert tick["version"] == 1
    assert (await bench.row("a"))["day_us"] >= 250_000
    assert await unit.select("meta", {"key": "done"})
    assert await unit.select("recording", {"tick_id": tick["id"]})


async def test_an_agent_that_fails_again_and_again_is_set_aside_and_its_triggers_wait_for_its_release(
    unit: Base,
) -> None:
    broken = [True]

    async def act(ctx: Here, trigger: Trigger) -> None:
        if broken[0] and trigger.cause == "message":
            raise ValueError("broken")
        await remember(ctx, trigger)

    limits = TickLimits(seconds=1, tries=9, quarantine=4, back_off_ms=1)
    bench = Bench(unit=unit, programs={"scripted": Scripted(act)}, limits=limits)
    async with bench.running("a") as engine:
        for number in range(8):
            await bench.put("a", f"m{number}", f"person{number}")
        row = await bench.until_row("a", lambda row: row["status"] == "quarantined")
        assert row["reason"].startswith("agent.failing: 4 ticks in a row failed")
        await bench.put("a", "later", "somebody")
        await asyncio.sleep(0.05)
        rows = await bench.inbox("a")
        assert {row["state"] for name, row in rows.items() if name != "initialize"} == {"new"}, "none is lost"
        assert sum(row["tries"] for row in rows.values()) == 4
        assert [one["reason"] for one in await records(bench, "quarantined")] == [row["reason"]]
        broken[0] = False
        assert await engine.release("a") == "active"
        await bench.idle("a")
    assert len((await bench.state("a"))["seen"]) == 10
    assert (await bench.row("a"))["failures"] == 0


async def test_one_success_in_between_and_nobody_is_set_aside(unit: Base) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.sender == "eve":
            raise ProgramFailed
        await remember(ctx, trigger)

    limits = TickLimits(seconds=1, tries=2, quarantine=3, back_off_ms=1)
    bench = Bench(unit=unit, programs={"scripted": Scripted(act)}, limits=limits)
    async with bench.running("a"):
        await bench.idle("a")
        for number in range(4):
            await bench.put("a", f"poison{number}", "eve")
            await bench.until("a", lambda rows, number=number: rows[f"poison{number}"]["state"] == "dead")
            await bench.put("a", f"good{number}", "bob")
            await bench.idle("a")
    assert (await bench.row("a"))["status"] == "active"
    assert (await bench.state("a"))["seen"] == ["initialize", "good0", "good1", "good2", "good3"]


async def test_an_agents_own_time_limit_holds(unit: Base) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        await asyncio.sleep(0.1 if trigger.cause == "message" else 0)

    limits = TickLimits(seconds=0.02, tries=1, grace_s=0.1)
    bench = Bench(unit=unit, programs={"scripted": Scripted(act)}, limits=limits)
    await bench.engine.create("patient", "scripted", PUBKEY, None, Own(seconds=5))
    async with bench.running("hasty"):
        for name in ("patient", "hasty"):
            await bench.put(name, "m1")
            await bench.idle(name)
        assert (await bench.inbox("patient"))["m1"]["state"] == "done"
        assert (await bench.inbox("hasty"))["m1"]["error"].startswith("agent.too_slow")


async def test_what_somebody_else_took_out_of_the_inbox_is_not_dealt_with(unit: Base) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id == "m1":
            await unit.commit([Update("inbox", {"envelope_id": "m1"}, set={"state": "discarded"})])
        await remember(ctx, trigger)

    bench = Bench(unit=unit, programs={"scripted": Scripted(act)})
    async with bench.running("a"):
        await bench.put("a", "m1")
        await bench.put("a", "m2")
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize", "m2"]
    assert (await bench.inbox("a"))["m1"]["state"] == "discarded"
    assert (await bench.row("a"))["failures"] == 0


class Plain(Program[Nothing, Nothing]):
    name = "plain"
    state_type, config_type = Nothing, Nothing

    async def on_trigger(self, ctx: Context[Nothing, Nothing], trigger: Trigger) -> None:
        return


async def test_the_hundred_thousandth_row_is_as_large_as_the_tenth(unit: Base) -> None:
    """Nothing in an agent's row grows with its ticks, and none of them reads what earlier ones left."""
    bench = Bench(unit=unit, programs={"plain": Plain()}, limits=TickLimits(per_minute=0))
    await bench.engine.create("a", "plain", PUBKEY)
    asked: list[str] = []
    select = unit.select

    async def counted(table: str, *args: Any, **more: Any) -> Any:
        asked.append(table)
        return await select(table, *args, **more)

    async with bench.running():
        await bench.idle("a")
        size = len(str(await bench.row("a")))
        rows = [Insert("inbox", {"agent": "a", "envelope_id": f"m{number}", "cause": "message", "source": "test",
                                 "sender": "s", "payload": "{}", "at": 1}) for number in range(128)]  # fmt: skip
        await unit.commit(rows)
        unit.select = counted
        bench.engine.notify("a")
        async with asyncio.timeout(60):
            while bench.engine.busy:
                await asyncio.sleep(0.002)
        unit.select = select
        assert (await bench.row("a"))["ticks"] == 129
        assert len(str(await bench.row("a"))) <= size + 40
    assert len(asked) <= 5, "a page at a time, and the agent's row once"
