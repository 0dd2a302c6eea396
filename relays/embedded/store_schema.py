"""The event file: its tables and how it is opened. Events live apart from the node's own database (DESIGN §3).

Three things keep the indexes small and the answers exact in order:

- ids, authors, tags and addresses are stored as 64-bit hashes, keyed with a salt of this file, so nobody can
  aim a collision. A chance one needs about 2³² events.
- `place` holds `created_at` and the first 30 bits of the id in one integer: its descending order is NIP-01's
  (newest first, ties by the lowest id), so a limited index scan returns exactly the right events.
- an event's text stands in a table of its own, so that what is looked up about an event costs no page of text.
"""

import fcntl
import hashlib
import logging
import os
import sqlite3
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeAlias

import orjson

from relays.embedded.error import EventFileFailed, NewerEventFile, RelayBusy
from relays.embedded.trait import indexed_tags
from relays.event import Event, parse

Hash: TypeAlias = Callable[[str], int]

_log = logging.getLogger(__name__)

VERSION = 2
PAGE_BYTES = 4_096
MAX_TIME = (1 << 33) - 1  # Unix seconds that fit into `place`: until the year 2242
_ID_BITS = 30
_LAST_ID = (1 << _ID_BITS) - 1
_MIX_TAG, _MIX_AUTHOR = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F  # odd, so that no bit is lost
_WORD = (1 << 64) - 1

# seq is handed out by the writer in commit order; exp is the second of NIP-40, null for most events; name is the
# whole id; raw is the event's JSON as it is sent.
_EVENT = """
CREATE TABLE event(seq INTEGER PRIMARY KEY, id INT NOT NULL, author INT NOT NULL, kind INT NOT NULL,
                   place INT NOT NULL, exp INT, name BLOB NOT NULL);
CREATE UNIQUE INDEX event_id ON event(id);
CREATE INDEX event_author ON event(author, kind, place);
CREATE INDEX event_kind ON event(kind, place);
CREATE INDEX event_place ON event(place);
CREATE INDEX event_exp ON event(exp) WHERE exp IS NOT NULL;
CREATE TABLE body(seq INTEGER PRIMARY KEY, raw TEXT NOT NULL);
-- Every indexed tag twice: by itself, and together with the event's author.
CREATE TABLE tag(tag INT NOT NULL, kind INT NOT NULL, place INT NOT NULL, seq INT NOT NULL,
                 PRIMARY KEY(tag, kind, place, seq)) WITHOUT ROWID;
"""
# What came with version 2. Words are added behind the writer's back: `words` in meta says up to which seq.
_ADDED = """
-- Who has asked to vanish, when, and the key of wraps to them. Pending while events are still to be removed.
CREATE TABLE vanished(author INTEGER PRIMARY KEY, at INT NOT NULL, wraps INT NOT NULL, pending INT NOT NULL);
CREATE INDEX vanished_pending ON vanished(pending) WHERE pending;
CREATE VIRTUAL TABLE word USING fts5(text, content='', detail=none, tokenize='ascii');
INSERT INTO word(word, rank) VALUES('usermerge', 2);
"""
_TABLES = f"""
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL);
{_EVENT}
-- The version that holds an address (replaceable and addressable kinds).
CREATE TABLE slot(address INTEGER PRIMARY KEY, at INT NOT NULL, id TEXT NOT NULL, seq INT NOT NULL);
-- What was deleted: an id with its author (at is null), or an address up to a time.
CREATE TABLE tombstone(name INTEGER PRIMARY KEY, at INT);
{_ADDED}
"""


def place(created_at: int, event_id: str) -> int:
    """The order of an event: greater is earlier in an answer. `created_at` is at most `MAX_TIME`."""
    return created_at << _ID_BITS | (_LAST_ID - (int(event_id[:8], 16) >> (32 - _ID_BITS)))


def place_range(since: int, until: int) -> tuple[int, int]:
    """The least and the greatest place of events between two Unix seconds, both included; `since` is in range."""
    return since << _ID_BITS, min(until, MAX_TIME) << _ID_BITS | _LAST_ID


@contextmanager
def failing_as_file(doing: str) -> Iterator[None]:
    """Give SQLite's errors our name.

    Raises:
        EventFileFailed: SQLite raised.
    """
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        raise EventFileFailed(f"The relay's event file failed ({name}) while {doing}.") from error


