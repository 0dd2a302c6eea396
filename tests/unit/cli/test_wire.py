"""Lists and streams in pieces of any size, from listeners that break off wherever they like."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import follow as following
from cli.client import AnswerLost, Client, NotRunning
from cli.follow import follow
from cli.main import run
from cli.output import ExitCode, NodeRefusal
from cli.wire import StreamRecord, objects, records
from fs.protocol import Record
from fs.session import Session
from fs.tree import File, Folder, Tree
from tests.unit.cli.node_part import running, serving
from tests.unit.cli.wire_part import answer, events, listening

rows = st.lists(
    st.dictionaries(
        st.text(max_size=6),
        st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=2),
        max_size=3,
    ),
    max_size=6,
)


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@given(rows, st.integers(1, 40), st.booleans(), st.booleans())
def test_a_list_is_read_whatever_its_pieces_are(given, size, lines, indented):
    text = (
        "".join(json.dumps(one) + "\n" for one in given) if lines else json.dumps(given, indent=2 if indented else None)
    )
    assert list(objects(cut(text.encode(), size))) == given


@pytest.mark.parametrize("text", ['[{"a": 1}, {"b": ', '{"a": 1}\n{"b"', "[1, 2]", "no json", '[{"a": "\xff'])
def test_a_list_that_breaks_off_is_no_list(text):
    with pytest.raises(ValueError):
        list(objects([text.encode("latin-1")]))


def test_entries_come_before_the_list_is_whole():
    pieces = iter([b'[{"a": 1},', b'{"a": 2}]'])
    found = objects(pieces)
    assert next(found) == {"a": 1}
    assert next(pieces) == b'{"a": 2}]'


def test_events_of_several_lines_and_comments_are_read():
    lines = [b": hello\n", b"id: 7\n", b"\n", b"event: tick\n", b"data: a\n", b"data: b\n", b"\n", b"data: c\n", b"\n"]
    assert list(records(lines)) == [StreamRecord("7", "tick", "a\nb"), StreamRecord("7", "message", "c")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [('{"reason":"complete"}', "complete"), ("{}", ""), ("", ""), ("[]", ""), ('{"reason":1}', "1")],
)
def test_an_end_says_why_or_nothing(data, reason):
    assert StreamRecord("", "end", data).told("reason") == reason


def test_an_answer_that_is_cut_off_is_not_taken_for_a_whole_one(tmp_path):
    with listening(tmp_path, lambda asked: answer(b'[{"name": "a"}', length=100)):
        client = Client.open(tmp_path)
        for look in (client.read, client.get, client.list):
            with pytest.raises(NotRunning, match="broke off"):
                look("/agents/node/x")


def test_a_call_whose_answer_is_cut_off_may_have_been_done(tmp_path):
    with listening(tmp_path, lambda asked: answer(b"{", length=100)), pytest.raises(AnswerLost) as caught:
        Client.open(tmp_path).call("/agents/node/x", key="mine")
    assert "--key mine" in caught.value.advice


def test_a_body_that_is_refused_before_it_was_sent_is_refused_with_the_reason(tmp_path):
    body = json.dumps({"code": "fs.too_large", "detail": "The body is longer than 9 bytes."}).encode()
    head = f"HTTP/1.1 413 Too Large\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
    with listening(tmp_path, lambda asked: head + body), pytest.raises(NodeRefusal) as caught:
        Client.open(tmp_path).put("/agents/node/x", (b"x" * 65_536 for _ in range(64)), key="k")
    assert caught.value.problem.code == "fs.too_large"
    assert caught.value.problem.exit_code is ExitCode.USAGE


# -- streams that break


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(following, "_FIRST_S", 0.01)


def test_a_stream_that_breaks_goes_on_from_the_last_id(tmp_path, hasty):
    told = []
    said = iter([
        events(b"retry: 1000\n\nid: 4\ndata: a\n\nid: 5\ndata: b\n\nid: 6\ndata: hal"),
        events(b'id: 6\ndata: half\n\nevent: end\ndata: {"reason":"shutdown"}\n\n'),
        events(b'id: 7\ndata: c\n\nevent: end\ndata: {"reason":"too_slow"}\n\n'),
        events(b'event: end\ndata: {"reason":"complete"}\n\n'),
    ])  # fmt: skip
    with listening(tmp_path, lambda asked: next(said)) as asked:
        found = list(follow(tmp_path, "/agents/a/logs/trace", 3, 10.0, told.append))
    assert [(one.id, one.data) for one in found[:-1]] == [("4", "a"), ("5", "b"), ("6", "half"), ("7", "c")]
    assert found[-1].type == "end"
    assert [one.path.partition("after=")[2] for one in asked] == ["3", "5", "6", "7"]
    assert len(told) == 6


def test_a_node_that_does_not_come_back_is_given_up_in_time(tmp_path, hasty):
    with listening(tmp_path, lambda asked: events(b"id: 1\ndata: a\n\n")):
        stream = follow(tmp_path, "/agents/a/logs/trace", None, 0.2, lambda text: None)
        assert next(stream).data == "a"
    with pytest.raises(NotRunning):
        list(stream)


def test_a_node_that_stops_between_the_last_records_and_the_stream_is_waited_for(tmp_path, hasty, capsys):
    last = [{"id": 4, "at_ms": 0, "type": "reply", "data": {"text": "a"}}]
    lost = events(b'id: 9\nevent: gap\ndata: {"from":5,"to":9}\n\nevent: end\ndata: {"reason":"complete"}\n\n')
    said = iter([answer(json.dumps(last).encode()), b"", lost])
    with listening(tmp_path, lambda asked: next(said)) as asked:
        assert run(["agent", "logs", "a", "-f", "--json", "--home", str(tmp_path)]) == 0
    assert [one.path.partition("after=")[2] for one in asked] == ["", "4", "4"]
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert shown == [*last, {"id": 9, "type": "gap", "data": {"from": 5, "to": 9}}]


def test_a_node_that_has_not_answered_at_all_is_not_waited_for(tmp_path, hasty):
    with listening(tmp_path, lambda asked: b"") as asked:
        assert run(["agent", "logs", "a", "-f", "--json", "--home", str(tmp_path)]) == ExitCode.UNAVAILABLE
        with pytest.raises(NotRunning):
            next(follow(tmp_path, "/agents/a/logs/trace", 3, 10.0, lambda text: None))
    assert len({one.path for one in asked}) == 2


def test_without_patience_a_break_is_the_end(tmp_path):
    with listening(tmp_path, lambda asked: events(b"id: 1\ndata: a\n\n")) as asked:
        stream = follow(tmp_path, "/agents/a/logs/trace", None, 0.0, lambda text: None)
        assert next(stream).data == "a"
        with pytest.raises(NotRunning):
            next(stream)
    assert len(asked) == 1


def test_a_stream_whose_source_fails_ends_with_its_code(tmp_path):
    failed = events(b'event: end\ndata: {"reason":"error","code":"store.full"}\n\n')
    with listening(tmp_path, lambda asked: failed), pytest.raises(NodeRefusal) as caught:
        list(follow(tmp_path, "/agents/a/logs/trace", None, 10.0, lambda text: None))
    assert (caught.value.problem.code, caught.value.problem.exit_code) == ("store.full", ExitCode.TEMPORARY)


def test_a_refusal_is_not_waited_for(tmp_path, hasty):
    gone = b'HTTP/1.1 404 Not Found\r\nContent-Length: 26\r\n\r\n{"code": "fs.not_found"}  '
    said = chain([events(b"id: 1\ndata: a\n\n")], iter(lambda: gone, None))
    with listening(tmp_path, lambda asked: next(said)) as asked, pytest.raises(NodeRefusal):
        list(follow(tmp_path, "/agents/a/logs/trace", None, 10.0, lambda text: None))
    assert len(asked) == 2


async def test_a_node_that_is_started_again_elsewhere_is_found_again(tmp_path, hasty):
    grown, log = asyncio.Condition(), [b"one", b"two"]

    async def watch(session: Session, after: int | None) -> AsyncIterator[Record]:
        at = after or 0
        while True:
            async with grown:
                while len(log) <= at:
                    await grown.wait()
            for data in log[at:]:
                at += 1
                yield Record(at, data, "end" if data == b"{}" else "line")

    tree = Tree(Folder("a folder", {"trace": File("a log", watch=watch)}))
    found, seen = [], threading.Event()

    def read() -> None:
        for one in follow(tmp_path, "/agents/a/trace", 0, 20.0, lambda text: None):
            found.append((one.id, one.data))
            if len(found) == 2:
                seen.set()

    async with serving(tmp_path, tree):
        reading = asyncio.create_task(asyncio.to_thread(read))
        await asyncio.to_thread(seen.wait, 10)
    async with serving(tmp_path, tree):
        async with grown:
            log.extend([b"three", b"{}"])
            grown.notify_all()
        await asyncio.wait_for(reading, 20)
    assert found == [("1", "one"), ("2", "two"), ("3", "three"), ("4", "{}")]


async def test_watch_prints_one_line_per_record_and_begins_where_it_is_told(tmp_path, capsys):
    async with running(tmp_path, {"note": "plain"}) as node:
        assert await node.vendo("watch", "/note", "--after", "0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ['tick {"n":1}', 'tick {"n":2}']
    assert lines[2].startswith("end ")
