"""How a filter is read: one index, newest first, and never more than so many rows for each that is returned.

A filter becomes prefixes of an index (author and kind, tag and kind, …). Within a prefix the index is in NIP-01's
order, so one prefix is a plain scan that ends at the limit. Several are merged: first each prefix's newest row (its
head) is looked up, prefixes whose head is too old for the answer are dropped, and the rest run through a priority
queue inside SQLite, which reads one row for every row that it gives. What the index does not decide (a second tag, an
author list that is too long) is checked on what comes out, in growing chunks.

Every statement returns one row (`group_concat`), since every row that Python fetches costs a hand-over of the
interpreter's lock.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from relays.embedded.error import QueryTooBroad

EXAMINED_PER_ROW = 20
_FIRST_CHUNK = 64
MAX_PREFIXES = 20_000  # of an index; beyond it they are not looked up one by one


@dataclass(frozen=True, slots=True)
class Index:
    """One index: the table with the index's name, and the columns before `place`."""

    source: str
    columns: tuple[str, ...]


BY_PLACE = Index("event x INDEXED BY event_place", ())
BY_KIND = Index("event x INDEXED BY event_kind", ("kind",))
BY_AUTHOR = Index("event x INDEXED BY event_author", ("author", "kind"))
BY_TAG = Index("tag x", ("tag", "kind"))


@dataclass(frozen=True, slots=True)
class Rest:
    """What the index does not decide: tags of which one is needed (each list), authors, kinds; None is no condition."""

    tags: tuple[Sequence[int], ...] = ()
    authors: Sequence[int] | None = None
    kinds: Sequence[int] | None = None

    def is_empty(self) -> bool:
        """Whether there is nothing left to check."""
        return not self.tags and self.authors is None and self.kinds is None


@dataclass(frozen=True, slots=True)
class Scan:
    """One way to read a filter. `values` and `kinds` are the prefixes; `kinds` None means every kind there is."""

    index: Index
    values: Sequence[int] = ()
    kinds: Sequence[int] | None = None
    rest: Rest = field(default_factory=Rest)


class Spent(Exception):
    """A scan has used up its rows."""


