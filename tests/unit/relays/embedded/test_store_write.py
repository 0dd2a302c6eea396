import random
import sqlite3

import pytest

from relays.embedded.store_write import DELETED, HAVE_IT, HAVE_NEWER, TOO_LATE
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note, tied
from tests.unit.relays.embedded.random_part import some_events
from tests.unit.relays.embedded.test_store_query import Parts


@pytest.fixture
def parts(tmp_path):
    made = Parts(tmp_path / "relay.db")
    yield made
    made.close()


def everything(parts):
    return parts.ask(Filter(limit=5_000))


def is_tidy(parts):
    """No index row outlives its event, and the count is right."""
    assert parts.writer.total == parts.db.execute("SELECT count(*) FROM event").fetchone()[0]
    return parts.db.execute("SELECT count(*) FROM tag WHERE seq NOT IN (SELECT seq FROM event)").fetchone()[0] == 0


def test_an_event_is_stored_once_within_a_group_and_across_groups(parts):
    event, other = note(with_tags=[("e", "a" * 64)]), note(content="other")
    first, again, fresh = parts.store([event, event, other])
    assert (first.accepted, first.reason, again, fresh.accepted) == (True, "", HAVE_IT, True)
    assert parts.store([event, other]) == [HAVE_IT, HAVE_IT]
    assert len(everything(parts)) == 2
    assert is_tidy(parts)


def test_numbers_only_rise(parts):
    events = some_events(random.Random(0), 300)
    numbers = [outcome.seq for at in range(0, 300, 70) for outcome in parts.store(events[at : at + 70])]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("kind", [0, 3, 10_002, 30_023])
@pytest.mark.parametrize("together", [True, False])
def test_the_newest_version_of_an_address_stays(parts, kind, together):
    old, new = (note(kind=kind, at=NOW + at, with_tags=[("d", "x"), ("t", "v")]) for at in (0, 1))
    groups = [[old, new, old]] if together else [[old], [new], [old]]
    outcomes = [outcome for group in groups for outcome in parts.store(group)]
    assert [outcome.accepted for outcome in outcomes] == [True, True, True]
    assert outcomes[2] == HAVE_NEWER
    assert everything(parts) == [new.id]
    assert is_tidy(parts)
    assert parts.store([new]) == [HAVE_IT]


@pytest.mark.parametrize("seed", range(5))
def test_of_two_versions_in_one_second_the_lower_id_stays(parts, seed):
    versions = tied(kind=10_002)
    shuffled = random.Random(seed).sample(versions, 4)
    parts.store(shuffled[:2])
    parts.store(shuffled[2:])
    assert everything(parts) == [versions[0].id]


def test_authors_kinds_and_identifiers_have_addresses_of_their_own(parts):
    events = [
        note(author, kind, with_tags=[("d", d)]) for author in (ALICE, BOB) for kind in (30_000, 30_001) for d in "xy"
    ]
    assert all(outcome.seq for outcome in parts.store(events))
    assert len(everything(parts)) == 8


@pytest.mark.parametrize("together", [True, False])
def test_a_deletion_removes_its_authors_event_and_keeps_it_out(parts, together):
    event = note(with_tags=[("t", "v")])
    deletion = note(kind=5, at=NOW + 1, with_tags=[("e", event.id)])
    outcomes = parts.store([event, deletion]) if together else [*parts.store([event]), *parts.store([deletion])]
    assert all(outcome.seq for outcome in outcomes)
    assert everything(parts) == [deletion.id]
    assert parts.store([event]) == [DELETED]
    assert parts.store([deletion]) == [HAVE_IT]
    assert is_tidy(parts)


def test_a_deletion_that_comes_first_keeps_the_event_out(parts):
    event = note()
    parts.store([note(kind=5, with_tags=[("e", event.id)])])
    assert parts.store([event]) == [DELETED]


def test_a_deletion_by_somebody_else_does_nothing(parts):
    event, listed = note(), note(kind=30_000, with_tags=[("d", "x")])
    theirs = note(BOB, 5, with_tags=[("e", event.id), ("e", listed.id), ("a", f"30000:{ALICE.pubkey}:x")])
    late = note(content="late")
    early = note(BOB, 5, with_tags=[("e", late.id)])
    parts.store([event, listed, theirs, early])
    assert parts.store([late])[0].seq
    assert {event.id, listed.id, late.id} < set(everything(parts))


