"""Every row of a database at one moment, in a form that any engine takes: for backups. Nobody waits for it.

On SQLite it is one read transaction of a connection of its own, best in a process of its own: in the write-ahead log
readers and the writer do not meet. On PostgreSQL it is one REPEATABLE READ transaction. Rows come in pages, so that a
table of any length takes the same memory.
"""

import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

from core.error import NotFound
from node.storage.address import is_postgres
from node.storage.database import database_path
from node.storage.error import NewerSchema, NotOurDatabase
from node.storage.migration import revisions

Kind: TypeAlias = Literal["text", "int", "bytes"]
Page: TypeAlias = list[tuple[Any, ...]]
PAGE = 500
VERSIONS = "alembic_version"
_BUSY_S = 10.0


Tables: TypeAlias = Mapping[str, tuple[tuple[str, Kind], ...]]


class Dump(Protocol):
    """A database as it was at one moment."""

    @property
    def engine(self) -> Literal["sqlite", "postgresql"]:
        """What it is on."""

    @property
    def revision(self) -> str:
        """Of its schema."""

    @property
    def tables(self) -> Tables:
        """Name → columns, in the order in which rows give them."""

    def pages(self, table: str) -> AsyncIterator[Page]:
        """The rows of a table."""


@asynccontextmanager
async def open_dump(where: str | Path) -> AsyncIterator[Dump]:
    """Look at a database, also one that others write to.

    Args:
        where: a path, or a `sqlite:///…` or `postgresql://…` URL.

    Raises:
        NotFound: there is no such file.
        NotOurDatabase: it holds something else, or nothing yet.
        NewerSchema: a newer vendo wrote it.
        Unavailable: it cannot be read.
    """
    if is_postgres(where):
        from node.storage.postgres_copy import dump_of  # a node on a file does without the driver

        async with dump_of(str(where)) as found:
            yield found
        return
    dump = _Sqlite(database_path(where))
    try:
        yield dump
    finally:
        dump.close()


def known(revision: str, where: str) -> str:
    """A revision that this version knows.

    Raises:
        NewerSchema: it does not.
    """
    if revision not in revisions():
        raise NewerSchema(f"{where} has schema {revision}, and this vendo knows none after {revisions()[-1]}.")
    return revision


def kind_of(declared: str, where: str) -> Kind:
    """What a column of a declared type holds.

    Raises:
        NotOurDatabase: no table of vendo has such a column.
    """
    word = declared.upper()
    if "INT" in word:
        return "int"
    if "CHAR" in word or "TEXT" in word:
        return "text"
    if word in ("BLOB", "BYTEA"):
        return "bytes"
    raise NotOurDatabase(f"{where} has columns of a type that is not known here: {declared[:40]!r}.")


class _Sqlite:
    engine: Literal["sqlite"] = "sqlite"

    def __init__(self, path: Path) -> None:
        file = path.absolute()
        if not file.is_file():
            raise NotFound(f"There is no database at {file}.")
        # a stopped node has left no log beside the file; then SQLite need not make one, nor leave it behind
        how = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
        try:
            self._db = sqlite3.connect(
                f"{file.as_uri()}?{how}", uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("BEGIN")
            names = self._names()  # the first read is the moment
            if VERSIONS not in names:
                raise NotOurDatabase(f"{file} is a database of something else, or is empty.")
            found = self._db.execute(f"SELECT version_num FROM {VERSIONS}").fetchone()  # noqa: S608
            self.revision = known(str(found[0]) if found else "", str(file))
            self.tables: Tables = {name: self._columns(name, str(file)) for name in names if name != VERSIONS}
        except sqlite3.DatabaseError as error:
            raise NotOurDatabase(f"{file} cannot be read: {error}.") from error

    def _names(self) -> list[str]:
        asked = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        return [name for (name,) in self._db.execute(asked)]

    def _columns(self, table: str, where: str) -> tuple[tuple[str, Kind], ...]:
        rows = self._db.execute("SELECT name, type FROM pragma_table_info(?) ORDER BY cid", (table,))
        return tuple((name, kind_of(declared, where)) for name, declared in rows)

    async def pages(self, table: str) -> AsyncIterator[Page]:
        names = ", ".join(f'"{name}"' for name, _ in self.tables[table])
        try:
            cursor = self._db.execute(f'SELECT {names} FROM "{table}"')  # noqa: S608
            while page := cursor.fetchmany(PAGE):
                yield page
        except sqlite3.DatabaseError as error:
            raise NotOurDatabase(f"The table {table} cannot be read: {error}.") from error

    def close(self) -> None:
        self._db.close()
