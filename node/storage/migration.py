"""Bringing a database to the schema of this version. Quick when there is nothing to do.

Revisions live in `migrations/versions/`, files named `v<revision>_<word>.py`; their order is that of their names.
Alembic is imported only when a revision must be run, and each upgrade is one transaction. On PostgreSQL a lock lets one
process at a time look and upgrade, so that several may start at once.
"""

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.storage.address import shown
from node.storage.error import NewerSchema, NotOurDatabase

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from node.storage.postgres_link import Link

SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x76656E646F  # "vendo", among the advisory locks of the database
_PATIENCE = {"lock_timeout": "300s", "idle_in_transaction_session_timeout": "0"}  # for another process's upgrade


def revisions() -> list[str]:
    """All revisions that this version knows, oldest first."""
    return sorted(path.name[1:5] for path in (SCRIPTS / "versions").glob("v[0-9][0-9][0-9][0-9]_*.py"))


def revision_of(path: Path) -> str | None:
    """The revision of a file; None if it holds no tables yet.

    Raises:
        NotOurDatabase: it holds tables, but none that says which revision they are.
        sqlite3.DatabaseError: it is no SQLite file.
    """
    db = sqlite3.connect(path, timeout=5.0)
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise NotOurDatabase(f"{path} is a database of something else.")
        found = db.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if found is None else str(found[0])
    finally:
        db.close()


def migrate(path: Path, to: str = "head") -> bool:
    """Run what is missing; true if something was. `to` stops at an older revision, for tests of upgrades.

    Raises:
        NewerSchema: the file's revision is not known here.
        NotOurDatabase: the file holds something else.
        sqlite3.Error: the engine failed; the file is as it was.
    """
    if _is_newest(revision_of(path), str(path)):
        return False
    _upgrade(path, to)
    return True


def _is_newest(current: str | None, where: str) -> bool:
    known = revisions()
    if current is not None and current not in known:
        raise NewerSchema(f"{where} has schema {current}, and this vendo knows none after {known[-1]}.")
    return current == known[-1]


def _forward(connection: "Connection", to: str = "head") -> None:
    """Run what is missing, up to a revision, inside the transaction that is open."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def make_at(path: Path, revision: str) -> None:
    """An empty file with the schema of an older revision, for rows that come from there.

    Raises:
        NewerSchema: the revision is not known here.
        sqlite3.Error: the engine failed.
    """
    _is_newest(revision, str(path))
    _upgrade(path, revision)


def _upgrade(path: Path, to: str = "head") -> None:
    from sqlalchemy import create_engine, event
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None, timeout=5.0), poolclass=NullPool
    )

    @event.listens_for(engine, "begin")
    def begin(connection: "Connection") -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would commit before each change of the schema

    try:
        with engine.begin() as connection:
            _forward(connection, to)
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise error.orig from error
        raise
    finally:
        engine.dispose()


async def revision_on(link: "Link", where: str) -> str | None:
    """The revision of a PostgreSQL database, in the schema in which its user works; None if it holds no tables yet.

    Raises:
        NotOurDatabase: it holds tables, but none that says which revision they are.
    """
    if await link.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL"):
        found = await link.fetchval("SELECT version_num FROM alembic_version")
        return None if found is None else str(found)
    if await link.fetchval("SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = current_schema())"):
        raise NotOurDatabase(f"{where} is a database of something else.")
    return None


async def check_revision(link: "Link", where: str) -> bool:
    """Whether a PostgreSQL database has the schema of this version; false if revisions are missing.

    Raises:
        NewerSchema: its revision is not known here.
        NotOurDatabase: it holds something else.
    """
    return _is_newest(await revision_on(link, where), where)


async def migrate_postgres(url: str, to: str = "head") -> bool:
    """Run what is missing on a PostgreSQL database; true if something was. `to` as in `migrate`.

    Raises:
        NewerSchema: the database's revision is not known here.
        NotOurDatabase: it holds something else.
        InvalidInput, Unreachable: as `postgres_link.connect`.
        StoreFailed, StoreFull: the server failed; the database is as it was.
    """
    from node.storage.postgres_link import FAILED, certain, close, connect

    link = await connect(url)
    try:
        if await check_revision(link, shown(url)):
            return False
    except FAILED as error:
        raise certain(error) from error
    finally:
        await close(link)
    return await _upgrade_postgres(url, to)


async def _upgrade_postgres(url: str, to: str) -> bool:
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    from node.storage.postgres_link import FAILED, certain, connect

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(url, _PATIENCE), poolclass=NullPool
    )
    _set_types(engine.sync_engine.dialect)
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            link: Any = (await connection.get_raw_connection()).driver_connection
            if await check_revision(link, shown(url)):  # another process was quicker
                return False
            await connection.run_sync(_forward, to)
    except DBAPIError as error:
        raise certain(getattr(error.orig, "__cause__", None) or error) from error
    except FAILED as error:
        raise certain(error) from error
    finally:
        await engine.dispose()
    return True


def _set_types(dialect: Any) -> None:
    """In tables of ours every whole number has 64 bits and texts are compared by their bytes, as SQLite does both."""
    from sqlalchemy import BigInteger, Column, Integer, String, Text
    from sqlalchemy.dialects.postgresql.base import PGDDLCompiler

    class Columns(PGDDLCompiler):
        def get_column_specification(self, column: Column[Any], **how: Any) -> str:
            given = column.type
            if isinstance(given, String):
                column.type = Text(collation="C")
            elif isinstance(given, Integer):
                column.type = BigInteger()
            try:
                return str(super().get_column_specification(column, **how))  # type: ignore[no-untyped-call]  # SQLAlchemy's
            finally:
                column.type = given

    dialect.ddl_compiler = Columns
