"""Redirects of file servers: each goes through the same fence, also to a server of our own, and they are few."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from core.clock import SystemClock
from node.message.blossom import MAX_REDIRECTS, Blossom
from node.message.error import FileUnreachable

BLOB = b"some bytes"
FOREIGN = "127.0.0.2"  # stands for an address of the public internet


@asynccontextmanager
async def served(host: str, location: Callable[[int], str]) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that redirects to `location(number of the request)`, or has the bytes where that is empty."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        to = location(len(asked))
        return web.Response(status=307, headers={"Location": to}) if to else web.Response(body=BLOB)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(*servers: str) -> AsyncIterator[Blossom]:
    made = Blossom(servers, SystemClock(), 1 << 20)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture(autouse=True)
def internet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relays.guard.is_public", lambda address: address == FOREIGN)


async def test_a_stranger_cannot_lead_us_to_the_operators_own_server() -> None:
    async with (
        served("127.0.0.1", lambda number: "") as (ours, seen),
        served(FOREIGN, lambda number: f"{ours}/admin") as (theirs, asked),
        client(ours) as blossom,
    ):
        with pytest.raises(FileUnreachable):
            await blossom.fetch(f"{theirs}/x", 100, 30.0)
        assert (len(asked), seen) == (1, [])
        assert await blossom.fetch(f"{ours}/x", 100, 30.0) == BLOB


async def test_one_of_our_servers_does_not_lead_us_into_our_network_nor_back_over_a_stranger() -> None:
    async with (
        served("127.0.0.1", lambda number: "") as (inner, seen),
        served("127.0.0.1", lambda number: f"{inner}/x") as (ours, _),
        client(ours, inner) as blossom,
    ):
        with pytest.raises(FileUnreachable):
            await blossom.fetch(f"{ours}/x", 100, 30.0)
        assert seen == []
    places: list[str] = []
    async with (
        served("127.0.0.1", lambda number: places[0] if number == 1 else "") as (ours, seen),
        served(FOREIGN, lambda number: f"{ours}/back") as (theirs, asked),
        client(ours) as blossom,
    ):
        places.append(f"{theirs}/x")
        with pytest.raises(FileUnreachable):
            await blossom.fetch(f"{ours}/x", 100, 30.0)
        assert (len(asked), seen) == (1, ["/x"])


async def test_a_server_of_ours_may_lead_on_to_itself_and_not_for_ever() -> None:
    async with (
        served("127.0.0.1", lambda number: "/x.bin" if number == 1 else "") as (ours, _),
        client(ours) as blossom,
    ):
        assert await blossom.fetch(f"{ours}/x", 100, 30.0) == BLOB
    for host in ("127.0.0.1", FOREIGN):
        own = [] if host == FOREIGN else [host]
        async with (
            served(host, lambda number: f"/{number}") as (place, asked),
            client(*(place for _ in own)) as blossom,
        ):
            with pytest.raises(FileUnreachable):
                await blossom.fetch(f"{place}/x", 100, 30.0)
            assert len(asked) == MAX_REDIRECTS + 1
