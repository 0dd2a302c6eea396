"""What the roster of agents works with: their keys, where they live, who hears them, who tells the public of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from core.error import VendoError
from core.identifier import PubKey
from core.unit import Row, Write
from node.agent.tick.limit import Own
from node.message.admission import Rules
from node.message.voice import Voices
from relays.signer import Signer


class Keys(Voices, Protocol):
    """Identities that can be made and given up: `node.identity.registry.Identities`."""

    async def load(self, names: Sequence[str] = ()) -> None:
        """Read the keys of those who do not hibernate, and give one to each of these names that has none."""

    async def recall(self, names: Sequence[str]) -> None:
        """Read the keys of those who were left out."""

    def forget(self, name: str) -> None:
        """Keep nothing of a name in memory."""

    async def refresh(self, names: Sequence[str]) -> None:
        """Read those anew that another process has changed."""

    async def add(self, name: str) -> Signer:
        """Give a new name its first key, and tell whoever wants to know."""

    async def retire(self, name: str) -> None:
        """Give up a name's keys."""


class Maker(Protocol):
    """Where agents live: `node.agent.tick.engine.Engine`."""

    def check(self, program: str, config: Mapping[str, Any] | None = None, own: Own | None = None) -> None:
        """Whether an agent can be made of these.

        Raises:
            VendoError: it cannot.
        """

    async def create(
        self,
        name: str,
        program: str,
        pubkey: PubKey,
        config: Mapping[str, Any] | None = None,
        own: Own | None = None,
        row: Row | None = None,
    ) -> None:
        """See to it that an agent is there, with these settings. `row`: its row as known a moment ago."""

    async def set_aside(self, name: str, error: VendoError) -> None:
        """Quarantine an agent that cannot be what its settings say."""

    async def leave_behind(self, name: str, writes: Sequence[Write]) -> None:
        """Stop an agent that was taken out of the configuration, in one commit with these."""

    async def reclaim(self, name: str, writes: Sequence[Write]) -> None:
        """The opposite: it stands there again."""

    async def delete(self, name: str) -> None:
        """End an agent for good, with its last words."""


class Hearing(Protocol):
    """What hears for agents: `node.message.service.Messages`."""

    def attach(self, agent: str, since: int, rules: Rules | None = None) -> None:
        """Hear an agent from now on."""

    async def recall(self, agents: Sequence[str]) -> None:
        """Read whom they hear by now."""

    def detach(self, agent: str) -> None:
        """Hear it no more."""


class Publishing(Protocol):
    """What tells the public: `node.agent.presence.Presence`."""

    def renew(self, name: str) -> None:
        """Say who an agent is, soon."""

    def forget(self, name: str) -> None:
        """Say nothing more of it."""

    async def withdraw(self, name: str, signer: Signer) -> None:
        """Take back what was said."""
