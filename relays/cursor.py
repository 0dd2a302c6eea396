"""How far each subscription has read at each relay, kept in the database so that a restart resumes there."""

import logging
from collections.abc import Iterable

from core.error import VendoError
from core.unit import Delete, Insert, UnitOfWork, Update, Write
from relays.connection import Connection

log = logging.getLogger(__name__)


class Cursors:
    """The rows of table `cursor` that are ours, and what has changed since they were written.

    They are written lazily: an older cursor only means that some events are asked for twice.
    """

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit
        self._saved: dict[tuple[str, str], int] = {}
        self._gone: set[str] = set()

    async def load(self) -> None:
        """Read all rows."""
        for row in await self._unit.select("cursor"):
            self._saved[str(row["relay"]), str(row["name"])] = int(row["high"])

    def high(self, relay: str, name: str) -> int | None:
        """Where to resume, or None to ask as at first."""
        return self._saved.get((relay, name))

    def forget(self, name: str) -> None:
        """The subscription ended for good."""
        self._saved = {key: high for key, high in self._saved.items() if key[1] != name}
        self._gone.add(name)

    async def save(self, connections: Iterable[Connection]) -> None:
        """Write what has changed. A failure is logged, and the next call tries again."""
        writes: list[Write] = [Delete("cursor", {"name": name}) for name in self._gone]
        changed: dict[tuple[str, str], int] = {}
        for connection in connections:
            for name, stream in connection.streams.items():
                key = (connection.url, name)
                if stream.spec.durable and stream.high is not None and stream.high != self._saved.get(key):
                    changed[key] = stream.high
        for (relay, name), high in changed.items():
            writes.append(Insert("cursor", {"relay": relay, "name": name, "high": high}, or_ignore=True))
            writes.append(Update("cursor", {"relay": relay, "name": name}, {"high": high}))
        if not writes:
            return
        gone = set(self._gone)
        try:
            await self._unit.commit(writes)
        except VendoError as error:
            log.warning("Cursors were not written: %s", error, extra={"action": "cursor_failed", "code": error.code})
            return
        self._gone -= gone
        self._saved.update(changed)
