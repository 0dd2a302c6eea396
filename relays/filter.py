"""A subscription filter (NIP-01): parsed strictly, matched exactly. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.identifier import is_hex64
from relays.error import MalformedEvent
from relays.event import Event

MAX_VALUES = 4_000  # keys of as many agents as fit 256 KiB
MAX_KIND = 65_535
MAX_LIMIT = 5_000
DEFAULT_LIMIT = 500
_FOREVER = 1 << 53


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that an event meets all of; within one condition any value will do.

    `None` is no condition; an empty set matches nothing. Tag names are single letters. `limit` bounds stored
    events only.
    """

    ids: frozenset[str] | None = None
    authors: frozenset[str] | None = None
    kinds: frozenset[int] | None = None
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    since: int = 0
    until: int = _FOREVER
    limit: int = DEFAULT_LIMIT
    search: str = ""

    def matches(self, event: Event) -> bool:
        """Whether the event meets every condition (`search` and `limit` are the store's business)."""
        if self.kinds is not None and event.kind not in self.kinds:
            return False
        if not self.since <= event.created_at <= self.until:
            return False
        if self.authors is not None and event.pubkey not in self.authors:
            return False
        if self.ids is not None and event.id not in self.ids:
            return False
        for name, wanted in self.tags.items():  # loops, not generators: this runs for each event and filter
            for tag in event.tags:
                if tag[0] == name and len(tag) > 1 and tag[1] in wanted:
                    break
            else:
                return False
        return True

    def to_dict(self) -> dict[str, Any]:
        """As it is written on the wire; the default limit is left out."""
        out: dict[str, Any] = {}
        for name in ("ids", "authors", "kinds"):
            values = getattr(self, name)
            if values is not None:
                out[name] = sorted(values)
        for name, wanted in self.tags.items():
            out["#" + name] = sorted(wanted)
        if self.since:
            out["since"] = self.since
        if self.until != _FOREVER:
            out["until"] = self.until
        if self.limit != DEFAULT_LIMIT:
            out["limit"] = self.limit
        if self.search:
            out["search"] = self.search
        return out


def _values(name: str, value: Any, kind: type) -> frozenset[Any]:
    if type(value) is not list or len(value) > MAX_VALUES or not all(type(item) is kind for item in value):
        raise MalformedEvent(f"The filter's {name} is not a list of at most {MAX_VALUES} values of its type.")
    return frozenset(value)


def parse_filter(value: Any) -> Filter:
    """A filter from decoded JSON.

    Raises:
        MalformedEvent: it is not an object, a field is unknown, or a value is of the wrong type or form.
    """
    if type(value) is not dict:
        raise MalformedEvent("A filter is a JSON object.")
    fields: dict[str, Any] = {}
    wanted: dict[str, frozenset[str]] = {}
    for name, item in value.items():
        if name in ("ids", "authors"):
            fields[name] = _values(name, item, str)
            if not all(is_hex64(one) for one in item):
                raise MalformedEvent(f"The filter's {name} are not 64 lower-case hex digits each.")
        elif name == "kinds":
            fields[name] = _values(name, item, int)
            if not all(0 <= kind <= MAX_KIND for kind in fields[name]):  # SQLite has no room for the largest
                raise MalformedEvent("The filter's kinds are not whole numbers from 0 to 65535.")
        elif len(name) == 2 and name[0] == "#" and name[1].isascii() and name[1].isalpha():
            wanted[name[1]] = _values(name, item, str)
        elif name in ("since", "until", "limit"):
            if type(item) is not int or item < 0:
                raise MalformedEvent(f"The filter's {name} is not a whole number.")
            fields[name] = min(item, MAX_LIMIT) if name == "limit" else min(item, _FOREVER)
        elif name == "search" and type(item) is str:
            fields[name] = item
        else:
            raise MalformedEvent(f"The filter has an unknown field {name[:20]!r}.")
    return Filter(tags=wanted, **fields)
