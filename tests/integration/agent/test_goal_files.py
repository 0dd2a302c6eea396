"""/goals: a form, an order, one commit for each change, and what was stored before there was a form."""

import asyncio
from typing import Any

import orjson
import pytest

from core.error import Conflict, InvalidInput, VendoError
from core.unit import Insert
from fs.error import BodyTooLarge, NoSuchFile, Unsupported
from fs.handle import Open
from fs.namespace import Access, Mount, Namespace
from fs.service.goals import MAX_DEPTH, MAX_GOALS, goals_service
from fs.session import Role, Session
from node.agent.error import StorageFull
from node.agent.goal import AgentGoals
from node.agent.program import Trigger
from node.agent.tick.limit import TickLimits
from tests.integration.agent.keep_part import Keep
from tests.unit.node.agent.agent_part import Bench, Here, Scripted, remember


async def free(keep: Keep, goal: str, body: str = '{"pot": 1}') -> None:
    """A goal as an older version stored it."""
    await keep.unit.commit([Insert("goal", {"agent": "a", "id": goal, "body": body, "updated_at": 1})])


async def goal(keep: Keep, name: str, session: Session | None = None) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(await keep.read(f"/goals/{name}", session))
    return found


async def listed(keep: Keep, session: Session | None = None) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(await keep.read("/goals/list", session))
    return found


async def test_a_goal_is_filled_in_read_replaced_and_removed_each_in_one_commit(keep: Keep) -> None:
    before = keep.unit.stats()["units"]
    await keep.write("/goals/tea", '{"description": "Tee für alle", "priority": 2, "due_at_ms": 4000000000000}')
    found = await goal(keep, "tea")
    assert found.pop("updated_at_ms") > 1_700_000_000_000
    assert found == {
        "id": "tea", "description": "Tee für alle", "priority": 2, "status": "active", "progress": 0,
        "due_at_ms": 4_000_000_000_000, "notes": "",
    }  # fmt: skip
    assert await keep.stored() == len(await keep.read("/goals/tea"))
    await keep.write("/goals/tea", '{"description": "x", "status": "done", "progress": 100}', keep.own)
    assert (await goal(keep, "tea"))["status"] == "done"
    assert "due_at_ms" not in await goal(keep, "tea"), "it is replaced whole"
    assert await keep.stored() == len(await keep.read("/goals/tea"))
    await keep.space.remove("/goals/tea", keep.own)
    assert await keep.stored() == 0
    assert keep.unit.stats()["units"] == before + 3
    for doing in (keep.read("/goals/tea"), keep.space.stat("/goals/tea", keep.own)):
        with pytest.raises(NoSuchFile):
            await doing
    with pytest.raises(NoSuchFile):
        await keep.space.remove("/goals/tea", keep.own)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"no json", b"[]", b"null", b'"x"', b"\xff", b"{}", b'{"description":""}', b'{"description":"  \\n"}',
        b'{"description":1}', b'{"description":null}', b'{"description":"x","more":1}',
        b'{"description":"x","priority":-1}', b'{"description":"x","priority":10}',
        b'{"description":"x","priority":"1"}', b'{"description":"x","priority":1.5}',
        b'{"description":"x","priority":true}', b'{"description":"x","priority":1e400}',
        b'{"description":"x","status":"asleep"}', b'{"description":"x","progress":101}',
        b'{"description":"x","progress":-1}', b'{"description":"x","due_at_ms":-1}',
        b'{"description":"x","due_at_ms":4102444800000}',
        b'{"description":"x","parent":"No"}', b'{"description":"x","parent":"there-is-none"}',
        b'{"description":"x","id":"another"}', b'{"description":"x","notes":7}', b'{"description":"\\ud800"}',
        b'{"description":"' + b"x" * 2_001 + b'"}', b'{"description":"x","notes":"' + b"x" * 8_001 + b'"}',
        b'{"description":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    ],
)  # fmt: skip
async def test_what_is_no_goal_is_refused_and_changes_nothing(quick: Keep, body: bytes) -> None:
    await quick.write("/goals/g", '{"description": "as it is"}')
    before = await quick.rows()
    with pytest.raises(InvalidInput) as caught:
        await quick.write("/goals/g", body)
    assert "xxxx" not in str(caught.value)
    with pytest.raises(InvalidInput):
        await quick.write("/goals/new", body)
    assert await quick.rows() == before


