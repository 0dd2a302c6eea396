"""A relay that is killed and frozen again and again, while 100 events a second flow: nothing is missed."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from core.clock import SystemClock
from node.storage.chain import unsigned_seal
from node.storage.database import Database, open_database
from relays import backoff
from relays.event import Event
from relays.filter import Filter
from relays.key import Key
from relays.pool import Pool
from tests.foreign_part import Foreign, foreign_process
from tests.integration.relays.hostile_part import Collector, make_outbox, make_pool, note, serving, until

KEY = Key.generate()
TORTURE = settings.get_current_profile_name() == "torture"
HITS = 20 if TORTURE else 3
RATE = 100


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    database = await open_database(path, seal=unsigned_seal, clock=SystemClock())
    try:
        yield database
    finally:
        await database.aclose()


async def hurt(peer: Foreign, pools: Sequence[Pool], chance: random.Random) -> None:
    for n in range(HITS):
        await until(lambda: all(pool.is_up(peer.url) for pool in pools), 30)  # each hit hits
        await asyncio.sleep(0.5 + chance.random())
        if n % 2:
            peer.freeze()
            await asyncio.sleep(2.5)  # longer than two pools of one second's heartbeat wait
            await until(lambda: not any(pool.is_up(peer.url) for pool in pools), 30)
            peer.thaw()
        else:
            await peer.kill()
            await asyncio.sleep(chance.random())
            await peer.start()


async def test_nothing_is_missed_through_kills_and_freezes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "HEALTHY_S", 0.3)  # else pauses grow to a minute, and most hits would find nobody
    sent: list[Event] = []
    got = Collector()
    async with (
        foreign_process("ours", tmp_path / "relay") as peer,
        opened(tmp_path / "here.sqlite") as here,
        opened(tmp_path / "there.sqlite") as there,
    ):
        sender, reader = make_pool(here, peer.url, heartbeat_s=1.0), make_pool(there, peer.url, heartbeat_s=1.0)
        outbox = make_outbox(sender, here)
        reader.subscribe("notes", [Filter(kinds=frozenset({1}))], got)
        async with serving(sender, outbox, reader):
            hurting = asyncio.create_task(hurt(peer, (sender, reader), random.Random(7)))
            while not hurting.done():
                event = note(KEY, str(len(sent)), int(time.time()))
                sent.append(event)
                rows = outbox.rows(event, "effect")
                await here.commit(rows)
                outbox.kick(rows)
                await asyncio.sleep(1 / RATE)
            await hurting
            await until(lambda: len(set(got.ids)) >= len(sent), 60)
            assert reader.health()[0].connects > HITS
        assert len(got.ids) == len(set(got.ids)) == len(sent) > 50 * HITS
        assert await here.select("outbox", {"state": "refused"}) == []
