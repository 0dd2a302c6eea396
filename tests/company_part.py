"""Several processes of one node on one PostgreSQL, each with a home of its own; and what can be seen from outside.

    async with company(tmp_path, Spec(…)) as (town, url):
        await town.nodes["one"].kill()
        await until(lambda: leads(town, "two"), "the other one to lead")

`one` and `two` are the processes; `one` is the steward when the block is entered.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from aiohttp import web

from node import home
from tests.market_part import Market, Spec, market, until, vendo
from tests.postgres_part import fresh_database

LEASE_S, RENEW_S = 5.0, 0.5
PLAIN = Spec()
FENCED = os.EX_TEMPFAIL
_QUICK = {
    "lease_s = 15.0": f"lease_s = {LEASE_S}",
    "renew_s = 3.0": f"renew_s = {RENEW_S}",
    "quote_window_ms = 1500": "quote_window_ms = 15000",  # it ends when all sellers have answered: every kind is sold
}


@asynccontextmanager
async def company(
    folder: Path,
    spec: Spec = PLAIN,
    others: Mapping[str, Spec | str] | None = None,
    *,
    mint: bool = False,
    proxy: "Proxy | None" = None,
    programs: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Market, str]]:
    """A market with nodes of their own (`others`), and one node in two processes. The database's URL comes with it.

    With a `proxy` everybody talks to the mint through it. `programs` are files `agents/NAME.py` of both processes.
    """
    url = await fresh_database(bare=True)  # which no other test is given while this one lasts
    async with market(folder, {}, mint=mint) as town:
        if proxy is not None:
            town.mint = await proxy.start(town.mint)
        try:
            for name, one in (others or {}).items():
                town.make(name, one if isinstance(one, Spec) else Spec(one))
                await town.up(name)
            storage = {'url = "sqlite:///node.db"': f'url = "{url}"'}
            town.make("one", replace(spec, replace=dict(spec.replace) | _QUICK | storage))
            for name, source in (programs or {}).items():
                place = town.homes["one"] / "agents"
                place.mkdir(mode=0o700, exist_ok=True)
                (place / f"{name}.py").write_text(source, encoding="utf-8")
            made = await vendo("init", "--home", str(folder / "two"), "--join", str(town.homes["one"]), "--json")
            assert made.code == 0, made
            town.homes["two"], town.rings["two"] = folder / "two", home.open_keyring(folder / "two")
            await town.up("one")
            await town.up("two")
            yield town, url
        finally:
            if proxy is not None:
                await proxy.stop()


async def processes(town: Market, name: str) -> dict[str, Any]:
    """What a process says of itself and the others."""
    found: dict[str, Any] = (await town.get(name, "node/status"))["processes"]
    return found


async def leads(town: Market, name: str) -> bool:
    """Whether a process is the steward and has taken everything up."""
    facts = await processes(town, name)
    if facts["steward"] != facts["me"]:
        return False
    async with town.http.get(town.url(name, "node/wallet/balance"), headers=town.headers(name)) as answer:
        return answer.status == 200


def pause(town: Market, name: str) -> None:
    """SIGSTOP: it stands still, and its sockets stay open."""
    town.nodes[name].process.send_signal(signal.SIGSTOP)


async def wake(town: Market, name: str, timeout: float = 60.0) -> int:
    """SIGCONT, and the exit code of a process that is to end by itself."""
    child = town.nodes[name]
    child.process.send_signal(signal.SIGCONT)
    code = await asyncio.wait_for(child.process.wait(), timeout)
    town.children.remove(child)
    del town.nodes[name]
    return code


async def rows(url: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the database holds, asked from outside."""
    db = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await db.fetch(sql, *values)]
    finally:
        await db.close()


class Delays:
    """By how much this process was late while the block ran: a busy machine holds up others just as long."""

    seconds = 0.0

    async def __aenter__(self) -> "Delays":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(0.01)
            self.seconds += max(0.0, loop.time() - before - 0.02)


class Proxy:
    """Between nodes and a mint. One swap can be held: before the mint has it, or after it was done."""

    def __init__(self) -> None:
        self.url = ""
        self.held = asyncio.Event()
        self.swaps = 0
        self._go = asyncio.Event()
        self._when = ""
        self._real = ""
        self._runner: web.ServerRunner | None = None
        self._http: aiohttp.ClientSession | None = None

    async def start(self, mint: str) -> str:
        """Stand before a mint; the address for everybody."""
        self._real, self._http = mint, aiohttp.ClientSession()
        self._runner = web.ServerRunner(web.Server(self._pass))  # any request will do
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self.url

    def hold(self, when: str) -> None:
        """Hold the next swap, `before` the mint is asked or `after` it has answered; `held` says that one is."""
        self._when = when
        self.held.clear()
        self._go.clear()

    def release(self) -> None:
        """Let what is held go on."""
        self._go.set()

    async def stop(self) -> None:
        """Let everything go, and end."""
        self._go.set()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._http is not None:
            await self._http.close()

    async def _pass(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        is_swap = request.path == "/v1/swap"
        self.swaps += is_swap
        when, self._when = (self._when, "") if is_swap else ("", self._when)
        if when == "before":
            await self._wait()
        answer = await self._ask(request, body)
        if when == "after":
            await self._wait()
        return answer

    async def _wait(self) -> None:
        self.held.set()
        await self._go.wait()

    async def _ask(self, request: web.BaseRequest, body: bytes) -> web.Response:
        assert self._http is not None
        headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
        async with self._http.request(
            request.method, self._real + request.path_qs, data=body, headers=headers
        ) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type or "application/json"
            )


async def holds(check: Callable[[], Awaitable[Any]], what: str, timeout: float = 60.0) -> Any:
    """As `until`, where a process may be away for a moment."""

    async def asked() -> Any:
        try:
            return await check()
        except (aiohttp.ClientError, TimeoutError):
            return None

    return await until(asked, what, timeout)
