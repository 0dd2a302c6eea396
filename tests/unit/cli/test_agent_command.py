"""`vendo agent …`: what one agent is, was given and did."""

import asyncio
import io
import json
from collections.abc import AsyncIterator

import pytest

from cli.command.trace import line
from cli.main import run
from cli.output import ExitCode
from core.error import NotFound
from fs.protocol import Record
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes
from tests.unit.cli.node_part import Steps, running, serving
from tests.unit.cli.wire_part import answer, listening

TICK = {
    "n": 7, "id": "t1", "envelope_id": "e1", "cause": "manual", "at_ms": 1_000, "duration_ms": 12, "error": "",
    "usage": '{"compute_us":5}', "recorded": True,
}  # fmt: skip
RECENT = [
    {"id": 1, "at_ms": 900, "type": "tick", "data": {"tick_id": "t0"}},
    {"id": 2, "at_ms": 1_010, "type": "reply", "data": {"text": "hello\n\x1b[2J you"}},
    {"id": 3, "at_ms": 1_012, "type": "tick", "data": {"tick_id": "t1", "cause": "manual"}},
    {"id": 4, "at_ms": 1_500, "type": "note", "data": "later"},
]
WAITING = {"envelope_id": "e1", "state": "new", "tries": 0, "error": ""}


def ticking(*waiting, tick=TICK):
    return {
        "tick": {"envelope_id": "e1", "status": "queued"},
        "inbox/e1": Steps([*waiting, NotFound()]),
        "logs/ticks": [TICK | {"envelope_id": "another"}, tick],
        "logs/recent": RECENT,
        "status": {"status": "stopped", "reason": "agent.unconfigured"},
    }


