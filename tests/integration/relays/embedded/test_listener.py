"""The relay over plain HTTP (NIP-11, the page), and how it starts and stops."""

import asyncio
import json
import signal
import time

import aiohttp
import pytest

from core.clock import SystemClock
from relays.embedded.access import Access
from relays.embedded.error import RelayBusy
from relays.embedded.information import Description, Rules
from relays.embedded.limit import Limits
from relays.embedded.page import page
from relays.embedded.rate import Rates
from relays.embedded.service import EmbeddedRelay
from tests.integration.relays.embedded.relay_part import Child, running
from tests.integration.relays.hostile_part import until


@pytest.fixture
async def relay(tmp_path):
    async with running(tmp_path / "relay.db", Limits(connections=2)) as made:
        made.page = made.url.replace("ws://", "http://")
        yield made


async def test_the_nip_11_document_names_the_limits(relay):
    async with relay.http.get(relay.page, headers={"Accept": "application/nostr+json"}) as answer:
        assert answer.content_type == "application/nostr+json"
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        document = json.loads(await answer.read())
    assert {1, 9, 11, 40} <= set(document["supported_nips"])
    limits = Limits()
    assert document["limitation"]["max_message_length"] == limits.message_bytes
    assert document["limitation"]["max_limit"] == 5_000
    assert document["limitation"]["max_subid_length"] == 64
    assert document["limitation"]["auth_required"] is False


async def test_a_browser_gets_a_page(relay):
    async with relay.http.get(relay.page, headers={"Accept": "text/html,application/xhtml+xml"}) as answer:
        assert answer.content_type == "text/html"
        assert "script-src" not in answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert relay.url in await answer.text()


async def test_a_preflight_is_answered(relay):
    async with relay.http.options(relay.page) as answer:
        assert (answer.status, answer.headers["Access-Control-Allow-Headers"]) == (204, "*")


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/agents/node/wallet/balance", "/v1/models", "/index.html"])
async def test_every_other_path_is_not_found(relay, path):
    for method in ("GET", "POST", "PUT", "DELETE"):
        async with relay.http.request(method, relay.page + path) as answer:
            assert answer.status == 404


async def test_the_page_escapes_what_it_is_told():
    text = page(Description(name="<script>", about='"&'), Rules(Limits(), Access(), Rates()), "ws://x/<", 1, 2)
    assert "<script>" not in text
    assert "&quot;&amp;" in text


async def test_connections_are_bounded(relay):
    wires = [await relay.connect() for _ in range(2)]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await relay.connect()
    assert refused.value.status == 503
    await wires[0].ws.close()
    await until(lambda: relay.relay.health()["connections"] == 1)
    await relay.connect()


async def test_a_taken_port_is_an_error_that_says_so(relay, tmp_path):
    port = int(relay.url.rpartition(":")[2])
    second = EmbeddedRelay(tmp_path / "other.db", "127.0.0.1", port, clock=SystemClock())
    with pytest.raises(RelayBusy, match=str(port)):
        await second.run(asyncio.Event(), asyncio.Event())


async def test_stopping_says_goodbye_and_is_quick(tmp_path):
    async with running(tmp_path / "relay.db") as relay:
        http = aiohttp.ClientSession()
        ws = await http.ws_connect(relay.url)
        started = time.monotonic()
    assert time.monotonic() - started < 8, "and not the minute of a websocket's usual goodbye"
    assert (await ws.receive(5)).data.startswith('["AUTH",')
    message = await ws.receive(5)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
    await http.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_says_where_it_listens_and_stops_on_a_signal(tmp_path, number):
    child = Child(tmp_path)
    try:
        assert child.said == {"url": child.url, "pid": child.process.pid}
        async with aiohttp.ClientSession() as http, http.ws_connect(child.url) as ws:
            assert (await ws.receive(5)).data.startswith('["AUTH",')
            await ws.send_str('["REQ","a",{}]')
            assert (await ws.receive(5)).data == '["EOSE","a"]'
            started = time.monotonic()
            assert await asyncio.to_thread(child.end, number) == 0
            assert time.monotonic() - started < 8
    finally:
        child.end(signal.SIGKILL)


async def test_the_command_refuses_a_home_that_is_served_already(tmp_path):
    child = Child(tmp_path)
    try:
        with pytest.raises(AssertionError, match="Another process serves"):
            Child(tmp_path)
    finally:
        assert child.end() == 0
