"""Which index answers a filter: the choice, without reading anything but a few index rows. Pure but for that look."""

from collections.abc import Callable, Sequence

from relays.embedded.store_scan import BY_AUTHOR, BY_KIND, BY_PLACE, BY_TAG, Rest, Scan
from relays.embedded.store_schema import Hash, pair_key
from relays.filter import Filter

_MAX_PAIRS = 2_000  # of an author and a tag's value
_RARE = "eadEA"  # tags that name an event or an address are shared by few events
_LOOKED_AT = 8  # values of a condition that are looked at


class Planner:
    """Plans for one event file.

    Args:
        keyed: the file's hash function.
        kinds: every kind ever stored.
        rarity: about how many rows a tag's key has, as far as a short look tells.
    """

    def __init__(self, keyed: Hash, kinds: Callable[[], frozenset[int]], rarity: Callable[[int], int]) -> None:
        self._keyed, self._kinds, self._rarity = keyed, kinds, rarity

    def hashed(self, values: Sequence[str]) -> list[int]:
        """Hashes of ids or authors."""
        return [self._keyed(value) for value in values]

    def scans(self, wanted: Filter) -> list[Scan]:
        """Ways to read it, the likeliest first; it names no ids."""
        kinds = None if wanted.kinds is None else sorted(wanted.kinds & self._kinds())
        authors = None if wanted.authors is None else sorted(wanted.authors)
        in_time = Scan(BY_PLACE) if kinds is None else Scan(BY_KIND, (), kinds)
        if not wanted.tags and authors is None:
            return [in_time]
        hashed = None if authors is None else self.hashed(authors)
        tags = {name: [self._keyed(name + value) for value in values] for name, values in wanted.tags.items()}
        everything = Scan(in_time.index, (), in_time.kinds, Rest(tuple(tags.values()), hashed))
        if not tags:
            return [Scan(BY_AUTHOR, hashed or (), kinds), everything]
        driver = min(tags, key=lambda name: self._rank(name, tags[name])) if len(tags) > 1 else next(iter(tags))
        others = tuple(values for name, values in tags.items() if name != driver)
        if hashed is None:
            return [Scan(BY_TAG, tags[driver], kinds, Rest(others)), everything]
        if len(tags[driver]) * len(hashed) > _MAX_PAIRS:
            return [Scan(BY_TAG, tags[driver], kinds, Rest(others, hashed)), everything]
        pairs = [pair_key(tag, author) for author in hashed for tag in tags[driver]]
        return [Scan(BY_TAG, pairs, kinds, Rest(others)), everything]

    def _rank(self, name: str, keys: Sequence[int]) -> tuple[int, int]:
        return sum(self._rarity(key) for key in keys[:_LOOKED_AT]) * len(keys) // min(len(keys), _LOOKED_AT), (
            name not in _RARE
        )
