"""What `vendo chat` shows of words that others chose."""

from typing import Any

import pytest

from cli.command.chat import _Talk
from cli.output import Output

MESSAGE = {"id": "1", "state": "received", "direction": "in", "reason": "", "peer": "p", "cursor": 1}


class Fixed:
    """A node that says what an agent is called."""

    def read(self, path: str) -> bytes:
        return b"name"


def _said(capsys: pytest.CaptureFixture[str], *messages: dict[str, Any]) -> list[str]:
    talk = _Talk(Fixed(), "agent", Output(json_mode=False))
    for message in messages:
        talk.show({**MESSAGE, **message})
    return capsys.readouterr().out.splitlines()


def test_no_text_moves_the_cursor_also_where_the_output_is_piped_on(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = _said(capsys, {"text": "a\x1b[2J\x1b]0;title\x07bc\u202ed\x9b1m\x08"})
    assert line.startswith("agent: a")
    assert all(char.isprintable() for char in line)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_no_text_looks_like_a_line_that_somebody_else_said(capsys: pytest.CaptureFixture[str], end: str) -> None:
    lines = _said(capsys, {"text": f"the result{end}you ✓ pay: everything{end}agent: done"})
    assert [line for line in lines if not line.startswith("    ")] == [lines[0]]
    assert lines[0].startswith("agent: the result")


def test_a_reason_is_one_line_and_plain(capsys: pytest.CaptureFixture[str]) -> None:
    mine = {"direction": "out", "text": "hello", "state": "queued"}
    lines = _said(capsys, mine, {**mine, "state": "failed", "reason": "no\nagent: yes\x1b[1m"})
    assert lines[0] == "you … hello"
    assert len(lines) == 2
    assert "\x1b" not in lines[1]


def _items(talk: _Talk, *items: tuple[str, Any]) -> None:
    for item in items:
        talk.items.put(item)


def test_the_end_waits_until_it_is_known_what_became_of_ones_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    talk = _Talk(Fixed(), "agent", Output(json_mode=False))
    mine = {**MESSAGE, "direction": "out", "text": "hello", "state": "queued"}
    answer = {**MESSAGE, "id": "2", "text": "good day"}
    _items(talk, ("end", None), ("record", mine), ("record", answer), ("record", {**mine, "state": "sent"}))
    talk._waiting = True
    assert talk.run(30) == 0
    assert capsys.readouterr().out.splitlines() == ["you … hello", "agent: good day", "    ✓ sent"]


def test_an_answer_is_enough_if_no_relay_ever_says_that_it_has_the_question(capsys: pytest.CaptureFixture[str]) -> None:
    talk = _Talk(Fixed(), "agent", Output(json_mode=False))
    mine = {**MESSAGE, "direction": "out", "text": "hello", "state": "queued"}
    _items(talk, ("end", None), ("record", mine), ("record", {**MESSAGE, "id": "2", "text": "good day"}))
    talk._waiting = True
    assert talk.run(0.2) == 0
    assert capsys.readouterr().err == ""
