"""Agents of one's own on a whole node, made by `vendo agent new`: in the process, and outside of it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cli.template import make
from tests.acceptance.test_chat import _chat
from tests.integration.agent.test_child import alive, gone
from tests.market_part import Market, free_port, market, until


async def _add(town: Market, name: str, program: str, **config: Any) -> None:
    status, answer = await town.call(
        "node", "node/agents/new", {"name": name, "program": program, "config": config}, name
    )
    assert status == 200, answer


async def _say(town: Market, agent: str, text: str) -> None:
    assert (await town.call("node", f"{agent}/send", {"text": text}, f"{agent} {text}"))[0] == 200


async def _reply(town: Market, agent: str) -> str:
    """The agent's answer to the operator."""

    async def found() -> list[Any]:
        return [one["data"] for one in await town.get("node", f"{agent}/logs/recent") if one["type"] == "reply"]

    return str((await until(found, f"a reply of {agent}"))[-1]["text"])


@asynccontextmanager
async def _server(file: Path, port: int, secret: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(file), str(port), env={**os.environ, "WEB_ONE_SECRET": secret},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert b"listening" in await asyncio.wait_for(process.stdout.readline(), 30)
        yield
    finally:
        process.kill()
        await process.wait()


async def test_made_agents_of_each_kind_answer(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        home = town.homes["node"]
        assert (await town.vendo("node", "agent", "new", "tea-timer")).code == 0
        await _add(town, "tea-timer", "tea-timer", greeting="Good day")
        ran = await _chat(town, "tea-timer", "hello\n", "--json")
        (answer,) = [one for one in map(json.loads, ran.out.splitlines()) if one["direction"] == "in"]
        assert answer["text"] == "Good day! That was message 1. You said: hello"
        file = home / "agents" / "tea-timer.py"
        file.write_text(file.read_text().replace("You said:", "I have heard:"))
        assert (await town.call("node", "node/programs/reload", {"name": "tea-timer"}, "r"))[1]["problem"] == ""
        await _say(town, "tea-timer", "again")
        assert await _reply(town, "tea-timer") == "Good day! That was message 2. I have heard: again"

        made = make(home, "com", "command")
        await _add(town, "com", "command", argv=[sys.executable, str(made.files[0])])
        await _say(town, "com", "hello")
        assert await _reply(town, "com") == "That was message 1. You said: hello"

        made, port = make(home, "web-one", "webhook"), free_port()
        await _add(town, "web-one", "webhook", url=f"http://127.0.0.1:{port}/", internal=True)
        ran = await town.vendo("node", "agent", "secret", "web-one")
        secret = ran.json["secret"]
        await _say(town, "web-one", "hello")
        async with _server(made.files[0], port, "whsec_of-another"):
            await asyncio.sleep(0.5)
        assert not [one for one in await town.get("node", "web-one/logs/recent") if one["type"] == "reply"]
        async with _server(made.files[0], port, secret):
            assert await _reply(town, "web-one") == "That was message 1. You said: hello"
        assert secret not in town.log("node")
        assert "vendo_turn_" not in town.log("node")


async def test_after_a_kill_no_command_is_left_and_a_file_that_broke_stops_only_its_own_agents(tmp_path: Path) -> None:
    mark, flag = f"vendo-test-{os.getpid()}", tmp_path / "go"
    text = f"[ -e {flag} ] && exit 0; trap '' TERM; setsid sleep 61 & : {mark}; while :; do sleep 0.05; done"
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        made = make(town.homes["node"], "tea", "python")
        await _add(town, "tea", "tea")
        await _add(town, "com", "command", argv=["/bin/sh", "-c", text])
        await until(lambda: _alive(mark), "the command to run")
        await town.nodes["node"].kill()
        await gone(mark)
        flag.touch()
        good = made.files[0].read_text()
        made.files[0].write_text("def broken(:\n")
        checks = {one["name"]: one for one in (await town.vendo("node", "doctor")).json["checks"]}
        assert "SyntaxError" in checks["program tea"]["detail"]
        await town.up("node")
        status = await until(lambda: _ticked(town, "com"), "the trigger of the command to come again")
        assert (status["queue_depth"], status["dead_letters"]) == (0, 0)
        status = await town.get("node", "tea/status")
        assert status["status"] == "quarantined"
        assert status["reason"].startswith("program.broken")
        programs = {one["name"]: one for one in (await town.get("node", "node/status"))["programs"]}
        assert "SyntaxError" in programs["tea"]["problem"]
        assert "a program cannot be used" in town.log("node")
        await _say(town, "tea", "hello")
        made.files[0].write_text(good)
        assert (await town.vendo("node", "agent", "reload", "tea")).json["problem"] == ""
        assert (await _reply(town, "tea")).endswith("You said: hello"), "what came meanwhile has waited"


async def _alive(mark: str) -> bool:
    return bool(alive(mark))


async def _ticked(town: Market, agent: str) -> Any:
    status = await town.get("node", f"{agent}/status")
    return status if status["ticks"] else None
