"""Reading events: what a REQ, a COUNT, a reconciliation or an export gets.

A query has two phases: an index-only select of the events' numbers, then the texts by number in pages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from relays.embedded.error import QueryTooBroad
from relays.embedded.store_plan import Planner
from relays.embedded.store_scan import BY_PLACE, Scan, Scanner
from relays.embedded.store_schema import MAX_TIME, Hash, connect, failing_as_file, place_range
from relays.embedded.store_search import Searcher
from relays.filter import MAX_LIMIT, Filter

PAGE = 200  # texts fetched at once
VECTOR_ITEMS = 500_000
_STEPS = 200_000  # SQLite's own instructions between two looks at the budget
_BUDGET = 50  # times _STEPS: some 800,000 index rows, 0.4 s
_PROBE = 200  # index rows that are looked at when two tags compete
_COUNTED = 1_000_000
_NAMED = 20_000  # ids fetched at once
_AT_SHIFT = 30


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer to a REQ as of one moment.

    Attributes:
        top: the highest number that was committed; what comes later is not in the answer.
        seqs: the numbers of all events in the answer, in order.
        first: the texts of the first `PAGE` of them.
        examined: index rows that were read to find them. Events that the filter names by id are not counted.
    """

    top: int
    seqs: Sequence[int]
    first: Sequence[bytes]
    examined: int = 0


def is_empty(wanted: Filter) -> bool:
    """Whether nothing can meet it, or nothing stored was asked for."""
    conditions = (wanted.ids, wanted.authors, wanted.kinds, *wanted.tags.values())
    if wanted.limit == 0 or wanted.since > min(wanted.until, MAX_TIME):
        return True
    return any(one is not None and not one for one in conditions)


