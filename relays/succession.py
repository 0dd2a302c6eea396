"""One key follows another: the two notes by which a rotation is proved (ours; Nostr has no way of its own). Pure.

Both are addressable application data (NIP-78, kind 30078). The old key says who its successor is, the new key says
whom it succeeds and names the old key's note. Whoever stole one of the two keys can make one of the notes alone, so
neither is believed without the other.
"""

from dataclasses import dataclass

from core.identifier import EventId, PubKey, is_hex64
from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.kind import APP_DATA

SUCCESSOR, PREDECESSOR = "vendo/successor", "vendo/predecessor"


@dataclass(frozen=True, slots=True)
class Succession:
    """`new` has taken the place of `old`, and both say so."""

    old: PubKey
    new: PubKey
    at: int


def successor_draft(new: PubKey, name: str, created_at: int) -> Draft:
    """What the old key says last. `name` is for people."""
    tags = (("d", SUCCESSOR), ("p", new), ("alt", f"{name} goes on under another key"))
    return Draft(APP_DATA, f"{name} goes on under the key named here.", tags, created_at)


def predecessor_draft(old: PubKey, note: EventId, name: str, created_at: int) -> Draft:
    """What the new key says first; `note` is the id of the old key's note."""
    tags = (("d", PREDECESSOR), ("p", old), ("e", note), ("alt", f"{name} was known under another key"))
    return Draft(APP_DATA, f"{name} was known under the key named here.", tags, created_at)


def read_succession(old_note: Event, new_note: Event) -> Succession:
    """What two verified notes prove together.

    Raises:
        MalformedEvent: one is not such a note, or they do not name each other.
    """
    for event, d in ((old_note, SUCCESSOR), (new_note, PREDECESSOR)):
        if event.kind != APP_DATA or event.value("d") != d or not is_hex64(event.value("p")):
            raise MalformedEvent("This is no note about the succession of a key.")
    if old_note.value("p") != new_note.pubkey or new_note.value("p") != old_note.pubkey:
        raise MalformedEvent("The two notes do not name each other.")
    if new_note.value("e") != old_note.id or old_note.pubkey == new_note.pubkey:
        raise MalformedEvent("The new key's note is about another note of the old key.")
    return Succession(old_note.pubkey, new_note.pubkey, max(old_note.created_at, new_note.created_at))
