"""What can go wrong inside the embedded relay.

VendoError
├── RelayBusy         relay.in_use      409  the address or the events' file belongs to another process
├── EventFileFailed   relay.file        503  SQLite failed; nothing of that group was stored
├── NewerEventFile    relay.newer_file  409  a newer vendo wrote the events' file
└── QueryTooBroad     relay.too_broad   400  a query would examine too much
"""

from core.error import Conflict, InvalidInput, Unavailable


class RelayBusy(Conflict):
    """The relay's address or file is in use."""

    code = "relay.in_use"
    remedy = "Stop the other process, or choose another port and home."


class EventFileFailed(Unavailable):
    """The relay's event file could not be read or written."""

    code = "relay.file"
    remedy = "Look for room on the disk, and for the file's owner and rights."


class NewerEventFile(Conflict):
    """The relay's event file was written by a newer version."""

    code = "relay.newer_file"
    remedy = "Run that version, or give this one another home."


class QueryTooBroad(InvalidInput):
    """The query would examine too many stored events."""

    code = "relay.too_broad"
    remedy = "Add kinds, authors or dates to the filter."
