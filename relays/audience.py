"""Many keys under one subscription: thousands of agents, one name, one handler, a few REQs. Pure.

Whether an event concerns anybody here is one dictionary look-up per tag, however many keys there are.
"""

from collections.abc import Callable, Iterator

from relays.event import Event
from relays.subscription import BACKDATE_S

Changed = Callable[[str], None]


class Audience:
    """The keys (or other tag values) for which one handler is called. Made by `Pool.audience`.

    Attributes:
        name: stable over restarts.
        kinds: the event kinds that are wanted.
        tag: the single-letter tag that names a key, without `#`.
        backdated: the events are dated up to two days back (gift wraps).
    """

    def __init__(
        self, name: str, kinds: frozenset[int], tag: str, added: Changed, removed: Changed, *, backdated: bool = False
    ) -> None:
        self.name = name
        self.kinds = kinds
        self.tag = tag
        self.backdated = backdated
        self._added = added
        self._removed = removed
        self._since: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, key: object) -> bool:
        return key in self._since

    def __iter__(self) -> Iterator[str]:
        return iter(self._since)

    def add(self, pubkey: str, since: int | None = None) -> None:
        """Listen for one more key. At each relay its history is read from `since` (Unix seconds), and only its.

        A relay that has read for this key before, also in an earlier run, resumes where it was. For a backdated
        audience `since` is when the oldest wanted event was sent, not what it is dated. A key that is there
        already keeps its `since`.
        """
        if pubkey in self._since:
            return
        self._since[pubkey] = max(0, (since or 0) - (BACKDATE_S if self.backdated else 0))
        self._added(pubkey)

    def remove(self, pubkey: str) -> None:
        """Listen for it no longer, and forget how far was read for it."""
        if self._since.pop(pubkey, None) is not None:
            self._removed(pubkey)

    def since(self, key: str) -> int:
        """The earliest `created_at` that is wanted for a key."""
        return self._since.get(key, 0)

    def matches(self, event: Event) -> bool:
        """Whether the event is for any of the keys."""
        if event.kind not in self.kinds:
            return False
        wanted, tag = self._since, self.tag
        for item in event.tags:
            if item[0] == tag and len(item) > 1:
                since = wanted.get(item[1])
                if since is not None and event.created_at >= since:
                    return True
        return False

    def lane(self, event: Event) -> str:
        """Events with the same are handled in order: the first of the keys that the event names."""
        return next((value for value in event.values(self.tag) if value in self._since), "")

    def concerned(self, event: Event) -> list[str]:
        """The keys of this audience that the event names."""
        return [key for key in dict.fromkeys(event.values(self.tag)) if key in self._since]
