"""What leaves the event file by itself: what has expired (NIP-40), what is too old or too many, who has vanished.

Everything is done a few events at a time, so that the writer never waits long.
"""

from relays.embedded.retention import Retention
from relays.embedded.store_schema import PAGE_BYTES, place_range
from relays.embedded.store_write import NEVER, EventWriter
from relays.embedded.trait import DELETION, VANISH

_SHARED_OUT = 10_000  # the oldest events among which those that may go are looked for


class Sweeper:
    """Removes events. Whoever calls it holds the store's lock; every method is one transaction.

    Each takes the greatest number of events to remove and returns how many it removed; fewer than asked for means that
    there is nothing left to do. Each raises `sqlite3.Error` if the engine failed; nothing was removed then.
    """

    def __init__(self, writer: EventWriter, retention: Retention, store_bytes: int) -> None:
        self._writer, self._retention = writer, retention
        self._cap_pages = store_bytes // PAGE_BYTES
        self._counted_at = -1

    def expired(self, now: int, most: int) -> int:
        """Events whose `expiration` has come (NIP-40)."""
        writer = self._writer
        with writer.transaction():
            sql = "SELECT seq FROM event WHERE exp<=? ORDER BY exp LIMIT ?"
            rows = writer.db.execute(sql, (now, most)).fetchall()
            for (seq,) in rows:
                writer.remove(seq)
            expiry = writer.one("SELECT coalesce(min(exp), ?) FROM event WHERE exp IS NOT NULL", NEVER)
        writer.next_expiry = expiry
        return len(rows)

    def vanished(self, most: int) -> int:
        """Events of authors who have asked to vanish (NIP-62)."""
        if not self._writer.is_vanishing:
            return 0
        with self._writer.transaction():
            return self._writer.erase(most)

    def aged(self, now: int, most: int) -> int:
        """Events older than their kind's rule allows."""
        writer, removed = self._writer, 0
        for kind in sorted(writer.kinds) if self._retention.rules else ():
            rule = self._retention.rule(kind)
            if rule is None or rule.time_s is None or removed >= most:
                continue
            floor = place_range(max(0, now - rule.time_s), 0)[0]
            removed += self._remove(
                "SELECT seq FROM event INDEXED BY event_kind WHERE kind=? AND place<? ORDER BY place LIMIT ?",
                (kind, floor, most - removed),
            )
        return removed

    def surplus(self, most: int) -> int:
        """Events beyond their kind's number, the oldest first."""
        writer, removed = self._writer, 0
        if self._counted_at == writer.seq:
            return 0
        for kind in sorted(writer.kinds) if self._retention.rules else ():
            rule = self._retention.rule(kind)
            if rule is None or rule.count is None or removed >= most:
                continue
            sql = "SELECT place FROM event INDEXED BY event_kind WHERE kind=? ORDER BY place DESC LIMIT 1 OFFSET ?"
            ceiling = writer.one(sql, kind, rule.count)
            if ceiling is not None:
                removed += self._remove(
                    "SELECT seq FROM event INDEXED BY event_kind WHERE kind=? AND place<=? ORDER BY place LIMIT ?",
                    (kind, ceiling, most - removed),
                )
        if removed < most:
            self._counted_at = writer.seq
        return removed

    def trimmed(self, most: int) -> int:
        """The oldest ordinary events, while the file is fuller than it should be."""
        share = self._retention.trim
        if share is None:
            return 0
        pages = int(self._writer.one("PRAGMA page_count")) - int(self._writer.one("PRAGMA freelist_count"))
        if pages <= self._cap_pages * share:
            return 0
        return self._remove(
            "SELECT seq FROM (SELECT seq, kind FROM event INDEXED BY event_place ORDER BY place LIMIT ?) "
            "WHERE kind NOT IN (0, 3, ?, ?) AND NOT kind BETWEEN 10000 AND 19999 AND NOT kind BETWEEN 30000 AND 39999 "
            "LIMIT ?",
            (_SHARED_OUT, DELETION, VANISH, most),
        )

    def _remove(self, sql: str, args: tuple[int, ...]) -> int:
        rows = self._writer.db.execute(sql, args).fetchall()
        if rows:
            with self._writer.transaction():
                for (seq,) in rows:
                    self._writer.remove(seq, forget=True)
        return len(rows)