async def test_a_body_that_is_too_long_is_refused(quick: Keep) -> None:
    with pytest.raises(BodyTooLarge):
        await quick.write("/goals/g", b'{"description":"x"}' + b" " * 65_536)


@pytest.mark.parametrize("name", ["UPPER", "-x", "_x", "a.b", "a" * 65, "ü", "README", "list"])
async def test_a_goals_id_is_a_strict_one(quick: Keep, name: str) -> None:
    before = await quick.rows()
    with pytest.raises((NoSuchFile, Unsupported)):
        await quick.write(f"/goals/{name}", '{"description": "x"}')
    assert await quick.rows() == before


async def test_the_list_is_by_priority_then_id_and_counts(keep: Keep) -> None:
    for name, more in (
        ("c", ""), ("b", ', "status": "paused"'), ("z", ', "priority": 0'), ("a", ', "priority": 9, "status": "done"'),
    ):  # fmt: skip
        await keep.write(f"/goals/{name}", f'{{"description": "of {name}"{more}}}')
    await free(keep, "old", '{"pot": 1, "priority": "high"}')
    found = await listed(keep)
    assert [one["id"] for one in found["goals"]] == ["z", "b", "c", "a", "old"]
    assert found["counts"] == {"active": 2, "paused": 1, "done": 1, "failed": 0, "free": 1}
    assert found["goals"][-1] == {"id": "old", "free": {"pot": 1, "priority": "high"}}
    assert await keep.names("/goals") == ["a", "b", "c", "list", "old", "z"]


async def test_a_goal_of_an_older_version_is_read_as_it_is_until_it_is_written_again(keep: Keep) -> None:
    await free(keep, "old", deep := '{"a":' * 400 + "1" + "}" * 400)
    assert await keep.read("/goals/old") == deep.encode()
    assert (await listed(keep))["counts"]["free"] == 1
    with pytest.raises(InvalidInput):
        await keep.write("/goals/old", '{"pot": 2}')
    await keep.write("/goals/old", '{"description": "now with a form"}')
    assert (await listed(keep))["counts"] == {"active": 1, "paused": 0, "done": 0, "failed": 0}
    await free(keep, "other")
    await keep.space.remove("/goals/other", keep.operator)
    assert await keep.names("/goals") == ["list", "old"]


async def test_a_goal_is_part_of_one_that_is_there_and_never_of_itself(quick: Keep) -> None:
    await quick.write("/goals/g0", '{"description": "x"}')
    for number in range(1, MAX_DEPTH + 1):
        await quick.write(f"/goals/g{number}", f'{{"description": "x", "parent": "g{number - 1}"}}')
    with pytest.raises(InvalidInput, match="deep"):
        await quick.write("/goals/more", f'{{"description": "x", "parent": "g{MAX_DEPTH}"}}')
    with pytest.raises(InvalidInput, match="part of itself"):
        await quick.write("/goals/g0", '{"description": "x", "parent": "g3"}')
    await quick.space.remove("/goals/g0", quick.operator)
    await quick.write("/goals/g2", '{"description": "still a part", "parent": "g1"}')
    await free(quick, "old")
    await quick.write("/goals/g9", '{"description": "x", "parent": "old"}')


async def test_who_names_the_version_that_was_read_overwrites_nobody(quick: Keep) -> None:
    await quick.write("/goals/g", '{"description": "first"}')
    read = await goal(quick, "g")
    await asyncio.sleep(0.002)
    await quick.write("/goals/g", orjson.dumps({**read, "progress": 10}))
    with pytest.raises(Conflict):
        await quick.write("/goals/g", orjson.dumps({**read, "progress": 20}))
    with pytest.raises(Conflict):
        await quick.write("/goals/new", '{"description": "x", "updated_at_ms": 5}')
    assert (await goal(quick, "g"))["progress"] == 10


