"""Putting a dump's rows into a SQLite file that is made for them.

The file is made with the schema that the rows come from, filled, brought forward like any other, and checked. Nobody
uses it before `finish` has returned; until then nothing is durable, and what is wrong leaves nothing but the file.
"""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from core.error import InvalidInput
from node.storage.dump import VERSIONS, Kind, kind_of
from node.storage.error import NotOurDatabase
from node.storage.migration import make_at, migrate

_TYPES: dict[Kind, type] = {"text": str, "int": int, "bytes": bytes}
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


class Load:
    """A new SQLite file that is being filled.

    Args:
        path: the file; it is not there yet.
        revision: of the schema from which the rows come.
    """

    def __init__(self, path: Path, revision: str) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        make_at(path, revision)
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536", "temp_store=MEMORY"):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute("BEGIN")

    def columns(self) -> dict[str, tuple[tuple[str, Kind], ...]]:
        """The tables as that schema has them."""
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        found: dict[str, tuple[tuple[str, Kind], ...]] = {}
        for (table,) in self._db.execute(names).fetchall():
            rows = self._db.execute("SELECT name, type FROM pragma_table_info(?) ORDER BY cid", (table,)).fetchall()
            if table != VERSIONS:
                found[table] = tuple((name, kind_of(declared, str(self._path))) for name, declared in rows)
        return found

    def add(self, table: str, columns: Sequence[tuple[str, Kind]], rows: Iterable[Sequence[Any]]) -> int:
        """Rows of a table; how many.

        Raises:
            InvalidInput: a row does not fit: another number of values, another type, a key that is there already.
        """
        names = ", ".join(f'"{name}"' for name, _ in columns)
        marks = ", ".join("?" * len(columns))
        types = [_TYPES[kind] for _, kind in columns]
        count = 0

        def checked() -> Iterable[Sequence[Any]]:
            nonlocal count
            for row in rows:
                _check(table, types, row)
                count += 1
                yield row

        try:
            self._db.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', checked())  # noqa: S608
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, UnicodeEncodeError, OverflowError) as error:
            raise InvalidInput(f"A row does not fit the table {table}: {error}.") from error
        return count

    def finish(self) -> None:
        """Bring it forward to the schema of this version, check it, and have it on the disk.

        Raises:
            NotOurDatabase: the file is not whole.
            sqlite3.Error: the engine failed.
        """
        self._db.execute("COMMIT")
        self._db.close()
        migrate(self._path)
        db = sqlite3.connect(self._path)
        try:
            said = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        finally:
            db.close()
        if said != "ok":
            raise NotOurDatabase(f"The rows make no whole database: {str(said)[:200]}.")
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Give it up, or nothing if it was finished."""
        self._db.close()


def _check(table: str, types: Sequence[type], row: Sequence[Any]) -> None:
    if len(row) != len(types):
        raise InvalidInput(f"A row of {table} has {len(row)} values, not {len(types)}.")
    for kind, value in zip(types, row, strict=True):
        if value is not None and type(value) is not kind:
            raise InvalidInput(f"A row of {table} holds {type(value).__name__} where {kind.__name__} belongs.")
        if isinstance(value, int) and not _LEAST <= value <= _MOST:
            raise InvalidInput(f"A number in a row of {table} is too large.")