@contextmanager
def atomic(db: sqlite3.Connection) -> Iterator[None]:
    """All that is written inside becomes durable together, or none of it.

    Raises:
        sqlite3.Error: the engine failed.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:  # it was not committed; on some errors the engine rolls back by itself
            db.execute("ROLLBACK")


def connect(
    path: Path, *, synchronous: str = "FULL", cache_kib: int = 16_384, write: bool = False
) -> sqlite3.Connection:
    """A connection that any one thread at a time may use.

    Checkpoints are run by the store, since an automatic one stalls whichever commit meets it. Memory mapping
    stays off: it makes the process as large as the file, for no gain in speed.
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    settings = ("journal_mode=WAL", f"synchronous={synchronous}", f"cache_size=-{cache_kib}", "temp_store=MEMORY")
    for setting in (*settings, "wal_autocheckpoint=0", "journal_size_limit=16777216", "busy_timeout=5000"):
        db.execute(f"PRAGMA {setting}")
    if not write:
        db.execute("PRAGMA query_only=ON")
    return db


def prepare(db: sqlite3.Connection, path: Path, store_bytes: int) -> Hash:
    """Create the tables in a new file or bring an older one up to date, set its size cap, return its hash function.

    Raises:
        NewerEventFile: a newer version wrote it.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise NewerEventFile(f"{path.name} has version {version}; this program knows {VERSION}.")
    if version == 0:
        with atomic(db):
            for sql in _TABLES.split(";"):
                db.execute(sql)
            db.execute("INSERT INTO meta VALUES('salt', ?)", (os.urandom(16),))
            db.execute(f"PRAGMA user_version={VERSION}")
    keyed = hashing(db)
    if version == 1:
        _upgrade(db, keyed)
    db.execute(f"PRAGMA max_page_count={max(128, store_bytes // PAGE_BYTES)}")
    return keyed


def hashing(db: sqlite3.Connection) -> Hash:
    """The hash function of an opened file, keyed with its salt."""
    salt: bytes = db.execute("SELECT value FROM meta WHERE name='salt'").fetchone()[0]
    salted = hashlib.blake2b(digest_size=8, key=salt)  # copied for each text, so that the key is mixed in once
    unpack = struct.Struct(">q").unpack

    def keyed(text: str) -> int:
        copied = salted.copy()
        copied.update(text.encode())
        hashed: int = unpack(copied.digest())[0]
        return hashed

    return keyed


def pair_key(tag: int, author: int) -> int:
    """What events of one author with one tag are filed under; made of the hashes of both.

    Those are known to nobody, so nobody can aim a collision with another pair or with a tag.
    """
    mixed = (tag * _MIX_TAG + author * _MIX_AUTHOR) & _WORD
    return mixed - (1 << 64) if mixed >> 63 else mixed


def tag_keys(keyed: Hash, event: Event) -> list[int]:
    """Under what an event's tags are filed: each by itself, and together with the author."""
    author = keyed(event.pubkey)
    alone = [keyed(name + value) for name, value in indexed_tags(event)]
    return [*alone, *(pair_key(tag, author) for tag in alone)]


def _upgrade(db: sqlite3.Connection, keyed: Hash) -> None:
    """Version 1 to 2: texts in a table of their own, whole ids, tags by author. All of it or nothing.

    The old tables make room within the file, so it may grow to about twice its size once.
    """
    _log.info("the relay's event file is being brought to version 2", extra={"action": "relay_upgrade"})
    with atomic(db):
        for sql in ("DROP TABLE tag", "ALTER TABLE event RENAME TO former"):
            db.execute(sql)
        for name in ("id", "author", "kind", "place", "exp"):
            db.execute(f"DROP INDEX event_{name}")
        for sql in (_EVENT + _ADDED).split(";"):
            db.execute(sql)
        for seq, *columns, raw in db.execute("SELECT seq, id, author, kind, place, exp, raw FROM former ORDER BY seq"):
            event = parse(orjson.loads(raw))
            db.execute("INSERT INTO event VALUES(?,?,?,?,?,?,?)", (seq, *columns, bytes.fromhex(event.id)))
            db.execute("INSERT INTO body VALUES(?,?)", (seq, raw))
            rows = [(key, event.kind, columns[3], seq) for key in tag_keys(keyed, event)]
            db.executemany("INSERT OR IGNORE INTO tag VALUES(?,?,?,?)", rows)
        db.execute("DROP TABLE former")
        db.execute(f"PRAGMA user_version={VERSION}")


def claim(path: Path, opened: ExitStack) -> None:
    """Take the file for this process until `opened` is closed, or the process ends, however it does.

    Raises:
        RelayBusy: another process has it.
        EventFileFailed: the place cannot be written.
    """
    try:
        create_private(path)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise EventFileFailed(f"Cannot write {path} ({error.strerror}).") from error
    opened.callback(os.close, lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RelayBusy(f"Another process serves {path}.") from error


def create_private(path: Path) -> None:
    """Make the file before SQLite does, readable by its owner only; SQLite's side files inherit that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
