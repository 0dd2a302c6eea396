"""Frames of the wire."""

import orjson
import pytest

from relays.error import MalformedEvent
from relays.event import Draft, parse
from relays.filter import Filter
from relays.key import Key
from relays.message import (
    MAX_FRAME_BYTES,
    Answered,
    Authenticate,
    Challenged,
    Close,
    Closed,
    Count,
    Counted,
    Delivered,
    Ended,
    Noticed,
    Publish,
    Request,
    encode,
    encode_event,
    encode_raw,
    parse_client,
    parse_frame,
    parse_relay,
)

EVENT = Key.generate().sign(Draft(1, 'quote " and é', (("t", "x"),), 5))


def test_each_frame_of_a_relay_is_read() -> None:
    wire = orjson.loads(EVENT.to_json())
    frames = {
        encode("EVENT", "s", EVENT): Delivered("s", wire),
        '["OK","x",true,""]': Answered("x", True, ""),
        '["OK","x",false]': Answered("x", False, ""),
        '["EOSE","s"]': Ended("s", None),
        '["EOSE","s",["finish"]]': Ended("s", True),
        '["EOSE","s",[]]': Ended("s", False),
        '["CLOSED","s","error: x"]': Closed("s", "error: x"),
        '["CLOSED","s"]': Closed("s", ""),
        '["AUTH","riddle"]': Challenged("riddle"),
        '["NOTICE","hi"]': Noticed("hi"),
        '["COUNT","s",{"count":3}]': Counted("s", 3),
    }
    assert [parse_relay(raw) for raw in frames] == list(frames.values())


def test_each_frame_of_a_client_is_read() -> None:
    one = Filter(kinds=frozenset({1}), limit=3)
    assert parse_client(encode("REQ", "s", one, Filter())) == Request("s", (one, Filter()))
    assert parse_client(encode("COUNT", "s", one)) == Count("s", (one,))
    assert parse_client(encode("CLOSE", "s")) == Close("s")
    assert parse_client(encode_event(EVENT)) == Publish(orjson.loads(EVENT.to_json()))
    assert parse_client(encode("AUTH", EVENT)) == Authenticate(orjson.loads(EVENT.to_json()))


def test_an_event_survives_the_wire_in_both_forms() -> None:
    frame = parse_relay(encode_raw("EVENT", 's"', EVENT.to_json()))
    assert isinstance(frame, Delivered)
    assert (frame.sub, parse(frame.value)) == ('s"', EVENT)
    assert encode_raw("EVENT", None, EVENT.to_json()) == encode("EVENT", EVENT)


@pytest.mark.parametrize(
    "raw",
    [
        "", "x", "1", "{}", "[]", "[1]", '["EVENT"]', '["EVENT","s"]', '["EVENT",1,{}]', '["EVENT","",{}]', '["OK"]',
        '["OK","x",1,""]', '["EOSE"]', '["CLOSED"]', '["AUTH",{}]', '["COUNT","s",{"count":"3"}]', '["HUH"]',
        b"\xff\xfe", '["EOSE","' + "x" * 65 + '"]', "[" * 5_000,
    ],
)  # fmt: skip
def test_what_is_no_frame_of_a_relay_is_refused(raw: str | bytes) -> None:
    with pytest.raises(MalformedEvent):
        parse_relay(raw)


@pytest.mark.parametrize(
    "raw", ['["REQ","s"]', '["REQ",1,{}]', '["REQ","s",[]]', '["REQ","s",{"x":1}]', '["CLOSE"]', '["EVENT"]', '["OK"]']
)
def test_what_is_no_frame_of_a_client_is_refused(raw: str) -> None:
    with pytest.raises(MalformedEvent):
        parse_client(raw)


def test_a_frame_has_a_greatest_length() -> None:
    assert parse_frame('["x"]', 5) == ["x"]
    with pytest.raises(MalformedEvent):
        parse_frame('["x"]', 4)
    with pytest.raises(MalformedEvent):
        parse_frame('["NOTICE","' + "x" * MAX_FRAME_BYTES + '"]')


def test_what_json_cannot_say_is_not_encoded() -> None:
    with pytest.raises(MalformedEvent):
        encode("NOTICE", "\ud800")
    with pytest.raises(MalformedEvent):
        encode("NOTICE", object())
