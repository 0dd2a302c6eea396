"""Over which protocol and which relays a message goes to a person."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol as Interface

from core.identifier import PubKey
from core.unit import Among, UnitOfWork
from node.message.error import NotReady
from node.message.record import TABLE, Protocol


class Guide(Interface):
    """Where people read: `relays.directory.Directory`."""

    async def relays_for_dm(self, pubkey: PubKey) -> tuple[str, ...] | None:
        """The relays of their kind-10050 list; None if none is known."""

    async def read_relays(self, pubkey: PubKey) -> tuple[str, ...]:
        """The read relays of their kind-10002 list; nothing if none is known."""


@dataclass(frozen=True, slots=True)
class Way:
    """How to reach somebody. `relays` None is all relays of our own. `first`: they have never written to the agent."""

    protocol: Protocol
    relays: tuple[str, ...] | None
    first: bool = False


class Routes:
    """Finds the way to a person, from what they have published and from what they have written before.

    Args:
        unit: the messages so far.
        guide: where people read; None knows nothing.
        ours: the relays of our own pool.
        at_home: whether a person is known to read on our own relays, because the operator says so.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        guide: Guide | None,
        ours: Callable[[], tuple[str, ...]],
        at_home: Callable[[str, PubKey], bool],
    ) -> None:
        self._unit, self._guide, self._ours, self._at_home = unit, guide, ours, at_home

    async def find(self, agent: str, to: PubKey) -> Way:
        """The way to a person.

        Raises:
            NotReady: nothing says where they read (NIP-17: then nothing is sent).
        """
        last = await self._unit.select(
            TABLE,
            {"agent": agent, "peer": to, "direction": "in", "protocol": Among(("nip17", "nip04"))},
            order=("-created_at", "-changed_ms"),  # when it was written: an old one that arrives late changes nothing
            limit=1,
        )
        if last and last[0]["protocol"] == Protocol.NIP04:
            return Way(Protocol.NIP04, await self._reading(to))
        listed = await self._guide.relays_for_dm(to) if self._guide is not None else None
        if listed:
            return Way(Protocol.NIP17, listed, not last)
        if last or self._at_home(agent, to) or await self._reads_here(to):
            return Way(Protocol.NIP17, None, not last)
        raise NotReady

    async def _reading(self, to: PubKey) -> tuple[str, ...] | None:
        found = await self._guide.read_relays(to) if self._guide is not None else ()
        return tuple(dict.fromkeys((*found, *self._ours()))) if found else None

    async def _reads_here(self, to: PubKey) -> bool:
        found = await self._guide.read_relays(to) if self._guide is not None else ()
        return not set(found).isdisjoint(self._ours())
