import struct

import orjson
import pytest

from relays.embedded import frame


@pytest.mark.parametrize(("size", "head"), [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_a_frame_is_final_unmasked_text_of_its_length(size, head):
    packed = frame.pack(b"x" * size)
    assert packed[0] == 0x81
    assert len(packed) == head + size
    length = packed[1] if head == 2 else struct.unpack("!H" if head == 4 else "!Q", packed[2:head])[0]
    assert length == size


def test_a_close_frame_keeps_to_the_bytes_that_fit():
    packed = frame.closing(1013, "x" * 200)
    assert packed[:4] == bytes((0x88, 125)) + struct.pack("!H", 1013)
    assert len(packed) == 127


def test_an_event_message_is_the_head_and_the_text_that_was_stored():
    packed = frame.event(frame.event_head('a"b'), b'{"id":1}')
    assert orjson.loads(packed[2:]) == ["EVENT", 'a"b', {"id": 1}]


def test_the_answers_have_nip_01s_form():
    assert orjson.loads(frame.ok("ab", False, "invalid: x")[2:]) == ["OK", "ab", False, "invalid: x"]
    assert orjson.loads(frame.closed("s", "error: x")[2:]) == ["CLOSED", "s", "error: x"]
    assert orjson.loads(frame.count("s", 3)[2:]) == ["COUNT", "s", {"count": 3}]
