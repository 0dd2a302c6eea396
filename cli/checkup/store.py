"""The database: whether it is there and whole, its schema, and whether a server keeps what it acknowledges."""

import time
from pathlib import Path

from cli.checkup.finding import Check, detached, fail, ok, warn
from cli.checkup.place import is_ours
from core.error import VendoError
from core.guard import caught
from node.config import StorageSection
from node.home import database_of
from node.storage.address import shown
from node.storage.error import NewerSchema, UnsafeServer
from node.storage.migration import revision_of, revision_on, revisions


async def database(home: Path, section: StorageSection) -> Check:
    """A file is looked at from outside; a server is asked, and what it acknowledges must be durable."""
    try:
        where = await detached(lambda: database_of(home, section))
        if isinstance(where, Path):
            return await detached(lambda: _file(where, home))
        return await _server(where, section, home)
    except VendoError as error:
        return fail("database", error.message, error.advice or f"Run: vendo doctor --home {home}")


def _file(where: Path, home: Path) -> Check:
    if not where.exists():
        return ok("database", f"{where} is made at the first start.")
    detail = f"{where} has {where.stat().st_size >> 20} MiB"
    if not is_ours(home):  # opening it as another user could leave files beside it that the node may not write
        return ok("database", f"{detail}; it was not opened.")
    revision, error = caught(lambda: revision_of(where))
    if isinstance(error, VendoError):
        return fail("database", error.message, error.advice)
    if error is not None:
        fix = f"Run: vendo restore FILE --replace --home {home}"
        return fail("database", f"{where} cannot be read as a database: {error}.", fix)
    return _schema(detail, revision, home)


def _schema(detail: str, revision: str | None, home: Path) -> Check:
    known = revisions()
    if revision is None:
        return ok("database", f"{detail}; its tables are made at the first start.")
    if revision not in known:
        said = f"{detail}, but was written by a newer vendo: its schema is {revision}, and {known[-1]} is known here."
        return fail("database", said, NewerSchema.remedy)
    if revision != known[-1]:
        said = f"{detail}; its schema is {revision}, and the next start of this vendo makes it {known[-1]}, for good."
        return warn("database", said, f"Before that: vendo backup FILE --home {home}")
    return ok("database", f"{detail}; its schema is {revision}, the newest.")


async def _server(where: str, section: StorageSection, home: Path) -> Check:
    # who has a file does without the driver
    from node.storage.postgres_link import FAILED, certain, close, connect, describe

    begun = time.monotonic()
    facts, faults = await describe(where)
    took = (time.monotonic() - begun) * 1000
    said = f"PostgreSQL {facts['name']} at {shown(where)} answers in {took:.0f} ms and has {facts['bytes'] >> 20} MiB"
    if faults:
        broken = f"{said}, but {'; '.join(faults)}."
        return (warn if section.unsafe else fail)("database", broken, UnsafeServer.remedy)
    link = await connect(where, {"default_transaction_read_only": "on"})
    try:
        revision = await revision_on(link, shown(where))
    except FAILED as error:
        raise certain(error) from error
    finally:
        await close(link)
    return _schema(f"{said}; what it acknowledges is on its disk", revision, home)