class EventReader:
    """One read connection. One thread at a time.

    Args:
        path: the event file.
        keyed: its hash function.
        kinds: every kind ever stored.
        is_vanishing: whether some author's events are still to be removed; they are left out.
    """

    def __init__(
        self,
        path: Path,
        keyed: Hash,
        kinds: Callable[[], frozenset[int]],
        is_vanishing: Callable[[], bool] = lambda: False,
    ) -> None:
        self._db = connect(path)
        self._db.set_progress_handler(self._spend, _STEPS)
        self._left = _BUDGET
        self._keyed, self._is_vanishing = keyed, is_vanishing
        self._scanner = Scanner(self._db)
        self._planner = Planner(keyed, kinds, self._rarity)
        self._searcher = Searcher(self._scanner, keyed)

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _spend(self) -> int:
        self._left -= 1
        return self._left < 0  # true interrupts the statement

    def _rarity(self, key: int) -> int:
        sql = "SELECT count(*) FROM (SELECT 1 FROM tag WHERE tag=? LIMIT ?)"
        return int(self._scanner.value(sql, (key, _PROBE)) or 0)

    def snapshot(self, filters: Sequence[Filter], now: int) -> Snapshot:
        """What is stored and meets one of the filters, newest first, ties by the lowest id.

        What was searched for comes first, and in the order of how well it fits (NIP-50).

        Raises:
            QueryTooBroad: it would examine more than `EXAMINED_PER_ROW` rows for each that it returns.
            EventFileFailed: SQLite failed.
        """
        self._left, self._scanner.examined = _BUDGET, 0
        with failing_as_file("reading"):
            self._db.execute("BEGIN")
            try:
                top = int(self._scanner.value("SELECT coalesce(max(seq), 0) FROM event", ()) or 0)
                seqs = self._seqs(filters)
                return Snapshot(top, seqs, self._texts(seqs[:PAGE], now), self._scanner.examined)
            finally:
                self._db.execute("ROLLBACK")

    def _seqs(self, filters: Sequence[Filter]) -> list[int]:
        places: dict[int, int] = {}
        ranked: dict[int, None] = {}
        for wanted in filters:
            if is_empty(wanted):
                continue
            low, high = place_range(wanted.since, wanted.until)
            words = self._searcher.question(wanted) if wanted.search else None
            if words is not None:
                ranked.update(dict.fromkeys(self._searcher.search(wanted, words, low, high)))
            elif wanted.ids is not None:
                places.update(self._by_id(wanted, low, high))
            else:
                places.update(self._scanner.run(self._planner.scans(wanted), low, high, wanted.limit))
        for seq in ranked:
            places.pop(seq, None)
        return [*ranked, *sorted(places, key=lambda seq: (-places[seq], seq))]

    def _by_id(self, wanted: Filter, low: int, high: int) -> dict[int, int]:
        where, args = self._where(wanted, low, high)
        sql = f"SELECT e.seq||','||e.place AS line FROM {where} ORDER BY e.place DESC LIMIT ?"  # noqa: S608
        return {row[0]: row[1] for row in self._scanner.rows(sql, [*args, wanted.limit], 2)}

    def page(self, seqs: Sequence[int], now: int) -> list[bytes]:
        """The texts of these events, in order; those deleted or expired since are left out.

        Raises:
            EventFileFailed: SQLite failed.
        """
        self._left = _BUDGET
        with failing_as_file("reading"):
            return self._texts(seqs, now)

    def _texts(self, seqs: Sequence[int], now: int) -> list[bytes]:
        if not seqs:
            return []
        sql = (
            "SELECT group_concat(raw, char(10)) FROM (SELECT b.raw FROM json_each(?) j "  # noqa: S608 (our own text)
            "CROSS JOIN event e ON e.seq=j.value CROSS JOIN body b ON b.seq=e.seq "
            f"WHERE (e.exp IS NULL OR e.exp>?){self._present()} ORDER BY j.key)"
        )
        found = self._scanner.value(sql, (orjson.dumps(seqs).decode(), now))
        return str(found).encode().split(b"\n") if found else []  # JSON text holds no bare line feed

    def _present(self) -> str:
        if not self._is_vanishing():
            return ""
        return (
            " AND (e.kind=62 OR e.author NOT IN (SELECT author FROM vanished WHERE pending)) AND NOT EXISTS("
            "SELECT 1 FROM tag t JOIN vanished v ON v.wraps=t.tag AND v.pending "
            "WHERE t.seq=e.seq AND t.kind=1059 AND e.kind=1059 AND t.place=e.place)"
        )

    def count(self, filters: Sequence[Filter]) -> int:
        """How many stored events meet one of the filters (NIP-45); their limits do not matter.

        Of what is searched for, `MAX_LIMIT` at most are counted.

        Raises:
            QueryTooBroad: it would examine too much.
            EventFileFailed: SQLite failed.
        """
        self._left = _BUDGET
        with failing_as_file("counting"):
            parts, args = self._union(filters)
            return int(self._scanner.value(f"SELECT count(*) FROM ({parts})", args) or 0) if parts else 0  # noqa: S608

    def vector(self, filters: Sequence[Filter], most: int = VECTOR_ITEMS) -> list[tuple[int, str]]:
        """`created_at` (Unix seconds) and id of all stored events that meet one of the filters, in no order.

        For a reconciliation (NIP-77). The filters' limits do not matter.

        Raises:
            QueryTooBroad: they are more than `most`.
            EventFileFailed: SQLite failed.
        """
        self._left = _BUDGET
        with failing_as_file("reading"):
            parts, args = self._union(filters)
            if not parts:
                return []
            chosen = f"SELECT group_concat(seq) FROM (SELECT seq FROM ({parts}) LIMIT ?)"  # noqa: S608
            found = self._scanner.value(chosen, [*args, most + 1])
            seqs = sorted(map(int, str(found).split(","))) if found is not None else []
            if len(seqs) > most:
                raise QueryTooBroad
            items: list[tuple[int, str]] = []
            for at in range(0, len(seqs), _NAMED):
                self._left = _BUDGET
                items += self._names(seqs[at : at + _NAMED])
            return items

    def _names(self, seqs: Sequence[int]) -> list[tuple[int, str]]:
        sql = (
            f"SELECT group_concat((e.place>>{_AT_SHIFT})||' '||lower(hex(e.name))) "  # noqa: S608
            f"FROM json_each(?) j CROSS JOIN event e ON e.seq=j.value WHERE 1{self._present()}"
        )
        found = self._scanner.value(sql, (orjson.dumps(seqs).decode(),))
        pairs = (line.split(" ") for line in str(found).split(",")) if found is not None else ()
        return [(int(at), event_id) for at, event_id in pairs]

    def after(self, seq: int, most: int, now: int) -> list[tuple[int, bytes]]:
        """The next events in the order in which they were stored, as (seq, text): for an export. Not the expired.

        Raises:
            EventFileFailed: SQLite failed.
        """
        self._left = _BUDGET
        with failing_as_file("reading"):
            sql = (
                "SELECT e.seq, b.raw FROM event e CROSS JOIN body b ON b.seq=e.seq "  # noqa: S608 (our own text)
                f"WHERE e.seq>? AND (e.exp IS NULL OR e.exp>?){self._present()} ORDER BY e.seq LIMIT ?"
            )
            rows = self._db.execute(sql, (seq, now, most)).fetchall()
            return [(row[0], row[1].encode()) for row in rows]

    # -- without a limit --------------------------------------------------------------------------------------------

    def _union(self, filters: Sequence[Filter]) -> tuple[str, list[int | str]]:
        parts: list[str] = []
        args: list[int | str] = []
        for wanted in filters:
            one = replace(wanted, limit=_COUNTED)
            if is_empty(one):
                continue
            sql, more = self._unlimited(one)
            parts.append(sql)
            args += more
        return " UNION ".join(parts), args

    def _unlimited(self, wanted: Filter) -> tuple[str, list[int | str]]:
        low, high = place_range(wanted.since, wanted.until)
        asked = self._searcher.question(wanted) if wanted.search else None
        if asked is not None:
            found = self._searcher.search(replace(wanted, limit=MAX_LIMIT), asked, low, high, rank=False)
            return "SELECT value AS seq FROM json_each(?)", [_json(found)]
        if wanted.ids is not None:
            where, args = self._where(wanted, low, high)
            return f"SELECT e.seq FROM {where}", args  # noqa: S608
        scans = self._planner.scans(wanted)
        # Where both would do, the index of kinds counts faster than a look at each event.
        return _every(scans[-1] if scans[0].index is BY_PLACE else scans[0], low, high)

    def _where(self, wanted: Filter, low: int, high: int) -> tuple[str, list[int | str]]:
        """The events that a filter names by id, with its other conditions."""
        terms = ["e.id IN (SELECT value FROM json_each(?))", "e.place BETWEEN ? AND ?"]
        args: list[int | str] = [_json(self._planner.hashed(sorted(wanted.ids or ()))), low, high]
        if wanted.kinds is not None:
            terms.append("e.kind IN (SELECT value FROM json_each(?))")
            args.append(_json(sorted(wanted.kinds)))
        if wanted.authors is not None:
            terms.append("e.author IN (SELECT value FROM json_each(?))")
            args.append(_json(self._planner.hashed(sorted(wanted.authors))))
        for name, values in wanted.tags.items():
            terms.append(_TAGGED)
            args.append(_json([self._keyed(name + value) for value in values]))
        return f"event e INDEXED BY event_id WHERE {' AND '.join(terms)}", args