async def test_a_tick_is_waited_for_and_told_with_what_the_agent_said(tmp_path, capsys):
    async with running(tmp_path, ticking(WAITING)) as node:
        assert await node.vendo("agent", "tick", "a", "--reason", "why", "--key", "k", "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        node.answers["inbox/e1"] = NotFound()
        assert await node.vendo("agent", "tick", "a") == 0
    assert node.asked[0] == ("tick", "why", "k")
    assert (answer["status"], answer["key"], answer["tick"]["usage"]) == ("done", "k", {"compute_us": 5})
    assert answer["records"] == RECENT[1:3]
    assert [one.split()[1] for one in capsys.readouterr().out.splitlines()] == ["reply", "tick"]


async def test_a_tick_may_only_be_queued(tmp_path, capsys):
    async with running(tmp_path, ticking(WAITING)) as node:
        assert await node.vendo("agent", "tick", "a", "--no-wait", "--key", "k", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"envelope_id": "e1", "status": "queued", "key": "k"}


async def test_a_tick_that_does_not_end_in_time_exits_75_and_says_how_the_agent_is(tmp_path, capsys):
    answers = ticking() | {"inbox/e1": WAITING}
    async with running(tmp_path, answers) as node:
        assert await node.vendo("agent", "tick", "a", "--timeout", "0.2", "--key", "k") == ExitCode.TEMPORARY
    shown = capsys.readouterr().err
    assert "a is stopped (agent.unconfigured)" in shown
    assert "--key k" in shown


async def test_a_tick_that_failed_for_good_exits_65_with_the_agent_s_own_code(tmp_path, capsys):
    failing = ticking(WAITING | {"tries": 1, "error": "agent.failed: no"}, tick=TICK | {"error": "agent.failed: no"})
    async with running(tmp_path, failing) as node:
        assert await node.vendo("agent", "tick", "a") == ExitCode.DATA
        shown = capsys.readouterr()
        assert "try 1: agent.failed: no" in shown.err
        assert shown.err.splitlines()[-1].endswith("[agent.failed]")
        assert await node.vendo("agent", "tick", "a", "--json") == ExitCode.DATA
        assert json.loads(capsys.readouterr().out)["error"]["message"] == "no"
        node.answers["logs/ticks"] = []
        assert await node.vendo("agent", "tick", "a") == ExitCode.DATA
    assert "cli.tick_none" in capsys.readouterr().err


@pytest.mark.parametrize("act", ["hibernate", "wake", "stop", "start", "release"])
async def test_an_agent_s_life_is_changed(tmp_path, capsys, act):
    async with running(tmp_path, {f"ctl/{act}": {"name": "a", "status": "active"}}) as node:
        assert await node.vendo("agent", act, "a", "--key", "k", "--json") == 0
        assert json.loads(capsys.readouterr().out) == {"name": "a", "status": "active"}
        assert await node.vendo("agent", act, "a") == 0
    assert capsys.readouterr().out == "a: active\n"
    assert node.asked[0] == (f"ctl/{act}", "", "k")


async def test_the_status_of_an_agent_is_shown(tmp_path, capsys):
    async with running(tmp_path, {"status": {"status": "active", "ticks": 3}}) as node:
        assert await node.vendo("agent", "status", "a") == 0
    assert capsys.readouterr().out == "status: active\nticks: 3\n"


async def test_a_message_comes_from_the_words_a_file_or_standard_input(tmp_path, capsys, monkeypatch):
    (tmp_path / "text").write_text("from a file")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from standard input")))
    async with running(tmp_path, {"inbox": {"envelope_id": "e", "status": "queued"}}) as node:
        for words in ("hello", f"@{tmp_path / 'text'}", "-"):
            assert await node.vendo("agent", "send", "a", words) == 0
        (tmp_path / "text").write_bytes(b"\xff")
        assert await node.vendo("agent", "send", "a", f"@{tmp_path / 'text'}") == ExitCode.USAGE
    assert [body["text"] for _, body, _ in node.asked] == ["hello", "from a file", "from standard input"]


# -- what it did


def test_whatever_a_record_holds_is_one_line():
    assert line(RECENT[1]) == r'1970-01-01T00:00:01.010Z  reply       text="hello\n\u001b[2J you"'
    assert (
        line({"id": 1, "at_ms": 1_999, "type": "a\x1bb", "data": "x\ny"})
        == "1970-01-01T00:00:01.999Z  a\ufffdb         x\\ny"
    )
    assert line({"id": 1, "at_ms": 0, "type": "tick", "data": {"a": {"b": [1]}, "c": "d"}}).endswith('a={"b": [1]} c=d')


async def test_logs_are_lines_or_records_and_can_be_bounded(tmp_path, capsys):
    async with running(tmp_path, {"logs/recent": RECENT}) as node:
        assert await node.vendo("agent", "logs", "a", "--json") == 0
        assert [json.loads(one) for one in capsys.readouterr().out.splitlines()] == RECENT
        assert await node.vendo("agent", "logs", "a", "--limit", "2", "--json") == 0
        assert [json.loads(one)["id"] for one in capsys.readouterr().out.splitlines()] == [3, 4]
        assert await node.vendo("agent", "logs", "a", "--after", "1", "--json") == 0
        assert [json.loads(one)["id"] for one in capsys.readouterr().out.splitlines()] == [2, 3, 4]
        assert await node.vendo("agent", "logs", "a", "--limit", "0") == 0
        assert capsys.readouterr().out == ""


async def test_logs_go_on_with_what_comes_after_what_was_shown(tmp_path, capsys):
    log = [*RECENT, {"id": 9, "at_ms": 2_000, "type": "note", "data": "new"}]

    async def recent(session: Session) -> bytes:
        return json_bytes(RECENT)

    async def watch(session: Session, after: int | None) -> AsyncIterator[Record]:
        for one in log:
            if one["id"] > (after or 0):
                yield Record(one["id"], json.dumps(one).encode(), one["type"])

    files = {"recent": File("the last", read=recent), "trace": File("all", watch=watch)}
    async with serving(tmp_path, Tree(Folder("a root", {"logs": Folder("logs", files)}))):
        for words, ids in (
            (("-f",), [1, 2, 3, 4, 9]),
            (("-f", "--limit", "1"), [4, 9]),
            (("-f", "--after", "2"), [3, 4, 9]),
        ):
            argv = ["agent", "logs", "a", *words, "--json", "--home", str(tmp_path)]
            assert await asyncio.to_thread(run, argv) == 0
            assert [json.loads(one)["id"] for one in capsys.readouterr().out.splitlines()] == ids


# -- what it is to reach


async def test_goals_are_a_table_and_one_is_shown_set_and_removed(tmp_path, capsys):
    one = {"id": "one", "description": "first", "priority": 2, "status": "active", "progress": 10, "updated_at_ms": 5}
    goals = {"goals/list": {"counts": {}, "goals": [one, {"id": "two", "free": {"a": 1}}]}, "goals/one": one}
    async with running(tmp_path, goals) as node:
        assert await node.vendo("agent", "goals", "a") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["one", "2", "active", "10", "first"]
        assert lines[2].split() == ["two", "-", "-", "-", '{"a":', "1}"]
        assert await node.vendo("agent", "goals", "a", "--json") == 0
        assert json.loads(capsys.readouterr().out) == goals["goals/list"]["goals"]
        assert await node.vendo("agent", "goals", "a", "one", "--json") == 0
        assert json.loads(capsys.readouterr().out) == one
        assert await node.vendo("agent", "goals", "a", "one", "--set", '{"description": "x"}', "--key", "k") == 0
        assert await node.vendo("agent", "goals", "a", "nothing") == ExitCode.DATA
        assert await node.vendo("agent", "goals", "a", "nothing", "--remove") == ExitCode.DATA
    assert [(path, json.loads(body)) for path, body, _ in node.asked] == [("goals/one", {"description": "x"})]


@pytest.mark.parametrize(
    "words", [("--remove",), ("--set", "{}"), ("g", "--set", "{}", "--remove"), ("g", "--set", "[]")]
)
def test_what_is_to_become_of_which_goal_must_be_clear(tmp_path, words):
    with listening(tmp_path, lambda asked: answer(b"[]")) as asked:
        assert run(["agent", "goals", "a", *words, "--home", str(tmp_path)]) == ExitCode.USAGE
    assert [one for one in asked if one.method != "GET"] == []
