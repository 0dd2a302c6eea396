"""Where people read and write (NIP-65, kind 10002) and where they take private messages (NIP-17, kind 10050). Pure.

Lists are strangers' words. A reader keeps the first few addresses that are addresses, in one spelling, once each;
whether one may be dialled is decided in `relays.address` and again at the socket.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from core.error import InvalidInput
from relays.address import canonical
from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.kind import DM_RELAYS, RELAY_LIST

MAX_RELAYS = 8  # of one list that count; NIP-65 asks for two to four
_MAX_LOOKED_AT = 64
_READ, _WRITE = "read", "write"


@dataclass(frozen=True, slots=True)
class RelayList:
    """A person's kind 10002: `write` is where to find what they say, `read` where to send what is for them."""

    read: tuple[str, ...]
    write: tuple[str, ...]


def relay_list_draft(read: Sequence[str], write: Sequence[str], created_at: int) -> Draft:
    """A relay list (NIP-65). A relay of both sorts gets no marker.

    Raises:
        InvalidInput: an address is none.
    """
    reads, writes = _spelled(read), _spelled(write)
    out: list[tuple[str, ...]] = []
    for url in dict.fromkeys((*writes, *reads)):
        marker = () if url in reads and url in writes else (_READ,) if url in reads else (_WRITE,)
        out.append(("r", url, *marker))
    return Draft(RELAY_LIST, "", tuple(out), created_at)


def dm_relays_draft(relays: Sequence[str], created_at: int) -> Draft:
    """Where private messages are taken (NIP-17, kind 10050); an empty list says that none are.

    Raises:
        InvalidInput: an address is none.
    """
    return Draft(DM_RELAYS, "", tuple(("relay", url) for url in _spelled(relays)), created_at)


def relay_drafts(relays: Sequence[str], created_at: int) -> tuple[Draft, Draft]:
    """Both lists of an identity that reads, writes and takes messages on the same relays.

    Raises:
        InvalidInput: an address is none.
    """
    return relay_list_draft(relays, relays, created_at), dm_relays_draft(relays, created_at)


def read_relay_list(event: Event) -> RelayList:
    """A person's relays. What is no address, or has an unknown marker, is passed over.

    Raises:
        MalformedEvent: not of kind 10002.
    """
    if event.kind != RELAY_LIST:
        raise MalformedEvent("This is not a relay list (NIP-65).")
    tags = list(islice(event.all("r"), _MAX_LOOKED_AT))
    return RelayList(_few(tags, {"", _READ}), _few(tags, {"", _WRITE}))


def read_dm_relays(event: Event) -> tuple[str, ...]:
    """Where a person takes private messages. What is no address is passed over.

    Raises:
        MalformedEvent: not of kind 10050.
    """
    if event.kind != DM_RELAYS:
        raise MalformedEvent("This is not a list of relays for private messages (NIP-17).")
    return _few(islice(event.all("relay"), _MAX_LOOKED_AT), None)


def _few(tags: Iterable[tuple[str, ...]], markers: set[str] | None) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for tag in tags:
        marker = tag[2] if len(tag) > 2 else ""
        if len(tag) < 2 or (markers is not None and marker not in markers):
            continue
        try:
            found[canonical(tag[1])] = None
        except InvalidInput:
            continue
        if len(found) == MAX_RELAYS:
            break
    return tuple(found)


def _spelled(urls: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(canonical(url) for url in urls))
