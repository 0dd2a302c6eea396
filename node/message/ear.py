"""What agents hear: few subscriptions for all of their keys, and whose a `p` tag is.

No task and no subscription belongs to one agent; an agent costs its entry in a dictionary and its key in a filter.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from core.identifier import PubKey
from relays.bunker import RemoteSigner
from relays.event import Event
from relays.kind import EPHEMERAL_GIFT_WRAP, GIFT_WRAP, LEGACY_DM, NOTE, REACTION
from relays.pool import Pool
from relays.signer import Signer

PRIVATE, PUBLIC = "message/private", "message/public"
PRIVATE_KINDS = frozenset({GIFT_WRAP, EPHEMERAL_GIFT_WRAP, LEGACY_DM})
PUBLIC_KINDS = frozenset({NOTE, REACTION})

Handler = Callable[[Event, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Listener:
    """Whose a key is. `current`: the agent signs with it; else it only still hears with it. `is_remote`: NIP-46."""

    agent: str
    signer: Signer
    current: bool
    is_remote: bool = False


class Ear:
    """Subscriptions for all agents.

    Args:
        pool: where they are opened.
        private: is given wraps and old DMs to any of our keys.
        public: is given notes and reactions that name any of our keys.
    """

    def __init__(self, pool: Pool, private: Handler, public: Handler) -> None:
        self._pool, self._private, self._public = pool, private, public
        self._listeners: dict[str, Listener] = {}
        self._since: dict[str, int] = {}
        self._keys: dict[str, set[PubKey]] = {}
        self._open = False

    def __len__(self) -> int:
        return len(self._listeners)

    def start(self) -> None:
        """Open the subscriptions, with the keys that were added so far."""
        self._private_audience = self._pool.audience(PRIVATE, PRIVATE_KINDS, "p", self._private, backdated=True)
        self._public_audience = self._pool.audience(PUBLIC, PUBLIC_KINDS, "p", self._public)
        self._open = True
        for pubkey, since in self._since.items():
            self._join(PubKey(pubkey), since)

    def stop(self) -> None:
        """End them, without forgetting how far they were read: a restart goes on there."""
        self._open = False

    def add(self, agent: str, signers: Iterable[Signer], since: int) -> None:
        """Hear an agent's keys; the first signs. Nothing older than `since` (Unix seconds) is wanted."""
        for place, signer in enumerate(signers):
            known = signer.pubkey in self._listeners
            self._keys.setdefault(agent, set()).add(signer.pubkey)
            self._listeners[signer.pubkey] = Listener(agent, signer, place == 0, isinstance(signer, RemoteSigner))
            self._since[signer.pubkey] = since
            if self._open and not known:
                self._join(signer.pubkey, since)

    def _join(self, pubkey: PubKey, since: int) -> None:
        self._private_audience.add(pubkey, since)
        self._public_audience.add(pubkey, since)

    def remove(self, agent: str, keep: Iterable[PubKey] = ()) -> None:
        """Hear an agent's keys no more, but for those that are kept."""
        kept = self._keys.pop(agent, set())
        gone = kept.difference(keep)
        if kept - gone:
            self._keys[agent] = kept - gone
        for pubkey in gone:
            del self._listeners[pubkey], self._since[pubkey]
            if self._open:
                self._private_audience.remove(pubkey)
                self._public_audience.remove(pubkey)

    def whose(self, event: Event) -> list[Listener]:
        """The agents that an event names, each once."""
        found: dict[str, Listener] = {}
        for pubkey in event.values("p")[:64]:
            listener = self._listeners.get(pubkey)
            if listener is not None:
                found.setdefault(listener.agent, listener)
        return list(found.values())
