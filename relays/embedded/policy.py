"""What the relay accepts and who may read it. Pure; every refusal begins with one of NIP-01's words.

`readers` are the keys that a connection has proved to hold (NIP-42). The open policy gives nothing for them;
a stricter one asks for them here, for events as well as for filters.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from core.identifier import PubKey
from relays.embedded.limit import Limits
from relays.embedded.trait import expiry, indexed_tags, is_protected
from relays.event import Event
from relays.filter import Filter


class Policy(Protocol):
    """The rules of one relay. An empty string is a yes."""

    def refuse_event(self, event: Event, now: int, readers: Collection[PubKey]) -> str:
        """Why this event is not taken; asked before its signature is checked."""

    def refuse_filters(self, filters: Sequence[Filter], readers: Collection[PubKey]) -> str:
        """Why these filters are not served."""


class OpenPolicy:
    """Everybody may write and read within the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def refuse_event(self, event: Event, now: int, readers: Collection[PubKey]) -> str:
        """Tags, dates, expiry (NIP-40) and protection (NIP-70)."""
        limits = self._limits
        if len(event.tags) > limits.event_tags:
            return f"invalid: more than {limits.event_tags} tags"
        if event.created_at > now + limits.future_s:
            return f"invalid: created_at is more than {limits.future_s} seconds in the future"
        expires = expiry(event)
        if expires is not None and expires <= now:
            return "invalid: the event has expired"
        if is_protected(event) and event.pubkey not in readers:
            return "blocked: a protected event (NIP-70) is taken from its author only, and this relay has no AUTH"
        if len(event.tags) > limits.indexed_tags and len(indexed_tags(event)) > limits.indexed_tags:
            return f"invalid: more than {limits.indexed_tags} single-letter tags"
        return ""

    def refuse_filters(self, filters: Sequence[Filter], readers: Collection[PubKey]) -> str:
        """Only what this relay cannot do (NIP-50) is refused."""
        if any(one.search for one in filters):
            return "unsupported: this relay does not search (NIP-50)"
        return ""
