"""Reading a node's database from outside: for checks on a stopped node, beside a running one, or on a copy."""

import sqlite3
from pathlib import Path

from core.error import NotFound
from core.unit import Row
from node.storage.error import NotOurDatabase
from node.storage.schema import facts


def read_entries(path: str | Path) -> list[Row]:
    """All ledger entries in the order in which they were written. Changes nothing.

    Raises:
        NotFound: there is no such file.
        NotOurDatabase: it holds no ledger.
    """
    return _read(path, "entry", "n")


def read_identities(path: str | Path) -> list[Row]:
    """All keys of agents, also those that were replaced or given up. Changes nothing.

    Raises:
        NotFound: there is no such file.
        NotOurDatabase: it is no node's.
    """
    return _read(path, "identity", "name, epoch")


def _read(path: str | Path, table: str, order: str) -> list[Row]:
    file = Path(path).absolute()
    if not file.is_file():
        raise NotFound(f"There is no database at {file}.")
    columns = tuple(facts(table).kinds)
    names = ", ".join(f'"{column}"' for column in columns)
    try:
        # a stopped node has left no log beside the file; then SQLite need not make one, nor leave it behind
        how = "mode=ro" if file.with_name(f"{file.name}-wal").exists() else "mode=ro&immutable=1"
        db = sqlite3.connect(f"{file.as_uri()}?{how}", uri=True, timeout=5.0)
        try:
            found = db.execute(f'SELECT {names} FROM "{table}" ORDER BY {order}').fetchall()  # noqa: S608
        finally:
            db.close()
    except sqlite3.DatabaseError as error:
        what = "ledger" if table == "entry" else f"table {table!r}"
        raise NotOurDatabase(f"{file} holds no {what} that can be read: {error}.") from error
    return [dict(zip(columns, row, strict=True)) for row in found]
