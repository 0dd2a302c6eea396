"""Databases as older versions left them: two rows in every table, at any released revision, on either engine."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg

from node.storage.migration import migrate, migrate_postgres

Rows = dict[str, tuple[tuple[str, ...], list[tuple[Any, ...]]]]
"""Table → columns, rows."""

_TEXTS = {
    "state": "new", "status": "active", "source": "nostr", "payload": '{"created_at": 77, "text": "hé\\u0001"}',
    "value": "{}",
}  # fmt: skip


def _value(column: str, kind: str, number: int) -> Any:
    if "INT" in kind:
        return number
    if kind == "BLOB":
        return f"{column} {number}".encode()
    return _TEXTS.get(column, f"{column} ü {number}")


def old_rows(folder: Path, revision: str) -> Rows:
    """Two for each table that there was."""
    path = folder / f"{revision}.db"
    migrate(path, revision)
    found: Rows = {}
    with closing(sqlite3.connect(path)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in sorted({*names} - {"alembic_version"}):
            columns = [(row[1], row[2]) for row in db.execute(f'PRAGMA table_info("{table}")')]
            rows = [tuple(_value(name, kind, number) for name, kind in columns) for number in (41, 42)]
            found[table] = tuple(name for name, _ in columns), rows
    return found


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def make_sqlite(path: Path, revision: str, rows: Rows) -> None:
    """A file of this revision with these rows."""
    migrate(path, revision)
    with closing(sqlite3.connect(path)) as db:
        for table, (columns, those) in rows.items():
            db.executemany(f'INSERT INTO "{table}" ({_names(columns)}) VALUES ({", ".join("?" * len(columns))})', those)
        db.commit()


def read_sqlite(path: Path, rows: Rows) -> Rows:
    """The same columns of the same tables."""
    with closing(sqlite3.connect(path)) as db:
        return {
            table: (columns, sorted(db.execute(f'SELECT {_names(columns)} FROM "{table}"').fetchall(), key=repr))
            for table, (columns, _) in rows.items()
        }


async def make_postgres(url: str, revision: str, rows: Rows) -> None:
    """A database of this revision with these rows."""
    await migrate_postgres(url, revision)
    link = await asyncpg.connect(url)
    for table, (columns, those) in rows.items():
        await link.copy_records_to_table(table, records=those, columns=columns)
        if "n" in columns:
            await link.execute(f"SELECT setval('{table}_n_seq', 42)")
    await link.close()


async def read_postgres(url: str, rows: Rows) -> Rows:
    """The same columns of the same tables."""
    link = await asyncpg.connect(url)
    found = {}
    for table, (columns, _) in rows.items():
        those = [tuple(row) for row in await link.fetch(f'SELECT {_names(columns)} FROM "{table}"')]
        found[table] = columns, sorted(those, key=repr)
    await link.close()
    return found
