"""Alarms on every engine: they fire once, over crashes and restarts, whatever the clocks do."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.error import InvalidInput, NotFound, StoreUncertain
from core.unit import Update
from fs.namespace import Access, Mount, Namespace
from fs.service.alarms import alarms_service
from fs.session import Batch, Role, Session
from node.agent.inbox.row import DONE, Waiting, ended
from node.agent.program import Trigger
from node.agent.wake.agenda import AgentAlarms
from node.agent.wake.alarm import MAX_ALARMS, no_alarm, set_alarm
from node.agent.wake.bell import LOOK_S, Alarms
from node.storage.chain import unsigned_seal
from node.storage.memory import MemoryDatabase
from tests.integration.agent.inbox_part import START, StillClock
from tests.unit.node.agent.agent_part import Bench, Here, Scripted
from tests.unit_part import ENGINES, EVERY, Base

NOW = START * 1_000


@pytest.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    yield base
    await base.aclose()


@asynccontextmanager
async def ringing(unit: Base, clock: StillClock, woken: list[str]) -> AsyncIterator[Alarms]:
    alarms = Alarms(unit, clock, woken.append)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(alarms.run(ready, stop))
    await ready.wait()
    try:
        yield alarms
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)


async def fired(unit: Base, agent: str = "a") -> list[dict[str, Any]]:
    rows = await unit.select("inbox", {"agent": agent}, order=["n"])
    assert all((row["cause"], row["source"]) == ("alarm", "scheduler") for row in rows)
    return [{**orjson.loads(row["payload"]), "envelope": row["envelope_id"]} for row in rows]


async def until(unit: Base, count: int, agent: str = "a") -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        while len(found := await fired(unit, agent)) < count:
            await asyncio.sleep(0.005)
    return found


async def settle_inbox(unit: Base) -> None:
    for row in await unit.select("inbox", {"state": "new"}):
        await unit.commit([ended(row, DONE, START)])


async def test_an_alarm_wakes_its_agent_when_its_time_has_come(unit: Base) -> None:
    clock, woken = StillClock(), []
    async with ringing(unit, clock, woken) as alarms:
        await unit.commit(set_alarm("a", "x", NOW, at_ms=NOW + 3_000, payload='{"why":"tea"}'))
        alarms.touch()
        await clock.advance(2.9)
        assert (await fired(unit), woken) == ([], [])
        await clock.advance(0.1)
        (told,) = await until(unit, 1)
    assert told == {
        "alarm_id": "x", "scheduled_at": START + 3, "fired_at": START + 3, "due_ms": NOW + 3_000, "missed": 0,
        "payload": {"why": "tea"}, "envelope": f"alarm:x:{NOW + 3_000}",
    }  # fmt: skip
    assert woken == ["a"]
    assert await unit.select("alarm") == []


async def test_an_alarm_that_is_set_for_sooner_is_not_slept_through(unit: Base) -> None:
    clock, woken = StillClock(), []
    await unit.commit(set_alarm("a", "late", NOW, at_ms=NOW + 9_000))
    async with ringing(unit, clock, woken) as alarms:
        await clock.advance(0)
        await unit.commit(set_alarm("b", "soon", NOW, at_ms=NOW + 1_000))
        alarms.touch()
        await asyncio.sleep(0.05)
        await clock.advance(1)
        await until(unit, 1, "b")
    assert await fired(unit) == []


async def test_one_that_comes_again_waits_once_and_says_what_it_missed(unit: Base) -> None:
    clock = StillClock()
    alarms = Alarms(unit, clock, lambda _: None)
    await unit.commit(set_alarm("a", "x", NOW, every_ms=1_000))
    for _ in range(5):
        clock.ms += 1_000
        await alarms.look()
    assert [told["due_ms"] for told in await fired(unit)] == [NOW + 1_000]
    await settle_inbox(unit)
    clock.ms += 1_000
    await alarms.look()
    assert [(told["due_ms"], told["missed"]) for told in await fired(unit)] == [(NOW + 1_000, 0), (NOW + 6_000, 4)]


async def test_what_was_missed_while_the_node_was_down_fires_once(unit: Base) -> None:
    clock = StillClock()
    await unit.commit(set_alarm("a", "once", NOW, at_ms=NOW + 60_000))
    await unit.commit(set_alarm("a", "every", NOW, every_ms=60_000))
    await unit.commit(set_alarm("a", "cron", NOW, cron="@hourly"))
    clock.ms += 24 * 3_600_000
    async with ringing(unit, clock, []):
        await until(unit, 3)
    found = {told["alarm_id"]: told for told in await fired(unit)}
    assert {name: told["missed"] for name, told in found.items()} == {"once": 0, "every": 1_439, "cron": 23}
    assert {told["fired_at"] for told in found.values()} == {START + 86_400}
    assert found["cron"]["scheduled_at"] == START + 3_600
    async with ringing(unit, clock, []):
        await asyncio.sleep(0.02)
    assert len(await fired(unit)) == 3, "a restart fires nothing twice"
    (every, cron) = sorted(row["due_ms"] for row in await unit.select("alarm"))
    assert (every, cron) == (clock.ms + 60_000, clock.ms + 3_600_000)


async def test_a_crash_right_after_the_commit_neither_loses_nor_doubles() -> None:
    clock, unit = StillClock(), MemoryDatabase()
    await unit.commit(set_alarm("a", "x", NOW, every_ms=1_000))
    clock.ms += 1_000

    def die(units: int) -> None:
        raise StoreUncertain

    unit.crash_after = die
    with pytest.raises(StoreUncertain):
        await Alarms(unit, clock, lambda _: None).look()
    unit.crash_after = None
    await Alarms(unit, clock, lambda _: None).look()
    assert len(await fired(unit)) == 1
    assert (await unit.select("alarm"))[0]["due_ms"] == NOW + 2_000


async def test_two_processes_that_watch_fire_each_alarm_once(unit: Base) -> None:
    clock, woken = StillClock(), []
    both = [Alarms(unit, clock, woken.append) for _ in range(2)]
    for number in range(20):
        await unit.commit(set_alarm("a", f"x{number}", NOW, at_ms=NOW))
    await asyncio.gather(*(alarms.look() for alarms in both))
    assert len(await fired(unit)) == 20
    assert len(woken) == 20


async def test_an_alarm_that_is_set_again_for_a_time_for_which_it_has_fired_fires_again(unit: Base) -> None:
    clock, woken = StillClock(), []
    alarms = Alarms(unit, clock, woken.append)
    for number in range(4):
        await unit.commit(set_alarm("a", "go", clock.ms, at_ms=0, payload=f'{{"n":{number}}}'))
        await alarms.look()
        await settle_inbox(unit)
        clock.ms += 3_600_000 * (number % 2)  # the first two within one millisecond, and others hours later
    assert [told["payload"]["n"] for told in await fired(unit)] == [0, 1, 2, 3]
    assert woken == ["a"] * 4
    assert len({told["envelope"] for told in await fired(unit)}) == 4
    assert await unit.select("alarm") == []


async def test_an_interval_that_is_set_again_fires_again_and_still_has_one_envelope_waiting(unit: Base) -> None:
    clock = StillClock()
    alarms = Alarms(unit, clock, lambda _: None)
    for _ in range(2):
        await unit.commit(set_alarm("a", "x", NOW, at_ms=NOW, every_ms=1_000))
        await alarms.look()
        await settle_inbox(unit) if len(await fired(unit)) == 1 else None
    clock.ms += 1_000
    await alarms.look()
    assert [told["due_ms"] for told in await fired(unit)] == [NOW, NOW], "the second one waits"
    await settle_inbox(unit)
    clock.ms += 1_000
    await alarms.look()
    assert [(told["due_ms"], told["missed"]) for told in await fired(unit)][2:] == [(NOW + 2_000, 1)]


async def test_a_clock_that_jumps_ahead_is_noticed_and_one_that_is_set_back_fires_nothing_twice(unit: Base) -> None:
    clock, woken = StillClock(), []
    await unit.commit(set_alarm("a", "x", NOW, every_ms=3_600_000))
    async with ringing(unit, clock, woken):
        await asyncio.sleep(0.05)
        await clock.advance(LOOK_S, wall=3_600)
        await until(unit, 1)
        await settle_inbox(unit)
        await clock.advance(LOOK_S, wall=-7_200)
        await asyncio.sleep(0.05)
        await clock.advance(LOOK_S, wall=3_600)
        await asyncio.sleep(0.05)
        assert len(await fired(unit)) == 1
        await clock.advance(LOOK_S, wall=7_200)
        await until(unit, 2)
    assert [told["due_ms"] for told in await fired(unit)] == [NOW + 3_600_000, NOW + 7_200_000]


async def test_an_alarm_that_cannot_go_on_fires_for_the_last_time(unit: Base) -> None:
    clock = StillClock()
    await unit.commit(set_alarm("a", "x", NOW, cron="@hourly"))
    await unit.commit([Update("alarm", {"id": "x"}, set={"cron": "CRON_TZ=Gone/Away 0 * * * *"})])
    clock.ms += 3_600_000
    await Alarms(unit, clock, lambda _: None).look()
    assert len(await fired(unit)) == 1
    assert await unit.select("alarm") == []


async def test_a_changed_alarm_is_not_fired_for_its_old_time(unit: Base) -> None:
    clock = StillClock()
    await unit.commit(set_alarm("a", "x", NOW, at_ms=NOW + 1_000))
    await unit.commit(set_alarm("a", "x", NOW, at_ms=NOW + 5_000))
    await unit.commit(set_alarm("a", "y", NOW, at_ms=NOW + 1_000))
    await unit.commit(no_alarm("a", "y"))
    clock.ms += 1_000
    await Alarms(unit, clock, lambda _: None).look()
    assert await fired(unit) == []


@pytest.mark.timeout(60)
async def test_many_alarms_cost_one_timer_and_are_fired_in_the_order_of_their_time(tmp_path: Path) -> None:
    unit, clock, woken = await ENGINES["sqlite"](tmp_path, unsigned_seal, SystemClock()), StillClock(), []
    await unit.commit(set_alarm("first", "x", NOW, at_ms=NOW + 4_999))
    (row,) = await unit.select("alarm")
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    more = (tuple({**row, "agent": f"a{number}", "due_ms": NOW + 5_000 + number}.values()) for number in range(100_000))
    with closing(sqlite3.connect(tmp_path / "node.db", timeout=30)) as db, db:
        db.executemany(f"INSERT INTO alarm ({names}) VALUES ({marks})", more)
    before = len(asyncio.all_tasks())
    async with ringing(unit, clock, woken):
        async with asyncio.timeout(60):
            while not clock.sleeping:
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) <= before + 4, "one task, and what it waits for"
        assert len(clock.sleeping) == 1
        await clock.advance(5.999)
        async with asyncio.timeout(60):
            while len(woken) < 1_001:
                await asyncio.sleep(0.01)
    assert len(woken) == 1_001
    first = await unit.select("inbox", order=["n"], limit=256)
    assert {row["agent"] for row in first} == {"first", *(f"a{number}" for number in range(255))}
    assert await unit.count("alarm") == 99_000
    await unit.aclose()


async def test_an_alarm_that_an_agent_sets_in_a_tick_wakes_it_out_of_hibernation(unit: Base) -> None:
    woke: list[dict[str, Any]] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.cause == "initialize":
            ctx.set_alarm("tea", after_ms=50, payload={"pot": 1})
            ctx.hibernate()
        else:
            woke.append({"cause": trigger.cause, "sender": trigger.sender, **trigger.payload["payload"]})

    bench = Bench(unit=unit, programs={"scripted": Scripted(act)})
    alarms = Alarms(unit, SystemClock(), bench.engine.notify)
    async with bench.running("a"):
        await bench.until_row("a", lambda row: row["status"] == "dormant")
        assert woke == []
        async with asyncio.timeout(60):
            while not woke:
                await alarms.look()
                await asyncio.sleep(0.01)
    assert woke == [{"cause": "alarm", "sender": "tea", "pot": 1}]


# --- as files


def files(unit: Base, touched: list[int]) -> Namespace:
    alarms = AgentAlarms("a", unit, StillClock(), lambda: touched.append(1))
    return Namespace([Mount("/alarms", alarms_service(alarms), Access.WRITE)])


async def test_alarms_are_set_listed_and_deleted_as_files(unit: Base) -> None:
    touched: list[int] = []
    tree, operator = files(unit, touched), Session("operator", Role.OPERATOR, "k", unit=unit)
    body = b'{"id":"tea","every_ms":60000,"at_ms":%d,"payload":{"pot":1}}' % (NOW + 5)
    made = orjson.loads(await tree.call("/alarms/new", body, operator))
    assert (made["kind"], made["due_ms"], made["payload"]) == ("every", NOW + 5, {"pot": 1})
    assert orjson.loads(await tree.read("/alarms/tea", operator)) == made
    await tree.call("/alarms/new", b'{"id":"daily","cron":"CRON_TZ=Europe/Zurich 0 9 * * *"}', operator)
    assert [entry.name for entry in await tree.list("/alarms", operator) if entry.is_dir] == ["daily", "tea"]
    await tree.call("/alarms/tea/delete", b"", operator)
    with pytest.raises(NotFound):
        await tree.read("/alarms/tea", operator)
    assert len(touched) == 3


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"id":1,"at_ms":1}', b'{"id":"x"}', b'{"id":"x","at_ms":"1"}', b'{"id":"x","at_ms":1.5}',
        b'{"id":"x","at_ms":1,"after_ms":1}', b'{"id":"x","every_ms":10}', b'{"id":"x","cron":"every day"}',
        b'{"id":"x","cron":5}', b'{"id":"x","at_ms":1,"payload":"text"}', b'{"id":"../x","at_ms":1}',
        b'{"id":"x","at_ms":1,"zone":"UTC"}', b'{"id":"x","at_ms":true}',
    ],
)  # fmt: skip
async def test_what_is_no_alarm_changes_nothing(body: bytes) -> None:
    unit = MemoryDatabase()
    with pytest.raises(InvalidInput):
        await files(unit, []).call("/alarms/new", body, Session("operator", Role.OPERATOR, "k", unit=unit))
    assert await unit.select("alarm") == []


async def test_in_a_tick_an_alarm_is_set_when_the_tick_is_committed() -> None:
    unit, touched = MemoryDatabase(), []
    batch = Batch()
    await files(unit, touched).call(
        "/alarms/new", b'{"id":"x","after_ms":5}', Session("agent:a", Role.AGENT, batch=batch)
    )
    assert (await unit.select("alarm"), touched) == ([], [])
    await unit.commit(batch.writes)
    for then in batch.thens:
        then()
    assert ((await unit.select("alarm"))[0]["due_ms"], touched) == (NOW + 5, [1])


async def test_one_tick_cannot_pass_the_bound_either() -> None:
    unit, batch = MemoryDatabase(), Batch()
    tick = Session("agent:a", Role.AGENT, batch=batch)
    for number in range(MAX_ALARMS):
        await files(unit, []).call("/alarms/new", b'{"id":"x%d","at_ms":1}' % number, tick)
    with pytest.raises(InvalidInput):
        await files(unit, []).call("/alarms/new", b'{"id":"more","at_ms":1}', tick)


async def test_an_alarm_that_its_agent_fails_at_holds_back_no_other(unit: Base) -> None:
    clock = StillClock()
    for name in ("bad", "good"):
        await unit.commit(set_alarm("a", name, NOW, at_ms=NOW))
    await Alarms(unit, clock, lambda _: None).look()
    bad = {"envelope_id": f"alarm:bad:{NOW}"}
    await unit.commit([Update("inbox", bad, set={"tries": 1, "next_at_ms": NOW + 60_000})])
    rows, again = await Waiting(unit).due("a", NOW)
    assert ([row["envelope_id"] for row in rows], again) == ([f"alarm:good:{NOW}"], NOW + 60_000)


async def test_there_is_a_bound_to_how_many_an_agent_has() -> None:
    unit = MemoryDatabase()
    for number in range(MAX_ALARMS):
        await unit.commit(set_alarm("a", f"x{number}", NOW, at_ms=NOW))
    operator = Session("operator", Role.OPERATOR, "k", unit=unit)
    with pytest.raises(InvalidInput):
        await files(unit, []).call("/alarms/new", b'{"id":"more","at_ms":1}', operator)
    await files(unit, []).call("/alarms/new", b'{"id":"x1","at_ms":1}', operator)
