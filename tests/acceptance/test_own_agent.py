"""Agents of one's own, made by `vendo agent new`: tested, added to a whole node, and answering; and those outside of it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_chat import _chat
from tests.integration.agent.test_child import alive, gone
from tests.market_part import Market, Ran, free_port, market, run, until

ROOT = Path(__file__).resolve().parents[2]


async def _made(town: Market, name: str, kind: str = "python") -> Ran:
    ran = await town.vendo("node", "agent", "new", name, "--kind", kind)
    assert ran.code == 0, ran
    tests = next(path for path in ran.json["files"] if Path(path).name.startswith("test_"))
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, tests]
    tested = await run("env", f"PYTHONPATH={ROOT}", *argv)
    assert tested.code == 0, tested.out + tested.err
    assert " passed" in tested.out
    return ran


async def _replies(town: Market, agent: str, count: int = 1) -> list[Any]:
    async def good() -> list[Any]:
        trace = await town.get("node", f"{agent}/logs/recent")
        found = [one["data"] for one in trace if one["type"] == "reply"]
        return found if len(found) >= count else []

    return await until(good, f"{count} replies of {agent}")  # type: ignore[no-any-return]


async def test_a_made_agent_is_tested_added_and_answers_a_message(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        await _made(town, "tea-timer")
        again = await town.vendo("node", "agent", "new", "tea-timer")
        assert (again.code, again.error_code) == (75, "cli.file_there")
        config = json.dumps({"greeting": "Good day"})
        added = await town.vendo("node", "agent", "add", "tea-timer", "--program", "tea-timer", "--config", config)
        assert added.code == 0, added
        ran = await _chat(town, "tea-timer", "hello\n", "--json")
        (answer,) = [one for one in map(json.loads, ran.out.splitlines()) if one["direction"] == "in"]
        assert answer["text"] == "Good day! That was message 1. You said: hello"
        (row,) = [one for one in (await town.vendo("node", "agent", "programs")).json if one["name"] == "tea-timer"]
        assert (row["source"], row["problem"], len(row["digest"])) == ("file", "", 64)
        file = town.homes["node"] / "agents" / "tea-timer.py"
        file.write_text(file.read_text().replace("You said:", "I have heard:"))
        reloaded = await town.vendo("node", "agent", "reload", "tea-timer")
        assert reloaded.json["digest"] != row["digest"]
        assert (await town.vendo("node", "send", "tea-timer", "again")).code == 0
        (reply,) = await _replies(town, "tea-timer")
        assert reply["text"] == "Good day! That was message 2. I have heard: again"
        wrong = await town.vendo("node", "agent", "add", "other", "--program", "tea-timer", "--config", '{"no": 1}')
        assert wrong.error_code == "agent.config_invalid"


async def test_a_broken_file_is_named_and_stops_only_its_own_agents(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        await _made(town, "tea")
        assert (await town.vendo("node", "agent", "add", "tea", "--program", "tea")).code == 0
        assert await town.down("node") == 0
        file = town.homes["node"] / "agents" / "tea.py"
        good = file.read_text()
        file.write_text("def broken(:\n")
        checks = {one["name"]: one for one in (await town.vendo("node", "doctor")).json["checks"]}
        assert checks["program tea"]["state"] == "fail"
        assert "SyntaxError" in checks["program tea"]["detail"]
        await town.up("node")
        status = await town.get("node", "tea/status")
        assert status["status"] == "quarantined"
        assert status["reason"].startswith("program.broken")
        programs = {one["name"]: one for one in (await town.get("node", "node/status"))["programs"]}
        assert "SyntaxError" in programs["tea"]["problem"]
        assert "program_refused" in town.log("node") or "cannot be used" in town.log("node")
        assert (await town.get("node", "agent/status"))["status"] == "active"
        assert (await town.vendo("node", "send", "tea", "hello")).code == 0
        file.write_text(good)
        assert (await town.vendo("node", "agent", "reload", "tea")).code == 0
        (reply,) = await _replies(town, "tea")
        assert reply["text"].endswith("You said: hello"), "what came meanwhile has waited"


@asynccontextmanager
async def _server(argv: list[str], **environment: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, env={**os.environ, **environment}
    )
    try:
        assert process.stdout is not None
        assert b"listening" in await asyncio.wait_for(process.stdout.readline(), 20)
        yield
    finally:
        process.kill()
        await process.wait()


async def test_a_made_webhook_answers_and_what_came_while_it_was_away_comes_again(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        await _made(town, "web-one", "webhook")
        port = free_port()
        config = json.dumps({"url": f"http://127.0.0.1:{port}/", "internal": True})
        added = await town.vendo("node", "agent", "add", "web-one", "--program", "webhook", "--config", config)
        assert added.code == 0, added
        secret = (await town.vendo("node", "agent", "secret", "web-one")).json["secret"]
        assert secret.startswith("whsec_")
        assert (await town.vendo("node", "send", "web-one", "hello")).code == 0
        file = town.homes["node"] / "agents" / "web-one" / "web-one.py"
        async with _server([sys.executable, str(file), str(port)], WEB_ONE_SECRET="whsec_of-another"):
            await asyncio.sleep(0.5)
        assert not [one for one in await town.get("node", "web-one/logs/recent") if one["type"] == "reply"]
        assert await town.down("node") == 0
        await town.up("node")
        async with _server([sys.executable, str(file), str(port)], WEB_ONE_SECRET=secret):
            (reply,) = await _replies(town, "web-one")
            assert reply["text"] == "That was message 1. You said: hello"
        other = await town.vendo("node", "agent", "secret", "agent")
        assert other.code == 64
        assert secret not in town.log("node")


async def test_a_made_command_answers(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        made = await _made(town, "com", "command")
        argv = [sys.executable, made.json["files"][0]]
        config = json.dumps({"argv": argv})
        assert made.json["next"][1] == f"vendo agent add com --program command --config '{config}'"
        added = await town.vendo("node", "agent", "add", "com", "--program", "command", "--config", config)
        assert added.code == 0, added
        ran = await _chat(town, "com", "hello\n", "--json")
        (answer,) = [one for one in map(json.loads, ran.out.splitlines()) if one["direction"] == "in"]
        assert answer["text"] == "That was message 1. You said: hello"


@pytest.mark.parametrize("way", ["kill", "stop"])
async def test_a_command_dies_with_its_node_and_its_trigger_comes_again(tmp_path: Path, way: str) -> None:
    mark, flag = f"vendo-test-{os.getpid()}-{way}", tmp_path / "go"
    text = f"[ -e {flag} ] && exit 0; trap '' TERM; setsid sleep 61 & : {mark}; while :; do sleep 0.05; done"
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        config = json.dumps({"argv": ["/bin/sh", "-c", text]})
        await town.vendo("node", "agent", "add", "com", "--program", "command", "--config", config)
        await until(lambda: _alive(mark), "the command to run")
        if way == "kill":
            await town.nodes["node"].kill()
        else:
            assert await town.down("node") == 0, town.log("node")
        await gone(mark)
        flag.touch()
        await town.up("node")
        status = await until(lambda: _ticked(town), "the trigger to come again")
        assert (status["queue_depth"], status["dead_letters"]) == (0, 0)


async def _alive(mark: str) -> bool:
    return bool(alive(mark))


async def _ticked(town: Market) -> Any:
    status = await town.get("node", "com/status")
    return status if status["ticks"] else None
