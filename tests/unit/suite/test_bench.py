"""The bench judges others, so what it judges by is tested too."""

import asyncio
from dataclasses import replace

import pytest

from bench import paper
from bench.flood import _frames
from bench.target import Section, Target, quantile, ratio
from bench.wire import Client, Counter, masked, offer, signed
from relays.error import ForgedEvent
from relays.event import parse_json, verify


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        (Target("rate", 2, 2.0), True),
        (Target("rate", 2, 1.999), False),
        (Target("delay", 0.5, 0.5, at_least=False), True),
        (Target("delay", 0.5, 0.501, at_least=False), False),
        (Target("rate", 2, None), False),
        (Target("delay", 0.5, None, at_least=False), False),
    ],
)
def test_a_promise_is_kept_on_the_right_side_of_its_bound_and_never_without_a_measurement(target, kept):
    assert target.kept is kept


def test_a_missed_promise_is_printed_with_a_cross_and_counted(capsys):
    section = Section("t", targets=[Target("fast", 2, 3.0), Target("small", 2, 3.0, at_least=False)])

    paper.show([section])

    said = capsys.readouterr().out
    assert "✓ fast: 3× (≥ 2×)" in said
    assert "✗ small: 3× (≤ 2×)" in said
    assert "Targets kept: 1 of 2" in said


def test_a_ratio_of_what_was_not_measured_is_none():
    assert ratio(6.0, 3.0) == 2.0
    assert ratio(None, 3.0) is None
    assert ratio(6.0, None) is None
    assert ratio(6.0, 0.0) is None


def test_a_quantile_is_a_value_that_was_measured():
    assert quantile([5.0, 1.0, 3.0], 0.5) == 3.0
    assert quantile(range(1_000), 0.99) == 990
    assert quantile([4.0], 0.99) == 4.0


class _Wire(asyncio.Transport):
    """Keeps what is written, and whom it belongs to."""

    def __init__(self):
        super().__init__()
        self.written = b""
        self.protocol = None

    def write(self, data):
        self.written += data

    def set_protocol(self, protocol):
        self.protocol = protocol

    def close(self):
        """Nothing is open."""


def _unmasked(text: bytes) -> bytes:
    """The same frame as a server sends it."""
    frame = masked(text)
    head = {126: 4, 127: 10}.get(frame[1] & 0x7F, 2)
    return bytes((frame[0], frame[1] & 0x7F)) + frame[2:head] + frame[head + 4 :]


@pytest.mark.parametrize("step", [1, 3, 7, 1_000_000])
async def test_the_raw_client_finds_every_message_however_the_stream_is_cut(step):
    client, wire, heard = Client("x"), _Wire(), []
    client.connection_made(wire)
    client.heard = heard.extend
    messages = [b"[]", b"x" * 125, b"y" * 126, b"z" * 70_000]
    ping, parts = b"\x89\x00", b"\x01\x01a" + b"\x80\x01b"
    stream = b"HTTP/1.1 101 Switching\r\n\r\n" + ping + b"".join(map(_unmasked, messages)) + parts

    for at in range(0, len(stream), step):
        client.data_received(stream[at : at + step])

    assert heard == [*messages, b"ab"]
    assert wire.written.endswith(b"\x8a\x80\0\0\0\0"), "the ping was answered"


@pytest.mark.parametrize("step", [1, 2, 6, 7, 8, 50])
async def test_the_counting_subscriber_counts_each_event_once_however_the_stream_is_cut(step):
    client, wire, total = Client("x"), _Wire(), []
    client.connection_made(wire)
    counter = Counter(client, total.append)
    stream = b"".join(_unmasked(b'["EVENT","live",{"id":"%d"}]' % number) for number in range(50)) + b'["EOSE","live"]'

    for at in range(0, len(stream), step):
        counter.data_received(stream[at : at + step])

    assert sum(total) == 50
    assert wire.protocol is counter


def test_the_events_of_the_bench_are_genuine_and_none_is_like_another():
    events = signed(20)

    for event in events:
        verify(event)
    assert len({event.id for event in events}) == 20
    assert not {event.id for event in events} & {event.id for event in signed(20)}


def test_the_forgeries_of_the_flood_fail_at_the_signature_alone():
    frame = _frames("forgeries")[0]
    forged = parse_json(frame[8:].removeprefix(b'["EVENT",')[:-1])

    with pytest.raises(ForgedEvent, match="signature"):
        verify(forged)
    assert len(offer(replace(forged))) == len(frame)
