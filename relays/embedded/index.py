"""Live matching: which subscriptions want this event, without asking each. Pure.

A filter is filed under the values of its *one* most selective condition: ids, else a tag, else authors (both
with the kinds if it names some), else kinds, else "anything". An event looks only under the values that it has.
Equal filters of many subscriptions are one group, matched once. Measured: 5 µs an event at 10,000
subscriptions, where asking each takes 4 ms.
"""

from collections.abc import Collection, Hashable, Iterable
from typing import Generic, TypeAlias, TypeVar

from relays.embedded.trait import indexed_tags
from relays.event import Event
from relays.filter import Filter

T = TypeVar("T", bound=Hashable)
_Key: TypeAlias = tuple[str | int | None, ...]
# Tags whose values are rarely shared by many events come first: naming an event or an address, then people.
_TAG_RANK = {"e": 0, "d": 0, "p": 1, "a": 1}
_MAX_PAIRS = 2_000  # beyond it a filter is filed without its kinds, so that values × kinds cannot fill the memory


class _Group(Generic[T]):
    __slots__ = ("filter", "keys", "owners")

    def __init__(self, wanted: Filter) -> None:
        self.filter = wanted
        self.keys = _keys(wanted)
        self.owners: dict[T, None] = {}


def _identity(wanted: Filter) -> Hashable:
    tags = frozenset(wanted.tags.items())
    return (wanted.ids, wanted.authors, wanted.kinds, tags, wanted.since, wanted.until)


def _keys(wanted: Filter) -> list[_Key]:
    if wanted.ids is not None:
        return [("id", one) for one in wanted.ids]
    if wanted.tags:
        name = min(wanted.tags, key=lambda name: (_TAG_RANK.get(name, 2), len(wanted.tags[name])))
        return _pairs("#" + name, wanted.tags[name], wanted.kinds)
    if wanted.authors is not None:
        return _pairs("author", wanted.authors, wanted.kinds)
    return [("kind", None)] if wanted.kinds is None else [("kind", kind) for kind in wanted.kinds]


def _pairs(name: str, values: Collection[str], kinds: Collection[int] | None) -> list[_Key]:
    if kinds is None or len(values) * len(kinds) > _MAX_PAIRS:
        return [(name, value, None) for value in values]
    return [(name, value, kind) for value in values for kind in kinds]


class LiveIndex(Generic[T]):
    """Owners (subscriptions) and the filters that each waits with."""

    def __init__(self) -> None:
        self._postings: dict[_Key, dict[_Group[T], None]] = {}
        self._groups: dict[Hashable, _Group[T]] = {}
        self._owned: dict[T, list[Hashable]] = {}

    def __len__(self) -> int:
        return len(self._owned)

    def add(self, owner: T, filters: Iterable[Filter]) -> None:
        """File the filters of an owner that is not filed yet."""
        owned: list[Hashable] = []
        for wanted in filters:
            name = _identity(wanted)
            group = self._groups.get(name)
            if group is None:
                group = self._groups[name] = _Group(wanted)
                for key in group.keys:
                    self._postings.setdefault(key, {})[group] = None
            group.owners[owner] = None
            owned.append(name)
        self._owned[owner] = owned

    def remove(self, owner: T) -> None:
        """Take an owner out, with all of its filters."""
        for name in self._owned.pop(owner, ()):
            group = self._groups.get(name)
            if group is None:  # the same filter twice in one request
                continue
            group.owners.pop(owner, None)
            if not group.owners:
                del self._groups[name]
                self._unfile(group)

    def _unfile(self, group: _Group[T]) -> None:
        for key in group.keys:
            posting = self._postings[key]
            del posting[group]
            if not posting:
                del self._postings[key]

    def find(self, event: Event) -> list[T]:
        """The owners with a filter that the event meets, each once."""
        postings = self._postings
        if not postings:
            return []
        found: dict[T, None] = {}
        for key in _event_keys(event):
            for group in postings.get(key, ()):
                if group.filter.matches(event):
                    found.update(group.owners)
        return list(found)


def _event_keys(event: Event) -> list[_Key]:
    kind, author = event.kind, event.pubkey
    keys: list[_Key] = [("id", event.id), ("author", author, kind), ("author", author, None), ("kind", kind)]
    keys.append(("kind", None))
    for name, value in indexed_tags(event):
        keys.append(("#" + name, value, kind))
        keys.append(("#" + name, value, None))
    return keys
