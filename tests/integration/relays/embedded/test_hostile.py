"""Clients that do not behave: the relay answers, or ends that one connection, and serves the others."""

import asyncio
import json
import random
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from relays.embedded.limit import Limits
from tests.integration.relays.embedded.relay_part import Child, running
from tests.integration.relays.hostile_part import until
from tests.unit.relays.embedded.event_part import BOB, NOW, note

LIMITS = Limits(message_bytes=100_000, send_bytes=300_000, unanswered=50)


@pytest.fixture
async def relay(tmp_path):
    async with running(tmp_path / "relay.db", LIMITS) as made:
        yield made


async def is_well(relay):
    wire = await relay.connect()
    event = note(content=f"well {random.random()}")
    assert await wire.publish(event) == (True, "")
    assert event.id in await wire.ask({"ids": [event.id]})
    await wire.ws.close()
    return True


JUNK = [
    "",
    "x",
    "[" * 90_000,
    '["REQ","a",' + "[" * 5_000,
    "[]",
    "{}",
    "null",
    '["EVENT"]',
    '["EVENT",null]',
    '["REQ"]',
    '["REQ",null,{}]',
    '["REQ","a",{"limit":-1}]',
    '["REQ","a",{"limit":1e99}]',
    '["REQ","a",{"kinds":[99999999999999999999]}]',
    '["REQ","a",{"since":-5}]',
    '["REQ","a"]',
    '["REQ","a",null]',
    '["REQ","a",{"ids":["zz"]}]',
    '["CLOSE"]',
    '["CLOSE",{}]',
    '["COUNT","a",{"kinds":"x"}]',
    '["AUTH",{"id":5}]',
    '["EVENT",{"id":"' + "0" * 64 + '"}]',
    '["\\ud800"]',
    '["NEG-OPEN","a",{},"61"]',
    '["REQ","a",{"kinds":[-1],"until":9007199254740993}]',
    '["REQ","a",{"kinds":[9223372036854775808]}]',
    '["COUNT","a",{"kinds":[9223372036854775808]}]',
    '["EVENT",{"kind":1},{"kind":1}]',
    "[null,null]",
    '["AUTH"]',
    '["AUTH",null]',
    '["AUTH","challenge"]',
    '["AUTH",{}]',
    '["AUTH",[]]',
    '["AUTH",{"id":"' + "1" * 64 + '","kind":22242}]',
    '["AUTH",' + json.dumps(note(kind=22_242).to_dict()) + "]",
    '["AUTH",' + json.dumps(note(kind=22_242, with_tags=[("relay", ""), ("challenge", "")]).to_dict()) + "]",
    '["AUTH",' + json.dumps(note(kind=22_242, with_tags=[("relay",), ("challenge",)]).to_dict()) + "]",
    '["AUTH",' + json.dumps(note(kind=22_242, with_tags=[("relay", "ws://[::1"), ("challenge", "x")]).to_dict()) + "]",
    '["AUTH",' + json.dumps(note(kind=22_243, with_tags=[("key", "x" * 64)] * 300).to_dict()) + "]",
    '["AUTH",' + json.dumps(note(kind=22_243, with_tags=[("relay", "x"), ("expiration", "9" * 90)]).to_dict()) + "]",
    '["AUTH",' + json.dumps(note(kind=22_244).to_dict()) + "]",
    '["NEG-OPEN"]',
    '["NEG-OPEN","a"]',
    '["NEG-OPEN","a",{}]',
    '["NEG-OPEN",7,{},"61"]',
    '["NEG-OPEN","a",{},""]',
    '["NEG-OPEN","a",{},7]',
    '["NEG-OPEN","a",{},"zz"]',
    '["NEG-OPEN","a",{},"60"]',
    '["NEG-OPEN","a",{},"61ffffffffffffffffffff"]',
    '["NEG-OPEN","a",{},"61' + "00" * 40_000 + '"]',
    '["NEG-OPEN","a",{},"61' + "0000020ffffffff" * 99 + '"]',
    '["NEG-OPEN","a",{"kinds":[1059]},"61"]',
    '["NEG-OPEN","a",[],"61"]',
    '["NEG-OPEN","a",{"limit":-1},"61"]',
    '["NEG-MSG","a","61"]',
    '["NEG-MSG","a"]',
    '["NEG-MSG",null,"61"]',
    '["NEG-CLOSE"]',
    '["NEG-CLOSE",7]',
    '["COUNT"]',
    '["COUNT","a"]',
    '["COUNT","a",{"search":"' + "x" * 70_000 + '"}]',
    '["REQ","a",{"search":"\\"(* OR NEAR/9 ^"}]',
    '["REQ","a",{"#p":[' + '"",' * 2_500 + '""]}]',
    '["REQ","' + "s" * 65 + '",{}]',
    '["EVENT",{"tags":' + "[" * 400 + "]" * 400 + "}]",
    '["EVENT",' + json.dumps(note(with_tags=[("e",) * 2_000] * 3).to_dict()) + "]",
    '["EVENT",' + json.dumps(note(with_tags=[("nonce", "x", "99999999999")]).to_dict()) + "]",
    '["EVENT",' + json.dumps(note(with_tags=[("expiration", "-1"), ("d", "\x00")]).to_dict()) + "]",
    '["EVENT",' + json.dumps(note(kind=62, with_tags=[("relay",), ("relay", "ALL_RELAYS ")]).to_dict()) + "]",
    '["EVENT",' + json.dumps(note(kind=5, with_tags=[("a", "1:2:3:4"), ("a", ":::"), ("e", "")]).to_dict()) + "]",
    '["OK","' + "0" * 64 + '",true,""]',
    '["EOSE","a"]',
    '["PING",1]',
]


