"""The command against one real node, from `init` on: files, an agent's days, settings; and each exit code once."""

import asyncio
import contextlib
import io
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cli.main import run
from tests.market_part import Market, Ran, market, until, vendo

AGENT = "agent"  # the one that `init` makes


def _here(*words: str) -> Ran:
    raw, err = io.BytesIO(), io.StringIO()
    out = io.TextIOWrapper(raw, encoding="utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
        out.flush()
    return Ran(code, raw.getvalue().decode(), err.getvalue())


class Desk:
    """Commands for one home. They run in this process, one after the other: a new one each would cost a second."""

    def __init__(self, home: Path) -> None:
        self.home = home

    async def ran(self, *words: str) -> Ran:
        return await asyncio.to_thread(_here, *words, "--home", str(self.home))

    async def told(self, *words: str, code: int = 0) -> Any:
        """The one JSON value that a command prints."""
        found = await self.ran(*words, "--json")
        assert found.code == code, (words, found)
        return found.json

    async def refused(self, code: int, *words: str) -> str:
        """The code of the error with which a command ends."""
        text = await self.ran(*words)
        assert text.code == code, (words, text)
        assert text.err.splitlines()[-1].startswith("vendo: "), text.err
        return str((await self.told(*words, code=code))["error"]["code"])

    @asynccontextmanager
    async def started(self, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A command of its own that goes on, for as long as the block."""
        argv = [sys.executable, "-m", "cli.main", *words, "--home", str(self.home)]
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[tuple[Market, Desk]]:
    async with market(folder, {}, mint=False) as town:
        home = folder / "node"
        words = ("--relay", town.relay, "--port", "0", "--no-passphrase", "--yes", "--json")
        made = await vendo("init", "--home", str(home), *words)
        assert made.code == 0, made
        town.homes["node"] = home
        await town.up("node")
        yield town, Desk(home)


async def _line(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    line = json.loads(await asyncio.wait_for(process.stdout.readline(), 120))
    assert "error" not in line, line
    return line


async def test_a_node_is_worked_with_by_the_command_alone(tmp_path: Path) -> None:
    async with node(tmp_path) as (town, desk):
        await _files(desk)
        await _agent(desk)
        await _settings(desk)
        await _keys(desk)
        await _refusals(town, desk)


async def _files(desk: Desk) -> None:
    listed = {row["name"]: row for row in await desk.told("ls", "/")}
    assert {"compute", "wallet", "status", "README"} <= set(listed)
    assert listed["compute"]["is_dir"]
    tree = {row["path"]: row for row in await desk.told("tree", "--agent", AGENT, "--depth", "2")}
    assert tree["/inbox/new"]["callable"]
    assert tree["/logs/trace"]["watchable"]
    assert tree["/goals/README"]["readable"]
    readme = await desk.ran("cat", "/README", "--agent", AGENT)
    assert readme.code == 0
    assert "inbox" in readme.out
    assert (await desk.told("cat", "/status"))["npub"].startswith("npub1")
    trace = await desk.ran("cat", "/logs/trace", "--agent", AGENT)
    assert trace.code == 0, "a stream is read as far as it goes, and does not hang"
    goal = {"description": "learn to count"}
    assert (await desk.told("write", "/goals/count", json.dumps(goal), "--agent", AGENT, "--key", "w"))["written"] > 9
    assert (await desk.told("cat", "/goals/count", "--agent", AGENT))["description"] == goal["description"]


async def _agent(desk: Desk) -> None:
    assert [one["name"] for one in await desk.told("agent", "list")] == [AGENT]
    goals = await desk.told("agent", "goals", AGENT)
    assert [(one["id"], one["description"]) for one in goals] == [("count", "learn to count")]
    told = await desk.told("agent", "goals", AGENT, "count", "--set", '{"description": "count to ten"}')
    assert told["description"] == "count to ten"
    assert (await desk.told("agent", "send", AGENT, "hello"))["status"] == "queued"
    ticked = await desk.told("agent", "tick", AGENT, "--reason", "a test", "--key", "one")
    assert (ticked["status"], ticked["tick"]["cause"]) == ("done", "manual")
    again = await desk.told("agent", "tick", AGENT, "--reason", "a test", "--key", "one")
    assert again["tick"]["id"] == ticked["tick"]["id"], "the same key is the same tick"
    records = [json.loads(row) for row in (await desk.ran("agent", "logs", AGENT, "--json")).out.splitlines()]
    assert ticked["tick"]["id"] in [one["data"].get("tick_id") for one in records if one["type"] == "tick"]
    lines = await desk.ran("agent", "logs", AGENT, "--limit", "1")
    assert len(lines.out.splitlines()) == 1
    for act, status in (("hibernate", "dormant"), ("wake", "active"), ("stop", "stopped")):
        assert (await desk.told("agent", act, AGENT))["status"] == status
        assert (await desk.told("agent", "status", AGENT))["status"] == status
    late = await desk.told("agent", "tick", AGENT, "--timeout", "0.3", "--key", "two", code=75)
    assert late["error"]["code"] == "cli.tick_open"
    assert "stopped" in late["error"]["message"]
    assert (await desk.told("agent", "start", AGENT))["status"] == "active"
    assert (await desk.told("agent", "tick", AGENT, "--key", "two"))["status"] == "done"


async def _settings(desk: Desk) -> None:
    assert await desk.told("config", "check") == {"ok": True, "faults": []}
    found = {one["name"]: one for one in await desk.told("config", "show", "--origin")}
    assert found["node.port"]["value"] == 0
    assert found["node.port"]["origin"].startswith("config.toml line ")
    token = (desk.home / "token").read_text().strip()
    assert token not in (await desk.ran("config", "show")).out


async def _keys(desk: Desk) -> None:
    first = await desk.ran("send", AGENT, "once", "--json")
    (key,) = [line.removeprefix("key: ") for line in first.err.splitlines() if line.startswith("key: ")]
    assert await desk.told("send", AGENT, "once", "--key", key) == first.json
    assert await desk.refused(77, "send", AGENT, "something else", "--key", key) == "gate.key_reused"


async def _refusals(town: Market, desk: Desk) -> None:
    assert await desk.refused(65, "cat", "/nothing") == "fs.not_found"
    assert await desk.refused(65, "agent", "status", "nobody") == "not_found"
    assert await desk.refused(64, "rm", "/status") == "fs.unsupported"
    assert await desk.refused(64, "mkdir", "/compute/x") == "fs.unsupported"
    assert await desk.refused(64, "write", "/goals/count", "[]", "--agent", AGENT)
    assert await desk.refused(64, "buy", "--kind", "12", "--input", "x") == "cli.usage"
    assert await desk.refused(64, "no-such-command") == "cli.usage"
    assert (await desk.told("pause"))["paused"] is True
    assert await desk.refused(77, "buy", "--kind", "5050", "--input", "x") == "node.paused"
    assert (await desk.told("resume"))["paused"] is False
    assert await town.down("node") == 0, town.log("node")
    assert await desk.refused(69, "status") == "cli.not_running"
    config = desk.home / "config.toml"
    config.write_text(config.read_text().replace("port = 0", "prt = 0", 1))
    assert (await desk.told("config", "check", code=78))["faults"][0]["problem"].endswith("is port meant?")


async def test_what_is_followed_goes_on_over_a_restart_and_is_stopped_by_ctrl_c(tmp_path: Path) -> None:
    async with node(tmp_path) as (town, desk):
        words = ("watch", "/logs/trace", "--agent", AGENT, "--after", "0", "--json", "--retry", "300")
        async with (
            desk.started(*words) as watch,
            desk.started("agent", "logs", AGENT, "-f", "--json", "--retry", "300") as logs,
        ):
            first = (await desk.told("agent", "tick", AGENT))["tick"]["id"]
            seen = [await _line(watch)]
            while first not in seen[-1]["data"]:
                seen.append(await _line(watch))
            while (await _line(logs))["data"].get("tick_id") != first:
                pass
            assert await town.down("node") == 0, town.log("node")
            await town.up("node")
            second = (await desk.told("agent", "tick", AGENT))["tick"]["id"]
            while second not in seen[-1]["data"]:
                seen.append(await _line(watch))
            while (await _line(logs))["data"].get("tick_id") != second:
                pass
            ids = [int(one["id"]) for one in seen]
            assert ids == sorted(set(ids)), "nothing twice, nothing out of turn"
            known = [one["id"] for one in await town.get("node", f"{AGENT}/logs/recent")]
            assert set(ids) == {one for one in known if one <= ids[-1]}, "and nothing is missing"
            for process in (watch, logs):
                process.send_signal(signal.SIGINT)
                _, err = await asyncio.wait_for(process.communicate(), 60)
                assert process.returncode == 130, err
                assert b"Traceback" not in err
        await _interrupted(desk)


async def _interrupted(desk: Desk) -> None:
    """A command that waits exits with 130, and what it asked for goes on."""
    assert (await desk.told("agent", "stop", AGENT))["status"] == "stopped"
    async with desk.started("agent", "tick", AGENT, "--key", "one", "--json") as tick:
        await until(lambda: _waits(desk), "the trigger to wait")
        await asyncio.sleep(0.3)
        tick.send_signal(signal.SIGINT)
        out, _ = await asyncio.wait_for(tick.communicate(), 20)
        assert tick.returncode == 130
        assert out == b""
    await desk.told("agent", "start", AGENT)
    assert (await desk.told("agent", "tick", AGENT, "--key", "one"))["status"] == "done"


async def _waits(desk: Desk) -> bool:
    return any(one["cause"] == "manual" for one in await desk.told("inbox", "list", AGENT))
