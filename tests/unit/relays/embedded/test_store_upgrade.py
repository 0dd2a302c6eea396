"""A file of version 1 is brought up to date, whole or not at all."""

import hashlib
import random
import sqlite3
from contextlib import closing

import pytest

from relays.embedded.archive import exported
from relays.embedded.error import EventFileFailed
from relays.embedded.store_schema import VERSION, connect, hashing, place, prepare
from relays.embedded.store_write import DELETED, HAVE_IT
from relays.embedded.trait import address, expiry, indexed_tags
from relays.filter import Filter
from tests.unit.relays.embedded.event_part import NOW, note
from tests.unit.relays.embedded.random_part import brute_force, some_events, some_filter
from tests.unit.relays.embedded.test_store_query import Parts

FIRST = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE event(seq INTEGER PRIMARY KEY, id INT NOT NULL, author INT NOT NULL, kind INT NOT NULL,
                   place INT NOT NULL, exp INT, raw TEXT NOT NULL);
CREATE UNIQUE INDEX event_id ON event(id);
CREATE INDEX event_author ON event(author, kind, place);
CREATE INDEX event_kind ON event(kind, place);
CREATE INDEX event_place ON event(place);
CREATE INDEX event_exp ON event(exp) WHERE exp IS NOT NULL;
CREATE TABLE tag(tag INT NOT NULL, kind INT NOT NULL, place INT NOT NULL, seq INT NOT NULL,
                 PRIMARY KEY(tag, kind, place, seq)) WITHOUT ROWID;
CREATE TABLE slot(address INTEGER PRIMARY KEY, at INT NOT NULL, id TEXT NOT NULL, seq INT NOT NULL);
CREATE TABLE tombstone(name INTEGER PRIMARY KEY, at INT);
PRAGMA user_version=1;
"""
SALT = bytes(range(16))
PROFILE, GONE = note(kind=0, content="kiwi"), note(content="gone")
SHORT = note(with_tags=[("expiration", str(NOW + 9))])


def keyed(text):
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=SALT).digest(), "big", signed=True)


@pytest.fixture
def events():
    return [*some_events(random.Random(11), 900), PROFILE, SHORT]


@pytest.fixture
def path(tmp_path, events):
    path = tmp_path / "relay.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.executescript(FIRST)
    db.execute("INSERT INTO meta VALUES('salt', ?)", (SALT,))
    db.execute("BEGIN")
    for seq, event in enumerate(events, 1):
        order = place(event.created_at, event.id)
        row = (seq, keyed(event.id), keyed(event.pubkey), event.kind, order, expiry(event), event.to_json())
        db.execute("INSERT INTO event VALUES(?,?,?,?,?,?,?)", row)
        for name, value in indexed_tags(event):
            db.execute("INSERT INTO tag VALUES(?,?,?,?)", (keyed(name + value), event.kind, order, seq))
        if where := address(event):
            db.execute("INSERT INTO slot VALUES(?,?,?,?)", (keyed("address" + where), event.created_at, event.id, seq))
    db.execute("INSERT INTO tombstone VALUES(?,NULL)", (keyed(GONE.id + GONE.pubkey),))
    db.execute("COMMIT")
    db.close()
    return path


def test_everything_is_there_and_found_as_before(path, events):
    parts = Parts(path)
    try:
        assert parts.db.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert parts.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rng = random.Random(3)
        for _ in range(40):
            wanted = some_filter(rng, events)
            if len(wanted.tags) < 2 and wanted.limit > 3:
                assert parts.ask(wanted) == brute_force(events, [wanted]), wanted
        assert {event_id: at for at, event_id in parts.reader.vector([Filter()])} == {
            event.id: event.created_at for event in events
        }
        parts.words.catch_up(2_000)
        assert parts.ask(Filter(search="kiwi")) == [PROFILE.id]
        assert parts.store([PROFILE, GONE, events[0]]) == [HAVE_IT, DELETED, HAVE_IT]
        assert parts.writer.next_expiry == NOW + 9
    finally:
        parts.close()


def test_an_upgrade_that_fails_leaves_the_old_file(path, events):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE event SET raw='broken' WHERE seq=500")
    with pytest.raises(ValueError):
        prepare(db, path, 1 << 30)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert db.execute("SELECT count(*) FROM event").fetchone() == (len(events),)
    db.close()


def test_an_old_file_is_not_exported_before_it_was_brought_up_to_date(path):
    with pytest.raises(EventFileFailed, match="start the relay once"):
        list(exported(path, NOW))


def test_a_file_whose_making_was_cut_off_is_made_anew(tmp_path, monkeypatch):
    """The tables without the salt would be a file that no start can read."""
    path = tmp_path / "relay.db"

    def cut_off(_):
        raise OSError("no randomness")

    with monkeypatch.context() as patch:
        patch.setattr("relays.embedded.store_schema.os.urandom", cut_off)
        with closing(connect(path, write=True)) as db, pytest.raises(OSError, match="randomness"):
            prepare(db, path, 1 << 30)
    with closing(connect(path, write=True)) as db:
        assert prepare(db, path, 1 << 30)("a") == hashing(db)("a")
