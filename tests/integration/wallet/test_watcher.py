"""A mint's websocket: the real one tells at once, and one that misbehaves only costs time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from core.clock import SystemClock
from core.effect import Permit
from core.money import Msat
from node.storage.memory import MemoryDatabase
from relays.key import Keyring, new_words
from tests.mint_part import running_mint
from tests.wallet_part import EFFECT, PERMIT, HandClock, allow
from wallet.cashu.mint import MintClient
from wallet.cashu.subscription import MAX_FRAME, Topic
from wallet.cashu.watcher import Watcher, watchers
from wallet.model import LockTerms
from wallet.payment import State
from wallet.wallet import Wallet

CLOCK = SystemClock()
HANGS_S = 60
Y = "02" + "ab" * 32
FOREIGN = '{"method": "subscribe", "params": {"subId": "other", "payload": {"state": "SPENT"}}}'


class NotedClock(HandClock):
    """Remembers how long others slept."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds)
        await asyncio.sleep(0)


class Bell:
    """Counts, and can be waited for."""

    def __init__(self) -> None:
        self.count, self._rung = 0, asyncio.Event()

    def ring(self) -> None:
        self.count += 1
        self._rung.set()

    async def rung(self) -> None:
        await asyncio.wait_for(self._rung.wait(), HANGS_S)
        self._rung.clear()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_real_mint_tells_when_a_locked_payment_was_taken(
    tmp_path_factory: pytest.TempPathFactory, http: aiohttp.ClientSession
) -> None:
    async with running_mint(tmp_path_factory.mktemp("mint")) as url:

        def wallet(words: str) -> Wallet:
            mint = MintClient(url, http, allow)
            return Wallet(
                MemoryDatabase(), Keyring(words), CLOCK, allow, [mint], permit_for=Permit,
                watchers=watchers([url], http, CLOCK),
            )  # fmt: skip

        buyer, seller = wallet(new_words()), wallet(new_words())
        await buyer.deposit("deposit", url, 100, EFFECT, PERMIT)
        assert (await buyer.poll("deposit")).state is State.DONE
        ready, stop, bell = asyncio.Event(), asyncio.Event(), Bell()
        running = asyncio.create_task(buyer.run(ready, stop))
        for turn in ("one", "two"):
            terms = LockTerms(url, Msat.of_sat(10), seller.key.compressed, CLOCK.now() + 600, quote_id=turn)
            locked = await buyer.lock(turn, terms, Msat.of_sat(20), EFFECT, PERMIT)
            with buyer.watching(url, locked.ys, bell.ring):
                await seller.claim(f"claim {turn}", locked.payload, EFFECT, PERMIT)
                await bell.rung()
                assert (await buyer.spent(url, locked.ys)).state in ("SPENT", "PENDING")
        stop.set()
        await running


Talk = Callable[[web.WebSocketResponse], Awaitable[None]]