class Scanner:
    """Runs scans on one connection and counts the rows that they read.

    Attributes:
        examined: index rows read since it was last set to 0.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.examined = 0

    def value(self, sql: str, args: Sequence[int | str]) -> str | int | None:
        """The only column of the only row.

        Raises:
            QueryTooBroad: the statement ran out of its budget.
        """
        try:
            row = self._db.execute(sql, args).fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname == "SQLITE_INTERRUPT":
                raise QueryTooBroad from error
            raise
        found: str | int | None = row[0]
        return found

    def rows(self, sql: str, args: Sequence[int | str], columns: int) -> list[tuple[int, ...]]:
        """What a select of whole numbers gives; `sql` has them in one text, joined by commas, as `line`."""
        found = self.value(f"SELECT group_concat(line) FROM ({sql})", args)  # noqa: S608 (planned here)
        if found is None:
            return []
        flat: list[int] = orjson.loads(f"[{found}]")
        return list(zip(*(flat[at::columns] for at in range(columns)), strict=True))

    def run(self, scans: Sequence[Scan], low: int, high: int, limit: int) -> dict[int, int]:
        """The newest `limit` events that a scan finds between two places, as seq → place. The scans are alternatives.

        Raises:
            QueryTooBroad: none of them found them within the bound on rows examined.
        """
        before, allowed = self.examined, EXAMINED_PER_ROW * (limit + 1)
        for number, scan in enumerate(scans):
            share = allowed if number == len(scans) - 1 else allowed * 3 // 4
            try:
                found = self._run(scan, low, high, limit, before + share)
            except Spent:
                continue
            if self.examined - before > EXAMINED_PER_ROW * (len(found) + 1):
                break
            return found
        raise QueryTooBroad

    def _run(self, scan: Scan, low: int, high: int, limit: int, ceiling: int) -> dict[int, int]:
        found: dict[int, int] = {}
        seen: set[int] = set()
        chunk = limit if scan.rest.is_empty() else max(limit, _FIRST_CHUNK)
        while True:
            asked = min(chunk, ceiling - self.examined)
            rows = self._newest(scan, low, high, asked, ceiling)
            fresh = {seq: place for seq, place in rows if seq not in seen}
            seen |= fresh.keys()
            for seq in self.passing(fresh, scan.rest):
                found[seq] = fresh[seq]
                if len(found) == limit:
                    return found
            if len(rows) < asked:
                return found
            if self.examined >= ceiling:
                raise Spent
            # The last row's place again, since another row may share it.
            high, chunk = rows[-1][1], chunk * 2

    def _newest(self, scan: Scan, low: int, high: int, most: int, ceiling: int) -> list[tuple[int, int]]:
        """The newest rows of the prefixes, in order, as (seq, place). An event with two of the values comes twice."""
        if most <= 0:
            raise Spent
        prefix = self._only_prefix(scan)
        if prefix is not None:
            where = "".join(f"x.{column}=? AND " for column in scan.index.columns)
            sql = (
                f"SELECT x.seq||','||x.place AS line FROM {scan.index.source} WHERE {where}x.place BETWEEN ? AND ? "  # noqa: S608
                "ORDER BY x.place DESC LIMIT ?"
            )
            rows = self.rows(sql, (*prefix, low, high, most), 2)
            self.examined += len(rows)
            return [(seq, place) for seq, place in rows]
        heads = self._heads(scan, low, high, ceiling)
        if len(heads) > most:
            heads.sort(key=lambda head: -head[-1])
            floor = heads[most - 1][-1]
            heads = [head for head in heads if head[-1] >= floor]
        return self._merged(scan.index, heads, low, most)

    def _only_prefix(self, scan: Scan) -> tuple[int, ...] | None:
        columns = len(scan.index.columns)
        if columns == 0:
            return ()
        if scan.kinds is None or len(scan.kinds) != 1:
            return None
        if columns == 1:
            return (scan.kinds[0],)
        return (scan.values[0], scan.kinds[0]) if len(scan.values) == 1 else None

    def _heads(self, scan: Scan, low: int, high: int, ceiling: int) -> list[tuple[int, ...]]:
        """Each prefix's newest row: the prefix's columns, and the place. A prefix without a row in range costs nothing.

        Raises:
            Spent: there are more than may be examined, or too many prefixes.
        """
        table, columns = scan.index.source, scan.index.columns
        most = max(0, ceiling - self.examined) + 1
        first = columns[0]
        newest = "SELECT max(place) FROM {} WHERE {} AND place BETWEEN ? AND ?"
        if len(columns) == 1:
            inner = newest.format(table, f"x.{first}=k.value")
            sql = f"SELECT k.value||','||({inner}) AS line FROM json_each(?) k WHERE line IS NOT NULL LIMIT ?"  # noqa: S608
            rows = self.rows(sql, (low, high, _json(scan.kinds or ()), most), 2)
        elif scan.kinds is not None:
            if len(scan.kinds) * len(scan.values) > MAX_PREFIXES:
                raise Spent
            inner = newest.format(table, f"x.{first}=v.value AND x.kind=k.value")
            sql = (
                f"SELECT v.value||','||k.value||','||({inner}) AS line "  # noqa: S608
                "FROM json_each(?) v CROSS JOIN json_each(?) k WHERE line IS NOT NULL LIMIT ?"
            )
            rows = self.rows(sql, (low, high, _json(scan.values), _json(scan.kinds), most), 3)
        else:
            rows = self._heads_of_every_kind(table, first, scan.values, low, high)
        self.examined += len(rows)
        if len(rows) >= most:
            raise Spent
        return rows

    def _heads_of_every_kind(
        self, table: str, first: str, values: Sequence[int], low: int, high: int
    ) -> list[tuple[int, ...]]:
        """The same where no kind was named: the index itself says which kinds a value has."""
        newest = f"SELECT max(place) FROM {table} WHERE x.{first}=v AND x.kind=k AND place BETWEEN ? AND ?"  # noqa: S608
        sql = (
            f"WITH RECURSIVE g(v, k) AS (SELECT value, (SELECT max(kind) FROM {table} WHERE x.{first}=value) "  # noqa: S608
            f"FROM json_each(?) UNION ALL SELECT v, (SELECT max(kind) FROM {table} WHERE x.{first}=v AND x.kind<k) "
            f"FROM g WHERE k IS NOT NULL LIMIT ?) "
            f"SELECT v||','||k||','||coalesce(({newest}),-1) AS line FROM g WHERE k IS NOT NULL"
        )
        rows = self.rows(sql, (_json(values), MAX_PREFIXES, low, high), 3)
        if len(rows) >= MAX_PREFIXES // 2:  # half of them may only have said that a value has no further kind
            raise Spent
        return [row for row in rows if row[-1] >= 0]

    def _merged(self, index: Index, heads: Sequence[tuple[int, ...]], low: int, most: int) -> list[tuple[int, int]]:
        """Rows of several prefixes in one order. `UNION` drops what two rows of one place would bring twice."""
        if not heads:
            return []
        columns = index.columns
        names = ",".join(columns)
        taken = ",".join(f"json_extract(h.value,'$[{number}]')" for number in range(len(columns) + 1))
        same = " AND ".join(f"x.{column}=m.{column}" for column in columns)
        picked = ",".join(f"m.{column}" for column in columns)
        older = f"SELECT max(x.place) FROM {index.source} WHERE {same} AND x.place BETWEEN ? AND m.place-1"  # noqa: S608
        sql = (
            f"WITH RECURSIVE h({names},top) AS (SELECT {taken} FROM json_each(?) h), "  # noqa: S608
            f"m({names},place,seq) AS (SELECT {picked},x.place,x.seq FROM h m CROSS JOIN {index.source} "
            f"ON {same} AND x.place=m.top UNION SELECT {picked},x.place,x.seq FROM m CROSS JOIN {index.source} "
            f"ON {same} AND x.place=({older}) ORDER BY {len(columns) + 1} DESC LIMIT ?) "
            "SELECT seq||','||place AS line FROM m"
        )
        rows = self.rows(sql, (_json(heads), low, most), 2)
        self.examined += len(rows)
        return [(row[0], row[1]) for row in rows]

    def passing(self, rows: dict[int, int], rest: Rest) -> list[int]:
        """Those that meet what the index did not decide, in order. A look at an event that was read is not counted."""
        if rest.is_empty() or not rows:
            return list(rows)
        terms: list[str] = []
        args: list[int | str] = [_json(list(rows))]
        for column, values in (("author", rest.authors), ("kind", rest.kinds)):
            if values is not None:
                terms.append(f"e.{column} IN (SELECT value FROM json_each(?))")  # noqa: S608
                args.append(_json(values))
        for values in rest.tags:
            terms.append(
                "EXISTS(SELECT 1 FROM tag t WHERE t.tag IN (SELECT value FROM json_each(?)) "
                "AND t.kind=e.kind AND t.place=e.place AND t.seq=e.seq)"
            )
            args.append(_json(values))
        sql = (
            "SELECT e.seq AS line FROM json_each(?) j CROSS JOIN event e ON e.seq=j.value "  # noqa: S608
            f"WHERE {' AND '.join(terms)} ORDER BY j.key"
        )
        return [row[0] for row in self.rows(sql, args, 1)]


def _json(values: Sequence[object]) -> str:
    return orjson.dumps(values).decode()
