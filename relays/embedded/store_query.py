"""Reading events: one index is chosen for each filter, and SQLite scans it newest first up to the limit.

A query has two phases: an index-only select of the rows' numbers, then the texts by number in pages. Each returns
one row (`group_concat`), since every row that Python fetches costs a hand-over of the interpreter's lock.
An `IN` on the index's first columns with `ORDER BY place DESC LIMIT n` is a bounded merge: SQLite leaves each
prefix once its rows fall below the n best so far. A filter without kinds would break that order, so the kinds
ever stored are filled in for it.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import orjson

from relays.embedded.error import QueryTooBroad
from relays.embedded.store_schema import MAX_TIME, Hash, connect, failing_as_file, place_range
from relays.filter import Filter

PAGE = 200  # texts fetched at once
_STEPS = 200_000  # SQLite's own instructions between two looks at the budget
_BUDGET = 25  # times _STEPS: some 400,000 index rows, 0.2 s
_PROBE = 2_000  # rows counted when two indexes compete
_PROBED = 8  # values of a condition that are counted
_MAX_PREFIXES = 20_000
_COUNTED = 1_000_000
_Args: TypeAlias = list[int | str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answer to a REQ as of one moment.

    Attributes:
        top: the highest number that was committed; what comes later is not in the answer.
        seqs: the numbers of all events in the answer, in order.
        first: the texts of the first `PAGE` of them.
    """

    top: int
    seqs: Sequence[int]
    first: Sequence[bytes]


class _Where:
    """A WHERE clause in the making."""

    def __init__(self) -> None:
        self.terms: list[str] = []
        self.args: _Args = []

    def among(self, column: str, values: Sequence[int]) -> str:
        """The text of a condition whose arguments are noted."""
        if len(values) == 1:
            self.args.append(values[0])
            return f"{column}=?"
        self.args.append(orjson.dumps(values).decode())
        return f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 (our own names)

    def add(self, column: str, values: Sequence[int]) -> None:
        self.terms.append(self.among(column, values))


def is_empty(wanted: Filter) -> bool:
    """Whether nothing can meet it, or nothing stored was asked for."""
    conditions = (wanted.ids, wanted.authors, wanted.kinds, *wanted.tags.values())
    if wanted.limit == 0 or wanted.since > min(wanted.until, MAX_TIME):
        return True
    return any(one is not None and not one for one in conditions)


