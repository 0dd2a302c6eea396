"""The directory and the overview over real sockets: our relay, an indexer that is not ours, and what each says."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from core.clock import SystemClock
from node.http.metric import relay_metrics
from node.overview import RelayOverview
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from relays.directory import Directory
from relays.event import Event
from relays.key import Key
from relays.message import encode_raw
from relays.nip65 import dm_relays_draft, relay_list_draft
from relays.pool import Pool
from tests.integration.relays.embedded.relay_part import running
from tests.integration.relays.hostile_part import make_pool, serving

PERSON = Key.generate()
THERE = "wss://inbox.example"


async def put(url: str, *events: Event) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        for event in events:
            await socket.send_str(encode_raw("EVENT", None, event.to_json()))
            while (frame := (await socket.receive_json(timeout=5)))[0] != "OK":
                continue
            assert frame[2] is True, frame


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def stored(path: Path) -> AsyncIterator[Database]:
    database = await open_database(path, seal=unsigned_seal, clock=SystemClock())
    try:
        yield database
    finally:
        await database.aclose()


async def connected(pool: Pool) -> None:
    async def is_up() -> bool:
        return all(pool.is_up(url) for url in pool.urls)

    await until(is_up)


async def test_a_person_s_lists_are_found_at_our_relay_and_kept_over_a_restart(tmp_path: Path) -> None:
    now = int(time.time())
    async with running(tmp_path / "relay.sqlite") as relay, stored(tmp_path / "here.sqlite") as db:
        await put(
            relay.url, PERSON.sign(dm_relays_draft([THERE], now)), PERSON.sign(relay_list_draft([THERE], [], now))
        )
        pool = make_pool(db, relay.url)
        directory = Directory(pool, db, SystemClock())
        assert await directory.relays_for_dm(PERSON.pubkey) is None  # nobody could be asked yet
        async with serving(pool):
            await connected(pool)
            assert await directory.relays_for_dm(PERSON.pubkey) == (THERE,)
            assert await directory.read_relays(PERSON.pubkey) == (THERE,)
        assert await Directory(pool, db, SystemClock()).relays_for_dm(PERSON.pubkey) == (THERE,)


async def test_lists_are_found_at_an_indexer_that_is_none_of_our_relays(tmp_path: Path) -> None:
    now = int(time.time())
    async with (
        running(tmp_path / "ours.sqlite") as ours,
        running(tmp_path / "index.sqlite") as index,
        stored(tmp_path / "here.sqlite") as db,
    ):
        await put(index.url, PERSON.sign(dm_relays_draft([THERE], now)))
        pool = make_pool(db, ours.url, known=[index.url])
        async with serving(pool):
            await connected(pool)
            assert await Directory(pool, db, SystemClock()).relays_for_dm(PERSON.pubkey) is None
        async with (
            stored(tmp_path / "there.sqlite") as fresh,
            serving(again := make_pool(fresh, ours.url, known=[index.url])),
        ):
            await connected(again)
            directory = Directory(again, fresh, SystemClock(), indexers=[index.url])
            assert await directory.relays_for_dm(PERSON.pubkey) == (THERE,)


async def test_a_list_that_names_a_relay_on_this_machine_does_not_make_us_connect_to_it(tmp_path: Path) -> None:
    now = int(time.time())
    async with (
        running(tmp_path / "ours.sqlite") as ours,
        running(tmp_path / "inside.sqlite") as inside,
        stored(tmp_path / "here.sqlite") as db,
    ):
        await put(inside.url, PERSON.sign(dm_relays_draft([THERE], now)))
        await put(ours.url, PERSON.sign(relay_list_draft([inside.url], [inside.url], now)))
        pool = make_pool(db, ours.url)
        async with serving(pool):
            await connected(pool)
            directory = Directory(pool, db, SystemClock())
            assert await directory.relays_for_dm(PERSON.pubkey) is None
            assert await directory.write_relays(PERSON.pubkey) == ()
            assert [state.url for state in pool.health()] == [ours.url]


async def test_the_operator_sees_how_a_relay_is_and_what_it_says_of_itself(tmp_path: Path) -> None:
    async with running(tmp_path / "relay.sqlite") as relay, stored(tmp_path / "here.sqlite") as db:
        pool = make_pool(db, relay.url)
        overview = RelayOverview(pool, db)
        async with serving(pool):

            async def has_spoken() -> bool:
                return (await overview.relays())[0]["information"] is not None

            await until(has_spoken, 15)
            row = (await overview.relays())[0]
            assert (row["url"], row["ours"], row["up"], row["connects"]) == (relay.url, True, True, 1)
            assert 77 in row["information"]["supported_nips"]
            assert row["information"]["limitation"]["max_subscriptions"] > 0
            assert abs(row["asked_at"] - time.time()) < 60
            assert f'vendo_relay_up{{relay="{relay.url}"}} 1' in relay_metrics(overview.counters()).splitlines()
