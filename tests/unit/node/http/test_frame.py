"""What a record looks like as a server-sent event: the same text comes out at the other end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.wire import records
from fs.protocol import Record
from node.http.stream import End, Reason, end_frame, frame


def read(raw: bytes) -> list[tuple[str, str, str]]:
    return [(one.id, one.type, one.data) for one in records(raw.splitlines(keepends=True))]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40).filter(lambda text: "\r" not in text))
def test_text_comes_out_as_it_went_in(text: str) -> None:
    assert read(frame(Record(7, text.encode(), "said"))) == [("7", "said", text)]


def test_lines_end_as_the_standard_says_and_nowhere_else() -> None:
    text = '{"a":"\u2028 \x0b \x0c \x1c \x85"}'
    assert frame(Record(1, text.encode(), "said")).count(b"data: ") == 1
    assert read(frame(Record(1, b"a\r\nb\rc\nd", "said"))) == [("1", "said", "a\nb\nc\nd")]


@pytest.mark.parametrize(
    ("name", "shown"), [("said", "said"), ("a\nid: 9", "aid: 9"), ("", "message"), ("\n", "message")]
)
def test_a_type_cannot_break_out_of_its_line(name: str, shown: str) -> None:
    assert read(frame(Record(1, b"x", name))) == [("1", shown, "x")]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert read(frame(Record(1, b"a\xffb", "said"))) == [("1", "said", "a\ufffdb")]


def test_the_end_has_no_id_so_that_whoever_goes_on_does_so_from_the_last_record() -> None:
    assert end_frame(End(Reason.TOO_SLOW)) == b'event: end\ndata: {"reason":"too_slow"}\n\n'
    assert end_frame(End(Reason.ERROR, "a.b")) == b'event: end\ndata: {"reason":"error","code":"a.b"}\n\n'
