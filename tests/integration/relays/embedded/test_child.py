"""The relay as a node's child: what strangers send it never ends the node's part."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from core.clock import SystemClock
from node.relay import OwnRelay, RelayFailed
from relays.embedded.access import Access
from relays.embedded.setting import RelaySettings
from relays.embedded.toll import PaymentRefused
from relays.key import Key


class Till:
    """Refuses every token."""

    mints = ("https://mint.example.com",)
    paid = {}  # noqa: RUF012

    async def pay(self, pubkey, token):
        raise PaymentRefused("It is spent.")


@asynccontextmanager
async def owned(tmp_path, **more):
    settings = RelaySettings(tmp_path / "relay.db", port=0, access=Access(write_by=("payment",)), mints=Till.mints)
    own = OwnRelay(replace(settings, **more), SystemClock(), Till())
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(own.run(ready, stop))
    try:
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((waiting, running), timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done(), running
        yield own, running
    finally:
        stop.set()
        await asyncio.wait_for(running, 60)


async def test_a_form_full_of_control_characters_ends_neither_the_relay_nor_the_node(tmp_path):
    """Each such character takes six on the pipe between the two, whose lines have a greatest length."""
    async with owned(tmp_path) as (own, running), aiohttp.ClientSession() as http:
        form = aiohttp.FormData({"pubkey": Key.generate().npub})
        form.add_field("token", "cashuB" + "\x01" * 198_000, content_type="text/plain")
        async with http.post(own.url.replace("ws", "http", 1) + "/pay", data=form) as answer:
            assert answer.status == 400
        await asyncio.sleep(0.3)
        assert not running.done()
        assert own.restarts == 0


async def test_a_child_that_talks_nonsense_is_started_again_and_the_node_goes_on(tmp_path):
    async with owned(tmp_path) as (own, running):
        hearing = asyncio.StreamReader(limit=1_000)
        hearing.feed_data(b"x" * 5_000 + b"\n")

        class Mad:
            stdout = hearing

        with pytest.raises(RelayFailed):
            await own._hear(Mad(), asyncio.Event())
        assert not running.done()
