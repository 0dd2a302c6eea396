"""The node's database on SQLite, and the way to either kind: `open_database`."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from core.clock import Clock
from core.error import InvalidInput, Unavailable
from core.unit import Condition, Row, Write
from node.storage.address import is_postgres
from node.storage.chain import Seal
from node.storage.error import NotOurDatabase
from node.storage.group import Grouped, Taken, Verdicts
from node.storage.migration import migrate
from node.storage.plan import asked, compiled
from node.storage.reader import Readers
from node.storage.snapshot import copy
from node.storage.statement import count_question
from node.storage.writer import Group, Writer, broken

if TYPE_CHECKING:
    from node.storage.postgres import PostgresDatabase

Store: TypeAlias = "Database | PostgresDatabase"
"""A node's database, of either kind."""


class Database(Grouped):
    """`core.unit.UnitOfWork` on one SQLite file. Made by `open_database`."""

    def __init__(self, path: Path, readers: Readers, writer: Writer) -> None:
        super().__init__()
        self.path = path
        self._readers, self._writer = readers, writer

    async def commit(self, writes: Iterable[Write]) -> None:
        """As `UnitOfWork.commit`. A waiter that is cancelled does not undo its unit.

        Raises:
            Conflict: a write did not match; its context names the table and the write's position.
            StoreUncertain: the engine failed in COMMIT.
            StoreFull: the disk is full; nothing was written.
            StoreFailed: the engine failed before COMMIT; nothing was written.
            BadWrite: a write does not fit the schema.
            Unavailable: the database is closed.
        """
        await self._committed(compiled(writes))

    @property
    def _largest(self) -> int:
        return self._writer.largest

    def _send(self, group: Taken) -> None:
        self._writer.send(self._group(group))

    def _group(self, group: Taken) -> Group:
        def told(verdicts: Verdicts, busy: bool) -> None:  # one call for the group, not one for each unit
            self._loop.call_soon_threadsafe(group.landed, verdicts, busy)

        return Group(group.units, told, self._following)

    def _following(self) -> Group | None:
        group = self._take()
        return None if group is None else self._group(group)

    async def select(
        self,
        table: str,
        where: Mapping[str, Condition] | None = None,
        *,
        order: Sequence[str] = (),
        limit: int | None = None,
        columns: Sequence[str] = (),
        distinct: bool = False,
    ) -> list[Row]:
        """As `UnitOfWork.select`. Runs on the loop, from the page cache; long answers give others their turn.

        Raises:
            BadWrite: the question does not fit the schema.
            Unavailable: the database failed or is closed.
        """
        question = asked(table, where or {}, order, limit, columns, distinct)
        return [dict(zip(question.columns, row, strict=True)) for row in await self._readers.rows(question)]

    async def count(self, table: str, where: Mapping[str, Condition] | None = None, *, limit: int | None = None) -> int:
        """As `UnitOfWork.count`.

        Raises:
            BadWrite: the question does not fit the schema.
            Unavailable: the database failed or is closed.
        """
        return await self._readers.number(count_question(table, where or {}, limit), limit)

    async def snapshot(self, path: str | Path) -> None:
        """Copy the file, as it is now, into a new one; commits go on meanwhile. Whoever is cancelled leaves nothing.

        Raises:
            InvalidInput: there is something at `path`, or its folder is missing.
            StoreFull, StoreFailed: a disk does not take it.
            Unavailable: the database is closed.
        """
        if self._closed:
            raise Unavailable("The database is closed.")
        given_up = threading.Event()
        try:
            await asyncio.to_thread(copy, self.path, Path(path), given_up)
        finally:
            given_up.set()

    async def aclose(self) -> None:
        """Refuse new units, wait until those under way are durable, close the file. May be called twice."""
        if self._closed:
            return
        await self._drained()
        await asyncio.to_thread(self._writer.stop)
        self._readers.close()


def database_path(where: str | Path) -> Path:
    """The file behind a path or a `sqlite:///…` URL.

    Raises:
        InvalidInput: a URL of another kind.
    """
    text = str(where)
    if text.startswith("sqlite:///"):
        return Path(text.removeprefix("sqlite:///"))
    if "://" in text:
        raise InvalidInput(f"A file's URL begins with sqlite:///, not {text.split('://')[0]}://.")
    return Path(text)


def _prepare(path: Path) -> Readers:
    """The file with its newest schema, and what reads it."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # before SQLite would make it readable to others
    migrate(path)
    return Readers(path)


async def open_database(where: str | Path, *, seal: Seal, clock: Clock, unsafe: bool = False) -> "Store":
    """Open a database and bring its schema up to date. A file is made if it is not there.

    Args:
        where: a path, or a URL `sqlite:///…` or `postgresql://…`.
        seal: makes ledger entries.
        clock: gives entries their time.
        unsafe: take a PostgreSQL that may lose what it acknowledged, for tests.

    Raises:
        NewerSchema: a newer vendo wrote it.
        NotOurDatabase: it is something else, or is damaged.
        InvalidInput: the URL names no database.
        StoreFull, StoreFailed: the disk or the server does not take it.
        UnsafeServer, Unreachable: as `node.storage.postgres.open_postgres`.
    """
    if is_postgres(where):
        from node.storage.postgres import open_postgres  # a node on a file does without the driver

        return await open_postgres(str(where), seal=seal, clock=clock, unsafe=unsafe)
    path = database_path(where)
    writer = Writer(path, seal, clock)
    try:
        readers = await asyncio.to_thread(_prepare, path)
        writer.start()
    except sqlite3.OperationalError as error:
        raise broken(error) from error
    except sqlite3.DatabaseError as error:
        raise NotOurDatabase(f"{path} is not a database: {error}.") from error
    return Database(path, readers, writer)
