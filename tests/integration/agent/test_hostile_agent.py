"""Agents whose code means harm, or is only bad: each has its own failure, and every other agent goes on."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from core.error import Conflict, InvalidInput, VendoError
from core.unit import Insert
from fs.error import NoSuchFile
from fs.service.goals import goals_service
from node.agent.error import NoProgram, TickOver
from node.agent.goal import AgentGoals
from node.agent.program import Context, Program, Trigger
from node.agent.tick.limit import TickLimits
from tests.unit.node.agent.agent_part import Bench, Here, Scripted, effect_tree, remember

LIMITS = TickLimits(seconds=0.3, grace_s=0.1, tries=2, back_off_ms=5, state_bytes=10_000, quarantine=50)
Act = Callable[[Here, Trigger], Awaitable[None]]


async def shown(act: Act, bench: Bench | None = None, code: str = "") -> Bench:
    """Run bad code for one trigger, beside an agent that means well; what became of both."""
    bench = bench or Bench()

    async def either(ctx: Here, trigger: Trigger) -> None:
        if ctx.agent == "bad" and trigger.envelope_id == "evil":
            await act(ctx, trigger)
        else:
            await remember(ctx, trigger)

    bench.limits = LIMITS if code in ("", "agent.too_slow") else replace(LIMITS, seconds=5)
    bench.programs["scripted"] = Scripted(either)
    bench.engine = bench.fresh()
    async with bench.running("bad", "good"):
        await bench.idle("bad")
        await bench.put("bad", "evil", "eve")
        await bench.put("bad", "next", "bob")
        for number in range(5):
            await bench.put("good", f"m{number}")
            await asyncio.sleep(0.01)
        await bench.until("good", lambda rows: all(row["state"] == "done" for row in rows.values()), 60)
        await bench.until("bad", lambda rows: all(row["state"] != "new" for row in rows.values()), 60)
    assert (await bench.state("good"))["seen"] == ["initialize", *(f"m{number}" for number in range(5))]
    assert (await bench.state("bad"))["seen"] == ["initialize", "next"], "its other lines go on too"
    return bench


async def failed(act: Act, code: str = "agent.failed") -> Bench:
    bench = await shown(act, code=code)
    row = (await bench.inbox("bad"))["evil"]
    assert row["state"] == "dead"
    assert row["error"].startswith(f"{code}: ")
    assert (await bench.row("bad"))["status"] == "active"
    return bench


@pytest.mark.parametrize(
    "error",
    [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), RecursionError(), MemoryError(),
     AssertionError(), StopIteration(), BaseExceptionGroup("x", [SystemExit()])],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
async def test_exceptions_of_all_kinds(error: BaseException) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        raise error

    await failed(act)


async def test_a_recursion_without_end() -> None:
    async def deeper(ctx: Here) -> None:
        await deeper(ctx)

    async def act(ctx: Here, trigger: Trigger) -> None:
        await deeper(ctx)

    await failed(act)


async def test_an_endless_loop_that_awaits() -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        while True:
            await asyncio.sleep(0)

    await failed(act, "agent.too_slow")


async def test_code_that_will_not_end() -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    await failed(act, "agent.too_slow")


async def test_code_that_cancels_the_task_it_runs_in() -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    await failed(act)


async def test_huge_states_and_states_that_are_none() -> None:
    async def huge(ctx: Here, trigger: Trigger) -> None:
        ctx.state.x = "x" * 2_000_000

    async def many(ctx: Here, trigger: Trigger) -> None:
        ctx.state.seen += [str(number) for number in range(5_000)]

    async def broken(ctx: Here, trigger: Trigger) -> None:
        ctx.state.x = object()

    async def deep(ctx: Here, trigger: Trigger) -> None:
        inner: list[Any] = []
        for _ in range(3_000):
            inner = [inner]
        ctx.state.x = inner

    async def gone(ctx: Here, trigger: Trigger) -> None:
        ctx.state = None  # that is what it is about

    await failed(huge, "agent.state_too_large")
    await failed(many, "agent.state_too_large")
    for act in (broken, deep, gone):
        await failed(act, "agent.state_unsound")


async def test_a_thousand_records_and_records_that_are_none() -> None:
    async def loud(ctx: Here, trigger: Trigger) -> None:
        for number in range(1_000):
            ctx.log("word", number=number)

    async def long(ctx: Here, trigger: Trigger) -> None:
        ctx.log("word", text="x" * 20_000)

    async def odd(ctx: Here, trigger: Trigger) -> None:
        ctx.log("word", thing=object())

    async def control(ctx: Here, trigger: Trigger) -> None:
        ctx.log("wo\0rd")

    for act in (loud, long, odd, control):
        bench = await failed(act, "input.invalid")
        assert not [one for one in await bench.trace("bad").recent(200) if one["type"].startswith("wo")]


async def test_asking_for_too_much_of_anything() -> None:
    async def marks(ctx: Here, trigger: Trigger) -> None:
        for number in range(1_001):
            ctx.mark_seen(str(number))

    async def items(ctx: Here, trigger: Trigger) -> None:
        for number in range(1_001):
            ctx.memory.set(str(number), 1)

    async def big(ctx: Here, trigger: Trigger) -> None:
        ctx.memory.set("big", "x" * 70_000)

    async def alarms(ctx: Here, trigger: Trigger) -> None:
        for number in range(1_001):
            ctx.set_alarm(f"a{number}", after_ms=10)

    async def interests(ctx: Here, trigger: Trigger) -> None:
        for number in range(201):
            ctx.watch(f"a{number}", "*")

    async def names(ctx: Here, trigger: Trigger) -> None:
        ctx.memory.set("a\0b", 1)

    for act in (marks, items, big, alarms, interests, names):
        bench = await failed(act, "input.invalid")
        for table in ("mark", "item", "alarm", "interest"):
            assert not await bench.unit.select(table, {"agent": "bad"})


SECRET = "nsec1" + "q" * 58


async def test_secrets_are_taken_out_of_whatever_is_said() -> None:
    async def logs(ctx: Here, trigger: Trigger) -> None:
        ctx.log("said", key=SECRET, words=f"take cashuA{'x' * 40} and {SECRET}")
        await remember(ctx, trigger)

    async def raises(ctx: Here, trigger: Trigger) -> None:
        raise InvalidInput(f"cannot use {SECRET}")

    bench = Bench(programs={"scripted": Scripted(logs)})
    async with bench.running("a"):
        await bench.idle("a")
    (said,) = [one["data"] for one in await bench.trace("a").recent(20) if one["type"] == "said"]
    assert said == {"key": "[redacted nsec]", "words": "take [redacted cashu] and [redacted nsec]"}
    bench = await failed(raises, "input.invalid")
    for table in ("tick", "log", "inbox", "recording"):
        assert SECRET not in str(await bench.unit.select(table))
    assert (await bench.inbox("bad"))["evil"]["error"] == "input.invalid: cannot use [redacted nsec]"


async def test_words_of_unknown_errors_go_nowhere_but_to_the_nodes_own_log(caplog: pytest.LogCaptureFixture) -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        raise ValueError("what only the operator may read")

    with caplog.at_level(logging.ERROR):
        bench = await failed(act)
    for table in ("tick", "log", "inbox", "recording"):
        assert "only the operator" not in str(await bench.unit.select(table))
    assert "only the operator" in caplog.text


async def test_another_agents_files_are_nowhere_and_another_name_leads_to_ones_own_rows() -> None:
    bench = Bench()
    bench.services["/goals"] = goals_service(AgentGoals("bad", bench.unit, bench.clock))

    async def act(ctx: Here, trigger: Trigger) -> None:
        for path in ("/agents/good/goals/x", "/good/goals/x", "/../good/goals/x", "//good"):
            with pytest.raises(VendoError):
                await ctx.fs.write(path, b"{}")
        with pytest.raises(NoSuchFile):
            await ctx.fs.read("/agents/good/status")
        ctx.agent = "good"
        ctx.memory.set("whose", 1)
        ctx.mark_seen("whose")
        ctx.log("whose")
        await ctx.fs.write("/goals/mine", b'{"description": "x"}')

    bench = await shown(act, bench)
    assert (await bench.inbox("bad"))["evil"]["state"] == "done"
    for table in ("item", "mark", "goal"):
        assert [row["agent"] for row in await bench.unit.select(table)] == ["bad"]
    assert not [one for one in await bench.trace("good").recent(50) if one["type"] == "whose"]


async def test_an_alarm_under_another_agents_name_is_no_way_to_wake_it() -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        ctx.agent = "good"
        ctx.set_alarm("wake", after_ms=60_000)
        ctx.watch("spy", "*")

    bench = await shown(act)
    for table in ("alarm", "interest"):
        assert {row["agent"] for row in await bench.unit.select(table)} <= {"bad"}


async def test_a_context_is_of_no_use_when_its_tick_is_over() -> None:
    kept: list[Here] = []
    bench, calls = Bench(), []
    bench.services["/do"] = effect_tree(calls, lambda _: [Insert("meta", {"key": "x", "value": "1"})], lambda: None)

    async def act(ctx: Here, trigger: Trigger) -> None:
        kept.append(ctx)
        await ctx.fs.list("/")

    await shown(act, bench)
    ctx = kept[0]
    for refused in (
        lambda: ctx.log("late"),
        lambda: ctx.mark_seen("late"),
        lambda: ctx.memory.set("late", 1),
        lambda: ctx.memory.delete("late"),
        lambda: ctx.set_alarm("late", after_ms=1),
        lambda: ctx.cancel_alarm("late"),
        lambda: ctx.watch("late", "*"),
        lambda: ctx.unwatch("late"),
        lambda: ctx.add_compute(1),
        ctx.hibernate,
    ):
        with pytest.raises(TickOver):
            refused()  # lambdas have no types
    for later in (
        ctx.fs.read("/do/README"), ctx.fs.list("/"), ctx.fs.write("/do/new", b""), ctx.fs.call("/do/new", b""),
        ctx.seen("late"), ctx.memory.get("late"), ctx.memory.list(),
    ):  # fmt: skip
        with pytest.raises(TickOver):
            await later
    assert not calls


async def test_tasks_that_outlive_their_tick_change_nothing() -> None:
    bench, calls, ended, held = Bench(), [], [], []
    go_on = asyncio.Event()

    def writes(session: Any) -> list[Any]:
        return [Insert("meta", {"key": "late", "value": "1"})]

    bench.services["/do"] = effect_tree(calls, writes, lambda: pytest.fail("it never begins"))
    call = bench.services["/do"].call

    async def slow(*args: Any) -> bytes:
        await go_on.wait()
        return await call(*args)

    bench.services["/do"].call = slow

    async def act(ctx: Here, trigger: Trigger) -> None:
        async def later(what: Callable[[], Awaitable[Any]]) -> None:
            try:
                await what()
            except VendoError as error:
                ended.append(error)

        async def edit() -> None:
            await go_on.wait()
            ctx.state.seen.append("too late")
            ctx.log("late")

        held.append(asyncio.create_task(later(lambda: ctx.fs.call("/do/new", b"x"))))  # is within a call at the end
        held.append(asyncio.create_task(later(edit)))
        await asyncio.sleep(0.01)
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.idle("a")
        await bench.put("a", "m1")
        await bench.idle("a")
        go_on.set()
        await asyncio.gather(*held)
    assert len(ended) == 4
    assert {type(error) for error in ended} == {TickOver, Conflict}
    assert (await bench.state("a"))["seen"] == ["initialize", "m1"]
    assert not await bench.unit.select("meta", {"key": "late"})
    assert not [one for one in await bench.trace("a").recent(50) if one["type"] == "late"]


async def test_writes_that_no_database_takes_fail_like_anything_else() -> None:
    bench = Bench()
    bench.services["/do"] = effect_tree([], lambda _: [Insert("meta", {"key": "x", "nothing": 1})], lambda: None)

    async def act(ctx: Here, trigger: Trigger) -> None:
        await ctx.fs.call("/do/new", b"x")

    bench = await shown(act, bench)
    row = (await bench.inbox("bad"))["evil"]
    assert (row["state"], row["error"].partition(":")[0]) == ("dead", "store.bad_write")


async def test_edits_of_a_failed_tick_are_nowhere_in_memory_either() -> None:
    seen: list[list[str]] = []
    config: list[Any] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        seen.append(list(ctx.state.seen))
        config.append(ctx.config)
        ctx.state.seen.append(trigger.envelope_id)
        if trigger.sender == "eve":
            ctx.state.seen += ["x"] * 100
            raise ValueError("no")

    bench = Bench(programs={"scripted": Scripted(act)}, limits=LIMITS)
    await bench.engine.create("a", "scripted", "ab" * 32)  # a key like any
    for number in range(6):
        await bench.put("a", f"m{number}", "eve" if number % 2 else "bob")
    async with bench.running():
        await bench.idle("a")
    assert not [one for one in seen if "x" in one or "m1" in one]
    assert (await bench.state("a"))["seen"] == ["initialize", "m0", "m2", "m4"]


async def test_errors_that_only_the_node_may_raise_harm_nobody_but_their_agent() -> None:
    async def act(ctx: Here, trigger: Trigger) -> None:
        raise NoProgram("I say there is none")

    bench = Bench()

    async def either(ctx: Here, trigger: Trigger) -> None:
        if ctx.agent == "bad":
            await act(ctx, trigger)
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(either)
    async with bench.running("bad", "good"):
        await bench.idle("good")
        row = await bench.until_row("bad", lambda row: row["status"] == "quarantined")
        assert row["reason"].startswith("agent.no_program")


class Trap(BaseModel):
    """Its checks do harm."""

    @model_validator(mode="before")
    @classmethod
    def _trap(cls, value: Any) -> Any:
        raise SystemExit(3)


class Trapped(Program[Trap, Trap]):
    name = "scripted"
    state_type, config_type = Trap, Trap

    async def on_trigger(self, ctx: Context[Trap, Trap], trigger: Trigger) -> None:
        raise AssertionError("it never comes so far")


async def test_types_that_do_harm_make_no_agent_and_end_no_node() -> None:
    bench = Bench(programs={"scripted": Trapped()}, limits=LIMITS)
    with pytest.raises(VendoError, match="raised SystemExit"):
        bench.engine.check("scripted")
    async with bench.running("a"):
        row = await bench.until_row("a", lambda row: row["status"] == "quarantined")
        assert row["reason"].startswith("agent.failed: ")
