"""Which index answers a filter: the choice, without reading anything but a few index rows. Pure but for that look."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from relays.embedded.store_scan import BY_AUTHOR, BY_KIND, BY_PLACE, BY_TAG, MAX_PREFIXES, Index, Rest, Scan
from relays.embedded.store_schema import Hash, pair_key
from relays.filter import Filter

_MAX_PAIRS = 2_000  # of an author and a tag's value
_RARE = "eadEA"  # tags that name an event or an address are shared by few events
_FEW = 3  # kinds that a filter may leave out and still be read by date alone
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
            left_out = 0 if kinds is None else len(self._kinds()) - len(kinds)
            if kinds is None or left_out > _FEW or len(kinds) <= max(1, left_out):  # also: none of them was ever stored
                return [in_time]
            # All but a few kinds, as for who may not see private ones: most of the newest rows will do.
            return [Scan(BY_PLACE, (), None, Rest((), None, kinds)), in_time]
        hashed = None if authors is None else self.hashed(authors)
        tags = {name: [self._keyed(name + value) for value in values] for name, values in wanted.tags.items()}
        everything = Scan(in_time.index, (), in_time.kinds, Rest(tuple(tags.values()), hashed))
        if not tags:
            return [_prefixed(BY_AUTHOR, hashed or (), kinds, Rest()), everything]
        driver = min(tags, key=lambda name: self._rank(name, tags[name])) if len(tags) > 1 else next(iter(tags))
        others = tuple(values for name, values in tags.items() if name != driver)
        if hashed is None:
            return [_prefixed(BY_TAG, tags[driver], kinds, Rest(others)), everything]
        if len(tags[driver]) * len(hashed) > _MAX_PAIRS:
            return [_prefixed(BY_TAG, tags[driver], kinds, Rest(others, hashed)), everything]
        pairs = [pair_key(tag, author) for author in hashed for tag in tags[driver]]
        return [_prefixed(BY_TAG, pairs, kinds, Rest(others)), everything]

    def _rank(self, name: str, keys: Sequence[int]) -> tuple[int, int]:
        return sum(self._rarity(key) for key in keys[:_LOOKED_AT]) * len(keys) // min(len(keys), _LOOKED_AT), (
            name not in _RARE
        )


def _prefixed(index: Index, values: Sequence[int], kinds: Sequence[int] | None, rest: Rest) -> Scan:
    """A scan by value and kind; if those are too many to look up, by value, and the kinds are checked."""
    if kinds is not None and len(values) * len(kinds) > MAX_PREFIXES:
        return Scan(index, values, None, replace(rest, kinds=kinds))
    return Scan(index, values, kinds, rest)
