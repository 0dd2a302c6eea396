"""What agents hear: few subscriptions for all of their keys, and whose a `p` tag is.

No task and no subscription belongs to one agent; an agent costs its entry in a dictionary and its key in a filter.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from core.identifier import PubKey
from relays.event import Event
from relays.filter import Filter
from relays.kind import EPHEMERAL_GIFT_WRAP, GIFT_WRAP, LEGACY_DM, NOTE, REACTION
from relays.pool import Pool
from relays.signer import Signer

PRIVATE, PUBLIC = "message/private", "message/public"
PRIVATE_KINDS = frozenset({GIFT_WRAP, EPHEMERAL_GIFT_WRAP, LEGACY_DM})
PUBLIC_KINDS = frozenset({NOTE, REACTION})
BACKDATE_S = 2 * 86_400 + 3_600  # wraps are dated up to two days back (NIP-59)

Handler = Callable[[Event, str], Awaitable[None]]


class _Each:
    """A subscription for each key: what there is where the pool cannot share them."""

    def __init__(self, pool: Pool, name: str, kinds: frozenset[int], handler: Handler, backdated: bool) -> None:
        self._pool, self._name, self._kinds, self._handler, self._backdated = pool, name, kinds, handler, backdated

    def add(self, pubkey: PubKey, since: int | None = None) -> None:
        wanted = Filter(kinds=self._kinds, tags={"p": frozenset({pubkey})}, since=since or 0)
        self._pool.subscribe(f"{self._name}/{pubkey}", [wanted], self._handler, backdated=self._backdated)

    def remove(self, pubkey: PubKey) -> None:
        self._pool.unsubscribe(f"{self._name}/{pubkey}")


def _audience(pool: Pool, name: str, kinds: frozenset[int], handler: Handler, *, backdated: bool = False) -> Any:
    make = getattr(pool, "audience", None)
    if make is None:
        return _Each(pool, name, kinds, handler, backdated)
    return make(name, kinds, "p", handler, backdated=backdated)


@dataclass(frozen=True, slots=True)
class Listener:
    """Whose a key is. `current`: the agent signs with it; else it only still hears with it."""

    agent: str
    signer: Signer
    current: bool


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
        self._open = False

    def __len__(self) -> int:
        return len(self._listeners)

    def start(self) -> None:
        """Open the subscriptions, with the keys that were added so far."""
        self._private_audience = _audience(self._pool, PRIVATE, PRIVATE_KINDS, self._private, backdated=True)
        self._public_audience = _audience(self._pool, PUBLIC, PUBLIC_KINDS, self._public)
        self._open = True
        for pubkey, since in self._since.items():
            self._join(PubKey(pubkey), since)

    def stop(self) -> None:
        """End them, without forgetting how far they were read: a restart goes on there."""
        self._open = False

    def add(self, agent: str, signers: Iterable[Signer], since: int) -> None:
        """Hear an agent's keys; the first is the one that it signs with. `since`: nothing older is wanted, Unix seconds."""
        for place, signer in enumerate(signers):
            known = signer.pubkey in self._listeners
            self._listeners[signer.pubkey] = Listener(agent, signer, place == 0)
            self._since[signer.pubkey] = since
            if self._open and not known:
                self._join(signer.pubkey, since)

    def _join(self, pubkey: PubKey, since: int) -> None:
        self._private_audience.add(pubkey, max(0, since - BACKDATE_S))
        self._public_audience.add(pubkey, since)

    def remove(self, agent: str, keep: Iterable[PubKey] = ()) -> None:
        """Hear an agent's keys no more, but for those that are kept."""
        kept = set(keep)
        for pubkey in [key for key, one in self._listeners.items() if one.agent == agent and key not in kept]:
            del self._listeners[pubkey], self._since[pubkey]
            if self._open:
                self._private_audience.remove(PubKey(pubkey))
                self._public_audience.remove(PubKey(pubkey))

    def whose(self, event: Event) -> list[Listener]:
        """The agents that an event names, each once."""
        found: dict[str, Listener] = {}
        for pubkey in event.values("p")[:64]:
            listener = self._listeners.get(pubkey)
            if listener is not None:
                found.setdefault(listener.agent, listener)
        return list(found.values())
