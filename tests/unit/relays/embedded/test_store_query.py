"""The answers of the store equal a plain scan of the events, on thousands of random filters."""

import random

import orjson
import pytest

from relays.embedded.error import QueryTooBroad
from relays.embedded.retention import Retention
from relays.embedded.store_query import EventReader
from relays.embedded.store_schema import connect, prepare
from relays.embedded.store_search import WordIndex
from relays.embedded.store_sweep import Sweeper
from relays.embedded.store_write import Entry, EventWriter
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note
from tests.unit.relays.embedded.random_part import brute_force, some_events, some_filter


class Parts:
    def __init__(self, path, retention=None, store_bytes=1 << 30):
        self.db = connect(path, write=True, synchronous="OFF")
        keyed = prepare(self.db, path, store_bytes)
        self.writer = EventWriter(self.db, keyed)
        self.words = WordIndex(self.writer)
        self.sweeper = Sweeper(self.writer, retention or Retention(), store_bytes)
        self.reader = EventReader(path, keyed, lambda: self.writer.kinds, lambda: self.writer.is_vanishing)

    def store(self, events):
        return self.writer.commit([Entry(event, event.to_json().encode(), None) for event in events])

    def ask(self, *filters):
        snapshot = self.reader.snapshot(filters, NOW)
        texts = [*snapshot.first, *self.reader.page(snapshot.seqs[200:], NOW)]
        return [orjson.loads(text)["id"] for text in texts]

    def close(self):
        self.reader.close()
        self.db.close()


@pytest.fixture
def parts(tmp_path):
    made = Parts(tmp_path / "relay.db")
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(4))
def test_answers_equal_a_plain_scan(parts, seed):
    rng = random.Random(seed)
    events = some_events(rng, 3_000)
    for at in range(0, len(events), 500):
        parts.store(events[at : at + 500])
    refused = 0
    for _ in range(150):
        filters = [some_filter(rng, events) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
        try:
            assert parts.ask(*filters) == brute_force(events, filters), filters
        except QueryTooBroad:
            refused += 1
        unlimited = {event.id: event.created_at for event in events if any(one.matches(event) for one in filters)}
        assert parts.reader.count(filters) == len(unlimited)
        assert {event_id: at for at, event_id in parts.reader.vector(filters)} == unlimited
    assert refused < 15


def test_ties_at_the_edge_of_the_limit_go_to_the_lowest_id(parts):
    rng = random.Random(1)
    events = [event for event in some_events(rng, 4_000) if event.created_at == NOW + 5]
    rng.shuffle(events)
    parts.store(events)
    assert parts.ask(Filter(limit=2)) == sorted(event.id for event in events)[:2]


def test_a_limit_of_nothing_returns_nothing(parts):
    parts.store(some_events(random.Random(2), 10))
    assert parts.ask(Filter(limit=0)) == []
    assert parts.ask(Filter(ids=frozenset())) == []
    assert parts.ask(Filter(tags={"e": frozenset()})) == []
    assert parts.ask(Filter(since=NOW + 10, until=NOW)) == []


def test_a_far_future_window_matches_nothing_and_breaks_nothing(parts):
    parts.store(some_events(random.Random(2), 10))
    assert parts.ask(Filter(since=1 << 53)) == []
    assert len(parts.ask(Filter(until=1 << 53))) == 10


@pytest.mark.parametrize("stored", [(1,), (1, 7), (1, 7, 30_023), (1, 7, 1_111, 5_050)])
def test_a_kind_that_was_never_stored_has_an_empty_answer_however_many_events_of_others_there_are(parts, stored):
    parts.store([note(ALICE, stored[number % len(stored)], str(number), NOW - number) for number in range(300)])

    assert parts.ask(Filter(kinds=frozenset({8_999}))) == []
    assert parts.ask(Filter(kinds=frozenset({8_999, 8_998}), limit=1)) == []


def test_two_thousand_values_are_one_query(parts):
    events = some_events(random.Random(3), 100)
    parts.store(events)
    many = frozenset([events[0].pubkey, *(f"{number:064x}" for number in range(1_999))])
    assert parts.ask(Filter(authors=many)) == brute_force(events, [Filter(authors=many)])


def test_a_query_that_examines_too_much_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("relays.embedded.store_query._STEPS", 100)
    made = Parts(tmp_path / "relay.db")
    try:
        made.store(some_events(random.Random(4), 5_000))
        with pytest.raises(QueryTooBroad):
            made.reader.count([Filter()])
        assert len(made.ask(Filter(limit=5))) == 5
    finally:
        made.close()


def test_more_authors_times_kinds_than_can_be_looked_up_are_read_by_author(parts):
    """So many kinds are named where a client may not see private ones, and anybody can write events of many kinds."""
    events = [note(BOB, 2_000 + number, at=NOW + number) for number in range(400)]
    mine = [note(ALICE, kind, at=NOW + kind) for kind in (1, 4, 7)]
    parts.store([*events, *mine])
    kinds = frozenset(event.kind for event in (*events, *mine)) - {4}
    authors = frozenset({ALICE.pubkey, *(f"{number:064x}" for number in range(99))})
    wanted = Filter(authors=authors, kinds=kinds, limit=20)
    assert parts.ask(wanted) == [mine[2].id, mine[0].id]
    assert parts.reader.count([wanted]) == 2
