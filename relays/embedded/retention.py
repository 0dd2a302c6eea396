"""How long events are kept, as data: by age, by number, by the size of the file. Shown in NIP-11. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.error import InvalidInput
from relays.event import Event

_MAX_KIND = 65_535


class MalformedRetention(InvalidInput):
    """A retention rule is not of the form that NIP-11 gives it."""

    code = "relay.retention"
    remedy = 'Write rules like {"kinds": [1, [5000, 5999]], "time": 86400, "count": 1000}; leave out what is unbounded.'


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of some kinds.

    Attributes:
        kinds: ranges of kinds, both ends included; empty means every kind that no earlier rule names.
        time_s: greatest age by `created_at`, in seconds; 0 takes none at all; None is no bound.
        count: how many events of each of the kinds are kept, the newest; None is no bound.
    """

    kinds: tuple[tuple[int, int], ...] = ()
    time_s: int | None = None
    count: int | None = None

    def names(self, kind: int) -> bool:
        """Whether the rule is about this kind."""
        return not self.kinds or any(first <= kind <= last for first, last in self.kinds)


@dataclass(frozen=True, slots=True)
class Retention:
    """All rules of a relay; the first that names a kind decides about it.

    Attributes:
        rules: in order.
        trim: when the file is fuller than this part of its size cap, the oldest ordinary events go; None refuses
            new ones instead. Profiles, lists, deletions and requests to vanish stay.
    """

    rules: tuple[Rule, ...] = ()
    trim: float | None = None

    def rule(self, kind: int) -> Rule | None:
        """The rule that decides about a kind."""
        return next((rule for rule in self.rules if rule.names(kind)), None)

    def refuse(self, event: Event, now: int) -> str:
        """Why the event would be removed at once; empty if it would not. `now` is Unix seconds, 0 if unknown."""
        rule = self.rule(event.kind) if self.rules else None
        if rule is None or rule.time_s is None or not now:
            return ""
        if rule.time_s == 0:
            return f"blocked: this relay keeps no events of kind {event.kind}"
        if event.created_at < now - rule.time_s:
            return f"invalid: this relay keeps events of kind {event.kind} for {rule.time_s} seconds only"
        return ""

    def document(self) -> list[dict[str, Any]]:
        """The `retention` list of NIP-11."""
        out: list[dict[str, Any]] = []
        for rule in self.rules:
            shown: dict[str, Any] = {}
            if rule.kinds:
                shown["kinds"] = [first if first == last else [first, last] for first, last in rule.kinds]
            if rule.time_s is not None:
                shown["time"] = rule.time_s
            if rule.count is not None:
                shown["count"] = rule.count
            out.append(shown)
        return out


def retention(rules: Sequence[Mapping[str, Any]], trim: float | None = None) -> Retention:
    """Rules from their NIP-11 form.

    Raises:
        MalformedRetention: one of them has another form, or `trim` is not between 0.1 and 0.99.
    """
    if trim is not None and not 0.1 <= trim <= 0.99:
        raise MalformedRetention(f"trim is a part of the size cap from 0.1 to 0.99, not {trim}.")
    return Retention(tuple(_rule(rule) for rule in rules), trim)


def _rule(data: Mapping[str, Any]) -> Rule:
    unknown = set(data) - {"kinds", "time", "count"}
    if unknown:
        raise MalformedRetention(f"A retention rule knows no {sorted(unknown)[0]!r}.")
    listed = data.get("kinds", [])
    if not isinstance(listed, list):
        raise MalformedRetention("A retention rule's kinds are a list.")
    return Rule(tuple(_kinds(one) for one in listed), _bound(data, "time"), _bound(data, "count"))


def _kinds(value: Any) -> tuple[int, int]:
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or not all(type(one) is int and 0 <= one <= _MAX_KIND for one in pair) or pair[0] > pair[1]:
        raise MalformedRetention(f"A kind is a whole number up to {_MAX_KIND}, or a pair of two, not {value!r}.")
    return pair[0], pair[1]


def _bound(data: Mapping[str, Any], name: str) -> int | None:
    value = data.get(name)
    if value is None or (type(value) is int and value >= 0):
        return value
    raise MalformedRetention(f"A retention rule's {name} is a whole number, not {value!r}.")
