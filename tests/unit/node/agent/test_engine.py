import asyncio

import pytest

from core.error import Conflict, InvalidInput, Paused, StoreUncertain
from core.identifier import PubKey
from core.unit import Insert, Update
from fs.session import Role, Session
from node.agent.error import NoProgram
from node.agent.program import Trigger
from node.agent.tick.lap import Lap
from node.agent.tick.limit import TickLimits
from tests.unit.node.agent.agent_part import PUBKEY, QUICK, Bench, Here, Scripted, effect_tree, remember


async def test_a_new_agent_gets_its_first_trigger_once() -> None:
    bench = Bench()
    async with bench.running("a"):
        await bench.idle("a")
    async with Bench(unit=bench.unit).running("a") as engine:
        assert engine.busy <= 1
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize"]


async def test_a_tick_commits_state_acknowledgement_record_and_effects_as_one_unit() -> None:
    bench, calls, started = Bench(), [], []

    async def act(ctx: Here, trigger: Trigger) -> None:
        await remember(ctx, trigger)
        if trigger.cause == "message":
            assert await ctx.fs.call("/do/new", b"x") == b"staged"
            assert not started
            ctx.log("said", word="hello")

    bench.programs["scripted"] = Scripted(act)
    bench.services["/do"] = effect_tree(
        calls,
        lambda _: [Insert("meta", {"key": "done", "value": "1"})],
        lambda: started.append(bench.unit.stats()["units"]),
    )
    async with bench.running("a"):
        await bench.idle("a")
        before = bench.unit.stats()["units"]
        await bench.put("a", "m1")
        await bench.idle("a")
        assert bench.unit.stats()["units"] == before + 2, "one to queue, one for the tick"
        assert started == [before + 2]
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]
    assert await bench.unit.select("meta", {"key": "done"})
    assert [tick["envelope_id"] for tick in await bench.unit.select("tick")] == ["initialize", "m1"]
    assert [record["type"] for record in await bench.trace("a").recent(10)] == ["tick", "said", "tick"]


async def test_a_tick_that_fails_leaves_nothing_but_its_failure() -> None:
    bench, calls = Bench(), []

    async def act(ctx: Here, trigger: Trigger) -> None:
        await remember(ctx, trigger)
        if trigger.cause == "message":
            await ctx.fs.call("/do/new", b"x")
            raise ValueError("secret words")

    bench.programs["scripted"] = Scripted(act)
    bench.services["/do"] = effect_tree(
        calls, lambda _: [Insert("meta", {"key": "done", "value": "1"})], lambda: pytest.fail("it never began")
    )
    async with bench.running("a"):
        await bench.idle("a")
        await bench.put("a", "m1")
        rows = await bench.idle("a")
    assert rows["m1"]["state"] == "dead"
    assert rows["m1"]["tries"] == QUICK.tries
    assert rows["m1"]["error"] == "agent.failed: The program raised ValueError."
    assert (await bench.state("a"))["seen"] == ["initialize"]
    assert not await bench.unit.select("meta", {"key": "done"})
    assert len({key for _, key in calls}) == 1, "the same key on every try"
    assert len(await bench.unit.select("tick", {"envelope_id": "m1"})) == QUICK.tries


async def test_a_poison_message_holds_back_only_its_own_sender() -> None:
    bench = Bench(limits=TickLimits(seconds=1, tries=50, back_off_ms=300, pause_ms=10))

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id == "poison":
            raise InvalidInput("no")
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.idle("a")
        await bench.put("a", "poison", "eve")
        await bench.put("a", "after", "eve")
        await bench.put("a", "other", "bob")
        rows = await bench.until("a", lambda rows: rows["other"]["state"] == "done")
    assert rows["poison"]["state"] == "new"
    assert rows["after"]["state"] == "new"
    assert (await bench.state("a"))["seen"] == ["initialize", "other"]


async def test_a_slow_program_is_cut_off_and_nothing_of_it_is_committed() -> None:
    bench = Bench(limits=TickLimits(seconds=0.02, tries=1))

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.cause == "message":
            ctx.state.seen.append("too late")
            await asyncio.sleep(10)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.put("a", "m1")
        rows = await bench.idle("a")
    assert rows["m1"]["state"] == "dead"
    assert rows["m1"]["error"].startswith("agent.too_slow")
    assert (await bench.state("a"))["seen"] == []


