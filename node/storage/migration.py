"""Bringing a database file to the schema of this version. Quick when there is nothing to do.

Revisions live in `migrations/versions/`, files named `v<revision>_<word>.py`; their order is that of their names.
Alembic is imported only when a revision must be run, and each upgrade is one transaction.
"""

import sqlite3
from pathlib import Path

from node.storage.error import NewerSchema, NotOurDatabase

SCRIPTS = Path(__file__).parent / "migrations"


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


def migrate(path: Path) -> bool:
    """Run what is missing; true if something was.

    Raises:
        NewerSchema: the file's revision is not known here.
        NotOurDatabase: the file holds something else.
        sqlite3.Error: the engine failed; the file is as it was.
    """
    known = revisions()
    current = revision_of(path)
    if current == known[-1]:
        return False
    if current is not None and current not in known:
        raise NewerSchema(f"{path} has schema {current}, and this vendo knows none after {known[-1]}.")
    _upgrade(path)
    return True


def _upgrade(path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine import Connection
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    engine = create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None, timeout=5.0), poolclass=NullPool
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # the driver would commit before each change of the schema

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise error.orig from error
        raise
    finally:
        engine.dispose()
