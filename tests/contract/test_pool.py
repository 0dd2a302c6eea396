"""What holds for the pool on every relay: our own, and the foreign ones, each a process of its own."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import settings

from core.clock import SystemClock
from node.storage.memory import MemoryDatabase
from relays.credential import Credentials
from relays.event import Draft, Event
from relays.filter import Filter
from relays.key import Key
from relays.local_signer import KeySigner
from relays.verdict import VerdictState
from tests.foreign_part import SORTS, Foreign, foreign_process
from tests.integration.relays.hostile_part import PERMIT, Collector, make_pool, note, serving, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

AUTHOR = Key.generate()
_DURABLE = {"ours", "nostr-relay", "nostr-relay-core", "khatru"}
AGENTS = 1_000
# Where each key needs a connection of its own they take turns, some ten a second: all thousand in `make torture`
AGENTS_APART = 1_000 if settings.get_current_profile_name() == "torture" else 60


def now() -> int:
    return int(time.time())


def sorts(names: list[str]) -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.needs(SORTS[name].needs)] if SORTS[name].needs else [], id=name)
        for name in names
    ]


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=sorts([name for name in SORTS if name != "khatru-normal"])
)
async def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Foreign]:
    """One process for all tests of a sort; each test has a topic of its own."""
    async with foreign_process(request.param, tmp_path_factory.mktemp("relay")) as running:
        yield running


@pytest.fixture
def subject() -> str:
    return secrets.token_hex(8)


def topic(text: str) -> list[Filter]:
    return [Filter(kinds=frozenset({1}), tags={"t": frozenset({text})})]


def said(text: str, topic_: str, ago: int = 0) -> Event:
    return note(AUTHOR, text, now() - ago, tags=(("t", topic_),))


async def publish(url: str, *events: Event) -> None:
    pool = make_pool(MemoryDatabase(), url, auth=credentials([]))
    async with serving(pool):
        await until(lambda: pool.is_up(url))
        for at in range(0, len(events), 50):
            verdicts = await asyncio.gather(*(pool.send(url, event, PERMIT) for event in events[at : at + 50]))
            assert [one for one in verdicts if one.state is not VerdictState.STORED] == []


async def test_stored_and_live_events_come_and_an_event_that_is_sent_twice_is_stored_once(
    peer: Foreign, subject: str
) -> None:
    url, got = peer.url, Collector()
    old = said("old", subject, 5)
    await publish(url, old, said("of another topic", "b"))
    pool = make_pool(MemoryDatabase(), url)
    pool.subscribe("topic", topic(subject), got)
    async with serving(pool):
        assert await pool.caught_up("topic", 10)
        assert got.ids == [old.id]
        live = said("live", subject)
        assert (await pool.send(url, live, PERMIT)).state is VerdictState.STORED
        assert (await pool.send(url, live, PERMIT)).state is VerdictState.STORED
        await until(lambda: got.ids == [old.id, live.id])
        async with asyncio.timeout(60):  # one relay answers from a cache for a second
            while {event.id for event in await pool.fetch(topic(subject), 10)} != {old.id, live.id}:
                await asyncio.sleep(0.2)
        assert [one.forged + one.malformed + one.off_filter for one in pool.health()] == [0]


async def test_more_than_any_answer_holds_is_read_page_by_page(peer: Foreign, subject: str) -> None:
    url, got = peer.url, Collector()
    events = [said(str(n), subject, 2_000 - n) for n in range(650)]
    await publish(url, *events)
    pool = make_pool(MemoryDatabase(), url)
    pool.subscribe("many", topic(subject), got)
    async with serving(pool):
        assert await pool.caught_up("many", 30)
    assert len(got.ids) == len(set(got.ids)) == 650


async def test_after_a_kill_reading_resumes_and_what_came_meanwhile_arrives(peer: Foreign, subject: str) -> None:
    database, got = MemoryDatabase(), Collector()
    first, second = said("first", subject, 20), said("second", subject, 10)
    await publish(peer.url, first)
    pool = make_pool(database, peer.url)
    pool.subscribe("topic", topic(subject), got)
    async with serving(pool):
        assert await pool.caught_up("topic", 10)
        await peer.kill()
        await until(lambda: not pool.is_up(peer.url))
        await peer.start()
        await publish(peer.url, second)
        await until(lambda: second.id in got.ids, 30)
        await until(lambda: pool.is_up(peer.url))
        live = said("live", subject)
        await publish(peer.url, live)
        await until(lambda: live.id in got.ids)
        assert got.ids.count(first.id) == 1
        if peer.name in _DURABLE:
            assert {event.id for event in await pool.fetch(topic(subject), 10)} == {first.id, second.id, live.id}


async def test_a_second_start_reads_on_and_hands_nothing_over_twice(peer: Foreign, subject: str) -> None:
    database, got = MemoryDatabase(), Collector()
    events = [said(str(n), subject, 40 - n) for n in range(30)]
    for part in (events[:20], events[20:]):
        await publish(peer.url, *part)
        pool = make_pool(database, peer.url)
        pool.subscribe("topic", topic(subject), got)
        async with serving(pool):
            assert await pool.caught_up("topic", 10)
    assert sorted(got.ids) == sorted(event.id for event in events)


async def test_an_audience_hears_what_its_keys_are_sent(peer: Foreign, subject: str) -> None:
    """Ephemeral or not, with AUTH or without: ours shows letters to their parties alone."""
    keys, got = [Key.generate() for _ in range(60)], Collector()
    before = [to(key, "before") for key in keys[:50]]
    await publish(peer.url, *before)
    pool = make_pool(MemoryDatabase(), peer.url, auth=credentials(keys))
    audience = pool.audience("dm", frozenset({1059}), "p", got, backdated=True)
    for key in keys[:50]:
        audience.add(key.pubkey)
    async with serving(pool):
        await until(lambda: len(got.events) == 50, 20)
        for key in keys[50:]:
            audience.add(key.pubkey)
        after = [to(key, "after") for key in keys]
        await publish(peer.url, *after)
        await until(lambda: len(got.events) == 110, 20)
        assert pool.health()[0].sockets <= 2


def to(key: Key, text: str) -> Event:
    ago = int(key.pubkey[:8], 16) % 100_000  # as NIP-59 has it, some time within two days
    return Key.generate().sign(Draft(1059, text, (("p", key.pubkey),), now() - ago))


def credentials(keys: list[Key]) -> Credentials:
    signers = [KeySigner(key) for key in keys]
    return Credentials(KeySigner(Key.generate()), lambda: signers, lambda relay, key: True, SystemClock())


@pytest_asyncio.fixture(loop_scope="module", params=sorts(["ours", "localrelay", "khatru"]))
async def guard(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Foreign]:
    async with foreign_process(request.param, tmp_path, auth=True) as running:
        yield running


async def test_a_thousand_agents_are_heard_on_a_relay_that_wants_authentication(guard: Foreign) -> None:
    count = AGENTS if guard.name == "ours" else AGENTS_APART
    keys, got = [Key.generate() for _ in range(count)], Collector()
    await publish(guard.url, *(to(key, "stored") for key in keys))
    pool = make_pool(MemoryDatabase(), guard.url, auth=credentials(keys))
    audience = pool.audience("dm", frozenset({1059}), "p", got, backdated=True)
    for key in keys:
        audience.add(key.pubkey)
    async with serving(pool):
        await until(lambda: len({event.id for event in got.events}) == count, 60 + count / 5)
        (health,) = pool.health()
        if guard.name == "ours":
            assert health.requests <= 12
            assert health.sockets == 1
        assert health.sockets <= 9  # where keys take turns: eight, and the main one
