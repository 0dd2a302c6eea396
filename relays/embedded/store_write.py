"""Writing events: one transaction for a whole group, with NIP-01's replacement, NIP-09's deletion, NIP-62's vanishing.

Ordinary events go in by statements of many rows: each step of SQLite gives up the interpreter's lock and must win
it back, which under a busy loop costs more than the insert itself. Index rows are sorted first, so that those on one
page come together. Replaceable events and deletions go one by one, in their place in the group.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain
from typing import Any, NamedTuple

import orjson

from relays.embedded.store_schema import MAX_TIME, Hash, atomic, pair_key, place, tag_keys
from relays.embedded.trait import (
    DELETION,
    GIFT_WRAP,
    VANISH,
    address,
    asks_to_vanish,
    deleted_addresses,
    deleted_ids,
    expiry,
    indexed_tags,
)  # fmt: skip
from relays.event import Event, parse

NEVER = 1 << 62
_CHUNKS = (64, 16, 4, 1)
_VANISHED_AT_ONCE = 1_000  # events of a vanishing author that are removed in the request's own transaction
_AUTHORS = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One verified event on its way into the file. `raw` is its JSON; `origin` is handed back untouched."""

    event: Event
    raw: bytes
    origin: Any


class Outcome(NamedTuple):
    """What became of an event: its `seq` if it is new, and the OK that its sender gets."""

    seq: int | None
    accepted: bool
    reason: str


HAVE_IT = Outcome(None, True, "duplicate: already have this event")
HAVE_NEWER = Outcome(None, True, "duplicate: have a newer version of this event")
DELETED = Outcome(None, False, "blocked: its author has deleted this event")
TOO_LATE = Outcome(None, False, "invalid: created_at is out of range")
VANISHED = Outcome(None, False, "blocked: this key has asked the relay to forget it (NIP-62)")
VANISHED_RECEIVER = Outcome(None, False, "blocked: its receiver has asked the relay to forget them (NIP-62)")


# Slots and the index of words outlive events that expired: a number that either still names is not given again.
_LAST_SEQ = (
    "SELECT max(coalesce((SELECT max(seq) FROM event), 0), coalesce((SELECT max(seq) FROM slot), 0), "
    "coalesce((SELECT value FROM meta WHERE name='words'), 0))"
)


