import pytest

from relays.embedded.retention import MalformedRetention, Retention, retention
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import ALICE, NOW, note
from tests.unit.relays.embedded.test_store_query import Parts

DAY = 86_400
RULES = [
    {"kinds": [1, [5_000, 5_999]], "time": DAY},
    {"kinds": [7], "count": 3},
    {"kinds": [4], "time": 0},
    {"time": 9 * DAY},
]


def everything(parts):
    return set(parts.ask(Filter(limit=5_000)))


def test_rules_are_written_as_in_nip11():
    assert retention(RULES).document() == RULES


@pytest.mark.parametrize(
    "rule",
    [
        {"kinds": 1},
        {"kinds": ["1"]},
        {"kinds": [[5, 1]]},
        {"kinds": [[1, 2, 3]]},
        {"kinds": [70_000]},
        {"kinds": [True]},
        {"time": -1},
        {"time": 1.5},
        {"count": "5"},
        {"age": 5},
    ],
)
def test_a_rule_of_another_form_is_refused(rule):
    with pytest.raises(MalformedRetention):
        retention([rule])


@pytest.mark.parametrize("trim", [0.0, 1.0, -1, 7])
def test_a_trim_that_is_no_part_of_the_file_is_refused(trim):
    with pytest.raises(MalformedRetention):
        retention([], trim)


def test_the_first_rule_that_names_a_kind_decides():
    kept = retention(RULES)
    assert kept.rule(5_050).time_s == DAY
    assert kept.rule(7).time_s is None
    assert kept.rule(42).time_s == 9 * DAY
    assert Retention().rule(1) is None


@pytest.mark.parametrize(
    ("kind", "age", "word"),
    [(1, DAY + 1, "invalid"), (1, DAY, ""), (4, 0, "blocked"), (7, 99 * DAY, ""), (42, 9 * DAY + 1, "invalid")],
)
def test_what_would_be_removed_at_once_is_not_taken(kind, age, word):
    assert retention(RULES).refuse(note(kind=kind, at=NOW - age), NOW).partition(":")[0] == word


def test_old_events_go_and_may_not_come_back(tmp_path):
    kept = retention(RULES)
    parts = Parts(tmp_path / "relay.db", kept)
    try:
        events = {age: note(at=NOW - age, with_tags=[("t", "x")]) for age in (0, DAY, DAY + 1, 5 * DAY)}
        other = note(kind=7, at=NOW - 50 * DAY)
        parts.store([*events.values(), other])
        assert parts.sweeper.aged(NOW, 1) == 1
        assert parts.sweeper.aged(NOW, 100) == 1
        assert everything(parts) == {events[0].id, events[DAY].id, other.id}
        parts.writer.too_old = lambda event: kept.refuse(event, NOW)
        [again] = parts.store([events[5 * DAY]])
        assert not again.accepted
    finally:
        parts.close()


def test_the_oldest_beyond_a_number_go_and_others_take_their_place(tmp_path):
    parts = Parts(tmp_path / "relay.db", retention(RULES))
    try:
        events = [note(kind=7, at=NOW + n) for n in range(8)]
        parts.store([*events, *(note(at=NOW + n) for n in range(8))])
        assert parts.sweeper.surplus(2) == 2
        assert parts.sweeper.surplus(100) == 3
        assert parts.sweeper.surplus(100) == 0
        assert set(parts.ask(Filter(kinds=frozenset({7})))) == {event.id for event in events[5:]}
        parts.store([note(kind=7, at=NOW + 9)])
        assert parts.sweeper.surplus(100) == 1
        assert len(everything(parts)) == 11
    finally:
        parts.close()


def test_a_full_file_makes_room_from_its_oldest_ordinary_events(tmp_path):
    cap = 300 * 4_096
    parts = Parts(tmp_path / "relay.db", retention([], 0.5), cap)
    try:
        profile = note(kind=0, at=NOW - 99)
        deletion = note(kind=5, at=NOW - 98, with_tags=[("e", "a" * 64)])
        events = [note(content="x" * 9_000, at=NOW + n) for n in range(70)]
        parts.store([profile, deletion, *events])
        removed = 0
        while step := parts.sweeper.trimmed(5):
            removed += step
        used = parts.writer.one("PRAGMA page_count") - parts.writer.one("PRAGMA freelist_count")
        assert 0 < removed < 70
        assert used <= 150
        assert everything(parts) == {profile.id, deletion.id, *(event.id for event in events[removed:])}
        assert parts.store(events[:1])[0].seq  # it was not deleted by anybody
    finally:
        parts.close()


def test_an_address_that_was_swept_may_be_filled_again(tmp_path):
    parts = Parts(tmp_path / "relay.db", retention([{"time": 100}]))
    try:
        profile = note(ALICE, 0, at=NOW)
        parts.store([profile])
        assert parts.sweeper.aged(NOW + 101, 9) == 1
        assert parts.store([profile])[0].seq
    finally:
        parts.close()


def test_nothing_goes_without_rules(tmp_path):
    parts = Parts(tmp_path / "relay.db")
    try:
        parts.store([note(at=1), note(kind=7, at=2)])
        assert parts.sweeper.aged(NOW, 9) == parts.sweeper.surplus(9) == parts.sweeper.trimmed(9) == 0
    finally:
        parts.close()
