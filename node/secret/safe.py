"""The node's secrets: set by the operator, sealed under the node's keys, opened at the moment of their use.

What is in the database opens nothing without the words. Whoever may show texts to others (the log, recordings) is told
each value that this process has seen, so as to leave it out.
"""

import logging
from collections.abc import Callable, Iterable, Sequence

from core.clock import Clock
from core.unit import Delete, Insert, Row, UnitOfWork
from fs.service.secrets import SecretFact
from fs.session import Session
from node.secret.error import SecretMissing
from node.secret.reference import NODE, faces, read_reference
from relays.key import Keyring
from wallet.record import SealBroken, Vault

log = logging.getLogger(__name__)

TABLE = "secret"
_MOST_KNOWN = 4_096
_FACTS = ("name", "size", "set_at_ms")


class Safe:
    """One per node.

    Args:
        unit: the database.
        clock: time.
        ring: the node's keys; everything is sealed under them.
        tell: is told values that nobody may show.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, ring: Keyring, tell: Callable[[Iterable[str]], None]) -> None:
        self._unit, self._clock, self._tell = unit, clock, tell
        self._vault = Vault(ring.derive("secret"))

    def of(self, owner: str) -> "Drawer":
        """The secrets of an agent, or of the node itself (`node`)."""
        return Drawer(self, owner)

    async def load(self) -> None:
        """Know at the start what nobody may show; what cannot be opened is left.

        Raises:
            VendoError: the database failed.
        """
        known: list[str] = []
        for row in await self._unit.select(TABLE, order=("-set_at_ms",), limit=_MOST_KNOWN):
            try:
                known += faces(self._open(row))
            except SecretMissing as error:
                log.warning("a secret cannot be opened: %s", error.message, extra={"action": "secret_unopened"})
        self._tell(known)

    async def facts(self, owner: str) -> list[SecretFact]:
        """What is shown of an owner's secrets, by name."""
        rows = await self._unit.select(TABLE, {"agent": owner}, order=("name",), columns=_FACTS)
        return [SecretFact(name=row["name"], bytes=row["size"], set_at_ms=row["set_at_ms"]) for row in rows]

    async def put(self, owner: str, name: str, value: str, session: Session) -> None:
        """Set one; what it was before is gone."""
        self._tell(faces(value))
        raw = value.encode()
        row: Row = {
            "agent": owner,
            "name": name,
            "sealed": self._vault.seal(raw, _seal_name(owner, name)),
            "size": len(raw),
            "set_at_ms": self._clock.millis(),
        }
        await session.apply([Delete(TABLE, {"agent": owner, "name": name}), Insert(TABLE, row)])

    async def remove(self, owner: str, name: str, session: Session) -> None:
        """Take one away."""
        await session.apply([Delete(TABLE, {"agent": owner, "name": name})])

    async def reveal(self, agent: str, text: str) -> str:
        """The value of a setting, to be used now and kept by nobody: what it names, or the text itself.

        Raises:
            SecretMissing: it names a secret that is not there, or that cannot be opened.
            VendoError: the database failed.
        """
        found = read_reference(text)
        if found is None:
            return text
        owner = NODE if found.shared else agent
        rows = await self._unit.select(TABLE, {"agent": owner, "name": found.name})
        if not rows:
            whose = "The node" if found.shared else f"The agent {agent!r}"
            raise SecretMissing(f"{whose} has no secret {found.name!r}.")
        value = self._open(rows[0])
        self._tell(faces(value))
        return value

    def _open(self, row: Row) -> str:
        try:
            return self._vault.open(row["sealed"], _seal_name(row["agent"], row["name"])).decode()
        except SealBroken as error:
            raise SecretMissing(
                f"The secret {row['name']!r} of {row['agent']!r} was sealed under other words, or is damaged.",
                remedy="Set it again.",
            ) from error


class Drawer:
    """The secrets of one owner, as `fs.service.secrets.Secrets`."""

    def __init__(self, safe: Safe, owner: str) -> None:
        self._safe, self._owner = safe, owner

    async def facts(self) -> Sequence[SecretFact]:
        """All of them, by name."""
        return await self._safe.facts(self._owner)

    async def put(self, name: str, value: str, session: Session) -> None:
        """Set one."""
        await self._safe.put(self._owner, name, value, session)

    async def remove(self, name: str, session: Session) -> None:
        """Take one away."""
        await self._safe.remove(self._owner, name, session)


def _seal_name(owner: str, name: str) -> str:
    return f"secret/{owner}/{name}"
