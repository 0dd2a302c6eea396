"""Whole PostgreSQL databases in and out, for backups: a consistent look at all rows, and filling an empty database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from node.storage.address import shown
from node.storage.dump import PAGE, VERSIONS, Dump, Kind, Page, Tables, kind_of, known, open_dump
from node.storage.error import NotOurDatabase
from node.storage.migration import migrate_postgres
from node.storage.postgres_link import FAILED, Link, certain, check_server, close, connect
from node.storage.postgres_text import bound, read

_LONG = {"idle_in_transaction_session_timeout": "0", "lock_timeout": "60s"}  # between two pages a lot is computed
_READING, _SETTINGS = _LONG | {"application_name": "vendo backup"}, _LONG | {"application_name": "vendo restore"}


class _Postgres:
    engine: Literal["postgresql"] = "postgresql"

    def __init__(self, link: Link, revision: str, tables: Tables) -> None:
        self._link, self.revision, self.tables = link, revision, tables

    async def pages(self, table: str) -> AsyncIterator[Page]:
        columns = self.tables[table]
        names = ", ".join(f'"{name}"' for name, _ in columns)
        try:
            cursor = await self._link.cursor(f'SELECT {names} FROM "{table}"')  # noqa: S608
            rows = await cursor.fetch(PAGE)
        except FAILED as error:
            raise certain(error) from error
        while rows:
            yield [tuple(read(value) for value in row.values()) for row in rows]
            try:
                rows = await cursor.fetch(PAGE)
            except FAILED as error:
                raise certain(error) from error


@asynccontextmanager
async def dump_of(url: str) -> AsyncIterator[Dump]:
    """As `node.storage.dump.open_dump`."""
    link = await connect(url, _READING)
    try:
        try:
            await link.transaction(isolation="repeatable_read", readonly=True).start()
            dump = await _looked(link, shown(url))
        except FAILED as error:
            raise certain(error) from error
        yield dump  # what goes wrong there is not the server's
    finally:
        await close(link)


async def _looked(link: Link, where: str) -> _Postgres:
    asked = (
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"
    )
    tables: dict[str, list[tuple[str, Kind]]] = {}
    for table, column, declared in await link.fetch(asked):
        word = "TEXT" if declared == "character varying" else declared
        tables.setdefault(table, []).append((column, kind_of(word, where)))
    if VERSIONS not in tables:
        raise NotOurDatabase(f"{where} is a database of something else, or is empty.")
    found = await link.fetchval(f"SELECT version_num FROM {VERSIONS}")  # noqa: S608
    del tables[VERSIONS]
    return _Postgres(link, known(str(found or ""), where), {name: tuple(found) for name, found in tables.items()})


async def is_empty(url: str, *, unsafe: bool = False) -> bool:
    """Whether a PostgreSQL database holds nothing, so that rows may be put there. The server is checked too.

    Raises:
        InvalidInput, Unreachable: as `postgres_link.connect`.
        UnsafeServer: it may lose what it acknowledges.
    """
    link = await connect(url)
    try:
        await check_server(link, unsafe=unsafe)
        return not await link.fetchval("SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema())")
    except FAILED as error:
        raise certain(error) from error
    finally:
        await close(link)


async def to_postgres(path: Path, url: str) -> None:
    """Every row of a finished file into an empty PostgreSQL database: all in one transaction.

    Raises:
        InvalidInput, Unreachable, UnsafeServer: as `is_empty`.
        StoreFailed, StoreFull: the server failed; it holds no rows.
        NotOurDatabase: the file is not of this version.
    """
    await migrate_postgres(url)
    link = await connect(url, _SETTINGS)
    try:
        async with link.transaction(), open_dump(path) as dump:
            for table, columns in dump.tables.items():
                names = [name for name, _ in columns]
                async for page in dump.pages(table):
                    rows = [tuple(map(bound, row)) for row in page]
                    await link.copy_records_to_table(table, records=rows, columns=names)
                await _count_on(link, table)
    except FAILED as error:
        raise certain(error) from error
    finally:
        await close(link)


async def _count_on(link: Link, table: str) -> None:
    """The next number of a table that numbers its rows comes after those that are there."""
    asked = "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema()"
    for (column,) in await link.fetch(f"{asked} AND table_name = $1", table):
        sequence = await link.fetchval("SELECT pg_get_serial_sequence($1, $2)", table, column)
        if sequence is not None:
            last = await link.fetchval(f'SELECT max("{column}") FROM "{table}"')  # noqa: S608
            if last is not None:
                await link.fetchval("SELECT setval($1::regclass, $2)", sequence, last)
