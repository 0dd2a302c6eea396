"""`vendo replay`: what it replays, with what, what it says, and its exit codes."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from core.unit import Delete, Insert, Update
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.service.logs import logs_service
from node.agent.load.source import load_source
from node.agent.log import AgentLog
from node.agent.replay.notation import decode
from node.agent.replay.recording import End
from node.agent.replay.reel import writes
from node.agent.replay.tape import LiveTape
from node.http.control import ControlPlane
from node.http.token import Tokens
from node.storage.memory import MemoryDatabase
from tests.unit.cli.node_part import SECRET, write_home
from tests.unit.node.agent.replay_part import recorded

COUNTER = """
from pydantic import BaseModel

from node.agent.program import Nothing, Program


class Count(BaseModel):
    total: int = 0
    heard: str = ""


class Counter(Program[Count, Nothing]):
    name = "counter"
    state_type, config_type = Count, Nothing

    async def on_trigger(self, ctx, trigger):
        ctx.state.total += STEP
        ctx.log("counted", total=ctx.state.total)
        ctx.state.heard = (await ctx.fs.read("/w/b"))[:12].decode()
"""
FOREVER = COUNTER.replace("        ctx.state.total += STEP\n", "        while True:\n            pass\n")
AGENT = "agent-0001"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    (home / "agents").mkdir(parents=True)
    (home / "agents" / "counter.py").write_text(COUNTER.replace("STEP", "1"))
    for folder in (tmp_path, home, home / "agents"):
        folder.chmod(0o700)
    (home / "agents" / "counter.py").chmod(0o600)
    return home


def changed(home: Path, step: str = "2", source: str = COUNTER) -> str:
    file = home.parent / "counter-changed.py"
    file.write_text(source.replace("STEP", step))
    return str(file)


async def with_ticks(home: Path, *totals: int) -> MemoryDatabase:
    """A database with recorded ticks 1, 2, … of a counter that begins at these totals."""
    unit = MemoryDatabase()
    source = (home / "agents" / "counter.py").read_bytes()
    counter = load_source(source, home / "agents" / "counter.py", "counter")
    for n, total in enumerate(totals, 1):
        tick = f"{n:032x}"
        recording = await recorded(counter, tick_id=tick, state=json.dumps({"total": total, "heard": ""}))
        tape = LiveTape()
        tape.steps += recording.steps
        row = {
            "id": tick, "agent": AGENT, "envelope_id": "e", "cause": "manual", "at_ms": n, "duration_ms": 1, "tries": 0,
            "version": n, "code": counter.digest, "usage": "{}", "error": "",
        }  # fmt: skip
        await unit.commit([Insert("tick", row), *writes(recording.start, tape, recording.end, n)])
    return unit


@asynccontextmanager
async def node(home: Path, unit: MemoryDatabase) -> AsyncIterator[None]:
    """A control plane with the logs of an agent."""

    def space(agent: str) -> Namespace:
        return Namespace([Mount("/logs", logs_service(AgentLog(agent, unit, Feed())), Access.READ)])

    async def agents() -> list[dict[str, Any]]:
        return []

    plane = ControlPlane(space, agents, Tokens.for_operator(SECRET), unit)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(plane.run(ready, stop))
    await ready.wait()
    write_home(home, plane.url)
    try:
        yield
    finally:
        stop.set()
        await task


async def vendo(home: Path, *words: str) -> int:
    return await asyncio.to_thread(run, ["replay", *words, "--home", str(home)])


def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    return iter(capsys.readouterr().out.splitlines())


async def test_the_last_tick_is_replayed_with_the_agents_own_program(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node(home, await with_ticks(home, 5, 6)):
        assert await vendo(home, AGENT) == 0
        assert list(lines(capsys)) == [f"tick {2:032x}: same, 3 steps"]
        assert await vendo(home, AGENT, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["result"], answer["steps"], answer["code"]) == ("same", 3, "same")


@pytest.mark.parametrize("tick", ["1", f"{1:032x}"])
async def test_a_tick_is_named_by_its_number_or_its_id(
    home: Path, tick: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node(home, await with_ticks(home, 5, 6)):
        assert await vendo(home, AGENT, "--tick", tick) == 0
    assert list(lines(capsys)) == [f"tick {1:032x}: same, 3 steps"]


async def test_a_changed_program_shows_the_first_difference(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with node(home, await with_ticks(home, 5)):
        assert await vendo(home, AGENT, "--program", changed(home)) == 65
        assert list(lines(capsys)) == [
            f"tick {1:032x}: DIFFERENT at step 2, log 'counted': data /total",
            "  recorded: 6",
            "  replayed: 7",
            "  The program's code is not what it was.",
        ]
        assert await vendo(home, AGENT, "--program", changed(home), "--json") == 65
    answer = json.loads(capsys.readouterr().out)
    assert (answer["expected"], answer["found"], answer["code"]) == ("6", "7", "changed")


async def test_a_program_that_was_put_right_in_its_place_is_compared_too(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with node(home, await with_ticks(home, 5)):
        (home / "agents" / "counter.py").write_text(COUNTER.replace("STEP", "1") + "# a comment\n")
        assert await vendo(home, AGENT) == 0
    assert "The program's code is not what it was." in capsys.readouterr().out


async def test_all_ticks_are_replayed_and_counted(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = await with_ticks(home, *range(250))
    await unit.commit([Update("recording", {"tick_id": f"{7:032x}"}, set={"body": b"damaged"})])
    await unit.commit([Delete("recording", {"tick_id": f"{8:032x}"})])
    async with node(home, unit):
        assert await vendo(home, AGENT, "--all") == 65
        said = capsys.readouterr()
        assert said.out.splitlines() == ["248 same, 1 unclear."]
        assert f"tick {7:032x}: unclear" in said.err
        assert await vendo(home, AGENT, "--all", "--json", "--program", changed(home, "total * 0 + 1")) == 65
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ticks"], answer["same"] + answer["different"], answer["unclear"]) == (249, 248, 1)
    assert answer["first"] == answer["others"][0]
    assert answer["different"] == len(answer["others"]) - 1


async def test_a_saved_recording_needs_no_node(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = await with_ticks(home, 5)
    saved = home.parent / "one.tick"
    saved.write_bytes(await AgentLog(AGENT, unit, Feed()).recording(f"{1:032x}"))
    assert len(decode(saved.read_bytes()).steps) == 3
    assert await vendo(home, "--recording", str(saved)) == 0
    assert await vendo(home, "--recording", str(saved), "--program", changed(home)) == 65
    saved.write_bytes(saved.read_bytes()[:-40])
    capsys.readouterr()
    assert await vendo(home, "--recording", str(saved)) == 65
    assert "[recording.damaged]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), "input.invalid"),
        ((AGENT, "--all", "--tick", "1"), "input.invalid"),
    ],
)
async def test_words_that_do_not_go_together_are_refused(
    home: Path, words: tuple[str, ...], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await vendo(home, *words) == 64
    assert f"[{code}]" in capsys.readouterr().err


async def test_what_is_not_there_is_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await vendo(home, AGENT) == 69
    unit = await with_ticks(home, 5)
    async with node(home, unit):
        assert await vendo(home, AGENT, "--tick", "9") == 65
        assert await vendo(home, "nobody") == 65
        assert await vendo(home, "nobody", "--all") == 65
        await unit.commit([Delete("recording", {})])
        capsys.readouterr()
        assert await vendo(home, AGENT, "--tick", "1") == 65
        assert "[recording.none]" in capsys.readouterr().err
        (home / "agents" / "counter.py").unlink()
    again = await with_saved(home)
    assert await vendo(home, "--recording", again) == 65
    assert "[agent.no_program]" in capsys.readouterr().err


async def with_saved(home: Path) -> str:
    """A recording in a file, of a program that is not there any more."""
    (home / "agents" / "counter.py").write_text(COUNTER.replace("STEP", "1"))
    saved = home.parent / "one.tick"
    unit = await with_ticks(home, 5)
    saved.write_bytes(await AgentLog(AGENT, unit, Feed()).recording(f"{1:032x}"))
    (home / "agents" / "counter.py").unlink()
    return str(saved)


async def test_a_program_that_never_ends_is_ended(home: Path) -> None:
    saved = home.parent / "one.tick"
    saved.write_bytes(await AgentLog(AGENT, await with_ticks(home, 5), Feed()).recording(f"{1:032x}"))
    words = [
        "replay",
        "--recording",
        str(saved),
        "--program",
        changed(home, source=FOREVER),
        "--timeout",
        "0.2",
        "--json",
    ]
    code = f"import sys; from cli.main import run; sys.exit(run({[*words, '--home', str(home)]!r}))"
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 65, ended.stderr
    answer = json.loads(ended.stdout)
    assert (answer["result"], answer["note"]) == ("unclear", "It took longer than 0.2 s.")


async def test_a_failed_tick_replays_as_its_failure(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = await with_ticks(home, 5)
    recording = decode(await AgentLog(AGENT, unit, Feed()).recording(f"{1:032x}"))
    tape = LiveTape()
    tape.steps += recording.steps
    failed = writes(recording.start, tape, End.failed("agent.failed", "The program raised KeyError."), 9)
    await unit.commit([Delete("recording", {}), *failed])
    async with node(home, unit):
        assert await vendo(home, AGENT) == 65
    said = list(lines(capsys))
    assert said[1:3] == ["  recorded: error agent.failed: The program raised KeyError.", "  replayed: a state"]


async def test_logs_show_a_tick_with_its_steps(home: Path) -> None:
    unit = await with_ticks(home, 5, 6)
    log = AgentLog(AGENT, unit, Feed())
    assert [row["recorded"] for row in await log.ticks(10)] == [True, True]
    shown = await log.tick("2")
    assert shown is not None
    assert shown["id"] == f"{2:032x}"
    assert shown["state"] == {"total": 6, "heard": ""}
    assert shown["end"]["state"] == {"total": 7, "heard": "a large file"}
    assert [step["op"] for step in shown["steps"]] == ["hook", "log", "read"]
    assert shown["steps"][2]["answer"]["bytes"] == 7_000
    await unit.commit([Update("recording", {"tick_id": f"{2:032x}"}, set={"body": b"\x02"})])
    shown = await log.tick("2")
    assert shown is not None
    assert (shown["recorded"], shown["recording_error"]["code"]) == (False, "recording.damaged")
    assert await log.tick("3") is None
    assert await AgentLog("another", unit, Feed()).tick("1") is None