async def test_an_agent_has_one_tick_at_a_time_and_many_agents_have_theirs_at_once() -> None:
    bench, inside, most = Bench(), set(), [0, 0]

    async def act(ctx: Here, trigger: Trigger) -> None:
        assert ctx.agent not in inside
        inside.add(ctx.agent)
        most[0] = max(most[0], len(inside))
        await asyncio.sleep(0.002)
        inside.discard(ctx.agent)
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    names = [f"a{number}" for number in range(6)]
    async with bench.running(*names):
        for number in range(10):
            for name in names:
                await bench.put(name, f"m{number}")
        for name in names:
            await bench.idle(name)
    assert most[0] > 1, "different agents tick at once"
    for name in names:
        assert (await bench.state(name))["seen"] == ["initialize", *(f"m{number}" for number in range(10))]
        assert (await bench.unit.select("agent", {"name": name}))[0]["ticks"] == 11


async def test_a_tick_whose_agent_was_changed_meanwhile_is_run_again_on_the_new_state() -> None:
    bench, runs = Bench(), []

    async def act(ctx: Here, trigger: Trigger) -> None:
        runs.append(len(ctx.state.seen))
        if trigger.cause == "message" and len(runs) == 2:
            other = Update("agent", {"name": "a"}, set={"state": '{"seen":["x","y"]}'}, add={"version": 1})
            await bench.unit.commit([other])
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.idle("a")
        await bench.put("a", "m1")
        rows = await bench.idle("a")
    assert runs == [0, 1, 2]
    assert (await bench.state("a"))["seen"] == ["x", "y", "m1"]
    assert rows["m1"]["tries"] == 0


async def test_a_pause_is_no_failure() -> None:
    bench, paused = Bench(), [True]

    async def act(ctx: Here, trigger: Trigger) -> None:
        if paused[0] and trigger.cause == "message":
            raise Paused
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.put("a", "m1")
        await asyncio.sleep(0.1)
        assert (await bench.inbox("a"))["m1"]["tries"] == 0
        paused[0] = False
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]
    assert len(await bench.unit.select("tick", {"envelope_id": "m1"})) == 1


async def test_what_waited_over_a_restart_is_dealt_with() -> None:
    bench = Bench()
    async with bench.running("a"):
        await bench.idle("a")
    await bench.put("a", "m1")
    again = Bench(unit=bench.unit)
    async with again.running():
        await again.idle("a")
    assert (await again.state("a"))["seen"] == ["initialize", "m1"]


async def test_an_idle_agent_has_no_task() -> None:
    bench = Bench()
    async with bench.running("a") as engine:
        await bench.idle("a")
        await asyncio.sleep(0.02)
        assert engine.busy == 0, "an idle agent has no task"
        await bench.put("a", "m1")
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]


async def test_a_crash_right_after_the_commit_does_not_run_the_tick_twice() -> None:
    bench = Bench()

    def die(units: int) -> None:
        if units == 3:  # create, queue, tick
            raise SystemExit

    await bench.engine.create("a", "scripted", PUBKEY)
    await bench.put("a", "m1")
    bench.unit.crash_after = die
    with pytest.raises(SystemExit):
        await bench.engine._runner.run(Lap("a"), (await bench.inbox("a"))["initialize"])
    bench.unit.crash_after = None
    again = Bench(unit=bench.unit)
    async with again.running():
        await again.idle("a")
    assert (await again.state("a"))["seen"] == ["initialize", "m1"]


async def test_an_uncertain_commit_that_happened_is_not_repeated_and_its_effects_begin() -> None:
    bench, started, doubts, armed = Bench(), [], [], []

    async def act(ctx: Here, trigger: Trigger) -> None:
        await remember(ctx, trigger)
        if trigger.cause == "message":
            await ctx.fs.call("/do/new", b"x")

    def doubt(units: int) -> None:
        if armed and not doubts:
            doubts.append(units)
            raise StoreUncertain

    bench.programs["scripted"] = Scripted(act)
    bench.services["/do"] = effect_tree([], lambda _: [], lambda: started.append(1))
    async with bench.running("a"):
        await bench.idle("a")
        await bench.put("a", "m1")
        armed.append(1)
        bench.unit.crash_after = doubt
        await bench.idle("a")
        await asyncio.sleep(0.01)
    assert doubts
    assert started == [1]
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]


