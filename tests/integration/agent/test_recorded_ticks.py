"""What an engine records on every database: it replays the same, it names a change, and it holds no secret."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.clock import SystemClock
from core.unit import Delete, Within
from fs.feed import Feed
from node.agent.log import AgentLog
from node.agent.program import Context
from node.agent.replay.redactor import Redactor
from node.agent.replay.reel import load
from node.agent.replay.rerun import DIFFERENT, SAME, UNCLEAR, replay
from node.storage.chain import unsigned_seal
from node.storage.memory import MemoryDatabase
from tests.integration.agent.machine_part import NAME, TOKEN, Machine, Order, Tariff, World, running, tell
from tests.unit_part import ENGINES, EVERY, Base

WORDS = ("bread", "milk", "eggs", "a long word " * 10)


@pytest.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    yield base
    await base.aclose()


def messages(count: int) -> list[dict[str, Any]]:
    dice = random.Random(7)
    return [{"do": dice.choice(WORDS), "n": n} for n in range(count)]


async def ticks(unit: Base) -> list[dict[str, Any]]:
    return [row for row in reversed(await AgentLog(NAME, unit, Feed()).ticks(5_000)) if row["recorded"]]


async def test_200_ticks_of_a_state_machine_replay_the_same(unit: Base) -> None:
    async with running(unit, World(), config={"margin": 3, "api_key": "sk-abcdefghijklmnopqrstuvwx"}) as engine:
        await tell(unit, engine, messages(200))
    rows = await ticks(unit)
    assert len(rows) > 200
    errors = {row["error"].split(":")[0] for row in rows}
    assert errors == {"", "agent.failed", "unavailable"}
    seen: set[str] = set()
    for row in rows:
        recording = await load(unit, NAME, row["id"])
        comparison = await replay(recording, Machine())
        assert (comparison.result, comparison.difference, comparison.note) == (SAME, None, ""), row
        assert not comparison.code_changed
        seen |= {step.op for step in recording.steps}
    assert seen == {
        "hook", "read", "list", "stat", "check", "call", "write", "seen", "mark", "log", "watch", "alarm.set",
        "alarm.cancel", "item.set", "item.get", "item.list", "item.delete", "hibernate",
    }  # fmt: skip
    assert await unit.count("blob") > 5


class Dearer(Machine):
    """Asks for one more, from the second quote on."""

    digest = "cd" * 32

    async def quote(self, ctx: Context[Order, Tariff], word: str) -> None:
        ctx.config.margin += 1 if ctx.state.served else 0
        await super().quote(ctx, word)


async def test_a_changed_agent_shows_its_first_difference(unit: Base) -> None:
    async with running(unit, World()) as engine:
        await tell(unit, engine, messages(30))
    results = []
    for row in await ticks(unit):
        recording = await load(unit, NAME, row["id"])
        comparison = await replay(recording, Dearer())
        assert comparison.code_changed
        quotes = any(step.op == "log" and step.args[0] == "quoted" for step in recording.steps)
        second = '"served":0' not in str(recording.start.state) and recording.start.state != "{}"
        assert (comparison.result == DIFFERENT) is (quotes and second)
        results.append(comparison)
    first = next(one.difference for one in results if one.result == DIFFERENT)
    assert first is not None
    assert first.where.endswith("alarm.set 'late': alarm /payload")
    assert first.expected != first.found


async def test_a_recording_says_when_a_body_has_gone(unit: Base) -> None:
    async with running(unit, World()) as engine:
        await tell(unit, engine, messages(40))
    await unit.commit([Delete("blob", {"at": Within(low=0)})])
    results = [await replay(await load(unit, NAME, row["id"]), Machine()) for row in await ticks(unit)]
    gone = [one for one in results if one.result == UNCLEAR]
    assert gone
    assert {one.result for one in results} == {SAME, UNCLEAR}
    assert all("is kept no more" in one.note for one in gone)


async def test_no_secret_is_kept_of_a_tick(tmp_path: Path) -> None:
    """A secret of the node, one that a file service marks, and two in a message."""
    node_secret, api_key, coin = (
        "legal winner thank year wave",
        "sk-abcdefghijklmnopqrstuvwx",
        "cashuBo2F0gaJhaUgA_9SLj17Pg",
    )
    unit = await ENGINES["sqlite"](tmp_path, unsigned_seal, SystemClock())
    world = World()
    async with running(unit, world, Telling(node_secret), Redactor([node_secret]), {"api_key": api_key}) as engine:
        await tell(unit, engine, [{"do": f"take {coin} for {node_secret}"} for _ in range(12)])
    assert {one["token"] for one in world.served} == {TOKEN}
    recordings = [await load(unit, NAME, row["id"]) for row in await ticks(unit)]
    assert len(recordings) > 12
    for secret in (node_secret, api_key, coin, TOKEN):
        assert secret not in repr(recordings)
        assert secret not in repr(await unit.select("log"))
        assert secret not in repr(await unit.select("tick"))
    results = [(await replay(recording, Telling("[redacted secret]"))).result for recording in recordings]
    assert set(results) == {SAME}
    await unit.aclose()
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert TOKEN.encode() not in kept


class Telling(Machine):
    """Says what it should not."""

    def __init__(self, secret: str) -> None:
        self.secret = secret

    async def on_wake(self, ctx: Context[Order, Tariff]) -> None:
        await super().on_wake(ctx)
        ctx.log("told", what=f"the words are\n{self.secret}", key=ctx.config.api_key.get_secret_value())


async def test_a_failed_attempt_can_be_run_again() -> None:
    unit = MemoryDatabase()
    async with running(unit, World()) as engine:
        await tell(unit, engine, messages(60))
    failed = [row for row in await ticks(unit) if row["error"]]
    assert failed
    for row in failed:
        recording = await load(unit, NAME, row["id"])
        assert recording.end.code == row["error"].split(":")[0]
        comparison = await replay(recording, Machine())
        assert comparison.result == SAME
        mended = await replay(recording, Patient())
        if recording.end.code == "agent.failed":
            assert mended.result == DIFFERENT
            assert mended.difference is not None
            assert mended.difference.found.startswith(("list /w", "a state"))


class Patient(Machine):
    """Puts up with bad pages."""

    digest = "ef" * 32

    async def serve(self, ctx: Context[Order, Tariff], word: str) -> None:
        page = await ctx.fs.read("/w/page")
        ctx.state.heard["page"] = f"{len(page)}"
        await ctx.fs.list("/w")