async def test_there_are_only_so_many_goals_in_a_tick_too(quick: Keep) -> None:
    rows = [Insert("goal", {"agent": "a", "id": f"g{n}", "body": "{}", "updated_at": 1}) for n in range(MAX_GOALS - 1)]
    await quick.unit.commit(rows)
    tick = quick.tick()
    await quick.write("/goals/one", '{"description": "x"}', tick)
    with pytest.raises(InvalidInput, match="at most"):
        await quick.write("/goals/two", '{"description": "x"}', tick)
    await quick.write("/goals/g5", '{"description": "x"}', tick)
    await quick.space.remove("/goals/g6", tick)
    await quick.write("/goals/two", '{"description": "x"}', tick)
    assert len(await quick.names("/goals", tick)) == MAX_GOALS + 1
    assert len((await listed(quick, tick))["goals"]) == MAX_GOALS


async def test_goals_count_against_the_agents_limit_outside_of_ticks_as_well(quick: Keep) -> None:
    quick = Keep(quick.unit, limits=TickLimits(storage_bytes=1_400))
    await quick.write("/goals/g", orjson.dumps({"description": "x" * 100}))
    before = await quick.rows()
    with pytest.raises(StorageFull):
        await quick.write("/goals/g", orjson.dumps({"description": "x" * 900}))
    assert await quick.rows() == before
    await quick.write("/goals/g", orjson.dumps({"description": "x"}))


async def test_writers_at_the_same_time_leave_the_count_exact(keep: Keep) -> None:
    async def one(number: int) -> str:
        try:
            await keep.write("/goals/g", orjson.dumps({"description": "x" * (1 + number * 7)}))
        except Conflict:
            return "refused"
        return "done"

    found = await asyncio.gather(*(one(number) for number in range(6)))
    assert "done" in found
    assert await keep.stored() == len(await keep.read("/goals/g"))


async def test_in_a_tick_goals_are_as_it_would_leave_them_and_nobody_else_sees_them(keep: Keep) -> None:
    await keep.write("/goals/g", '{"description": "before"}')
    await keep.write("/goals/gone", '{"description": "before"}')
    before, tick = await keep.rows(), keep.tick()
    await keep.write("/goals/g", '{"description": "in the tick"}', tick)
    await keep.write("/goals/part", '{"description": "new", "parent": "g"}', tick)
    await keep.space.remove("/goals/gone", tick)
    assert (await goal(keep, "g", tick))["description"] == "in the tick"
    assert await keep.names("/goals", tick) == ["g", "list", "part"]
    assert [one["id"] for one in (await listed(keep, tick))["goals"]] == ["g", "part"]
    with pytest.raises(NoSuchFile):
        await keep.read("/goals/gone", tick)
    await keep.space.remove("/goals/part", tick)
    await keep.write("/goals/part", '{"description": "again"}', tick)
    assert await keep.rows() == before
    assert await keep.names("/goals") == ["g", "gone", "list"]
    assert tick.batch is not None
    await keep.unit.commit(tick.batch.writes)
    assert (await goal(keep, "g"))["description"] == "in the tick"
    assert await keep.names("/goals") == ["g", "list", "part"]
    assert await keep.stored() == sum([len(await keep.read(f"/goals/{name}")) for name in ("g", "part")])
    tick.batch.closed = True
    with pytest.raises(Conflict):
        await keep.write("/goals/late", '{"description": "x"}', tick)


