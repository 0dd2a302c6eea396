"""Key lists that were verified, so that a node which connects again pays for its ten thousand consents once."""

from collections import OrderedDict

from core.identifier import EventId, PubKey
from relays.error import ForgedEvent, MalformedEvent
from relays.keylist import KeyList, proved_keys

_MOST_KEYS = 200_000


class Roll:
    """Verified lists by the id of their event, which is a hash over all that is in them.

    The event's own signature is checked each time, and dates with it; what is saved is the consents' signatures.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[EventId, frozenset[PubKey]] = OrderedDict()
        self._keys = 0

    def find(self, event_id: EventId) -> frozenset[PubKey] | None:
        """The keys of a list that was verified before."""
        keys = self._lists.get(event_id)
        if keys is not None:
            self._lists.move_to_end(event_id)
        return keys

    def remember(self, event_id: EventId, keys: frozenset[PubKey]) -> None:
        """Keep what was verified; the list that was not used for longest goes first."""
        if event_id in self._lists:
            return
        self._lists[event_id] = keys
        self._keys += len(keys)
        while self._keys > _MOST_KEYS:
            _, gone = self._lists.popitem(last=False)
            self._keys -= len(gone)


def check(listed: KeyList, trusted: frozenset[PubKey]) -> tuple[frozenset[PubKey], str]:
    """The keys of a list, or the reason why it is refused. For a thread: each consent takes 30 µs."""
    try:
        return proved_keys(listed, trusted), ""
    except (ForgedEvent, MalformedEvent) as error:
        return frozenset(), f"invalid: {error.message}"