_TAGGED = (
    "EXISTS(SELECT 1 FROM tag t WHERE t.tag IN (SELECT value FROM json_each(?)) "
    "AND t.kind=e.kind AND t.place=e.place AND t.seq=e.seq)"
)


def _every(scan: Scan, low: int, high: int) -> tuple[str, list[int | str]]:
    """All that a scan finds, as a select of numbers."""
    terms: list[str] = []
    args: list[int | str] = []
    if "author" in scan.index.columns or "tag" in scan.index.columns:
        terms.append(f"x.{scan.index.columns[0]} IN (SELECT value FROM json_each(?))")  # noqa: S608
        args.append(_json(list(scan.values)))
    if scan.kinds is not None:
        terms.append("x.kind IN (SELECT value FROM json_each(?))")
        args.append(_json(list(scan.kinds)))
    terms.append("x.place BETWEEN ? AND ?")
    args += [low, high]
    for column, values in (("author", scan.rest.authors), ("kind", scan.rest.kinds)):
        if values is not None:
            listed = "SELECT value FROM json_each(?)"
            terms.append(f"EXISTS(SELECT 1 FROM event e WHERE e.seq=x.seq AND e.{column} IN ({listed}))")  # noqa: S608
            args.append(_json(list(values)))
    for tags in scan.rest.tags:
        terms.append(_TAGGED.replace("e.", "x."))
        args.append(_json(list(tags)))
    # An event may carry several of the values.
    distinct = "DISTINCT " if "tag" in scan.index.columns and len(scan.values) > 1 else ""
    return f"SELECT {distinct}x.seq FROM {scan.index.source} WHERE {' AND '.join(terms)}", args  # noqa: S608


def _json(values: Sequence[object]) -> str:
    return orjson.dumps(values).decode()
