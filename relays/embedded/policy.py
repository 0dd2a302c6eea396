"""What the relay accepts and who may read it. Pure; every refusal begins with one of NIP-01's words.

`authors` are the keys that a connection has proved to hold (NIP-42), `readers` those and the keys that it may read for.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from core.identifier import PubKey
from relays.embedded import scope
from relays.embedded.access import Access, committed_pow, pow_of, takes_kind
from relays.embedded.limit import Limits
from relays.embedded.trait import expiry, indexed_tags, is_protected
from relays.event import Event
from relays.filter import Filter
from relays.kind import GIFT_WRAP

_NOBODY: Mapping[PubKey, int] = {}


class Policy(Protocol):
    """The rules of one relay. An empty string is a yes."""

    @property
    def access(self) -> Access:
        """The rules as data, for NIP-11."""

    def refuse_event(self, event: Event, now: int, authors: Collection[PubKey]) -> str:
        """Why this event is not taken; asked before its signature is checked."""

    def refuse_filters(self, filters: Sequence[Filter], readers: Collection[PubKey]) -> str:
        """Why these filters are not served."""

    def refuse_key(self, pubkey: PubKey) -> str:
        """Why this key may not authenticate."""


class RelayPolicy:
    """Limits, and the rules of `Access`.

    Args:
        limits: sizes and dates.
        access: who may write and read; by default everybody.
        paid: until when (Unix seconds) a key has paid; a live view.
        searches: whether the store answers searches (NIP-50).
    """

    def __init__(
        self,
        limits: Limits,
        access: Access | None = None,
        paid: Mapping[PubKey, int] = _NOBODY,
        *,
        searches: bool = False,
    ) -> None:
        self._limits, self._paid, self._searches = limits, paid, searches
        self.access = access or Access()

    def refuse_key(self, pubkey: PubKey) -> str:
        """Only keys that were named as unwanted."""
        return "blocked: this key is not wanted here" if pubkey in self.access.denied_keys else ""

    def refuse_event(self, event: Event, now: int, authors: Collection[PubKey]) -> str:
        """Kinds, tags, dates, expiry (NIP-40), protection (NIP-70), and who may write."""
        return self._fault(event, now) or self._unwelcome(event, now, authors)

    def _fault(self, event: Event, now: int) -> str:
        limits = self._limits
        if not takes_kind(self.access, event.kind):
            return f"blocked: events of kind {event.kind} are not taken here"
        if len(event.tags) > limits.event_tags:
            return f"invalid: more than {limits.event_tags} tags"
        if event.created_at > now + limits.future_s:
            return f"invalid: created_at is more than {limits.future_s} seconds in the future"
        expires = expiry(event)
        if expires is not None and expires <= now:
            return "invalid: the event has expired"
        if event.kind == GIFT_WRAP and event.value("p") is None:
            return "invalid: a gift wrap without a p tag has no receiver"
        if len(event.tags) > limits.indexed_tags and len(indexed_tags(event)) > limits.indexed_tags:
            return f"invalid: more than {limits.indexed_tags} single-letter tags"
        return ""

    def _unwelcome(self, event: Event, now: int, authors: Collection[PubKey]) -> str:
        access = self.access
        if event.pubkey in access.denied_keys:
            return "blocked: this key is not wanted here"
        if access.auth_to_write and not authors:
            return "auth-required: who writes here says first who it is (NIP-42)"
        if is_protected(event) and event.pubkey not in authors:
            word = "restricted" if authors else "auth-required"
            return f"{word}: a protected event (NIP-70) is taken from its author only"
        if not access.write_by:
            return ""
        reasons = [self._way(way, event, now) for way in access.write_by]
        return "" if not all(reasons) else reasons[0]

    def _way(self, way: str, event: Event, now: int) -> str:
        access = self.access
        if way == "pow":
            return _unproven(event, access.pow_bits)
        if way == "payment":
            paid = self._paid.get(event.pubkey, 0) > now or self._is_wrap_for(event, now)
            return "" if paid else "restricted: writing here is paid for; the relay's page says how"
        known = event.pubkey in access.keys or (
            event.kind == GIFT_WRAP and any(value in access.keys for value in event.values("p"))
        )
        return "" if known else "restricted: only keys that belong to this relay write here"

    def _is_wrap_for(self, event: Event, now: int) -> bool:
        """Gift wraps are signed by throw-away keys, so it is their receiver who has paid."""
        return event.kind == GIFT_WRAP and any(self._paid.get(PubKey(value), 0) > now for value in event.values("p"))

    def refuse_filters(self, filters: Sequence[Filter], readers: Collection[PubKey]) -> str:
        """Reading rules, searches (NIP-50) if the store has none, and private messages of others."""
        access = self.access
        if not self._searches and any(one.search for one in filters):
            return "unsupported: this relay does not search (NIP-50)"
        if access.read_by != "open" and not readers:
            return "auth-required: who reads here says first who it is (NIP-42)"
        if access.read_by == "key" and not any(one in access.keys for one in readers):
            return "restricted: only keys that belong to this relay read here"
        return scope.refuse(filters, readers) if access.private else ""


def _unproven(event: Event, bits: int) -> str:
    """NIP-13: the work was done, and it was meant, not found by luck with a lower target."""
    done = pow_of(event.id)
    if done < bits:
        return f"pow: difficulty {done} is less than {bits}"
    aimed = committed_pow(event.tags)
    return "" if aimed >= bits else f"pow: the nonce tag commits to {aimed}, not to {bits}"