async def test_an_agent_whose_program_is_gone_is_set_aside_until_it_is_back() -> None:
    bench = Bench()
    await bench.engine.create("a", "scripted", PUBKEY)
    code = bench.programs.pop("scripted")
    async with bench.running():
        row = await bench.until_row("a", lambda row: row["status"] == "quarantined")
        assert row["reason"].startswith("agent.no_program: ")
        assert (await bench.inbox("a"))["initialize"]["state"] == "new", "what waits for it is kept"
        assert (await bench.inbox("a"))["initialize"]["tries"] == 0
    bench.programs["scripted"] = code
    bench.engine = bench.fresh()
    async with bench.running():
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize"]
    assert (await bench.row("a"))["status"] == "active"


async def test_state_of_an_older_program_is_migrated_and_of_a_newer_one_refused() -> None:
    bench = Bench()
    async with bench.running("a"):
        await bench.idle("a")
    await bench.unit.commit([Update("agent", {"name": "a"}, set={"state_version": 1})])
    bench.engine = bench.fresh()
    async with bench.running():
        await bench.put("a", "m1")
        await bench.idle("a")
    assert await bench.state("a") == {"seen": ["m1"], "was": 1}
    await bench.unit.commit([Update("agent", {"name": "a"}, set={"state_version": 9})])
    bench.engine = bench.fresh()
    async with bench.running():
        await bench.put("a", "m2")
        row = await bench.until_row("a", lambda row: row["status"] == "quarantined")
        assert row["reason"].startswith("agent.state_invalid: The state has version 9")
        assert (await bench.inbox("a"))["m2"]["state"] == "new"


async def test_too_much_state_and_too_many_records_are_refused() -> None:
    bench = Bench(limits=TickLimits(seconds=1, tries=1, state_bytes=200))

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id == "big":
            ctx.state.x = "y" * 300
        if trigger.envelope_id == "loud":
            for _ in range(300):
                ctx.log("word")
        if trigger.envelope_id == "odd":
            ctx.state.x = object()

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        for name in ("big", "loud", "odd"):
            await bench.put("a", name)
        rows = await bench.idle("a")
    assert {rows[name]["state"] for name in ("big", "loud", "odd")} == {"dead"}
    assert await bench.state("a") == {"seen": []}


async def test_an_agent_keeps_its_key_and_program() -> None:
    bench = Bench()
    await bench.engine.create("a", "scripted", PUBKEY)
    with pytest.raises(InvalidInput):
        await bench.engine.create("a", "scripted", PubKey("cd" * 32))
    with pytest.raises(NoProgram):
        bench.engine.check("nothing")


async def test_an_envelope_that_is_known_is_not_queued_again() -> None:
    bench = Bench()
    async with bench.running("a"):
        await bench.put("a", "m1")
        await bench.idle("a")
        with pytest.raises(Conflict):
            await bench.put("a", "m1")
        session = Session("operator", Role.OPERATOR, unit=bench.unit)
        await bench.files("a").manual(session, "t1", "why")
        await bench.files("a").manual(session, "t1", "again")
        bench.engine.notify("a")
        await bench.idle("a")
    assert (await bench.state("a"))["seen"] == ["initialize", "m1", "t1"]


async def test_the_trace_can_be_followed_from_any_place() -> None:
    bench = Bench()
    async with bench.running("a"):
        await bench.idle("a")
        live = bench.trace("a").follow(None)
        waiting = asyncio.create_task(anext(live))
        await asyncio.sleep(0.01)
        await bench.put("a", "m1")
        record = await asyncio.wait_for(waiting, 2)
        past = bench.trace("a").follow(0)
        first, second = await anext(past), await anext(past)
        await live.aclose()
        await past.aclose()
    assert first.id < second.id == record.id
    assert second.data == record.data