def test_the_inputs_are_many():
    assert len(set(JUNK)) >= 60


@pytest.mark.parametrize("frame", JUNK)
async def test_a_malformed_message_gets_one_answer_and_the_connection_goes_on(relay, frame):
    wire = await relay.connect()
    await wire.ws.send_str(frame)
    assert (await wire.hear())[0] in ("NOTICE", "CLOSED", "OK", "EOSE", "COUNT", "NEG-MSG", "NEG-ERR")
    event = note()
    assert await wire.publish(event) == (True, "")


async def test_binary_messages_are_refused(relay):
    wire = await relay.connect()
    await wire.ws.send_bytes(b'["REQ","a",{}]')
    assert (await wire.hear())[0] == "NOTICE"
    assert await is_well(relay)


async def test_a_huge_message_ends_the_connection(relay):
    wire = await relay.connect()
    await wire.ws.send_str('["EVENT",{"content":"' + "x" * 200_000 + '"}]')
    message = await wire.ws.receive(5)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1009)
    assert await is_well(relay)


async def test_an_event_above_its_size_is_refused_with_its_id(relay):
    wire = await relay.connect()
    accepted, reason = await wire.publish(note(content="x" * 70_000))
    assert not accepted
    assert reason.startswith("invalid: ")


@pytest.mark.parametrize("seed", range(3))
async def test_random_bytes_on_the_socket_harm_nobody(relay, seed):
    rng = random.Random(seed)
    host, port = relay.url.removeprefix("ws://").split(":")
    for _ in range(20):
        reader, writer = await asyncio.open_connection(host, int(port))
        key = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        head = b"GET / HTTP/1.1\r\nHost: x\r\n" + key + b"Sec-WebSocket-Version: 13\r\n\r\n"
        writer.write(rng.choice([head, b""]) + rng.randbytes(rng.randrange(5_000)))
        if rng.random() < 0.5:
            await writer.drain()
        writer.transport.abort()
        del reader
    assert await is_well(relay)
    await until(lambda: relay.relay.health()["connections"] <= 1)


