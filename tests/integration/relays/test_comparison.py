"""NIP-77 in the pool, and looking again where a relay does not speak it."""

import asyncio
import time

import pytest

from node.storage.memory import MemoryDatabase
from relays import comparison, delivery
from relays.event import Event
from relays.filter import Filter
from relays.key import Key
from tests.integration.relays.hostile_part import Collector, make_pool, note, relay, serving, until

SENDER = Key.generate()
AGENT = "a" * 64
NIP_77 = {"supported_nips": [1, 77]}
WRAPS = [Filter(kinds=frozenset({1059}), tags={"p": frozenset({AGENT})})]


def now() -> int:
    return int(time.time())


def wrap(text: str, ago: int = 0) -> Event:
    return note(SENDER, text, now() - ago, kind=1059, tags=(("p", AGENT),))


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are looked for at once, and an event counts as lost when it has just been made."""
    monkeypatch.setattr(comparison, "SYNC_S", 1)
    monkeypatch.setattr(comparison, "SWEEP_S", 1)
    monkeypatch.setattr(delivery, "_ON_ITS_WAY_S", -1)


async def test_after_a_restart_of_the_relay_only_what_is_missing_is_fetched() -> None:
    async with relay() as part:
        part.information = NIP_77
        part.keep(*(wrap(str(n), n * 300) for n in range(500)))
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("dm", WRAPS, got, backdated=True)
        async with serving(pool):
            assert await pool.caught_up("dm", 10)
            assert len(got.events) == 500
            duplicates = pool.health()[0].duplicates
            await part.stop()
            missed = [wrap(f"missed {n}", n * 700) for n in range(220)]
            part.keep(*missed)
            part.requests.clear()
            await part.start()
            await until(lambda: len(got.events) == 720, 20)
            assert await pool.caught_up("dm", 5)
            by_id = [one["ids"] for _, filters in part.requests for one in filters if "ids" in one]
            assert sorted(key for ids in by_id for key in ids) == sorted(event.id for event in missed)
            assert all(len(ids) <= 100 for ids in by_id)
            assert pool.health()[0].duplicates - duplicates <= 3
            assert pool.health()[0].missed == 0  # nobody was connected: live delivery is not to blame


async def test_a_relay_that_refuses_to_compare_is_read_by_pages() -> None:
    async with relay() as part:
        part.information, part.refuse_compare = NIP_77, "blocked: too much"
        part.keep(wrap("old", 5_000))
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("dm", WRAPS, got, backdated=True)
        async with serving(pool):
            assert await pool.caught_up("dm", 5)
            await part.stop()
            part.keep(*(wrap(f"missed {n}", 100 + n) for n in range(30)))
            await part.start()
            await until(lambda: len(got.events) == 31, 20)
            assert await pool.caught_up("dm", 5)
        assert part.compared


@pytest.mark.parametrize("speaks", [True, False])
@pytest.mark.usefixtures("eager")
async def test_what_live_delivery_misses_is_found_counted_and_asked_for_anew(speaks: bool) -> None:
    async with relay() as part:
        part.information = NIP_77 if speaks else None
        part.keep(wrap("first"))
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("dm", WRAPS, got, backdated=True)
        async with serving(pool):
            assert await pool.caught_up("dm", 5)
            for session in part.sessions:
                session.subs.clear()  # the relay forgets what it was asked, and says nothing
            lost = wrap("lost")
            part.keep(lost)
            await part.broadcast(lost)
            await until(lambda: lost.id in got.ids, 60)
            assert pool.health()[0].missed == 1
            async with asyncio.timeout(60):
                while len(got.events) < 3:  # these are not stored: only a live subscription brings them
                    await part.broadcast(wrap("live again"))
                    await asyncio.sleep(0.1)


async def test_a_relay_that_answers_junk_or_not_at_all_is_read_by_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SILENCE_S", 0.5)
    for junk in ("zz", None):
        async with relay() as part:
            part.information = NIP_77
            part.keep(wrap("old", 100))
            got = Collector()
            pool = make_pool(MemoryDatabase(), part.url)
            pool.subscribe("dm", WRAPS, got, backdated=True)

            async def compare(session, frame, junk=junk):
                if junk is not None:
                    await session.say("NEG-MSG", frame[1], junk)

            monkeypatch.setattr(part, "_compare", compare)
            async with serving(pool):
                assert await pool.caught_up("dm", 5)
                await part.stop()
                part.keep(wrap("new", 50))
                await part.start()
                await until(lambda got=got: len(got.events) == 2, 60)
                assert await pool.caught_up("dm", 5)


async def test_a_second_with_more_events_than_an_answer_holds_is_filled_by_comparing() -> None:
    async with relay() as part:
        part.information, part.cap = NIP_77, 100
        second = now() - 500
        events = [note(SENDER, str(n), second, kind=1059, tags=(("p", AGENT),)) for n in range(250)]
        part.keep(*events)
        got = Collector()
        pool = make_pool(MemoryDatabase(), part.url)
        pool.subscribe("dm", WRAPS, got, backdated=True)
        async with serving(pool):
            await until(lambda: len(got.events) == 250, 60)
        assert sorted(got.ids) == sorted(event.id for event in events)
