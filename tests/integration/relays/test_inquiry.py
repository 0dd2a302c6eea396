"""Asking relays for their description over real sockets: an answer, or none, and never harm."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import nostr_sdk
import pytest
from aiohttp import web

from core.error import InvalidInput
from relays.inquiry import information_of
from relays.nip11 import MAX_DOCUMENT_BYTES
from tests.integration.relays.embedded.relay_part import running

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert site._server is not None
        yield f"ws://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


async def test_the_embedded_relay_s_description_is_read(tmp_path: Path) -> None:
    async with running(tmp_path / "events.sqlite") as relay, aiohttp.ClientSession() as session:
        found = await information_of(relay.url, session)
    assert found is not None
    assert {1, 11} <= found.supported_nips
    assert found.max_message_length
    assert found.max_subscriptions


async def test_a_relay_without_a_description_gives_none() -> None:
    relay = nostr_sdk.LocalRelayBuilder().addr("127.0.0.1").build()
    await relay.run()
    try:
        async with aiohttp.ClientSession() as session:
            assert await information_of(str(await relay.url()), session) is None
    finally:
        relay.shutdown()


async def test_nobody_there_gives_none() -> None:
    async with aiohttp.ClientSession() as session:
        assert await information_of("ws://127.0.0.1:1", session) is None


async def test_the_request_names_the_media_type_and_keeps_the_path() -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.path, request.headers["Accept"]))
        return web.json_response({"supported_nips": [1]})

    async with serving(answer) as url, aiohttp.ClientSession() as session:
        found = await information_of(url + "/inbox", session)
    assert found is not None
    assert found.supported_nips == {1}
    assert asked == [("/inbox", "application/nostr+json")]


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(400):
        await response.write(b" " * MAX_DOCUMENT_BYTES)
    return response


async def _silent(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.json_response({})


async def _redirect(request: web.Request) -> web.StreamResponse:
    if request.path == "/inside":
        return web.json_response({"name": "inside"})
    raise web.HTTPFound("/inside")


PACKED = gzip.compress(b'{"name":"x"}' + b" " * 30_000_000)


async def _bomb(request: web.Request) -> web.StreamResponse:
    return web.Response(body=PACKED, headers={"Content-Encoding": "gzip", "Content-Type": "application/nostr+json"})


async def _page(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>", content_type="text/html")


async def _fault(request: web.Request) -> web.StreamResponse:
    return web.json_response({"name": "x"}, status=500)


@pytest.mark.parametrize("handler", [_endless, _silent, _redirect, _bomb, _page, _fault])
async def test_what_a_hostile_relay_answers_counts_as_none_in_bounded_time(handler: Handler) -> None:
    async with serving(handler) as url, aiohttp.ClientSession() as session:
        began = time.monotonic()
        assert await information_of(url, session, timeout_s=0.5) is None
        assert time.monotonic() - began < 20


async def test_only_a_relay_s_address_is_asked() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(InvalidInput):
            await information_of("http://127.0.0.1:1", session)