async def test_a_tick_keeps_its_goals_with_its_commit_or_not_at_all() -> None:
    bench = Bench(limits=TickLimits(seconds=5, tries=1, back_off_ms=1))
    bench.services["/goals"] = goals_service(AgentGoals("a", bench.unit, bench.clock))

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id == "good":
            await ctx.fs.write("/goals/tea", b'{"description": "x"}')
            assert b"description" in await ctx.fs.read("/goals/tea")
            await ctx.fs.write("/goals/coffee", b'{"description": "x"}')
            await ctx.fs.remove("/goals/coffee")
        if trigger.envelope_id == "bad":
            await ctx.fs.remove("/goals/tea")
            await ctx.fs.write("/goals/other", b'{"description": "x"}')
            raise ValueError("as it was told")
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.put("a", "good")
        await bench.put("a", "bad")
        await bench.idle("a")
    assert [row["id"] for row in await bench.unit.select("goal")] == ["tea"]


async def test_a_tick_works_on_open_files_as_on_any() -> None:
    bench = Bench(limits=TickLimits(seconds=5, tries=1, back_off_ms=1))
    bench.services["/goals"] = goals_service(AgentGoals("a", bench.unit, bench.clock))
    path, first = "/goals/tea", b'{"description": "xx", "priority": 1}'
    caught: list[str] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id == "m":
            async with await ctx.fs.open(path, Open.WRITE | Open.CREATE) as made:
                await made.write(first)
            async with await ctx.fs.open(path, Open.READ | Open.WRITE) as kept:
                text = await kept.read()
                kept.seek(text.index(b"xx"))
                await kept.write(b"yy")
            left = await ctx.fs.open(path, Open.WRITE)
            await left.write(b"nobody closes this one")
            for doing in (ctx.fs.open("/goals/none"), ctx.fs.open("/goals", Open.WRITE)):
                try:
                    await doing
                except VendoError as error:
                    caught.append(error.code)
        await remember(ctx, trigger)

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.put("a", "m")
        await bench.idle("a")
    (row,) = await bench.unit.select("goal")
    assert orjson.loads(row["body"])["description"] == "yy"
    assert caught == ["fs.not_found", "fs.is_directory"]


async def test_a_tick_during_which_somebody_else_writes_the_goal_runs_again() -> None:
    bench = Bench(limits=TickLimits(seconds=5))
    service = goals_service(AgentGoals("a", bench.unit, bench.clock))
    bench.services["/goals"] = service
    operator, runs = Session("operator", Role.OPERATOR, unit=bench.unit), 0

    async def act(ctx: Here, trigger: Trigger) -> None:
        nonlocal runs
        if trigger.envelope_id == "m":
            runs += 1
            known = orjson.loads(await ctx.fs.read("/goals/g"))
            if runs == 1:
                await service.write(("g",), b'{"description": "theirs, and longer"}', operator)
            await ctx.fs.write("/goals/g", orjson.dumps({"description": known["description"] + "!"}))

    bench.programs["scripted"] = Scripted(act)
    async with bench.running("a"):
        await bench.idle("a")
        await service.write(("g",), b'{"description": "x"}', operator)
        await bench.put("a", "m")
        await bench.idle("a")
    (row,) = await bench.unit.select("goal")
    assert orjson.loads(row["body"])["description"] == "theirs, and longer!"
    assert runs == 2
    (agent,) = await bench.unit.select("agent", {"name": "a"})
    assert agent["stored"] == len(agent["state"]) + len(row["body"])


async def test_what_an_agent_may_only_look_at_it_changes_in_no_way(quick: Keep) -> None:
    await quick.write("/goals/g", '{"description": "x"}')
    space = Namespace([Mount("/goals", goals_service(quick.goals), Access.READ)])
    for doing in (
        space.write("/goals/g", b'{"description": "y"}', quick.own),
        space.remove("/goals/g", quick.own),
        space.mkdir("/goals/d", quick.own),
    ):
        with pytest.raises(VendoError, match="read-only"):
            await doing
    with pytest.raises(Unsupported):
        await quick.space.mkdir("/goals/d", quick.operator)
    with pytest.raises(Unsupported):
        await quick.space.rename("/goals/g", "/goals/h", quick.operator)
