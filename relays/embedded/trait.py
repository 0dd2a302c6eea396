"""What an event is to a relay: ephemeral, replaceable, expiring, deleting, indexed by which tags. Pure."""

from collections.abc import Collection

from core.error import InvalidInput
from core.identifier import EventId, is_hex64
from relays.address import canonical
from relays.event import Event

DELETION = 5
VANISH = 62
GIFT_WRAP = 1059
EVERY_RELAY = "ALL_RELAYS"
_LAST_SECOND = 1 << 53


def is_ephemeral(kind: int) -> bool:
    """Delivered to who listens now, never stored (NIP-01)."""
    return 20_000 <= kind < 30_000


def is_addressable(kind: int) -> bool:
    """One event for each author, kind and `d` tag (NIP-01)."""
    return 30_000 <= kind < 40_000


def is_replaceable(kind: int) -> bool:
    """One event for each author and kind (NIP-01)."""
    return kind in (0, 3) or 10_000 <= kind < 20_000


def address(event: Event) -> str | None:
    """`kind:pubkey:d` of a replaceable or addressable event, as an `a` tag names it; None for other events."""
    if is_addressable(event.kind):
        return f"{event.kind}:{event.pubkey}:{event.value('d') or ''}"
    return f"{event.kind}:{event.pubkey}:" if is_replaceable(event.kind) else None


def expiry(event: Event) -> int | None:
    """The Unix second at which it expires (NIP-40); None if it does not, or if the tag is not a number."""
    text = event.value("expiration")
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 16:
        return None
    return min(int(text), _LAST_SECOND)


def is_protected(event: Event) -> bool:
    """Only its author may publish it (NIP-70)."""
    for tag in event.tags:  # for each event that comes: a loop takes a third of a generator's time  # noqa: SIM110
        if tag[0] == "-":
            return True
    return False


def indexed_tags(event: Event) -> set[tuple[str, str]]:
    """Name and first value of the tags that filters can ask for: those with a single letter (NIP-01)."""
    return {(tag[0], tag[1]) for tag in event.tags if len(tag) > 1 and _is_letter(tag[0])}


def _is_letter(name: str) -> bool:
    return len(name) == 1 and name.isascii() and name.isalpha()


def deleted_ids(event: Event) -> list[EventId]:
    """The events that a deletion names by id (NIP-09)."""
    return [EventId(value) for value in dict.fromkeys(event.values("e")) if is_hex64(value)]


def deleted_addresses(event: Event) -> list[str]:
    """The addresses that a deletion names and whose author is its own (NIP-09)."""
    found = []
    for value in dict.fromkeys(event.values("a")):
        kind, _, rest = value.partition(":")
        author, _, identifier = rest.partition(":")
        if author != event.pubkey or not kind.isascii() or not kind.isdigit() or len(kind) > 5:
            continue
        number = int(kind)
        if is_addressable(number):
            found.append(f"{number}:{author}:{identifier}")
        elif is_replaceable(number):
            found.append(f"{number}:{author}:")
    return found


def asks_to_vanish(event: Event, urls: Collection[str]) -> bool:
    """Whether it asks the relay with one of these addresses (canonical) to forget its author (NIP-62)."""
    if event.kind != VANISH:
        return False
    return any(named == EVERY_RELAY or _is_among(named, urls) for named in event.values("relay"))


def _is_among(named: str, urls: Collection[str]) -> bool:
    try:
        return canonical(named) in urls
    except InvalidInput:
        return False