@pytest.mark.parametrize("deletion_first", [True, False])
def test_a_deletion_cannot_be_deleted(parts, deletion_first):
    first = note(kind=5, with_tags=[("e", "a" * 64)])
    second = note(kind=5, at=NOW + 1, with_tags=[("e", first.id)])
    outcomes = parts.store([second, first] if deletion_first else [first, second])
    assert all(outcome.seq for outcome in outcomes)
    assert len(everything(parts)) == 2


def test_an_address_is_deleted_up_to_the_time_of_the_deletion(parts):
    versions = [note(kind=30_000, at=NOW + at, with_tags=[("d", "x")]) for at in range(4)]
    deletion = note(kind=5, at=NOW + 2, with_tags=[("a", f"30000:{ALICE.pubkey}:x")])
    parts.store([versions[1], deletion])
    assert everything(parts) == [deletion.id]
    assert parts.store(versions[:3]) == [DELETED] * 3
    assert parts.store([versions[3]])[0].seq
    earlier = note(kind=5, at=NOW + 1, with_tags=[("a", f"30000:{ALICE.pubkey}:x")])
    parts.store([earlier])
    assert set(everything(parts)) == {deletion.id, versions[3].id, earlier.id}


def test_tombstones_outlive_a_restart(parts, tmp_path):
    event = note()
    parts.store([event, note(kind=5, with_tags=[("e", event.id)])])
    again = Parts(tmp_path / "relay.db")
    try:
        assert again.store([event]) == [DELETED]
        assert again.writer.kinds >= {5}
    finally:
        again.close()


def test_a_deleted_version_does_not_bring_an_older_one_back(parts):
    old, new = (note(kind=0, at=NOW + at) for at in (0, 1))
    parts.store([new, note(kind=5, at=NOW + 2, with_tags=[("e", new.id)])])
    assert parts.store([old]) == [HAVE_NEWER]


def test_expired_events_are_swept_and_do_not_use_up_a_limit(parts):
    short = [note(content=str(n), at=NOW + 5, with_tags=[("expiration", str(NOW + 10)), ("t", "v")]) for n in range(5)]
    lasting = note(at=NOW)
    parts.store([*short, lasting])
    assert parts.writer.next_expiry == NOW + 10
    assert parts.sweeper.expired(NOW + 9, 100) == 0
    assert parts.sweeper.expired(NOW + 10, 3) == 3
    assert parts.sweeper.expired(NOW + 10, 100) == 2
    assert parts.writer.next_expiry > NOW + 10
    assert parts.ask(Filter(limit=1)) == [lasting.id]
    assert is_tidy(parts)


def test_an_expired_event_is_left_out_even_before_the_sweep(parts):
    parts.store([note(with_tags=[("expiration", str(NOW))])])
    assert everything(parts) == []


def test_a_date_beyond_the_file_s_range_is_refused(parts):
    assert parts.store([note(at=1 << 33)]) == [TOO_LATE]


def test_a_group_that_fails_leaves_nothing_and_the_next_one_is_stored(parts):
    good = note(content="good")
    parts.store([good])
    parts.db.execute("PRAGMA max_page_count=20")
    big = [note(content="x" * 60_000, at=NOW + at) for at in range(20)]
    with pytest.raises(sqlite3.OperationalError):
        parts.store(big)
    assert everything(parts) == [good.id]
    parts.db.execute("PRAGMA max_page_count=100000")
    assert all(outcome.seq for outcome in parts.store(big))
    assert len(everything(parts)) == 21
    assert is_tidy(parts)


def test_a_number_is_never_given_twice_even_if_its_event_is_gone_after_a_restart(tmp_path):
    """Whoever owns an address whose number somebody else's event has got would replace that event with the next one."""
    parts = Parts(tmp_path / "relay.db")
    expiring = note(BOB, 30_023, at=NOW, with_tags=[("d", "x"), ("expiration", str(NOW + 5))])
    parts.store([note(content="first"), expiring])
    parts.words.catch_up(10)
    assert parts.sweeper.expired(NOW + 10, 10) == 1
    parts.close()
    again = Parts(tmp_path / "relay.db")
    innocent = note(ALICE, content="innocent words")
    again.store([innocent])
    again.store([note(BOB, 30_023, at=NOW + 20, with_tags=[("d", "x")])])
    assert innocent.id in everything(again)
    again.words.catch_up(10)
    assert again.ask(Filter(search="innocent")) == [innocent.id], "its words are indexed as well"
    again.close()
