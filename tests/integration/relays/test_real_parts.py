"""Pool and outbox with the embedded relay and the database of files: nothing is lost over restarts of either side."""

import asyncio
import time
from pathlib import Path

from core.clock import SystemClock
from node.storage.chain import unsigned_seal
from node.storage.database import open_database
from relays.filter import Filter
from relays.key import Key
from tests.integration.relays.embedded.relay_part import running
from tests.integration.relays.hostile_part import Collector, make_outbox, make_pool, note, serving

NOTES = [Filter(kinds=frozenset({1}))]


async def test_events_travel_from_outbox_to_handler_and_missed_ones_arrive_after_a_restart(tmp_path: Path) -> None:
    key, now = Key.generate(), int(time.time())
    async with running(tmp_path / "events.sqlite") as relay:
        here = await open_database(tmp_path / "here.sqlite", seal=unsigned_seal, clock=SystemClock())
        there = await open_database(tmp_path / "there.sqlite", seal=unsigned_seal, clock=SystemClock())
        sender, got = make_pool(here, relay.url), Collector()
        outbox = make_outbox(sender, here)
        try:
            async with serving(sender, outbox):
                events = [note(key, str(n), now - 2_000 + n) for n in range(1_300)]
                for begin, end in ((0, 100), (100, 1_300)):
                    reader = make_pool(there, relay.url)
                    rows = [row for event in events[begin:end] for row in outbox.rows(event, "effect")]
                    await here.commit(rows)
                    outbox.kick(rows)
                    async with asyncio.timeout(60):
                        while len(await here.select("outbox", {"state": "sent"})) < end:
                            await asyncio.sleep(0.02)
                    reader.subscribe("notes", NOTES, got)
                    async with serving(reader):
                        assert await reader.caught_up("notes", 20)
            assert sorted(set(got.ids)) == sorted(event.id for event in events)
            assert len(got.ids) <= len(events) + 100  # the second start asks again only for the overlap
            assert len(await here.select("outbox", {"state": "sent"})) == 1_300
        finally:
            await here.aclose()
            await there.aclose()
