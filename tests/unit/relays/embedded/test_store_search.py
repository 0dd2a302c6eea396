import random

import orjson
import pytest

from relays.embedded.error import QueryTooBroad
from relays.embedded.word import words_of
from relays.event import parse
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note
from tests.unit.relays.embedded.test_store_query import Parts


@pytest.fixture
def parts(tmp_path):
    made = Parts(tmp_path / "relay.db")
    yield made
    made.close()


def store(parts, *events):
    parts.store(events)
    while parts.words.catch_up(100):
        pass
    return [event.id for event in events]


def search(parts, text, **more):
    return parts.ask(Filter(search=text, **more))


def test_every_word_must_be_there_whatever_its_case_accents_and_order(parts):
    both, one = store(parts, note(content="Ein grüner Kiwi-Baum"), note(content="Kiwi"))
    assert search(parts, "kiwi GRUNER") == [both]
    assert set(search(parts, "kiwi")) == {both, one}
    assert search(parts, "kiw") == search(parts, "kiwi birne") == []


def test_the_best_fit_comes_first_and_the_newest_of_equals(parts):
    plain, often, later = store(
        parts,
        note(content="kiwi " + "x " * 50),
        note(content="kiwi kiwi kiwi"),
        note(content="kiwi " + "x " * 50, at=NOW + 1),
    )
    assert search(parts, "kiwi") == [often, later, plain]
    assert search(parts, "kiwi", limit=1) == [often]


def test_a_phrase_narrows(parts):
    store(parts, note(content="world hello"))
    [wanted] = store(parts, note(content="say hello world now"))
    assert search(parts, '"hello world"') == [wanted]


def test_the_other_conditions_of_the_filter_hold(parts):
    a, b, c = store(
        parts,
        note(ALICE, 1, "kiwi", with_tags=[("t", "x")]),
        note(BOB, 1, "kiwi", at=NOW + 10),
        note(ALICE, 30_023, "kiwi", with_tags=[("d", "y")]),
    )
    assert search(parts, "kiwi", authors=frozenset({BOB.pubkey})) == [b]
    assert search(parts, "kiwi", kinds=frozenset({30_023})) == [c]
    assert search(parts, "kiwi", tags={"t": frozenset({"x"})}) == [a]
    assert search(parts, "kiwi", since=NOW + 5) == [b]
    assert search(parts, "kiwi", ids=frozenset({c})) == [c]
    assert search(parts, "kiwi", authors=frozenset(f"{n:064x}" for n in range(100)) | {ALICE.pubkey}, limit=9) != [b]


def test_a_text_cannot_pass_for_a_kind_or_an_author(parts):
    store(parts, note(content="kiwi \ue000k42 \ue000a1"))
    assert search(parts, "kiwi", kinds=frozenset({42})) == []


def test_extensions_alone_are_no_search(parts):
    [one] = store(parts, note(content="anything"))
    assert search(parts, "language:en") == [one]


def test_what_was_found_comes_before_what_other_filters_bring(parts):
    old, new = store(parts, note(content="kiwi"), note(content="news", at=NOW + 100))
    assert parts.ask(Filter(), Filter(search="kiwi")) == [old, new]


def test_sealed_messages_are_not_found(parts):
    store(parts, note(kind=4, content="kiwi"), note(kind=1059, content="kiwi"))
    assert search(parts, "kiwi") == []


def test_deleted_and_replaced_events_are_found_no_more(parts):
    gone, first, second = note(content="kiwi"), note(kind=0, content="kiwi"), note(kind=0, content="plum", at=NOW + 1)
    store(parts, gone, first)
    store(parts, note(kind=5, at=NOW + 2, with_tags=[("e", gone.id)]), second)
    assert search(parts, "kiwi") == []
    assert search(parts, "plum") == [second.id]


def test_an_event_that_goes_before_its_words_were_indexed_leaves_nothing(parts):
    gone = note(content="kiwi")
    parts.store([gone, note(kind=5, at=NOW + 1, with_tags=[("e", gone.id)]), note(content="kiwi two")])
    store(parts)
    assert len(search(parts, "kiwi")) == 1


def test_words_and_progress_outlive_a_restart(parts, tmp_path):
    ids = store(parts, *(note(content=f"kiwi {n}") for n in range(30)))
    again = Parts(tmp_path / "relay.db")
    try:
        assert again.words.behind == 0
        assert set(search(again, "kiwi")) == set(ids)
    finally:
        again.close()


def test_answers_equal_a_plain_search(parts):
    rng = random.Random(5)
    vocabulary = [f"w{n}" for n in range(40)]
    events = [
        note(rng.choice([ALICE, BOB]), rng.choice([1, 7, 42]), " ".join(rng.choices(vocabulary, k=8)), NOW + n)
        for n in range(600)
    ]
    store(parts, *events)
    for _ in range(60):
        words = set(rng.sample(vocabulary, rng.randint(1, 3)))
        kinds = frozenset(rng.sample([1, 7, 42], rng.randint(1, 3)))
        since = NOW + rng.choice([0, 300])
        expected = {
            one.id for one in events if words <= set(words_of(one)) and one.kind in kinds and one.created_at >= since
        }
        try:
            found = search(parts, " ".join(words), kinds=kinds, since=since, limit=600)
        except QueryTooBroad:
            assert since > NOW
            assert len(expected) < 10
        else:
            assert set(found) == expected


def test_a_search_examines_no_more_than_its_bound(parts):
    store(parts, *(note(content="kiwi", at=NOW + n) for n in range(300)))
    assert search(parts, "kiwi", since=NOW + 290, limit=5)  # the newest are looked at first
    with pytest.raises(QueryTooBroad):
        search(parts, "kiwi", until=NOW, limit=5)


@pytest.mark.parametrize(
    "text", ['"', "a AND", "NEAR(", "x*", "col:", "'; DROP TABLE event; --", "^a", "(", "\\", "-kiwi", "\0kiwi"]
)
def test_no_search_is_read_as_a_command(parts, text):
    store(parts, note(content="kiwi x a"))
    search(parts, text)
    assert len(parts.ask(Filter())) == 1


def test_stored_text_is_untouched_by_the_index(parts):
    event = note(content='kiwi \u2028 "quoted" \\ \n end')
    store(parts, event)
    snapshot = parts.reader.snapshot([Filter(search="kiwi")], NOW)
    assert parse(orjson.loads(snapshot.first[0])) == event


def test_a_search_is_counted_and_reconciled_as_what_it_finds(parts):
    one, two, other = store(parts, note(content="kiwi"), note(content="kiwi 2"), note(kind=7, content="plum"))
    assert parts.reader.count([Filter(search="kiwi")]) == 2
    assert parts.reader.count([Filter(search="kiwi"), Filter(kinds=frozenset({7})), Filter(ids=frozenset({one}))]) == 3
    assert {event_id for _, event_id in parts.reader.vector([Filter(search="kiwi")])} == {one, two}
    assert parts.reader.count([Filter(search='"2 kiwi"')]) == 0
    assert other
