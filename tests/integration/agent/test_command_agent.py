"""Agents that are commands: real processes, counted when they should be gone."""

import asyncio
import os
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from node.agent.outside import command
from node.agent.outside.host import PREFIX
from node.agent.replay.rerun import replay
from node.agent.tick.limit import Own
from tests.integration.agent.outside_part import Outskirts, outskirts
from tests.integration.agent.test_child import alive, gone

Here = tuple[Outskirts, aiohttp.ClientSession]
ACTS = """
import json, os, sys, urllib.request

brief = json.load(sys.stdin)

def ask(method, path, body=b""):
    request = urllib.request.Request(os.environ["VENDO_TURN_URL"] + path, data=body or None, method=method)
    request.add_header("Authorization", "Bearer " + os.environ["VENDO_TURN_TOKEN"])
    with urllib.request.urlopen(request) as answer:
        return answer.read()
"""


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with outskirts(tmp_path) as made:
        yield made


@pytest.fixture
def mark() -> str:
    return f"vendo-test-{os.getpid()}-{time.monotonic_ns()}"


def script(folder: Path, text: str) -> list[str]:
    path = folder / "script.py"
    path.write_text(ACTS + textwrap.dedent(text))
    return [sys.executable, str(path)]


def sh(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


async def test_a_command_that_ends_well_commits_and_what_it_prints_is_in_the_trace(here: Here) -> None:
    node, _ = here
    await node.command_agent(*sh("echo one; echo; echo two"))
    row = await node.ended("initialize")
    assert row["state"] == "done"
    assert await node.trace("stdout") == [{"line": "one"}, {"line": "two"}]
    (agent,) = await node.unit.select("agent", {"name": "a"})
    assert agent["ticks"] == 1
    assert agent["day_us"] > 5_000, "its time counts as the agent's"


async def test_the_trigger_is_on_standard_input_and_the_last_line_may_bring_state_and_writes(here: Here) -> None:
    node, _ = here
    await node.command_agent(*script(node.folder, """
        print("thinking")
        said = brief["trigger"]["payload"].get("text", "")
        count = brief["state"].get("count", 0) + 1
        writes = [{"path": "/post/new", "body": said}] if said else []
        print(json.dumps({"commit": True, "state": {"count": count}, "writes": writes}))
    """))  # fmt: skip
    await node.ended("initialize")
    await node.ended(await node.say("hello"))
    assert await node.state() == {"count": 2}
    assert [body for _, body, _ in node.sent] == [b"hello"]
    assert {one["line"] for one in await node.trace("stdout")} == {"thinking"}


async def test_a_command_may_act_over_http_and_commit_there(here: Here) -> None:
    node, _ = here
    await node.command_agent(*script(node.folder, """
        print("before", flush=True)
        shown = json.loads(ask("GET", "/turn"))
        assert shown["trigger"] == brief["trigger"], shown
        ask("POST", "/post/new", b"from outside")
        ask("PUT", "/turn/state", b'{"n": 1}')
        print(json.loads(ask("POST", "/turn/commit"))["status"])
    """))  # fmt: skip
    row = await node.ended("initialize")
    assert (row["state"], row["error"]) == ("done", "")
    assert await node.state() == {"n": 1}
    assert [body for _, body, _ in node.sent] == [b"from outside"]
    assert len(await node.unit.select("tick", {"agent": "a"})) == 1


async def test_a_failure_says_what_the_command_complained_about_but_no_secret(here: Here) -> None:
    node, _ = here
    await node.command_agent(*sh('echo first >&2; echo "token $VENDO_TURN_TOKEN" >&2; echo last >&2; exit 3'))
    row = await node.tried("initialize")
    assert row["error"] == "command.failed: The command ended with 3. It said: first / token [redacted secret] / last"
    assert PREFIX not in await node.everything()


async def test_a_command_may_give_its_turn_up(here: Here) -> None:
    node, _ = here
    await node.command_agent(*sh("""echo '{"commit": false, "reason": "tired"}'"""))
    row = await node.ended("initialize")
    assert (row["state"], row["tries"]) == ("dead", 3)
    assert row["error"].startswith("turn.aborted")
    assert "tired" in row["error"]


async def test_its_environment_has_what_is_named_and_its_arguments_no_token(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, _ = here
    monkeypatch.setenv("LENT", "to it")
    monkeypatch.setenv("KEPT", "from it")
    monkeypatch.setenv("VENDO_PASSPHRASE", "never")
    names = "env | cut -d= -f1 | sort | tr '\\n' ' '; tr '\\0' ' ' < /proc/$$/cmdline; echo; pwd; echo $LENT; umask"
    await node.command_agent(*sh(names), environment=["LENT", "MISSING"])
    await node.ended("initialize")
    lines = [one["line"] for one in await node.trace("stdout")]
    wanted = {"PATH", "LANG", "HOME", "LENT", "VENDO_AGENT", "VENDO_DELIVERY", "VENDO_TURN_URL", "VENDO_TURN_TOKEN"}
    assert set(lines[0].split(" /bin/sh")[0].split()) - {"PWD", "_", "OLDPWD", "SHLVL"} == wanted
    assert PREFIX not in lines[0]
    assert lines[1:] == [str(node.folder / "work" / "a"), "to it", "0077"]
    assert (node.folder / "work" / "a").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "config",
    [
        {"argv": []}, {"argv": [""]}, {"argv": ["x\0y"]}, {"argv": "ls"}, {"argv": ["ls"], "shell": True},
        {"argv": ["ls"], "environment": ["VENDO_PASSPHRASE"]}, {"argv": ["ls"], "environment": ["A=B"]},
    ],
)  # fmt: skip
async def test_settings_that_do_not_fit_set_the_agent_aside(here: Here, config: dict[str, object]) -> None:
    node, _ = here
    await node.command_agent(**config)
    (agent,) = await node.unit.select("agent", {"name": "a"})
    assert agent["status"] == "quarantined"
    assert agent["reason"].startswith("agent.config_invalid")


async def test_past_its_time_a_command_is_killed_with_all_that_it_has_started(here: Here, mark: str) -> None:
    node, _ = here
    inner = f'trap "" TERM; while :; do sleep 9; done; : {mark}'
    stubborn = f"trap '' TERM; : {mark}; setsid sh -c '{inner}' & while :; do sleep 0.1; done"
    await node.command_agent(*sh(stubborn), limits=Own(seconds=3))
    async with asyncio.timeout(60):
        while len(alive(mark)) < 3:
            await asyncio.sleep(0.01)
    await node.tried("initialize")
    first = (await node.unit.select("tick", {"agent": "a"}, order=("n",)))[0]
    assert first["error"].startswith("turn.expired")
    await node.engine.stop("a")
    await gone(mark)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("yes | head -c 100000000", "command.failed"),
        ("head -c 3000000 /dev/zero | tr '\\0' x", "command.failed"),
        ("kill -9 $$", "command.failed"),
        ("exec /no/such/thing", "command.failed"),
        ('echo \'{"commit": true, "more": 1}\'', "input.invalid"),
        ('echo \'{"commit": true, "writes": [{"path": "/secret/new"}]}\'', "fs.access_denied"),
        ("echo '{\"commit\": true}'; exit 1", "command.failed"),
    ],
)
async def test_what_a_command_does_wrong_fails_the_tick(here: Here, text: str, code: str) -> None:
    node, _ = here
    await node.command_agent(*sh(text))
    row = await node.tried("initialize")
    assert row["error"].startswith(code), row["error"]
    assert (await node.unit.select("agent", {"name": "a"}))[0]["ticks"] == 0


