"""Reactions (NIP-25, kind 7). Within NIP-17 they are rumors too, and say that a message has arrived. Pure."""

from core.identifier import PubKey, is_hex64
from relays.event import Draft, Event
from relays.kind import DM, REACTION
from relays.nip17 import Rumor

TICK = "✓"
MAX_CONTENT = 64


def reaction_draft(message_id: str, author: PubKey, created_at: int, *, kind: int = DM, content: str = TICK) -> Draft:
    """A reaction to a message of `author`; `kind` is the message's own."""
    tags = (("e", message_id), ("p", author), ("k", str(kind)))
    return Draft(REACTION, content, tags, created_at)


def reacted_to(reaction: Rumor | Event) -> str | None:
    """The id of what is reacted to: the last `e` tag (NIP-25). None if it is no reaction, or one of dislike."""
    if reaction.kind != REACTION or reaction.content.strip() == "-" or len(reaction.content) > MAX_CONTENT:
        return None
    named = reaction.values("e")
    return named[-1] if named and is_hex64(named[-1]) else None
