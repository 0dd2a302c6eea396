"""How far each subscription has read at each relay, kept in the database so that a restart resumes there.

A name is a subscription's, or an audience's and a key's with a space between them.
"""

import logging
from collections.abc import Iterable

from core.error import VendoError
from core.unit import Delete, Insert, UnitOfWork, Update, Write
from relays.connection import Connection

log = logging.getLogger(__name__)

_GROUP = 2_000  # rows in one commit


class Cursors:
    """The rows of table `cursor` that are ours, and what has changed since they were written.

    They are written lazily: an older cursor only means that some events are asked for twice.
    """

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit
        self._saved: dict[tuple[str, str], int] = {}
        self._keys: dict[tuple[str, str], dict[str, int]] = {}  # (relay, audience) -> key -> row
        self._changed: dict[tuple[str, str], int] = {}  # rows (relay, name) to be written
        self._gone: set[str] = set()
        self._gone_keys: set[tuple[str, str]] = set()

    async def load(self) -> None:
        """Read all rows."""
        for row in await self._unit.select("cursor"):
            name, space, key = str(row["name"]).partition(" ")
            if space:
                self._keys.setdefault((str(row["relay"]), name), {})[key] = int(row["high"])
            self._saved[str(row["relay"]), str(row["name"])] = int(row["high"])

    def high(self, relay: str, name: str) -> int | None:
        """Where to resume, or None to ask as at first."""
        return self._saved.get((relay, name))

    def keys(self, relay: str, name: str) -> dict[str, int]:
        """For each key of an audience that was read at this relay: how far, or 0 for "as all of them"."""
        return dict(self._keys.get((relay, name), {}))

    def forget(self, name: str) -> None:
        """The subscription ended for good."""
        self._saved = {key: high for key, high in self._saved.items() if key[1].partition(" ")[0] != name}
        self._changed = {key: high for key, high in self._changed.items() if key[1].partition(" ")[0] != name}
        self._gone.add(name)
        for (relay, audience), keys in self._keys.items():
            if audience == name:
                self._gone_keys |= {(relay, f"{name} {key}") for key in keys}
                keys.clear()

    def forget_key(self, name: str, key: str) -> None:
        """A key left an audience."""
        for (relay, audience), keys in self._keys.items():
            if audience == name and keys.pop(key, None) is not None:
                self._changed.pop((relay, f"{name} {key}"), None)
                self._saved.pop((relay, f"{name} {key}"), None)
                self._gone_keys.add((relay, f"{name} {key}"))

    def gather(self, connection: Connection) -> None:
        """Note what has changed on one connection; `save` writes it."""
        for name, stream in connection.streams.items():
            key = (connection.url, name)
            if stream.spec.durable and stream.high is not None and stream.high != self._saved.get(key):
                self._changed[key] = stream.high
        for name, shards in connection.shards.items():
            shards.settle()
            key = (connection.url, name)
            if shards.only is None and shards.high is not None and shards.high != self._saved.get(key):
                self._changed[key] = shards.high
            known = self._keys.setdefault(key, {})
            for one in shards.changed:
                self._move(key, one, shards.own.get(one), known)
            shards.changed.clear()

    def _move(self, key: tuple[str, str], one: str, high: int | None, known: dict[str, int]) -> None:
        row = (key[0], f"{key[1]} {one}")
        if high is None:
            known.pop(one, None)
            self._changed.pop(row, None)
            self._saved.pop(row, None)
            self._gone_keys.add(row)
        else:
            known[one] = self._changed[row] = high

    async def save(self, connections: Iterable[Connection]) -> None:
        """Write what has changed. A failure is logged, and the next call tries again."""
        for connection in connections:
            self.gather(connection)
        changed, gone, gone_keys = dict(self._changed), set(self._gone), set(self._gone_keys)
        writes: list[Write] = [Delete("cursor", {"name": name}) for name in gone]
        writes += [Delete("cursor", {"relay": relay, "name": name}) for relay, name in gone_keys]
        for (relay, name), high in changed.items():
            writes += _put(relay, name, high, is_new=(relay, name) not in self._saved)
        if await self._write(writes):
            self._gone -= gone
            self._gone_keys -= gone_keys
            for row, high in changed.items():
                self._saved[row] = high
                if self._changed.get(row) == high:
                    del self._changed[row]

    async def _write(self, writes: list[Write]) -> bool:
        try:
            for at in range(0, len(writes), _GROUP):
                await self._unit.commit(writes[at : at + _GROUP])
        except VendoError as error:
            log.warning("Cursors were not written: %s", error, extra={"action": "cursor_failed", "code": error.code})
            return False
        return True


def _put(relay: str, name: str, high: int, *, is_new: bool) -> list[Write]:
    insert = Insert("cursor", {"relay": relay, "name": name, "high": high}, or_ignore=True)
    if is_new and " " in name:  # thousands of keys at once; one that is there already is none the worse for it
        return [insert]
    return [insert, Update("cursor", {"relay": relay, "name": name}, {"high": high})]