@pytest.mark.parametrize("text", ["exec <&-", "exec >&- 2>&-", "exit 0", ": reads nothing"])
async def test_a_command_need_not_read_nor_print(here: Here, text: str) -> None:
    node, _ = here
    await node.command_agent(*sh(text))
    assert (await node.ended("initialize"))["state"] == "done"


async def test_only_so_many_commands_run_at_once_and_one_that_waits_uses_up_no_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_WAIT_S", 0.05)
    running = tmp_path / "running"
    running.mkdir()
    text = f"touch {running}/$VENDO_AGENT; ls {running} | wc -l; sleep 0.3; rm {running}/$VENDO_AGENT"
    async with outskirts(tmp_path, commands=2) as (node, _):
        for name in ("a", "b", "c"):
            await node.command_agent(*sh(text), name=name)
        rows = [await node.ended("initialize", name) for name in ("a", "b", "c")]
        assert {(row["state"], row["tries"]) for row in rows} == {("done", 0)}
        counts = [int(one["line"]) for name in ("a", "b", "c") for one in await node.trace("stdout", name)]
        assert max(counts) == 2


async def test_where_ticks_are_short_a_command_that_waits_for_its_place_uses_up_no_try(here: Here) -> None:
    node, _ = here
    flag = node.folder / "go"
    for name in ("a", "c"):
        await node.command_agent(*sh(f"while [ ! -e {flag} ]; do sleep 0.02; done"), name=name, limits=Own(seconds=60))
    async with asyncio.timeout(60):
        while node.asked < 2:
            await asyncio.sleep(0.01)
    await node.command_agent("/bin/true", name="b", limits=Own(seconds=8))

    async def paused() -> bool:
        return str((await node.row("initialize", "b"))["error"]).startswith("command.full")

    await node.until(paused)
    assert (await node.row("initialize", "b"))["tries"] == 0
    flag.touch()
    row = await node.ended("initialize", "b")
    assert (row["state"], row["tries"]) == ("done", 0)


async def test_one_agent_never_has_two_commands_at_once(here: Here) -> None:
    node, _ = here
    folder = node.folder / "running"
    folder.mkdir()
    await node.command_agent(*sh(f"mkdir {folder}/one || exit 9; sleep 0.05; rmdir {folder}/one"))
    for number in range(5):
        await node.say(f"m{number}")
    rows = [await node.ended(f"m-m{number}") for number in range(5)]
    assert {(row["state"], row["tries"]) for row in rows} == {("done", 0)}


async def test_a_node_that_stops_leaves_no_command_and_the_trigger_comes_again(tmp_path: Path, mark: str) -> None:
    flag = tmp_path / "second"
    text = f"[ -e {flag} ] && exit 0; trap '' TERM; : {mark}; sleep 60 & while :; do sleep 0.05; done; : {mark}"
    async with outskirts(tmp_path) as (node, _):
        await node.command_agent(*sh(text), limits=Own(seconds=60))
        async with asyncio.timeout(60):
            while not alive(mark):
                await asyncio.sleep(0.01)
        unit = node.unit
    await gone(mark)
    (row,) = await unit.select("inbox", {"agent": "a"})
    assert (row["state"], row["tries"]) == ("new", 0)
    flag.touch()
    async with outskirts(tmp_path, unit=unit) as (node, _):
        await node.command_agent(*sh(text), limits=Own(seconds=60))
        assert (await node.ended("initialize"))["state"] == "done"


async def test_a_replay_starts_no_process(here: Here) -> None:
    node, _ = here
    count = node.folder / "count"
    await node.command_agent(*sh(f"echo x >> {count}; echo said; exit 0"))
    await node.ended("initialize")
    (recording,) = await node.recordings()
    assert (await replay(recording, node.command)).result == "same"
    assert count.read_text() == "x\n"