class EventReader:
    """One read connection. One thread at a time."""

    def __init__(self, path: Path, keyed: Hash, kinds: Callable[[], frozenset[int]]) -> None:
        self._db = connect(path)
        self._db.set_progress_handler(self._spend, _STEPS)
        self._left = _BUDGET
        self._keyed = keyed
        self._kinds = kinds

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def _spend(self) -> int:
        self._left -= 1
        return self._left < 0  # true interrupts the statement

    def _value(self, sql: str, args: Sequence[int | str]) -> str | int | None:
        try:
            row = self._db.execute(sql, args).fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname == "SQLITE_INTERRUPT":
                raise QueryTooBroad from error
            raise
        value: str | int | None = row[0]
        return value

    def snapshot(self, filters: Sequence[Filter], now: int) -> Snapshot:
        """What is stored and meets one of the filters, newest first, ties by the lowest id.

        Raises:
            QueryTooBroad: it would examine too much.
            EventFileFailed: SQLite failed.
        """
        self._left = _BUDGET
        with failing_as_file("reading"):
            self._db.execute("BEGIN")
            try:
                top = int(self._value("SELECT coalesce(max(seq), 0) FROM event", ()) or 0)
                seqs = self._seqs(filters)
                return Snapshot(top, seqs, self._texts(seqs[:PAGE], now))
            finally:
                self._db.execute("ROLLBACK")

    def _seqs(self, filters: Sequence[Filter]) -> list[int]:
        places: dict[int, int] = {}
        for wanted in filters:
            if is_empty(wanted):
                continue
            sql, args = self._plan(wanted)
            found = self._value(f"SELECT group_concat(seq||' '||place) FROM ({sql})", args)  # noqa: S608 (planned here)
            if found:
                pairs = (pair.split(" ") for pair in str(found).split(","))
                places.update((int(seq), int(order)) for seq, order in pairs)
        return sorted(places, key=lambda seq: (-places[seq], seq))

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
        rows = (
            "SELECT e.raw FROM json_each(?) j CROSS JOIN event e ON e.seq=j.value "
            "WHERE e.exp IS NULL OR e.exp>? ORDER BY j.key"
        )
        found = self._value(f"SELECT group_concat(raw, char(10)) FROM ({rows})", (orjson.dumps(seqs).decode(), now))  # noqa: S608
        return str(found).encode().split(b"\n") if found else []  # JSON text holds no bare line feed

    def count(self, filters: Sequence[Filter]) -> int:
        """How many stored events meet one of the filters (NIP-45); their limits do not matter.

        Raises:
            QueryTooBroad: it would examine too much.
            EventFileFailed: SQLite failed.
        """
        self._left = _BUDGET
        parts: list[str] = []
        args: _Args = []
        with failing_as_file("counting"):
            for wanted in filters:
                one = replace(wanted, limit=_COUNTED)
                if not is_empty(one):
                    sql, more = self._plan(one)
                    parts.append(f"SELECT seq FROM ({sql})")  # noqa: S608
                    args += more
            return int(self._value(f"SELECT count(*) FROM ({' UNION '.join(parts)})", args) or 0) if parts else 0  # noqa: S608

    def _plan(self, wanted: Filter) -> tuple[str, _Args]:
        """One select over one index, newest first, and its arguments."""
        tags = {name: [self._keyed(name + value) for value in values] for name, values in wanted.tags.items()}
        authors = None if wanted.authors is None else [self._keyed(author) for author in wanted.authors]
        where = _Where()
        source, driver = self._source(wanted, tags, authors)
        if wanted.ids is not None:
            where.add("x.id", [self._keyed(event_id) for event_id in wanted.ids])
        distinct = ""
        if driver:
            # One event may carry several of the values; counted twice it would take another's place in the limit.
            distinct = "DISTINCT " if len(tags[driver]) > 1 else ""
            where.add("x.tag", tags.pop(driver))
        elif authors is not None:
            where.add("x.author", authors)
        kinds = self._kinds_for(wanted, len(wanted.tags[driver]) if driver else len(wanted.authors or ()))
        if kinds is not None:
            where.add("x.kind", kinds)
        where.terms.append("x.place BETWEEN ? AND ?")
        where.args += place_range(wanted.since, wanted.until)
        for values in tags.values():
            among = where.among("t.tag", values)
            probe = f"SELECT 1 FROM tag t WHERE {among} AND t.kind=x.kind AND t.place=x.place AND t.seq=x.seq"  # noqa: S608
            where.terms.append(f"EXISTS({probe})")
        if driver and authors is not None:
            among = where.among("e.author", authors)
            where.terms.append(f"EXISTS(SELECT 1 FROM event e WHERE e.seq=x.seq AND {among})")  # noqa: S608
        chosen = f"SELECT {distinct}x.seq, x.place FROM {source} WHERE {' AND '.join(where.terms)}"  # noqa: S608
        return f"{chosen} ORDER BY x.place DESC LIMIT ?", [*where.args, wanted.limit]

    def _kinds_for(self, wanted: Filter, prefixes: int) -> list[int] | None:
        if wanted.kinds is not None:
            return list(wanted.kinds)
        known = self._kinds()
        if wanted.ids is not None or not prefixes or not 0 < len(known) * prefixes <= _MAX_PREFIXES:
            return None
        return list(known)

    def _source(self, wanted: Filter, tags: dict[str, list[int]], authors: list[int] | None) -> tuple[str, str]:
        """The table with its index, and the name of the tag that drives (or nothing)."""
        if wanted.ids is not None:
            return "event x INDEXED BY event_id", ""
        rivals = dict[str, tuple[str, list[int]]]()
        for name, values in tags.items():
            rivals[name] = ("tag WHERE tag=?", values)
        if authors is not None:
            rivals[""] = ("event INDEXED BY event_author WHERE author=?", authors)
        if rivals:
            driver = min(rivals, key=lambda name: self._rows(*rivals[name])) if len(rivals) > 1 else next(iter(rivals))
            return ("tag x", driver) if driver else ("event x INDEXED BY event_author", "")
        return ("event x INDEXED BY event_kind" if wanted.kinds is not None else "event x INDEXED BY event_place"), ""

    def _rows(self, source: str, values: Sequence[int]) -> int:
        """About how many rows a condition leaves: its first few values are counted, up to a bound."""
        sql = f"SELECT count(*) FROM (SELECT 1 FROM {source} LIMIT {_PROBE})"  # noqa: S608
        counted = sum(int(self._value(sql, (value,)) or 0) for value in values[:_PROBED])
        return counted * len(values) // max(1, min(len(values), _PROBED))
