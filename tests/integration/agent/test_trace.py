"""What an agent did, as /logs shows it: with the tick and the envelope of each record, from any place that is kept."""

import asyncio
from typing import Any

import orjson
import pytest

from core.unit import Delete, Insert, Within
from fs.batch import batches
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.service.logs import TickRecord, TraceRecord, logs_service
from fs.session import Role, Session
from node.agent.log import AgentLog, record, topic
from node.agent.program import Context, Trigger
from node.storage.memory import MemoryDatabase
from tests.unit.node.agent.agent_part import Bench, Scripted

ME = Session("agent:a", Role.AGENT)


class Shelf:
    """A log, and the files that show it."""

    def __init__(self) -> None:
        self.unit, self.feed = MemoryDatabase(), Feed()
        self.log = AgentLog("a", self.unit, self.feed)
        self.files = Namespace([Mount("/logs", logs_service(self.log), Access.READ)])

    async def say(self, kind: str, at_ms: int = 1, agent: str = "a", **data: Any) -> None:
        await self.unit.commit([record(agent, at_ms, kind, orjson.dumps(data).decode())])
        self.feed.grew(topic(agent))

    async def tick(self, number: int, said: int, at_ms: int) -> None:
        """A tick that says something and ends."""
        name = f"{number:032x}"
        for place in range(said):
            await self.say("said", at_ms, place=place)
        await self.say("tick", at_ms, tick_id=name, cause="message", duration_ms=1)
        row = {
            "id": name,
            "agent": "a",
            "envelope_id": f"e{number}",
            "cause": "message",
            "at_ms": at_ms,
            "duration_ms": 1,
        }
        await self.unit.commit([Insert("tick", row)])

    async def json(self, path: str) -> Any:
        return orjson.loads(await self.files.read(path, ME))


async def test_every_record_names_its_tick_and_envelope_as_far_as_that_is_known() -> None:
    shelf = Shelf()
    await shelf.say("status", 5, status="active")
    await shelf.tick(1, 2, 10)
    await shelf.say("said", 20)  # of a tick whose end is not here
    await shelf.say("status", 30, status="stopped")
    await shelf.tick(2, 1, 30)
    found = await shelf.json("/logs/recent")
    one, two = ({"tick_id": f"{n:032x}", "envelope_id": f"e{n}"} for n in (1, 2))
    known = [{name: row[name] for name in ("tick_id", "envelope_id") if name in row} for row in found]
    assert known == [{}, one, one, one, {}, {}, two, two]
    for row in found:
        TraceRecord.model_validate(row)
    assert [row["id"] for row in found] == sorted(row["id"] for row in found)
    for row in await shelf.json("/logs/ticks"):
        TickRecord.model_validate(row)


async def test_a_page_that_ends_within_a_tick_finds_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.log.PAGE", 3)
    shelf = Shelf()
    await shelf.tick(1, 1, 10)
    await shelf.tick(2, 4, 20)
    watch = shelf.files.watch("/logs/trace", ME, 0)
    found = [orjson.loads((await anext(watch)).data) for _ in range(7)]
    assert [one["envelope_id"] for one in found] == ["e1"] * 2 + ["e2"] * 5


async def test_the_records_of_real_ticks_name_them_also_of_one_that_failed() -> None:
    async def act(ctx: Context[Any, Any], trigger: Trigger) -> None:
        ctx.log("heard", what=trigger.envelope_id)
        if trigger.envelope_id == "bad":
            raise ValueError("no")

    bench = Bench(programs={"scripted": Scripted(act)})
    async with bench.running("a"):
        await bench.put("a", "good")
        await bench.idle("a")
        await bench.put("a", "bad")
        await bench.idle("a")
    found = await bench.trace("a").recent(100)
    heard = {one["data"]["what"]: one for one in found if one["type"] == "heard"}
    assert heard["good"]["envelope_id"] == "good"
    failed = [one for one in found if one["type"] == "error"]
    assert {one["envelope_id"] for one in failed} == {"bad"}
    assert all(one["tick_id"] == one["data"]["tick_id"] for one in failed)


async def test_the_trajectory_has_all_that_is_kept_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.agent.log.PAGE", 10)
    shelf = Shelf()
    for number in range(95):
        await shelf.say("said", number, number=number)
        await shelf.say("said", number, agent="b", number=number)
    pieces = [piece async for piece in shelf.log.lines()]
    assert len(pieces) == 10
    assert max(piece.count(b"\n") for piece in pieces) == 10
    lines = b"".join(pieces).splitlines()
    assert [orjson.loads(line)["data"]["number"] for line in lines] == list(range(95))
    watch = shelf.files.watch("/logs/trajectory", ME, orjson.loads(lines[90])["id"])
    assert [(await anext(watch)).data for _ in range(4)] == lines[91:], "watched, it is the same"


async def test_a_cursor_older_than_what_is_kept_gets_a_gap_first() -> None:
    shelf = Shelf()
    for number in range(10):
        await shelf.say("said", number, number=number)
    await shelf.unit.commit([Delete("log", {"n": Within(high=6)})])
    watch = shelf.files.watch("/logs/trace", ME, 2)
    first = await anext(watch)
    assert (first.type, first.id, orjson.loads(first.data)) == ("gap", 5, {"from": 3, "to": 5})
    assert [(await anext(watch)).id for _ in range(5)] == [6, 7, 8, 9, 10]
    assert (await anext(shelf.files.watch("/logs/trace", ME, 0))).id == 6, "0 is from the oldest that is kept"
    assert (await anext(shelf.files.watch("/logs/trace", ME, 5))).id == 6, "nothing is missing after this one"


async def test_watchers_of_a_trace_share_the_records() -> None:
    shelf = Shelf()
    await shelf.say("said")
    watchers = [batches(AgentLog("a", shelf.unit, shelf.feed).follow(None)) for _ in range(20)]
    tasks = [asyncio.create_task(anext(one)) for one in watchers]
    await asyncio.sleep(0.01)
    await shelf.say("said", 2)
    found = await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert len({id(batch) for batch in found}) == 1


async def test_the_trace_is_a_stream_and_reads_what_is_there() -> None:
    shelf = Shelf()
    await shelf.say("said", number=1)
    stat = await shelf.files.stat("/logs/trace", ME)
    assert (stat.stream, stat.readable, stat.watchable) == (True, True, True)
    assert orjson.loads(await shelf.files.read("/logs/trace", ME))["data"] == {"number": 1}
    assert not (await shelf.files.stat("/logs/trajectory", ME)).stream, "it has a content"
