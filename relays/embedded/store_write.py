"""Writing events: one transaction for a whole group, with NIP-01's replacement, NIP-09's deletion, NIP-40's expiry.

Ordinary events go in by statements of many rows: each step of SQLite gives up the interpreter's lock and must win
it back, which under a busy loop costs more than the insert itself. Replaceable events and deletions go one by
one, in their place in the group.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from relays.embedded.store_schema import MAX_TIME, Hash, place
from relays.embedded.trait import DELETION, address, deleted_addresses, deleted_ids, expiry, indexed_tags
from relays.event import Event, parse

NEVER = 1 << 62
_CHUNKS = (64, 16, 4, 1)


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


class EventWriter:
    """The only writer of an event file. Whoever calls it holds the store's lock.

    Attributes:
        kinds: every kind ever stored; a reader may see a kind here before its rows, never after.
        total: how many events are stored.
        next_expiry: no stored event expires before this second.
    """

    def __init__(self, db: sqlite3.Connection, keyed: Hash) -> None:
        self._db = db
        self._keyed = keyed
        self._seq: int = self._one("SELECT coalesce(max(seq), 0) FROM event")
        self._any_deleted = bool(self._one("SELECT EXISTS(SELECT 1 FROM tombstone)"))
        self.next_expiry: int = self._one("SELECT coalesce(min(exp), ?) FROM event WHERE exp IS NOT NULL", NEVER)
        self.total: int = self._one("SELECT count(*) FROM event")
        self.kinds = frozenset(self._stored_kinds())

    def _one(self, sql: str, *args: int | str) -> Any:
        row = self._db.execute(sql, args).fetchone()
        return None if row is None else row[0]

    def _stored_kinds(self) -> list[int]:
        found: list[int] = []
        kind = self._one("SELECT min(kind) FROM event")
        while kind is not None:
            found.append(kind)
            kind = self._one("SELECT min(kind) FROM event WHERE kind > ?", kind)
        return found

    def commit(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Store a group, durable when it returns. All of the group or nothing.

        Raises:
            sqlite3.Error: the engine failed; the group is not stored, or (in COMMIT) may be.
        """
        before = self._seq, self.total
        self._db.execute("BEGIN IMMEDIATE")
        try:
            outcomes = self._apply(entries)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back(before)
            raise
        return outcomes

    def _roll_back(self, before: tuple[int, int]) -> None:
        if self._db.in_transaction:  # the engine rolls back by itself on some errors
            self._db.execute("ROLLBACK")
        self._seq, self.total = before

    def _apply(self, entries: Sequence[Entry]) -> list[Outcome]:
        outcomes = [HAVE_IT] * len(entries)
        plain: list[tuple[int, Entry]] = []
        for position, entry in enumerate(entries):
            event = entry.event
            where = address(event)
            if event.created_at > MAX_TIME:
                outcomes[position] = TOO_LATE
            elif self._any_deleted and self._is_deleted(event):
                outcomes[position] = DELETED
            elif where is None and event.kind != DELETION:
                plain.append((position, entry))
            else:
                self._insert(plain, outcomes)  # it may replace or delete one of these
                plain = []
                outcomes[position] = self._replace(entry, where) if where else self._delete(entry)
        self._insert(plain, outcomes)
        return outcomes

    def _is_deleted(self, event: Event) -> bool:
        if event.kind == DELETION:  # deleting a deletion has no effect (NIP-09), in whichever order they come
            return False
        return self._one("SELECT 1 FROM tombstone WHERE name=?", self._keyed(event.id + event.pubkey)) is not None

    def _insert(self, numbered: Sequence[tuple[int, Entry]], outcomes: list[Outcome]) -> None:
        """Insert events that replace and delete nothing; those that are there already stay as they are."""
        if not numbered:
            return
        before, first, rows, tags = self._db.total_changes, self._seq, [], []
        for _, entry in numbered:
            self._seq += 1
            event = entry.event
            order, ends = place(event.created_at, event.id), expiry(event)
            rows.append(
                (
                    self._seq,
                    self._keyed(event.id),
                    self._keyed(event.pubkey),
                    event.kind,
                    order,
                    ends,
                    entry.raw.decode(),
                )
            )
            tags += [(self._keyed(name + value), event.kind, order, self._seq) for name, value in indexed_tags(event)]
            self.next_expiry = min(self.next_expiry, NEVER if ends is None else ends)
        self.kinds |= {row[3] for row in rows}
        self._insert_rows("event", rows)
        fresh: range | set[int] = range(first + 1, self._seq + 1)
        if self._db.total_changes - before != len(rows):
            fresh = {row[0] for row in self._db.execute("SELECT seq FROM event WHERE seq > ?", (first,))}
            tags = [row for row in tags if row[3] in fresh]
        self._insert_rows("tag", tags)
        for (position, _), row in zip(numbered, rows, strict=True):
            if row[0] in fresh:
                outcomes[position] = Outcome(row[0], True, "")
                self.total += 1

    def _insert_rows(self, table: str, rows: Sequence[tuple[int | str | None, ...]]) -> None:
        at = 0
        for size in _CHUNKS:
            while len(rows) - at >= size:
                group = ",".join(["(" + ",".join("?" * len(rows[at])) + ")"] * size)
                values = [value for row in rows[at : at + size] for value in row]
                self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES {group}", values)  # noqa: S608 (our own names)
                at += size

    def _replace(self, entry: Entry, where: str) -> Outcome:
        """A replaceable event: the newest wins, and of two in one second the one with the lower id (NIP-01)."""
        event, name = entry.event, self._keyed("address" + where)
        deleted_until = self._one("SELECT at FROM tombstone WHERE name=?", name)
        if deleted_until is not None and event.created_at <= deleted_until:
            return DELETED
        held = self._db.execute("SELECT at, id, seq FROM slot WHERE address=?", (name,)).fetchone()
        if held is not None:
            at, event_id, seq = held
            if event_id == event.id:
                return HAVE_IT
            if (-at, event_id) < (-event.created_at, event.id):
                return HAVE_NEWER
            self._remove(seq)
        outcomes = [HAVE_IT]
        self._insert([(0, entry)], outcomes)
        if outcomes[0].seq is None:
            return HAVE_IT
        slot = (name, event.created_at, event.id, self._seq)
        self._db.execute("INSERT OR REPLACE INTO slot VALUES(?,?,?,?)", slot)
        return outcomes[0]

    def _delete(self, entry: Entry) -> Outcome:
        """A deletion (NIP-09): it reaches its own author's events only, and never another deletion."""
        event, outcomes = entry.event, [HAVE_IT]
        self._insert([(0, entry)], outcomes)
        if outcomes[0].seq is None:
            return HAVE_IT
        author = self._keyed(event.pubkey)
        for event_id in deleted_ids(event):
            row = self._db.execute(
                "SELECT seq, author, kind FROM event WHERE id=?", (self._keyed(event_id),)
            ).fetchone()
            if row is not None and row[2] == DELETION:
                continue
            if row is not None and row[1] == author:
                self._remove(row[0])
            self._bury(self._keyed(event_id + event.pubkey), None)
        for where in deleted_addresses(event):
            name = self._keyed("address" + where)
            held = self._db.execute("SELECT at, seq FROM slot WHERE address=?", (name,)).fetchone()
            if held is not None and held[0] <= event.created_at:
                self._remove(held[1])
                self._db.execute("DELETE FROM slot WHERE address=?", (name,))
            self._bury(name, event.created_at)
        return outcomes[0]

    def _bury(self, name: int, until: int | None) -> None:
        self._any_deleted = True
        self._db.execute(
            "INSERT INTO tombstone VALUES(?,?) ON CONFLICT(name) DO UPDATE SET at=max(at, excluded.at)", (name, until)
        )

    def _remove(self, seq: int) -> None:
        raw = self._one("SELECT raw FROM event WHERE seq=?", seq)
        if raw is None:
            return
        event = parse(orjson.loads(raw))
        order = place(event.created_at, event.id)
        keys = [(self._keyed(name + value), event.kind, order, seq) for name, value in indexed_tags(event)]
        self._db.executemany("DELETE FROM tag WHERE tag=? AND kind=? AND place=? AND seq=?", keys)
        self._db.execute("DELETE FROM event WHERE seq=?", (seq,))
        self.total -= 1

    def sweep(self, now: int, most: int) -> int:
        """Remove at most so many events that have expired (NIP-40). Returns how many.

        Raises:
            sqlite3.Error: the engine failed; nothing was removed.
        """
        before = self._seq, self.total
        self._db.execute("BEGIN IMMEDIATE")
        try:
            rows = self._db.execute("SELECT seq FROM event WHERE exp<=? ORDER BY exp LIMIT ?", (now, most)).fetchall()
            for row in rows:
                self._remove(row[0])
            expiries = self._one("SELECT coalesce(min(exp), ?) FROM event WHERE exp IS NOT NULL", NEVER)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back(before)
            raise
        self.next_expiry = expiries
        return len(rows)
