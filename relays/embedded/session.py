"""One client's side of the protocol (NIP-01, 42, 45, 77): a message in, one action out. Pure.

The session knows what is open and which keys were proved, and decides; the hub verifies, stores, matches and sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from core.identifier import PubKey, is_hex64
from relays.embedded import frame
from relays.embedded.authority import Authority
from relays.embedded.limit import Limits
from relays.embedded.policy import Policy
from relays.embedded.rate import Meter
from relays.error import ForgedEvent, MalformedEvent
from relays.event import Event, parse, verify
from relays.filter import Filter, parse_filter
from relays.keylist import KeyList, parse_list
from relays.kind import KEY_LIST


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


@dataclass(frozen=True, slots=True)
class Listed:
    """A key list of a node that has proved itself. The consents in it are still to be verified."""

    event: Event
    keys: KeyList


@dataclass(frozen=True, slots=True)
class Sync:
    """Begin a reconciliation (NIP-77), in place of one with the same id, with this first message (hex)."""

    sub_id: str
    filter: Filter
    message: str


@dataclass(frozen=True, slots=True)
class SyncMore:
    """The next message of an open reconciliation."""

    sub_id: str
    message: str


@dataclass(frozen=True, slots=True)
class SyncEnd:
    """End a reconciliation if it is open, and send the frame if there is one."""

    sub_id: str
    frame: bytes = b""


Action: TypeAlias = Answer | Offer | Open | Shut | Tally | Listed | Sync | SyncMore | SyncEnd


class Session:
    """What the relay knows of one connection.

    Attributes:
        authority: which keys the connection has proved, and reads for.
        meter: how often it may do what.
    """

    __slots__ = ("_limits", "_open", "_policy", "_syncs", "authority", "meter")

    def __init__(self, policy: Policy, limits: Limits, authority: Authority, meter: Meter) -> None:
        self._policy, self._limits, self.meter, self.authority = policy, limits, meter, authority
        self._open: dict[str, int] = {}  # open subscriptions, and how many values their filters hold
        self._syncs: set[str] = set()

    def receive(self, data: bytes, now: int, mono: float) -> Action:
        """Decide on one text message. `now` is Unix seconds, `mono` seconds that never run backwards."""
        try:
            parts = orjson.loads(data)
        except orjson.JSONDecodeError:
            return Answer(frame.notice("invalid: this is not JSON"))
        if type(parts) is not list or len(parts) < 2 or type(parts[0]) is not str:
            return Answer(frame.notice("invalid: a message is a list of a verb and what belongs to it"))
        match parts[0]:
            case "EVENT":
                return self._event(parts[1], len(data), now, mono)
            case "REQ" | "COUNT":
                return self._request(parts[0], parts[1], parts[2:], mono)
            case "CLOSE":
                return self._close(parts[1])
            case "AUTH":
                return self._auth(parts[1], now, mono)
            case "NEG-OPEN":
                return self._sync(parts[1], parts[2:], mono)
            case "NEG-MSG":
                return self._sync_more(parts[1], parts[2:], mono)
            case "NEG-CLOSE" if type(parts[1]) is str:
                self._syncs.discard(parts[1])
                return SyncEnd(parts[1])
        return Answer(frame.notice("invalid: the verbs are EVENT, REQ, CLOSE, COUNT, AUTH and NEG-OPEN, -MSG, -CLOSE"))

    def forget(self, sub_id: str) -> None:
        """The relay itself has ended this subscription."""
        self._open.pop(sub_id, None)

    def forget_sync(self, sub_id: str) -> None:
        """The relay itself has ended this reconciliation."""
        self._syncs.discard(sub_id)

    # -- events ---------------------------------------------------------------------------------------------------

    def _event(self, value: Any, size: int, now: int, mono: float) -> Action:
        if size > self._limits.event_bytes:
            return Answer(_verdict(value, f"invalid: longer than {self._limits.event_bytes} bytes"))
        try:
            event = parse(value)
        except MalformedEvent as error:
            return Answer(_verdict(value, f"invalid: {error.message}"))
        reason = self.meter.event(event.pubkey, mono)
        reason = reason or self._policy.refuse_event(event, now, self.authority.authors)
        return Answer(frame.ok(event.id, False, reason)) if reason else Offer(event)

    def _auth(self, value: Any, now: int, mono: float) -> Action:
        """NIP-42, and key lists by the same verb."""
        try:
            event = parse(value)
        except MalformedEvent as error:
            return Answer(_verdict(value, f"invalid: {error.message}"))
        cost = 1 + len(event.tags) // 100
        reason = self.meter.auth(mono, cost) or self._policy.refuse_key(event.pubkey)
        if not reason and event.kind == KEY_LIST:
            return self._key_list(event, now)
        reason = reason or self.authority.prove(event, now)
        return Answer(frame.ok(event.id, not reason, reason))

    def _key_list(self, event: Event, now: int) -> Action:
        try:
            listed = parse_list(event, now)
            reason = self.authority.refuse_list(listed)
            if not reason:
                verify(event)
                return Listed(event, listed)
        except (MalformedEvent, ForgedEvent) as error:
            reason = f"invalid: {error.message}"
        return Answer(frame.ok(event.id, False, reason))

    def listed(self, wanted: Listed, keys: frozenset[PubKey], reason: str) -> bytes:
        """The consents of a list were checked. Returns the OK."""
        reason = reason or self.authority.refuse_list(wanted.keys)  # another list may have come first
        if not reason:
            self.authority.admit(keys)
        return frame.ok(wanted.event.id, not reason, reason)

    # -- requests -------------------------------------------------------------------------------------------------

    def _close(self, sub_id: Any) -> Action:
        if type(sub_id) is not str:
            return Answer(frame.notice("invalid: CLOSE names a subscription"))
        self._open.pop(sub_id, None)
        return Shut(sub_id)

    def _request(self, verb: str, sub_id: Any, values: Sequence[Any], mono: float) -> Action:
        if not self._is_name(sub_id):
            return Answer(self._bad_name())
        filters, reason = self._filters(values)
        reason = reason or self.meter.request(mono)
        if verb == "COUNT":
            return Answer(frame.closed(sub_id, reason)) if reason else Tally(sub_id, filters)
        self._open.pop(sub_id, None)  # a second REQ with the same id replaces the first
        size = sum(_size(one) for one in filters)
        reason = reason or self._full(size)
        if reason:
            return Shut(sub_id, frame.closed(sub_id, reason))
        self._open[sub_id] = size
        return Open(sub_id, filters)

    def _is_name(self, sub_id: Any) -> bool:
        return type(sub_id) is str and 0 < len(sub_id) <= self._limits.sub_id_chars

    def _bad_name(self) -> bytes:
        return frame.notice(f"invalid: a subscription id is text of 1 to {self._limits.sub_id_chars} characters")

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
        return filters, self._policy.refuse_filters(filters, self.authority.readers)

    # -- reconciliation -------------------------------------------------------------------------------------------

    def _sync(self, sub_id: Any, values: Sequence[Any], mono: float) -> Action:
        if not self._is_name(sub_id):
            return Answer(self._bad_name())
        if len(values) < 2 or type(values[1]) is not str:
            return SyncEnd(sub_id, frame.sync_error(sub_id, "invalid: NEG-OPEN has an id, a filter and a message"))
        filters, reason = self._filters(values[:1])
        reason = reason or self.meter.request(mono)
        self._syncs.discard(sub_id)
        if not reason and len(self._syncs) >= self._limits.syncs:
            reason = f"blocked: {self._limits.syncs} reconciliations are open already"
        if reason:
            return SyncEnd(sub_id, frame.sync_error(sub_id, reason))
        self._syncs.add(sub_id)
        return Sync(sub_id, filters[0], values[1])

    def _sync_more(self, sub_id: Any, values: Sequence[Any], mono: float) -> Action:
        if not self._is_name(sub_id):
            return Answer(self._bad_name())
        if sub_id not in self._syncs or not values or type(values[0]) is not str:
            return SyncEnd(sub_id, frame.sync_error(sub_id, "closed: no such reconciliation is open"))
        if reason := self.meter.request(mono):
            self._syncs.discard(sub_id)
            return SyncEnd(sub_id, frame.sync_error(sub_id, reason))
        return SyncMore(sub_id, values[0])


def _verdict(value: Any, reason: str) -> bytes:
    """A refusal by OK if the thing has an id to name, else by NOTICE."""
    event_id = value.get("id") if type(value) is dict else None
    if type(event_id) is str and is_hex64(event_id):
        return frame.ok(event_id, False, reason)
    return frame.notice(reason)


def _size(wanted: Filter) -> int:
    values = [wanted.ids, wanted.authors, wanted.kinds, *wanted.tags.values()]
    return sum(len(one) for one in values if one is not None)
