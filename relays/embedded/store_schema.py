"""The event file: its tables and how it is opened. Events live apart from the node's own database (DESIGN §3).

Two things keep the indexes small and the answers exact in order:

- ids, authors, tags and addresses are stored as 64-bit hashes, keyed with a salt of this file, so nobody can
  aim a collision. A chance one needs about 2³² events.
- `place` holds `created_at` and the first 30 bits of the id in one integer: its descending order is NIP-01's
  (newest first, ties by the lowest id), so a limited index scan returns exactly the right events.
"""

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from relays.embedded.error import EventFileFailed, NewerEventFile

Hash: TypeAlias = Callable[[str], int]

VERSION = 1
PAGE_BYTES = 4_096
MAX_TIME = (1 << 33) - 1  # Unix seconds that fit into `place`: until the year 2242
_ID_BITS = 30
_LAST_ID = (1 << _ID_BITS) - 1

_TABLES = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value BLOB NOT NULL);
-- seq is handed out by the writer in commit order; exp is the second of NIP-40, null for most events;
-- raw is the event's JSON as it is sent.
CREATE TABLE event(seq INTEGER PRIMARY KEY, id INT NOT NULL, author INT NOT NULL, kind INT NOT NULL,
                   place INT NOT NULL, exp INT, raw TEXT NOT NULL);
CREATE UNIQUE INDEX event_id ON event(id);
CREATE INDEX event_author ON event(author, kind, place);
CREATE INDEX event_kind ON event(kind, place);
CREATE INDEX event_place ON event(place);
CREATE INDEX event_exp ON event(exp) WHERE exp IS NOT NULL;
CREATE TABLE tag(tag INT NOT NULL, kind INT NOT NULL, place INT NOT NULL, seq INT NOT NULL,
                 PRIMARY KEY(tag, kind, place, seq)) WITHOUT ROWID;
-- The version that holds an address (replaceable and addressable kinds).
CREATE TABLE slot(address INTEGER PRIMARY KEY, at INT NOT NULL, id TEXT NOT NULL, seq INT NOT NULL);
-- What was deleted: an id with its author (at is null), or an address up to a time.
CREATE TABLE tombstone(name INTEGER PRIMARY KEY, at INT);
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
    """Create the tables in a new file, set its size cap, and return its hash function.

    Raises:
        NewerEventFile: a newer version wrote it.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise NewerEventFile(f"{path.name} has version {version}; this program knows {VERSION}.")
    if version == 0:
        db.executescript(f"BEGIN IMMEDIATE;{_TABLES};PRAGMA user_version={VERSION};COMMIT;")
        db.execute("INSERT INTO meta VALUES('salt', ?)", (os.urandom(16),))
    db.execute(f"PRAGMA max_page_count={max(64, store_bytes // PAGE_BYTES)}")
    salt: bytes = db.execute("SELECT value FROM meta WHERE name='salt'").fetchone()[0]

    def keyed(text: str) -> int:
        hashed = hashlib.blake2b(text.encode(), digest_size=8, key=salt).digest()
        return int.from_bytes(hashed, "big", signed=True)

    return keyed


def create_private(path: Path) -> None:
    """Make the file before SQLite does, readable by its owner only; SQLite's side files inherit that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
