"""What can go wrong in the database, beside the `Conflict` and `StoreUncertain` that everybody knows (core.error).

VendoError
├── BadWrite          store.bad_write     500  our own fault: a write or a question does not fit the schema
├── NewerSchema       store.newer_schema  500  the file was written by a newer vendo
├── NotOurDatabase    store.not_ours      500  the file is no vendo database, or is damaged
└── Unavailable
    ├── StoreFull     store.full          503  the disk is full; certainly nothing of the unit was written
    └── StoreFailed   store.failed        503  the disk failed; certainly nothing of the unit was written
"""

from core.error import Conflict, Unavailable, VendoError


class BadWrite(VendoError):
    """A write does not fit the tables of the database."""

    code = "store.bad_write"


class NewerSchema(VendoError):
    """The database was written by a newer version of vendo."""

    code = "store.newer_schema"
    remedy = "Install that version of vendo again, or restore a backup that this version made."


class NotOurDatabase(VendoError):
    """This file is not a database of vendo."""

    code = "store.not_ours"
    remedy = "Check the path, or restore the file from a backup."


class StoreFull(Unavailable):
    """The disk is full."""

    code = "store.full"
    remedy = "Free some space on the disk that holds the home directory; the node goes on by itself."


class StoreFailed(Unavailable):
    """The disk or the database failed before anything was committed."""

    code = "store.failed"
    remedy = "Look at the disk and at the log of the system, then try again."


def clash(table: str, position: int) -> Conflict:
    """The write at this position of its unit has a key that is taken."""
    return Conflict(f"A row with this key is already in {table}.", table=table, write=position)


def missed(table: str, position: int, found: int, wanted: int) -> Conflict:
    """The write at this position of its unit matches another number of rows than it must."""
    return Conflict(f"{found} rows of {table} are as expected, not {wanted}.", table=table, write=position)
