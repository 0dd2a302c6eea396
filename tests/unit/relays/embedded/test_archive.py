import json
from contextlib import ExitStack

import pytest

from relays.embedded.archive import exported, import_events
from relays.embedded.error import EventFileFailed, NewerEventFile, RelayBusy
from relays.embedded.store_schema import claim, connect
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note
from tests.unit.relays.embedded.test_store_query import Parts

CAP = 1 << 30


def lines(*events):
    return [event.to_json().encode() + b"\n" for event in events]


def imported(path, given, urls=(), cap=CAP):
    return import_events(path, given, cap, urls, NOW)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "relay.db"


def some(count):
    return [note(content=f'n {n} \u2028 "q" \n', at=NOW + n, with_tags=[("t", str(n % 7))]) for n in range(count)]


def test_what_is_exported_is_imported_the_same_and_twice_changes_nothing(path, tmp_path):
    events = some(1_203)
    report = imported(path, lines(*events))
    assert (report.read, report.stored, report.known, sum(report.refused.values())) == (1_203, 1_203, 0, 0)
    written = list(exported(path, NOW))
    assert [json.loads(raw)["id"] for raw in written] == [event.id for event in events]
    copy = tmp_path / "copy.db"
    assert imported(copy, [raw + b"\n" for raw in written]).stored == 1_203
    again = imported(copy, written)
    assert (again.stored, again.known) == (0, 1_203)
    assert list(exported(copy, NOW)) == written


def test_imported_events_are_found_like_any_others(path):
    events = some(20)
    imported(path, lines(*events))
    parts = Parts(path)
    try:
        parts.words.catch_up(100)
        assert len(parts.ask(Filter(tags={"t": frozenset({"3"})}))) == 3
        assert len(parts.ask(Filter(search="n"))) == 20
    finally:
        parts.close()


def test_every_event_is_verified(path):
    good, other = some(2)
    forged = json.loads(good.to_json()) | {"content": "forged"}
    resigned = json.loads(good.to_json()) | {"sig": other.sig}
    bad = [b"no json\n", b"[]\n", json.dumps(forged).encode(), json.dumps(resigned).encode(), b"\xff\xfe\n"]
    report = imported(path, [*bad, b"\n", b"   \n", *lines(good)])
    assert (report.read, report.stored, sum(report.refused.values())) == (6, 1, 5)
    assert [line for line, _ in report.first] == [1, 2, 3, 4, 5]
    assert all(reason.startswith("invalid: ") for reason in report.refused)
    assert len(list(exported(path, NOW))) == 1


def test_a_line_without_end_is_refused_and_bounded(path):
    report = imported(path, [b'{"content":"' + b"x" * 1_000_000])
    assert report.stored == 0
    assert "longer than" in report.first[0][1]


def test_ephemeral_auth_and_expired_events_stay_out(path):
    events = [note(kind=20_001), note(kind=22_242), note(with_tags=[("expiration", str(NOW))])]
    assert imported(path, lines(*events)).stored == 0


def test_expired_events_are_not_exported(path):
    imported(path, lines(note(with_tags=[("expiration", str(NOW + 5))]), note(content="stays")))
    assert len(list(exported(path, NOW))) == 2
    assert len(list(exported(path, NOW + 5))) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_deletions_and_versions_do_what_they_say_in_any_order(path, order):
    gone, old, new = note(), note(kind=0), note(kind=0, at=NOW + 1)
    deletion = note(kind=5, at=NOW + 2, with_tags=[("e", gone.id)])
    imported(path, lines(*[gone, old, new, deletion][::order]))
    assert {json.loads(raw)["id"] for raw in exported(path, NOW)} == {new.id, deletion.id}


@pytest.mark.parametrize(("named", "urls"), [("ALL_RELAYS", ()), ("wss://relay.example/", ("wss://relay.example",))])
@pytest.mark.parametrize("order", [1, -1])
def test_who_has_vanished_stays_away_through_export_and_import(path, tmp_path, named, urls, order):
    asked = note(ALICE, 62, "", NOW + 9, [("relay", named)])
    theirs = note(BOB)
    imported(path, lines(*[note(), theirs, asked][::order]), urls)
    copy = tmp_path / "copy.db"
    imported(copy, exported(path, NOW), urls)
    report = imported(copy, lines(note(), note(BOB, 1059, with_tags=[("p", ALICE.pubkey)])), urls)
    assert (report.stored, sum(report.refused.values())) == (0, 2)
    assert {json.loads(raw)["id"] for raw in exported(copy, NOW)} == {asked.id, theirs.id}


def test_a_file_that_is_served_is_exported_and_not_imported_into(path):
    imported(path, lines(*some(10)))
    with ExitStack() as serving:
        claim(path, serving)
        writer = connect(path, write=True)
        events = exported(path, NOW)
        next(events)
        writer.execute("DELETE FROM event WHERE seq=10")  # the relay goes on meanwhile
        assert len(list(events)) == 9
        writer.close()
        with pytest.raises(RelayBusy):
            imported(path, lines(note()))


def test_a_full_file_says_so_and_keeps_what_was_stored(path):
    big = [note(content="x" * 30_000, at=NOW + n) for n in range(600)]
    with pytest.raises(EventFileFailed, match="SQLITE_FULL"):
        imported(path, lines(*big), cap=4 << 20)
    assert list(exported(path, NOW)) == []
    assert imported(path, lines(*some(5)), cap=4 << 20).stored == 5


def test_a_missing_or_a_newer_file_is_an_error(path):
    with pytest.raises(EventFileFailed, match="no event file"):
        list(exported(path, NOW))
    connect(path, write=True).execute("PRAGMA user_version=99")
    with pytest.raises(NewerEventFile):
        list(exported(path, NOW))
    with pytest.raises(NewerEventFile):
        imported(path, [])


def test_an_imported_file_is_private(path):
    imported(path, lines(note()))
    assert not path.stat().st_mode & 0o077