async def test_a_reader_that_stops_reading_is_cut_off_with_a_reason_and_others_get_all(relay):
    host, port = relay.url.removeprefix("ws://").split(":")
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    stuck.connect((host, int(port)))
    slow = aiohttp.ClientSession(connector=aiohttp.TCPConnector())
    reader, writer = await asyncio.open_connection(sock=stuck, limit=1_024)
    writer.write(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    ask = b'["REQ","live",{"limit":0}]'
    writer.write(bytes((0x81, 0x80 | len(ask))) + bytes(4) + ask)
    writer.transport.pause_reading()
    good, publisher = await relay.connect(), await relay.connect()
    await good.say("REQ", "live", {"limit": 0})
    assert await good.hear() == ["EOSE", "live"]
    events = [note(content="x" * 10_000, at=NOW + number) for number in range(600)]
    received = asyncio.create_task(gather(good, len(events)))
    for event in events:
        assert await publisher.publish(event) == (True, "")
    assert sorted(await received) == sorted(event.id for event in events)
    assert relay.relay.health()["cut"] == 1
    writer.transport.resume_reading()
    tail = b""
    while chunk := await asyncio.wait_for(reader.read(65_536), 10):
        tail = (tail + chunk)[-200:]
    assert b"too slowly" in tail
    writer.close()
    await slow.close()


async def gather(wire, count):
    return [(await wire.hear())[2]["id"] for _ in range(count)]


async def test_a_big_answer_does_not_trip_the_cap_of_a_client_that_reads(relay):
    wire = await relay.connect()
    events = [note(content="x" * 50_000, at=NOW + number) for number in range(60)]
    for event in events:
        await wire.publish(event)
    assert len(await wire.ask({})) == 60  # 3 MB through a cap of 0.3


async def test_a_client_that_floods_is_held_back_and_every_event_is_answered(relay):
    wire = await relay.connect()
    events = [note(content=str(number)) for number in range(600)]
    sending = asyncio.create_task(flood(wire, events))
    answered = [await wire.hear() for _ in events]
    await sending
    assert all(one[2] is True for one in answered)
    assert {one[1] for one in answered} == {event.id for event in events}


async def flood(wire, events):
    for event in events:
        await wire.offer(event)


async def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(relay):
    for _ in range(10):
        wire = await relay.connect()
        await wire.say("REQ", "a", {})
        for number in range(30):
            await wire.offer(note(content=f"left {number}"))
        wire.ws._conn.transport.abort()
    await until(lambda: relay.relay.health()["connections"] == 0 and len(relay.relay._hub._index) == 0)
    assert await is_well(relay)


async def test_requests_without_end_on_one_socket_do_not_starve_another(relay):
    for number in range(200):
        await (await relay.connect()).publish(note(content=str(number)))
    rude = await relay.connect()

    async def demand():
        for number in range(400):
            await rude.say("REQ", f"r{number % 20}", {"limit": 200})

    async def swallow():
        while True:
            await rude.hear()

    asking, reading = asyncio.create_task(demand()), asyncio.create_task(swallow())
    async with asyncio.timeout(10):
        assert await is_well(relay)
    async with asyncio.timeout(120):
        await asking
    reading.cancel()


async def test_a_request_that_never_ends_is_cut_off_and_a_websocket_is_not(tmp_path):
    async with running(tmp_path / "relay.db", replace(LIMITS, handshake_s=2.0)) as relay:
        wire = await relay.connect()
        host, port = relay.url.removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: relay\r\nX-Slow: ")
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()
        await asyncio.sleep(2.5)
        assert await wire.publish(note()) == (True, "")


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1_024
    raise AssertionError


async def test_thousands_of_hostile_messages_leave_the_process_alive_and_its_memory_flat(tmp_path):
    child = Child(tmp_path)
    try:
        async with aiohttp.ClientSession() as http:
            # the first rounds fill caches and pools; what is measured comes after them
            sizes = []
            for _ in range(6):
                await insult(http, child.url, rounds=5)
                sizes.append(resident(child.process.pid))
            assert sizes[-1] - sizes[1] < 20, f"{sizes} MB"
            async with http.ws_connect(child.url) as ws:
                await ws.receive(5)
                event = note(content="still here")
                await ws.send_str(f'["EVENT",{event.to_json()}]')
                assert json.loads((await ws.receive(5)).data)[:3] == ["OK", event.id, True]
    finally:
        assert child.end() == 0


async def insult(http, url, rounds):
    """All junk on one socket after the other; every message is answered."""
    for _ in range(rounds):
        async with http.ws_connect(url, max_msg_size=0) as ws:
            assert json.loads((await ws.receive(5)).data)[0] == "AUTH"
            for frame in JUNK:
                await ws.send_str(frame)
            await ws.send_str('["COUNT","last",{"kinds":[31]}]')
            while json.loads((await ws.receive(10)).data)[:2] != ["COUNT", "last"]:
                pass
            for name in ("a", "é"):
                await ws.send_str(json.dumps(["CLOSE", name]))


@pytest.mark.parametrize("url", ["ws://xn--a", "ws://@%25][@ ", "ws://[:-1]", "ws://xn--xn--:?/", "\0", "ws://[::1"])
async def test_a_request_to_vanish_from_no_address_ends_nothing(relay, url):
    wire = await relay.connect()
    assert (await wire.publish(note(BOB, 62, url, at=NOW, with_tags=[("relay", url)])))[0]
    assert await wire.publish(note(kind=5, content=url, at=NOW)) == (True, "")
