"""A process takes its place among those of its node, and of no other's."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from core.clock import SystemClock
from core.unit import Insert
from node.config import parse, render
from node.gate.error import ForeignLedger
from node.home import Lock
from node.share.company import Company
from node.share.sharing import join
from node.storage.chain import unsigned_seal
from node.storage.database import open_database
from relays.key import Key
from tests.postgres_part import fresh_database

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(60)]
NODE, OTHER = Key(b"\x01" * 32).pubkey, Key(b"\x02" * 32).pubkey
CONFIG = parse(render(owner=Key(b"\x03" * 32).npub, relays=("ws://127.0.0.1:9",), mints=(), port=0))


async def _joined(stack: AsyncExitStack, url: str, home: Path, node: str = NODE) -> Company:
    home.mkdir(exist_ok=True)
    lock = stack.enter_context(Lock(home))
    database = await open_database(url, seal=unsigned_seal, clock=SystemClock())
    stack.push_async_callback(database.aclose)
    made = await join(database, url, CONFIG, home, lock, node, stack)  # a public key
    assert made is not None
    return made


async def _leases(url: str) -> dict[str, str]:
    db = await asyncpg.connect(url)
    try:
        return {row["name"]: row["holder"] for row in await db.fetch("SELECT name, holder FROM lease")}
    finally:
        await db.close()


async def test_whoever_ends_before_it_ran_has_left_in_order(tmp_path: Path) -> None:
    url = await fresh_database()
    async with AsyncExitStack() as stack:
        one = await _joined(stack, url, tmp_path / "one")
        two = await _joined(stack, url, tmp_path / "two")
        assert (one.leads, two.leads, one.slot, two.slot) == (True, False, 0, 1)
        assert await one.health() is None
        assert set((await _leases(url)).values()) != {""}
    assert set((await _leases(url)).values()) == {""}


async def test_a_process_with_other_keys_is_turned_away_before_it_stands_among_the_others(tmp_path: Path) -> None:
    url = await fresh_database()
    database = await open_database(url, seal=unsigned_seal, clock=SystemClock())
    await database.commit([Insert("meta", {"key": "node", "value": NODE})])
    await database.aclose()
    async with AsyncExitStack() as stack:
        with pytest.raises(ForeignLedger):
            await _joined(stack, url, tmp_path / "stranger", OTHER)
    assert await _leases(url) == {}


async def test_a_node_on_a_file_is_alone(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(Lock(tmp_path))
        database = await open_database(tmp_path / "node.db", seal=unsigned_seal, clock=SystemClock())
        stack.push_async_callback(database.aclose)
        assert await join(database, tmp_path / "node.db", CONFIG, tmp_path, lock, NODE, stack) is None


async def test_members_ring_each_other_and_one_that_leaves_is_missed_at_once(tmp_path: Path) -> None:
    url = await fresh_database()
    heard: list[str] = []
    async with AsyncExitStack() as stack:
        one = await _joined(stack, url, tmp_path / "one")
        two = await _joined(stack, url, tmp_path / "two")
        two.bell.on("agents", lambda names: heard.extend(names))
        stop, tasks = asyncio.Event(), []
        for name, part in two.parts:
            ready = asyncio.Event()
            tasks.append(asyncio.create_task(part.run(ready, stop), name=name))
            await ready.wait()
        ringing = asyncio.create_task(one.bell.run(asyncio.Event(), stop))
        one.bell.agents(["anna"])
        async with asyncio.timeout(5):
            while not heard:
                await asyncio.sleep(0.01)
        await one.member.leave()
        async with asyncio.timeout(2):  # a renewal is 3 s away
            await two.member.leading.wait()
        stop.set()
        await asyncio.gather(*tasks, ringing)
    assert heard == ["anna"]


def test_a_lock_has_the_same_name_for_whoever_holds_it_and_another_one_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Lock(tmp_path) as first, Lock(tmp_path / "other") as other:
        names = {first.name, other.name}
    with Lock(tmp_path) as again:
        assert again.name in names
    assert len(names) == 2