@cache
def _insertion(table: str, columns: int, rows: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return f"INSERT OR IGNORE INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 (our own names)


class EventWriter:
    """The only writer of an event file. Whoever calls it holds the store's lock.

    Attributes:
        kinds: every kind ever stored; a reader may see a kind here before its rows, never after.
        total: how many events are stored.
        next_expiry: no stored event expires before this second.
        urls: the relay's own addresses, canonical; requests to vanish name them.
        too_old: whether retention would remove an event at once; those are not taken.
        is_vanishing: whether events of some vanished author are still to be removed.
    """

    def __init__(self, db: sqlite3.Connection, keyed: Hash) -> None:
        self.db = db
        self.keyed = keyed
        self._author = lru_cache(_AUTHORS)(keyed)
        self.seq: int = self.one(_LAST_SEQ)
        self._any_deleted = bool(self.one("SELECT EXISTS(SELECT 1 FROM tombstone)"))
        self._any_vanished = bool(self.one("SELECT EXISTS(SELECT 1 FROM vanished)"))
        self.is_vanishing = bool(self.one("SELECT EXISTS(SELECT 1 FROM vanished WHERE pending)"))
        self.next_expiry: int = self.one("SELECT coalesce(min(exp), ?) FROM event WHERE exp IS NOT NULL", NEVER)
        self.total: int = self.one("SELECT count(*) FROM event")
        self.kinds = frozenset(self._stored_kinds())
        self.urls: frozenset[str] = frozenset()
        self.too_old: Callable[[Event], str] = lambda _event: ""
        self.forget_words: Callable[[int, Event], None] = lambda _seq, _event: None

    def one(self, sql: str, *args: int | str) -> Any:
        """The first column of the first row, or None."""
        row = self.db.execute(sql, args).fetchone()
        return None if row is None else row[0]

    def _stored_kinds(self) -> list[int]:
        found: list[int] = []
        kind = self.one("SELECT min(kind) FROM event")
        while kind is not None:
            found.append(kind)
            kind = self.one("SELECT min(kind) FROM event WHERE kind > ?", kind)
        return found

    def commit(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Store a group, durable when it returns. All of the group or nothing.

        Raises:
            sqlite3.Error: the engine failed; the group is not stored, or (in COMMIT) may be.
        """
        with self.transaction():
            return self._apply(entries)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside becomes durable together, or none of it.

        Raises:
            sqlite3.Error: the engine failed.
        """
        known = self.seq, self.total, self.is_vanishing
        try:
            with atomic(self.db):
                yield
            known = self.seq, self.total, self.is_vanishing
        finally:
            self.seq, self.total, self.is_vanishing = known

    def _apply(self, entries: Sequence[Entry]) -> list[Outcome]:
        outcomes = [HAVE_IT] * len(entries)
        plain: list[tuple[int, Entry]] = []
        for position, entry in enumerate(entries):
            event = entry.event
            where = address(event)
            refused = self._refused(event)
            if refused is not None:
                outcomes[position] = refused
            elif where is None and event.kind not in (DELETION, VANISH):
                plain.append((position, entry))
            else:
                self._insert(plain, outcomes)  # it may replace or delete one of these
                plain = []
                outcomes[position] = self._replace(entry, where) if where else self._remove_for(entry)
        self._insert(plain, outcomes)
        return outcomes

    def _refused(self, event: Event) -> Outcome | None:
        if event.created_at > MAX_TIME:
            return TOO_LATE
        if self._any_deleted and self._is_deleted(event):
            return DELETED
        if self._any_vanished:
            if self._has_vanished(event.pubkey) and not asks_to_vanish(event, self.urls):
                return VANISHED
            if event.kind == GIFT_WRAP and any(self._has_vanished(receiver) for receiver in event.values("p")):
                return VANISHED_RECEIVER
        reason = self.too_old(event)
        return Outcome(None, False, reason) if reason else None

    def _has_vanished(self, pubkey: str) -> bool:
        return self.one("SELECT 1 FROM vanished WHERE author=?", self._author(pubkey)) is not None

    def _is_deleted(self, event: Event) -> bool:
        # Deleting a deletion or a request to vanish has no effect (NIP-09, NIP-62), in whichever order they come.
        if event.kind in (DELETION, VANISH):
            return False
        return self.one("SELECT 1 FROM tombstone WHERE name=?", self.keyed(event.id + event.pubkey)) is not None

    def _insert(self, numbered: Sequence[tuple[int, Entry]], outcomes: list[Outcome]) -> None:
        """Insert events that replace and delete nothing; those that are there already stay as they are."""
        if not numbered:
            return
        before, first, rows, tags = self.db.total_changes, self.seq, [], []
        for _, entry in numbered:
            self.seq += 1
            event = entry.event
            order, ends = place(event.created_at, event.id), expiry(event)
            author = self._author(event.pubkey)
            rows.append((self.seq, self.keyed(event.id), author, event.kind, order, ends, bytes.fromhex(event.id)))
            for name, value in indexed_tags(event):
                tag = self.keyed(name + value)
                tags.append((tag, event.kind, order, self.seq))
                tags.append((pair_key(tag, author), event.kind, order, self.seq))
            self.next_expiry = min(self.next_expiry, NEVER if ends is None else ends)
        self.kinds |= {row[3] for row in rows}
        self._insert_rows("event", rows)
        fresh: range | set[int] = range(first + 1, self.seq + 1)
        if self.db.total_changes - before != len(rows):
            fresh = {row[0] for row in self.db.execute("SELECT seq FROM event WHERE seq > ?", (first,))}
            tags = [row for row in tags if row[3] in fresh]
        new = [(row[0], entry.raw.decode()) for row, (_, entry) in zip(rows, numbered, strict=True) if row[0] in fresh]
        self._insert_rows("body", new)
        self._insert_rows("tag", sorted(tags))
        for (position, _), row in zip(numbered, rows, strict=True):
            if row[0] in fresh:
                outcomes[position] = Outcome(row[0], True, "")
                self.total += 1

    def _insert_rows(self, table: str, rows: Sequence[tuple[int | str | bytes | None, ...]]) -> None:
        at = 0
        for size in _CHUNKS:
            while len(rows) - at >= size:
                values = list(chain.from_iterable(rows[at : at + size]))
                self.db.execute(_insertion(table, len(rows[at]), size), values)
                at += size

    def _replace(self, entry: Entry, where: str) -> Outcome:
        """A replaceable event: the newest wins, and of two in one second the one with the lower id (NIP-01)."""
        event, name = entry.event, self.keyed("address" + where)
        deleted_until = self.one("SELECT at FROM tombstone WHERE name=?", name)
        if deleted_until is not None and event.created_at <= deleted_until:
            return DELETED
        held = self.db.execute("SELECT at, id, seq FROM slot WHERE address=?", (name,)).fetchone()
        if held is not None:
            at, event_id, seq = held
            if event_id == event.id:
                return HAVE_IT
            if (-at, event_id) < (-event.created_at, event.id):
                return HAVE_NEWER
            self.remove(seq)
        outcomes = [HAVE_IT]
        self._insert([(0, entry)], outcomes)
        if outcomes[0].seq is None:
            return HAVE_IT
        slot = (name, event.created_at, event.id, self.seq)
        self.db.execute("INSERT OR REPLACE INTO slot VALUES(?,?,?,?)", slot)
        return outcomes[0]

    def _remove_for(self, entry: Entry) -> Outcome:
        """A deletion or a request to vanish: it is kept, and does what it says."""
        outcomes = [HAVE_IT]
        self._insert([(0, entry)], outcomes)
        if outcomes[0].seq is not None:
            if entry.event.kind == DELETION:
                self._delete(entry.event)
            elif asks_to_vanish(entry.event, self.urls):
                self._vanish(entry.event)
        return outcomes[0]

    def _delete(self, event: Event) -> None:
        """A deletion (NIP-09): it reaches its own author's events only, and never another deletion."""
        author = self.keyed(event.pubkey)
        for event_id in deleted_ids(event):
            row = self.db.execute("SELECT seq, author, kind FROM event WHERE id=?", (self.keyed(event_id),)).fetchone()
            if row is not None and row[2] in (DELETION, VANISH):
                continue
            if row is not None and row[1] == author:
                self.remove(row[0])
            self._bury(self.keyed(event_id + event.pubkey), None)
        for where in deleted_addresses(event):
            name = self.keyed("address" + where)
            held = self.db.execute("SELECT at, seq FROM slot WHERE address=?", (name,)).fetchone()
            if held is not None and held[0] <= event.created_at:
                self.remove(held[1])
                self.db.execute("DELETE FROM slot WHERE address=?", (name,))
            self._bury(name, event.created_at)

    def _bury(self, name: int, until: int | None) -> None:
        self._any_deleted = True
        self.db.execute(
            "INSERT INTO tombstone VALUES(?,?) ON CONFLICT(name) DO UPDATE SET at=max(at, excluded.at)", (name, until)
        )

    def _vanish(self, event: Event) -> None:
        """A request to vanish (NIP-62): everything of its author goes, and gift wraps to them; nothing comes back."""
        self._any_vanished = self.is_vanishing = True
        wraps = self.keyed("p" + event.pubkey)
        self.db.execute(
            "INSERT INTO vanished VALUES(?,?,?,1) ON CONFLICT(author) DO UPDATE SET at=max(at, excluded.at), pending=1",
            (self.keyed(event.pubkey), event.created_at, wraps),
        )
        self.erase(_VANISHED_AT_ONCE)

    def erase(self, most: int) -> int:
        """Remove at most so many events of one author who vanishes. Returns how many. Within a transaction."""
        row = self.db.execute("SELECT author, wraps FROM vanished WHERE pending LIMIT 1").fetchone()
        if row is None:
            self.is_vanishing = False
            return 0
        author, wraps = row
        found = self.db.execute(
            "SELECT seq FROM event INDEXED BY event_author WHERE author=? AND kind<>? UNION ALL "
            "SELECT seq FROM tag WHERE tag=? AND kind=? LIMIT ?",
            (author, VANISH, wraps, GIFT_WRAP, most),
        ).fetchall()
        for (seq,) in found:
            self.remove(seq, forget=True)
        if len(found) < most:
            self.db.execute("UPDATE vanished SET pending=0 WHERE author=?", (author,))
            self.is_vanishing = bool(self.one("SELECT EXISTS(SELECT 1 FROM vanished WHERE pending)"))
        return len(found)

    def remove(self, seq: int, *, forget: bool = False) -> None:
        """Remove one event, within a transaction. `forget`: it may come again, and its address holds nothing."""
        raw = self.one("SELECT raw FROM body WHERE seq=?", seq)
        if raw is None:
            return
        event = parse(orjson.loads(raw))
        order, where = place(event.created_at, event.id), address(event)
        rows = [(key, event.kind, order, seq) for key in tag_keys(self.keyed, event)]
        self.db.executemany("DELETE FROM tag WHERE tag=? AND kind=? AND place=? AND seq=?", rows)
        self.forget_words(seq, event)
        self.db.execute("DELETE FROM body WHERE seq=?", (seq,))
        self.db.execute("DELETE FROM event WHERE seq=?", (seq,))
        if forget and where is not None:
            self.db.execute("DELETE FROM slot WHERE address=? AND seq=?", (self.keyed("address" + where), seq))
        self.total -= 1
