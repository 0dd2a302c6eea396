"""Reading a node's database from outside: for checks on a stopped node, beside a running one, or on a copy."""

import asyncio
import sqlite3
from pathlib import Path

from core.error import NotFound
from core.unit import Row
from node.storage.address import is_postgres, shown
from node.storage.error import NotOurDatabase
from node.storage.schema import facts


def read_entries(where: str | Path) -> list[Row]:
    """All ledger entries in the order in which they were written. Changes nothing. Not for a running event loop.

    Args:
        where: a file, or a `postgresql://…` URL.

    Raises:
        NotFound: there is no such file.
        NotOurDatabase: it holds no ledger.
        InvalidInput, Unreachable, StoreFailed: the server does not answer.
    """
    return _read(where, "entry", ("n",))


def read_identities(where: str | Path) -> list[Row]:
    """All keys of agents, also those that were replaced or given up. Changes nothing. Not for a running event loop.

    Args:
        where: as `read_entries`.

    Raises:
        NotFound: there is no such file.
        NotOurDatabase: it is no node's.
        InvalidInput, Unreachable, StoreFailed: the server does not answer.
    """
    return _read(where, "identity", ("name", "epoch"))


def _read(where: str | Path, table: str, order: tuple[str, ...]) -> list[Row]:
    if is_postgres(where):
        return asyncio.run(_read_server(str(where), table, order))
    return _read_file(Path(where).absolute(), table, order)


def _read_file(file: Path, table: str, order: tuple[str, ...]) -> list[Row]:
    if not file.is_file():
        raise NotFound(f"There is no database at {file}.")
    columns = tuple(facts(table).kinds)
    names = ", ".join(f'"{column}"' for column in columns)
    try:
        # a stopped node has left no log beside the file; then SQLite need not make one, nor leave it behind
        how = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
        db = sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, timeout=5.0)
        try:
            found = db.execute(f'SELECT {names} FROM "{table}" ORDER BY {", ".join(order)}').fetchall()  # noqa: S608
        finally:
            db.close()
    except sqlite3.DatabaseError as error:
        raise NotOurDatabase(f"{file} holds no {_what(table)} that can be read: {error}.") from error
    return [dict(zip(columns, row, strict=True)) for row in found]


async def _read_server(url: str, table: str, order: tuple[str, ...]) -> list[Row]:
    import asyncpg  # a node on a file does without it

    from node.storage.postgres_link import FAILED, certain, close, connect
    from node.storage.postgres_question import question

    link = await connect(url, {"application_name": "vendo archive", "default_transaction_read_only": "on"})
    try:
        asked = question(table, {}, order)
        return asked.ask.rows(await link.fetch(asked.ask.lone))
    except asyncpg.UndefinedTableError as error:
        raise NotOurDatabase(f"{shown(url)} holds no {_what(table)} that can be read.") from error
    except FAILED as error:
        raise certain(error) from error
    finally:
        await close(link)


def _what(table: str) -> str:
    return "ledger" if table == "entry" else f"table {table!r}"
