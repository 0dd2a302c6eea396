"""One client's side of the protocol (NIP-01, NIP-45): a message in, one action out. Pure.

The session knows which subscriptions are open and decides; the hub verifies, stores, matches and sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from core.identifier import PubKey, is_hex64
from relays.embedded import frame
from relays.embedded.limit import Limits
from relays.embedded.policy import Policy
from relays.error import MalformedEvent
from relays.event import Event, parse
from relays.filter import Filter, parse_filter


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this frame; nothing else happens."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """An event that the policy would take. It is still to be verified."""

    event: Event


@dataclass(frozen=True, slots=True)
class Open:
    """Serve this subscription, in place of one with the same id."""

    sub_id: str
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Shut:
    """End this subscription if it is open, and send the frame if there is one."""

    sub_id: str
    frame: bytes = b""


@dataclass(frozen=True, slots=True)
class Tally:
    """Count what is stored (NIP-45)."""

    sub_id: str
    filters: tuple[Filter, ...]


Action: TypeAlias = Answer | Offer | Open | Shut | Tally


class Session:
    """What the relay knows of one connection.

    Attributes:
        readers: keys that the connection proved to hold. Empty until the relay speaks NIP-42.
    """

    __slots__ = ("_limits", "_open", "_policy", "readers")

    def __init__(self, policy: Policy, limits: Limits) -> None:
        self._policy = policy
        self._limits = limits
        self._open: dict[str, int] = {}  # open subscriptions, and how many values their filters hold
        self.readers: frozenset[PubKey] = frozenset()

    def receive(self, data: bytes, now: int) -> Action:
        """Decide on one text message. `now` is Unix seconds."""
        try:
            parts = orjson.loads(data)
        except orjson.JSONDecodeError:
            return Answer(frame.notice("invalid: this is not JSON"))
        if type(parts) is not list or len(parts) < 2 or type(parts[0]) is not str:
            return Answer(frame.notice("invalid: a message is a list of a verb and what belongs to it"))
        match parts[0]:
            case "EVENT":
                return self._event(parts[1], len(data), now)
            case "REQ" | "COUNT":
                return self._request(parts[0], parts[1], parts[2:])
            case "CLOSE":
                return self._close(parts[1])
            case "AUTH":
                return Answer(_verdict(parts[1], "error: this relay does not ask for AUTH"))
        return Answer(frame.notice("invalid: the verbs are EVENT, REQ, CLOSE and COUNT"))

    def forget(self, sub_id: str) -> None:
        """The relay itself has ended this subscription."""
        self._open.pop(sub_id, None)

    def _event(self, value: Any, size: int, now: int) -> Action:
        if size > self._limits.event_bytes:
            return Answer(_verdict(value, f"invalid: longer than {self._limits.event_bytes} bytes"))
        try:
            event = parse(value)
        except MalformedEvent as error:
            return Answer(_verdict(value, f"invalid: {error.message}"))
        reason = self._policy.refuse_event(event, now, self.readers)
        return Answer(frame.ok(event.id, False, reason)) if reason else Offer(event)

    def _close(self, sub_id: Any) -> Action:
        if type(sub_id) is not str:
            return Answer(frame.notice("invalid: CLOSE names a subscription"))
        self._open.pop(sub_id, None)
        return Shut(sub_id)

    def _request(self, verb: str, sub_id: Any, values: Sequence[Any]) -> Action:
        longest = self._limits.sub_id_chars
        if type(sub_id) is not str or not 0 < len(sub_id) <= longest:
            return Answer(frame.notice(f"invalid: a subscription id is text of 1 to {longest} characters"))
        filters, reason = self._filters(values)
        if verb == "COUNT":
            return Answer(frame.closed(sub_id, reason)) if reason else Tally(sub_id, filters)
        self._open.pop(sub_id, None)  # a second REQ with the same id replaces the first
        size = sum(_size(one) for one in filters)
        reason = reason or self._full(size)
        if reason:
            return Shut(sub_id, frame.closed(sub_id, reason))
        self._open[sub_id] = size
        return Open(sub_id, filters)

    def _full(self, size: int) -> str:
        if len(self._open) >= self._limits.subscriptions:
            return f"rate-limited: {self._limits.subscriptions} subscriptions are open already"
        if sum(self._open.values()) + size > self._limits.filter_values:
            return f"rate-limited: open filters hold more than {self._limits.filter_values} values"
        return ""

    def _filters(self, values: Sequence[Any]) -> tuple[tuple[Filter, ...], str]:
        if not 0 < len(values) <= self._limits.filters:
            return (), f"invalid: a request has 1 to {self._limits.filters} filters"
        try:
            filters = tuple(parse_filter(value) for value in values)
        except MalformedEvent as error:
            return (), f"invalid: {error.message}"
        return filters, self._policy.refuse_filters(filters, self.readers)


def _verdict(value: Any, reason: str) -> bytes:
    """A refusal by OK if the thing has an id to name, else by NOTICE."""
    event_id = value.get("id") if type(value) is dict else None
    if type(event_id) is str and is_hex64(event_id):
        return frame.ok(event_id, False, reason)
    return frame.notice(reason)


def _size(wanted: Filter) -> int:
    values = [wanted.ids, wanted.authors, wanted.kinds, *wanted.tags.values()]
    return sum(len(one) for one in values if one is not None)
