"""`/metrics` over HTTP: for the operator alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from core.error import NotFound
from fs.namespace import Namespace
from fs.session import Role
from node.http.control import ControlPlane
from node.http.metric import relay_metrics
from node.http.token import Grant, Tokens, digest
from node.storage.memory import MemoryDatabase
from relays.health import RelayHealth

STATES = [(RelayHealth("wss://one", up=True, received=3), True)]
TOKENS = Tokens(
    [
        (digest("operator-token"), Grant("operator", Role.OPERATOR)),
        (digest("agent-token"), Grant("agent:a", Role.AGENT)),
    ]
)


@asynccontextmanager
async def listening() -> AsyncIterator[str]:
    def nobody(name: str) -> Namespace:
        raise NotFound

    async def none() -> list[dict[str, str]]:
        return []

    plane = ControlPlane(nobody, none, TOKENS, MemoryDatabase(), metrics=lambda: relay_metrics(STATES))
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(plane.run(ready, stop))
    await ready.wait()
    try:
        yield plane.url
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)


async def test_the_operator_reads_the_numbers_as_prometheus_text() -> None:
    headers = {"Authorization": "Bearer operator-token", "Accept": "text/plain;version=0.0.4"}
    async with listening() as url, aiohttp.ClientSession(headers=headers) as http, http.get(f"{url}/metrics") as answer:
        text = await answer.text()
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
    assert 'vendo_relay_received_total{relay="wss://one"} 3' in text.splitlines()


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("wrong", 401), ("agent-token", 404)])
async def test_nobody_else_does(token: str | None, status: int) -> None:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with listening() as url, aiohttp.ClientSession(headers=headers) as http, http.get(f"{url}/metrics") as answer:
        assert answer.status == status
        assert "wss://one" not in await answer.text()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_the_numbers_are_only_read(method: str) -> None:
    headers = {"Authorization": "Bearer operator-token"}
    async with (
        listening() as url,
        aiohttp.ClientSession(headers=headers) as http,
        http.request(method, f"{url}/metrics") as answer,
    ):
        assert answer.status == 404
