"""The way to the running node, and every way in which there is none."""

import asyncio
import json
import os
import subprocess
import sys

import pytest

from cli import client
from cli.client import CONTROL, Client, NotRunning
from cli.main import run
from cli.output import ExitCode, NodeRefusal
from core.error import BudgetExceeded
from node import home
from tests.unit.cli.node_part import running, write_home

CLIENTS = [
    ["status"], ["pause"], ["resume"], ["send", "agent", "hello"], ["jobs"], ["sell"], ["ls"], ["cat", "/status"],
    ["write", "/goals/a", "{}"], ["call", "/ctl/tick"], ["watch", "/logs/trace"],
    ["buy", "--kind", "5001", "--input", "x"],
    ["wallet", "balance"], ["wallet", "receive", "cashuBx"], ["wallet", "deposit", "5"], ["wallet", "send", "5"],
    ["wallet", "audit"],
]  # fmt: skip


@pytest.mark.parametrize("words", CLIENTS, ids=" ".join)
def test_without_a_running_node_every_client_command_exits_69_and_says_so(words, tmp_path, capsys):
    assert run([*words, "--home", str(tmp_path)]) == ExitCode.UNAVAILABLE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "is not running" in shown.err.splitlines()[-1]
    assert f"vendo up --home {tmp_path}" in shown.err


@pytest.mark.parametrize("words", CLIENTS, ids=" ".join)
def test_with_json_it_says_so_in_one_object(words, tmp_path, capsys):
    assert run([*words, "--home", str(tmp_path), "--json"]) == ExitCode.UNAVAILABLE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "cli.not_running"


def test_a_home_that_is_not_there_is_named(tmp_path, capsys):
    assert run(["status", "--home", str(tmp_path / "none")]) == ExitCode.UNAVAILABLE
    assert f"vendo init --home {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_node_that_was_killed_is_not_spoken_to(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_home(tmp_path, "http://127.0.0.1:9", pid=gone.pid)
    with pytest.raises(NotRunning, match="without a goodbye"):
        Client.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url":"x"}', '{"url":"http://127.0.0.1:1","pid":"x"}'])
def test_a_damaged_control_file_is_no_node(tmp_path, text):
    (tmp_path / CONTROL).write_text(text)
    with pytest.raises(NotRunning):
        Client.open(tmp_path)


def test_a_port_where_nobody_listens_is_no_node(tmp_path):
    write_home(tmp_path, "http://127.0.0.1:9", pid=os.getpid())
    with pytest.raises(NotRunning, match="does not answer"):
        Client.open(tmp_path).get("/agents/node/status")


async def test_a_wrong_token_is_refused_by_the_node(tmp_path):
    async with running(tmp_path, {"status": {"ok": True}}):
        (tmp_path / "token").write_text("another\n")
        with pytest.raises(NodeRefusal) as caught:
            await asyncio.to_thread(Client.open(tmp_path).get, "/agents/node/status")
    assert caught.value.problem.status == 401
    assert caught.value.problem.exit_code is ExitCode.REFUSED


async def test_an_error_of_the_node_comes_through_whole(tmp_path):
    async with running(tmp_path, {"new": BudgetExceeded("Too dear.")}):
        with pytest.raises(NodeRefusal) as caught:
            await asyncio.to_thread(Client.open(tmp_path).call, "/agents/node/new", {})
    problem = caught.value.problem
    assert (problem.code, problem.message, problem.status) == ("budget.exceeded", "Too dear.", 402)
    assert problem.remedy.startswith("Ask for less")


async def test_a_key_travels_with_the_call(tmp_path):
    async with running(tmp_path, {"new": {"job_id": "1"}}) as node:
        opened = Client.open(tmp_path)
        assert await asyncio.to_thread(opened.call, "/agents/node/new", {"a": 1}, key="k1") == {"job_id": "1"}
        await asyncio.to_thread(opened.call, "/agents/node/new", b"text")
    assert node.asked[0] == ("new", {"a": 1}, "k1")
    assert node.asked[1][1] == "text"
    assert len(node.asked[1][2]) >= 32


async def test_a_stream_is_read_to_its_end(tmp_path):
    async with running(tmp_path, {"trace": "x"}):
        opened = Client.open(tmp_path)
        records = await asyncio.to_thread(lambda: list(opened.watch("/agents/node/trace")))
    assert [(one.id, one.type, one.data) for one in records[:2]] == [("1", "tick", '{"n":1}'), ("2", "tick", '{"n":2}')]
    assert records[-1].type == "end"


def test_the_client_and_the_node_mean_the_same_files():
    assert (client.CONTROL, client.TOKEN) == (home.CONTROL, home.TOKEN)
