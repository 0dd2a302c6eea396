"""Other people's relay lists: the newest signed word, remembered, refreshed, and never a way into our own network."""

import asyncio
from collections.abc import Sequence

import pytest

from core.unit import Insert
from node.storage.memory import MemoryDatabase
from relays import directory as module
from relays.directory import FRESH_S, NEGATIVE_S, TABLE, Directory
from relays.event import Draft, Event, tags
from relays.filter import Filter
from relays.key import Key
from relays.kind import DM_RELAYS, RELAY_LIST
from relays.nip65 import dm_relays_draft, relay_list_draft

OURS = "ws://127.0.0.1:7777"
INDEXER = "wss://index.example"
A, B, HOME = "wss://a.example", "wss://b.example", "wss://home.example"
PERSON = Key(b"\x0a" * 32)
START = 1_700_000_000


class Shelves:
    """Relays that hold events and say who asked them for what."""

    def __init__(self) -> None:
        self.urls: tuple[str, ...] = (OURS,)
        self.up = True
        self.held: dict[str, list[Event]] = {}
        self.asked: list[tuple[tuple[str, ...], Filter]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def is_up(self, url: str) -> bool:
        return self.up

    async def fetch(
        self, filters: Sequence[Filter], timeout: float, relays: Sequence[str] | None = None
    ) -> list[Event]:
        where = tuple(relays or self.urls)
        self.asked += [(where, one) for one in filters]
        await self.gate.wait()
        if not self.up:
            return []
        return [
            event for url in where for event in self.held.get(url, []) if any(one.matches(event) for one in filters)
        ]

    def hold(self, url: str, *events: Event) -> None:
        self.held.setdefault(url, []).extend(events)


class Clock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> int:
        return self.at

    def millis(self) -> int:
        return self.at * 1000

    def monotonic(self) -> float:
        return float(self.at)

    async def sleep(self, seconds: float) -> None:
        self.at += int(seconds)


def messages_at(*urls: str, at: int = START - 100, key: Key = PERSON) -> Event:
    return key.sign(dm_relays_draft(urls, at))


def lists(read: Sequence[str], write: Sequence[str], at: int = START - 100) -> Event:
    return PERSON.sign(relay_list_draft(read, write, at))


class Setting:
    def __init__(self, indexers: Sequence[str] = ()) -> None:
        self.shelves, self.db, self.clock = Shelves(), MemoryDatabase(), Clock()
        self.indexers = indexers
        self.directory = self.again()

    def again(self) -> Directory:
        self.directory = Directory(self.shelves, self.db, self.clock, indexers=self.indexers)
        return self.directory


@pytest.fixture
async def here() -> Setting:
    return Setting()


async def test_the_lists_that_a_person_published_are_found(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at(A, B), lists([A], [B]))
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A, B)
    assert await here.directory.read_relays(PERSON.pubkey) == (A,)
    assert await here.directory.write_relays(PERSON.pubkey) == (B,)
    assert len(here.shelves.asked) == 1  # one question for all of it


async def test_whoever_has_no_list_is_not_ready_and_is_not_asked_for_again_at_once(here: Setting) -> None:
    assert await here.directory.relays_for_dm(PERSON.pubkey) is None
    assert await here.directory.read_relays(PERSON.pubkey) == ()
    assert len(here.shelves.asked) == 1
    here.shelves.hold(OURS, messages_at(A))
    here.clock.at += NEGATIVE_S
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,)


async def test_an_empty_list_means_that_no_messages_are_taken(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at())
    assert await here.directory.relays_for_dm(PERSON.pubkey) is None


async def test_the_newest_list_counts_and_of_two_from_one_second_that_with_the_smaller_id(here: Setting) -> None:
    tied = sorted([messages_at(A), messages_at(B)], key=lambda event: event.id)
    here.shelves.hold(OURS, tied[1], messages_at(HOME, at=START - 200), tied[0])
    expected = tied[0].values("relay")
    assert list(await here.directory.relays_for_dm(PERSON.pubkey) or ()) == expected


async def test_an_older_list_does_not_replace_the_one_that_is_known(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at(A))
    await here.directory.relays_for_dm(PERSON.pubkey)
    here.shelves.held[OURS] = [messages_at(B, at=START - 900)]
    here.clock.at += FRESH_S
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,)


async def test_a_list_is_refreshed_after_a_day_and_not_before(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at(A), lists([A], [OURS]))
    await here.directory.relays_for_dm(PERSON.pubkey)
    here.shelves.hold(OURS, messages_at(B, at=START + 5))
    here.clock.at += FRESH_S - 1
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,)
    here.clock.at += 1
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (B,)


async def test_what_was_found_outlives_a_restart(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at(A), lists([A], [B]))
    await here.directory.relays_for_dm(PERSON.pubkey)
    here.shelves.up = False
    assert await here.again().relays_for_dm(PERSON.pubkey) == (A,)
    assert len(here.shelves.asked) == 1


async def test_a_stale_list_serves_while_nobody_can_be_asked_and_silence_is_not_taken_for_none(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at(A))
    await here.directory.relays_for_dm(PERSON.pubkey)
    here.clock.at += 10 * FRESH_S
    here.shelves.up = False
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,)
    assert await here.directory.relays_for_dm(Key(b"\x0b" * 32).pubkey) is None
    here.shelves.up = True
    here.shelves.hold(OURS, messages_at(B, key=Key(b"\x0b" * 32)))
    assert await here.directory.relays_for_dm(Key(b"\x0b" * 32).pubkey) == (B,)


