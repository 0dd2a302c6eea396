"""What can go wrong in the database, beside the `Conflict` and `StoreUncertain` that everybody knows (core.error).

VendoError
├── BadWrite          store.bad_write     500  our own fault: a write or a question does not fit the schema
├── Fenced            store.fenced        503  another process took this one's place; nothing of the unit was written
├── NewerSchema       store.newer_schema  500  the file was written by a newer vendo
├── NotOurDatabase    store.not_ours      500  the file is no vendo database, or is damaged
├── UnsafeServer      store.unsafe        500  a PostgreSQL that may lose what it acknowledged
└── Unavailable
    ├── StoreFull     store.full          503  the disk is full; certainly nothing of the unit was written
    ├── StoreFailed   store.failed        503  the disk failed; certainly nothing of the unit was written
    └── Unreachable   store.unreachable   503  there is no server, or it lets nobody in; certainly nothing was written
"""

from core.error import Conflict, Unavailable, VendoError


class BadWrite(VendoError):
    """A write does not fit the tables of the database."""

    code = "store.bad_write"


class Fenced(VendoError):
    """Another process has taken the place of this one, which may write nothing more."""

    code = "store.fenced"
    status = 503
    remedy = "Start this process again; it stood still for longer than its lease."


class NewerSchema(VendoError):
    """The database was written by a newer version of vendo."""

    code = "store.newer_schema"
    remedy = "Install that version of vendo again, or restore a backup that this version made."


class NotOurDatabase(VendoError):
    """This file is not a database of vendo."""

    code = "store.not_ours"
    remedy = "Check the path, or restore the file from a backup."


class UnsafeServer(VendoError):
    """This PostgreSQL cannot hold a node's database."""

    code = "store.unsafe"
    remedy = "Set fsync, full_page_writes and synchronous_commit to on; docs/how-to/use-postgresql.md says more."


class StoreFull(Unavailable):
    """The disk is full."""

    code = "store.full"
    remedy = "Free some space on the disk that holds the home directory; the node goes on by itself."


class StoreFailed(Unavailable):
    """The disk or the database failed before anything was committed."""

    code = "store.failed"
    remedy = "Look at the disk and at the log of the system, then try again."


class Unreachable(Unavailable):
    """The database server cannot be reached."""

    code = "store.unreachable"
    remedy = "Check that PostgreSQL runs, and [storage] in config.toml: address, user and password."


def clash(table: str, position: int) -> Conflict:
    """The write at this position of its unit has a key that is taken."""
    return Conflict(f"A row with this key is already in {table}.", table=table, write=position)


def missed(table: str, position: int, found: int, wanted: int) -> Conflict:
    """The write at this position of its unit matches another number of rows than it must."""
    return Conflict(f"{found} rows of {table} are as expected, not {wanted}.", table=table, write=position)