@asynccontextmanager
async def served(talk: Talk) -> AsyncIterator[str]:
    """A mint's address where only the websocket answers, and says what the test wants."""

    async def handle(request: web.Request) -> web.WebSocketResponse:
        link = web.WebSocketResponse()
        await link.prepare(request)
        await talk(link)
        return link

    app = web.Application()
    app.router.add_get("/v1/ws", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _asked(link: web.WebSocketResponse) -> str:
    """The name of the first subscription that is asked for."""
    return str((await link.receive_json(timeout=HANGS_S))["params"]["subId"])


async def _say(link: web.WebSocketResponse, name: str, state: str) -> None:
    body = {"subId": name, "payload": {"Y": Y, "state": state}}
    await link.send_json({"jsonrpc": "2.0", "method": "subscribe", "params": body})


async def test_a_socket_that_was_lost_is_opened_again(http: aiohttp.ClientSession) -> None:
    async def talk(link: web.WebSocketResponse) -> None:
        await _say(link, await _asked(link), "SPENT")
        await link.close()

    bell = Bell()
    async with AsyncExitStack() as stack:
        watcher = Watcher(await stack.enter_async_context(served(talk)), http, HandClock())
        stack.push_async_callback(watcher.aclose)
        with watcher.watching(Topic.COINS, [Y], bell.ring):
            for _ in range(3):
                await bell.rung()


@pytest.mark.parametrize(
    "frames",
    [["{", "[]", "7"], ["x" * (MAX_FRAME * 2)], [FOREIGN]],
    ids=["no sense", "too long", "of somebody else"],
)
async def test_what_makes_no_sense_rings_for_nobody(http: aiohttp.ClientSession, frames: list[str]) -> None:
    said = asyncio.Event()

    async def talk(link: web.WebSocketResponse) -> None:
        name = await _asked(link)
        for frame in frames:
            await link.send_str(frame)
        if said.is_set():
            await _say(link, name, "SPENT")
        said.set()
        await link.close()

    bell = Bell()
    async with AsyncExitStack() as stack:
        watcher = Watcher(await stack.enter_async_context(served(talk)), http, HandClock())
        stack.push_async_callback(watcher.aclose)
        with watcher.watching(Topic.COINS, [Y], bell.ring):
            await asyncio.wait_for(said.wait(), HANGS_S)
            assert bell.count == 0
            if len(frames[0]) < MAX_FRAME:  # the later connection says something true after the same nonsense
                await bell.rung()


async def test_without_a_websocket_nothing_happens_and_the_tries_grow_rare(http: aiohttp.ClientSession) -> None:
    clock = NotedClock()
    watcher = Watcher("http://127.0.0.1:9", http, clock)
    with watcher.watching(Topic.COINS, [Y], Bell().ring):
        async with asyncio.timeout(HANGS_S):
            while len(clock.slept) < 12:
                await asyncio.sleep(0.01)
    assert clock.slept[:12] == sorted(clock.slept[:12])
    assert clock.slept[11] == 300.0
    await watcher.aclose()


async def test_the_socket_is_closed_when_nothing_is_watched_any_more(http: aiohttp.ClientSession) -> None:
    closed = asyncio.Event()

    async def talk(link: web.WebSocketResponse) -> None:
        await _say(link, await _asked(link), "SPENT")
        async for _ in link:
            pass
        closed.set()

    bell = Bell()
    async with AsyncExitStack() as stack:
        watcher = Watcher(await stack.enter_async_context(served(talk)), http, HandClock())
        stack.push_async_callback(watcher.aclose)
        with watcher.watching(Topic.COINS, [Y], bell.ring):
            await bell.rung()
        await asyncio.wait_for(closed.wait(), HANGS_S)


async def test_one_socket_serves_a_payment_after_another_and_is_heard_while_it_is_open(
    http: aiohttp.ClientSession,
) -> None:
    sockets, ended = list[web.WebSocketResponse](), asyncio.Event()

    async def talk(link: web.WebSocketResponse) -> None:
        sockets.append(link)
        for _ in range(2):
            asked = await link.receive_json(timeout=HANGS_S)
            while asked["method"] != "subscribe":
                asked = await link.receive_json(timeout=HANGS_S)
            name = asked["params"]["subId"]
            await link.send_json({"jsonrpc": "2.0", "result": {"status": "OK", "subId": name}, "id": asked["id"]})
            await _say(link, name, "SPENT")
        await asyncio.wait_for(ended.wait(), HANGS_S)
        await link.close()

    bell = Bell()
    async with AsyncExitStack() as stack:
        watcher = Watcher(await stack.enter_async_context(served(talk)), http, CLOCK)
        stack.push_async_callback(watcher.aclose)
        with watcher.watching(Topic.COINS, [Y], bell.ring) as watch:
            assert not watch.heard
            await bell.rung()
            assert watch.heard
        with watcher.watching(Topic.COINS, [Y], bell.ring) as watch:
            await bell.rung()
            assert watch.heard
            ended.set()
            async with asyncio.timeout(HANGS_S):
                while watch.heard:
                    await asyncio.sleep(0.01)
    assert len(sockets) == 1


@pytest.mark.parametrize("kind", ["promises", "changes"])
async def test_a_mint_that_never_stops_talking_leaves_the_loop_to_others(
    http: aiohttp.ClientSession, kind: str
) -> None:
    async def talk(link: web.WebSocketResponse) -> None:
        name = await _asked(link)
        promise = {"jsonrpc": "2.0", "result": {"status": "OK", "subId": name}, "id": 1}
        with contextlib.suppress(ConnectionError):
            for _ in range(20_000):
                if kind == "promises":
                    await link.send_json(promise)
                else:
                    await _say(link, name, "SPENT")

    read = Bell()
    async with AsyncExitStack() as stack:
        clock = NotedClock()
        watcher = Watcher(await stack.enter_async_context(served(talk)), http, clock)
        stack.push_async_callback(watcher.aclose)
        with watcher.watching(Topic.COINS, [Y], read.ring) as watch:
            async with asyncio.timeout(HANGS_S):
                while len(clock.slept) < 50:  # a pause after every frame, whatever it says
                    await asyncio.sleep(0.01)
            assert watch.heard is (kind == "promises")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_mint_cannot_send_us_elsewhere(http: aiohttp.ClientSession, status: int) -> None:
    asked: list[str] = []
    clock = NotedClock()

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/inside"})

    app = web.Application()
    app.router.add_get("/{tail:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    watcher = Watcher(f"http://127.0.0.1:{runner.addresses[0][1]}", http, clock)
    try:
        with watcher.watching(Topic.COINS, [Y], Bell().ring):
            async with asyncio.timeout(HANGS_S):
                while len(clock.slept) < 3:
                    await asyncio.sleep(0.01)
        assert set(asked) == {"/v1/ws"}
    finally:
        await watcher.aclose()
        await runner.cleanup()