async def test_a_list_never_leads_into_our_own_network_except_to_our_own_relays(here: Setting) -> None:
    inside = ["ws://127.0.0.1:22", "ws://10.0.0.1", "ws://localhost:7777", "ws://169.254.169.254"]
    here.shelves.hold(OURS, messages_at(*inside, OURS, A), lists([*inside, A], [OURS, *inside]))
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (OURS, A)
    assert await here.directory.read_relays(PERSON.pubkey) == (A,)
    assert await here.directory.write_relays(PERSON.pubkey) == (OURS,)


async def test_the_message_list_is_looked_for_where_the_person_writes(here: Setting) -> None:
    here.shelves.hold(OURS, lists([A], [HOME, "ws://10.0.0.9", *[f"wss://w{n}.example" for n in range(6)]]))
    here.shelves.hold(HOME, messages_at(B))
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (B,)
    assert [where for where, _ in here.shelves.asked] == [(OURS,), (HOME, "wss://w0.example", "wss://w1.example")]


async def test_indexers_are_asked_besides_our_own_relays() -> None:
    here = Setting([INDEXER])
    here.shelves.hold(INDEXER, messages_at(A))
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,)
    assert here.shelves.asked[0][0] == (OURS, INDEXER)


async def test_lists_from_the_future_of_others_or_too_long_count_as_none(here: Setting) -> None:
    other = Key(b"\x0c" * 32)
    long = PERSON.sign(Draft(DM_RELAYS, "x" * 20_000, tags([("relay", A)]), START - 5))
    here.shelves.hold(OURS, messages_at(A, at=START + 5_000), long)

    async def lying(filters: Sequence[Filter], timeout: float, relays: Sequence[str] | None = None) -> list[Event]:
        return [messages_at(B, key=other), *here.shelves.held[OURS]]

    here.shelves.fetch = lying
    assert await here.directory.relays_for_dm(PERSON.pubkey) is None
    assert here.directory.known_for_dm(other.pubkey) is None


async def test_many_who_ask_for_one_person_at_once_cause_one_question(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at(A), lists([A], [B]))
    here.shelves.gate.clear()
    asking = [asyncio.create_task(here.directory.relays_for_dm(PERSON.pubkey)) for _ in range(50)]
    await asyncio.sleep(0.01)
    here.shelves.gate.set()
    assert await asyncio.gather(*asking) == [(A,)] * 50
    assert len(here.shelves.asked) == 1


async def test_a_question_that_is_cancelled_leaves_the_next_one_free(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at(A))
    here.shelves.gate.clear()
    first = asyncio.create_task(here.directory.relays_for_dm(PERSON.pubkey))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait((first,))
    here.shelves.gate.set()
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,)


async def test_a_flood_of_questions_is_asked_a_few_at_a_time(here: Setting) -> None:
    here.shelves.gate.clear()
    people = [Key(bytes([1, n + 1]) * 16) for n in range(40)]
    asking = [asyncio.create_task(here.directory.relays_for_dm(one.pubkey)) for one in people]
    await asyncio.sleep(0.05)
    assert len(here.shelves.asked) == module.MAX_PARALLEL
    here.shelves.gate.set()
    await asyncio.gather(*asking)


async def test_a_flood_of_questions_keeps_nobody_waiting_who_is_known_and_the_others_not_for_long(
    here: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message to somebody is held up by it: strangers must not decide for how long."""
    here.shelves.hold(OURS, messages_at(A))
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,)
    here.again()
    here.shelves.gate.clear()
    people = [Key(bytes([1, n + 1]) * 16) for n in range(40)]
    asking = [asyncio.create_task(here.directory.relays_for_dm(one.pubkey)) for one in people]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        here.clock.at += 60
        assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,), "what is in the database needs no slot"
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    async with asyncio.timeout(20):
        assert await here.directory.relays_for_dm(Key(b"\x77" * 32).pubkey) is None
        here.clock.at += FRESH_S
        assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,), "better an old list than none"
    here.shelves.gate.set()
    await asyncio.gather(*asking)


async def test_what_came_from_elsewhere_is_learned_if_it_is_newer(here: Setting) -> None:
    here.shelves.hold(OURS, messages_at(A), lists([A], [B]))
    await here.directory.relays_for_dm(PERSON.pubkey)
    await here.directory.learn(messages_at(HOME, at=START - 500))
    assert here.directory.known_for_dm(PERSON.pubkey) == (A,)
    await here.directory.learn(messages_at(B, at=START - 50))
    assert here.directory.known_for_dm(PERSON.pubkey) == (B,)
    await here.directory.learn(PERSON.sign(Draft(1, "hello", (), START)))
    assert {row["kind"] for row in await here.db.select(TABLE)} == {DM_RELAYS, RELAY_LIST}
    assert await here.again().relays_for_dm(PERSON.pubkey) == (B,)


async def test_the_table_forgets_whom_nobody_looked_up_for_longest(
    here: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 20)
    monkeypatch.setattr(module, "_PRUNE_EVERY", 10)
    monkeypatch.setattr(module, "MAX_KEPT", 4)
    for n in range(60):
        here.clock.at += 1
        await here.directory.relays_for_dm(Key(bytes([2, n + 1]) * 16).pubkey)
    rows = await here.db.select(TABLE)
    assert len(rows) <= 20 + 10
    assert len(here.directory._known) == 4
    assert Key(bytes([2, 60]) * 16).pubkey in {row["pubkey"] for row in rows}


async def test_a_row_that_cannot_be_read_is_asked_for_again(here: Setting) -> None:
    row = {"pubkey": PERSON.pubkey, "created_at": 5, "raw": "{", "fetched_at": START}
    await here.db.commit([Insert(TABLE, {**row, "kind": kind}) for kind in (DM_RELAYS, RELAY_LIST)])
    here.shelves.hold(OURS, messages_at(A))
    assert await here.directory.relays_for_dm(PERSON.pubkey) == (A,)
