"""An OK is a promise: whatever was acknowledged is there after SIGKILL."""

import asyncio
import json
import signal
import threading

import aiohttp
import pytest

from core.clock import SystemClock
from relays.embedded.error import EventFileFailed
from relays.embedded.service import EmbeddedRelay
from relays.embedded.store import Store
from relays.embedded.store_write import EventWriter
from tests.integration.relays.embedded.relay_part import Child
from tests.unit.relays.embedded.event_part import NOW, note


async def ask_all(url):
    async with aiohttp.ClientSession() as http, http.ws_connect(url, max_msg_size=0) as ws:
        assert json.loads((await ws.receive(10)).data)[0] == "AUTH"
        await ws.send_str('["REQ","a",{"limit":5000}]')
        found = set()
        while (heard := json.loads((await ws.receive(10)).data))[0] == "EVENT":
            found.add(heard[2]["id"])
        return found


@pytest.mark.parametrize("killed_after", [150, 700])
async def test_every_acknowledged_event_is_there_after_a_kill(tmp_path, killed_after):
    events = [note(content=str(number), at=NOW + number) for number in range(2_000)]
    child = Child(tmp_path)
    acknowledged = set()
    try:
        async with aiohttp.ClientSession() as http, http.ws_connect(child.url) as ws:
            assert json.loads((await ws.receive(10)).data)[0] == "AUTH"

            async def send():
                for event in events:
                    await ws.send_str(f'["EVENT",{event.to_json()}]')

            sending = asyncio.create_task(send())
            while True:
                message = await ws.receive(10)
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                _, event_id, accepted, _ = json.loads(message.data)
                assert accepted
                acknowledged.add(event_id)
                if len(acknowledged) == killed_after:
                    child.process.send_signal(signal.SIGKILL)
            await asyncio.gather(sending, return_exceptions=True)
    finally:
        assert child.end(signal.SIGKILL) == -signal.SIGKILL
    assert len(acknowledged) >= killed_after
    again = Child(tmp_path)
    try:
        assert acknowledged <= await ask_all(again.url)
    finally:
        assert again.end() == 0


async def test_acknowledged_groups_are_synced_to_the_disk(tmp_path):
    """A kill cannot tell a synced file from a cached one, so the setting itself is looked at."""
    store = Store(tmp_path / "relay.db", store_bytes=1 << 30)
    store.open(lambda _entries, _outcomes: None)
    try:
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        await store.close()


async def test_a_relay_whose_writer_has_ended_ends_and_does_not_go_on_without_storing(tmp_path, monkeypatch):
    """What is not foreseen is a fault of ours; whoever runs the relay can start it again, if it says so."""

    def failing(self, entries):
        raise RuntimeError("not foreseen")

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    relay = EmbeddedRelay(tmp_path / "relay.db", "127.0.0.1", 0, clock=SystemClock())
    ready, stop = asyncio.Event(), asyncio.Event()
    running_ = asyncio.create_task(relay.run(ready, stop))
    await ready.wait()
    monkeypatch.setattr(EventWriter, "commit", failing)
    async with aiohttp.ClientSession() as http, http.ws_connect(relay.url) as ws:
        await ws.receive()
        await ws.send_str(f'["EVENT",{note(kind=5, at=NOW).to_json()}]')  # a deletion goes to the writer's thread
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(running_, 60)
        assert caught.group_contains(EventFileFailed)
