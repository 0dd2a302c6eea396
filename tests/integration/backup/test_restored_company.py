"""A node restored into a shared database: none of its processes acts before one of them has adopted the copy."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import orjson
import pytest

from core.clock import SystemClock
from core.unit import Insert
from node import app
from node import home as homes
from node.agent.inbox.row import envelope
from node.agent.wake.alarm import set_alarm
from node.backup.unpack import RESTORED
from node.config import load
from node.gate.ledger import ledger_seal
from node.service import Part, Service, serve
from node.share.sharing import EVERYWHERE, join
from node.storage.database import open_database
from tests.postgres_part import fresh_database

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(60)]
TAKEN = 1_700_000_000
DUE_MS = TAKEN * 1_000 + 5_000
ACTS = (*EVERYWHERE, "steward")


class Watched:
    """A part that says what the database held when it began."""

    def __init__(self, part: Service, node: app.Node, seen: list[str]) -> None:
        self._part, self._node, self._seen = part, node, seen

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        rows = await self._node.database.select("inbox", {"envelope_id": "waited"})
        self._seen.append(rows[0]["state"])
        await self._part.run(ready, stop)


class Process:
    """One of them. `seen` is what its acting parts saw when they began; `waiting`: it came to the threshold."""

    def __init__(self, node: app.Node) -> None:
        self.node, self.seen = node, list[str]()
        self.started, self.waiting, self.stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self.node.prepare()
        parts = self.node.parts
        watched = [(name, Watched(one, self.node, self.seen) if name in ACTS else one) for name, one in parts]
        at = [name for name, _ in parts].index("threshold")
        watched.insert(at, ("comes to the threshold", Part(self._come)))
        await serve(watched, self.stop, started=self.started)

    async def _come(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        self.waiting.set()
        ready.set()
        await stop.wait()

    async def end(self) -> None:
        self.stop.set()
        if self._running is not None:
            await asyncio.wait_for(self._running, 60)


async def process(stack: AsyncExitStack, home: Path) -> Process:
    """It has its place among the others, and does nothing yet."""
    lock, config, keyring = stack.enter_context(homes.Lock(home)), load(home), homes.open_keyring(home)
    url = str(homes.database_of(home, config.storage))
    database = await open_database(url, seal=ledger_seal(keyring.node), clock=SystemClock())
    stack.push_async_callback(database.aclose)
    company = await join(database, url, config, home, lock, keyring.node.pubkey, stack)
    http = await stack.enter_async_context(aiohttp.ClientSession())
    executor = stack.enter_context(ThreadPoolExecutor(1))
    made = Process(app.Node(config, keyring, database, app.Outside(http, executor), homes.read_token(home), company))
    stack.push_async_callback(made.end)
    return made


@pytest.fixture
async def two_homes(tmp_path: Path) -> tuple[Path, Path]:
    """Two homes of one node on a database that was restored, with a trigger and an alarm that are due."""
    url, first, second = await fresh_database(), tmp_path / "one", tmp_path / "two"
    made = homes.create(first, relays=["ws://127.0.0.1:9"], mints=[], port=0)
    homes.create(second, relays=["ws://127.0.0.1:9"], mints=[], port=0, words=made.words)
    for home in (first, second):
        text = (home / "config.toml").read_text().replace("sqlite:///node.db", url)
        (home / "config.toml").write_text(text)
    database = await open_database(url, seal=ledger_seal(homes.open_keyring(first).node), clock=SystemClock())
    mark = {"id": "ab", "taken_at": TAKEN, "restored_at": TAKEN + 100, "moved": False}
    waited = envelope("anna", "waited", cause="message", source="s", sender="x", payload="{}", at=TAKEN)
    alarm = set_alarm("anna", "due", TAKEN * 1_000, at_ms=DUE_MS)
    await database.commit([Insert("meta", {"key": RESTORED, "value": orjson.dumps(mark).decode()}), waited, *alarm])
    await database.aclose()
    return first, second


async def test_none_of_them_acts_before_the_leader_has_adopted_the_copy(two_homes: tuple[Path, Path]) -> None:
    async with AsyncExitStack() as stack:
        leader, other = [await process(stack, home) for home in two_homes]
        other.begin()
        async with asyncio.timeout(60):
            await other.waiting.wait()
            assert other.seen == []
            leader.begin()
            await leader.started.wait()
            await other.started.wait()
        assert set(leader.seen) == set(other.seen) == {"dead"}
        rung = await leader.node.database.select("inbox", {"envelope_id": f"alarm:due:{DUE_MS}"})
        assert [row["state"] for row in rung] == ["dead"]
