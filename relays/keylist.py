"""Many keys behind one AUTH: a node proves its own key (NIP-42) and shows which other keys it reads for. Pure.

A node with thousands of agents cannot sign thousands of AUTH events on every connection. It signs *key lists*
instead: events of kind 22243, each with entries of two sorts.

- With consent: `["key", pubkey, issued, expires, signature]`. The signature is the agent key's, over an event of kind
  22244 that holds nothing but this: node, relay and dates. It is rebuilt from the entry and verified like every event.
- Bare: `["key", pubkey]`. A relay believes these only of nodes that its operator named.

A list is sent as `["AUTH", list]` after the node's own AUTH was accepted, and answered by OK. It adds its keys to
what this connection may *read*; it never makes the node their author. docs/reference/wire.md has the whole of it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.identifier import EventId, PubKey, is_hex64
from relays.error import ForgedEvent, MalformedEvent
from relays.event import Draft, Event, digest, verify
from relays.kind import KEY_CONSENT, KEY_LIST

LIST_LIFE_S = 86_400  # a list is for one connection; it is made anew when it is sent
CONSENT_LIFE_S = 366 * 86_400
SKEW_S = 600  # as NIP-42 asks for AUTH events
MAX_LIST_BYTES = 60_000  # of the whole AUTH message; below every relay's usual bound for one event
_ENTRY_BYTES = 252  # a consented entry as JSON, at its longest
_BARE_BYTES = 75
_ROOM = 1_024  # the event around the entries


@dataclass(frozen=True, slots=True)
class Consent:
    """A key agrees that a node reads for it, on one relay, until `expires_at` (Unix seconds)."""

    pubkey: PubKey
    issued_at: int
    expires_at: int
    sig: str

    def event(self, node: PubKey, relay: str) -> Event:
        """The event that was signed, as it must have been for this node and relay."""
        draft = consent_draft(node, relay, self.issued_at, self.expires_at)
        event_id = EventId(digest(self.pubkey, draft).hex())
        return Event(event_id, self.pubkey, draft.created_at, draft.kind, draft.tags, draft.content, self.sig)


@dataclass(frozen=True, slots=True)
class KeyList:
    """What one list claims. Nothing of it was checked but its form.

    Attributes:
        node: who signed the list.
        relay: the relay that it is for, as the node spells it.
        consents: entries with a signature of the key itself.
        bare: keys without one.
    """

    node: PubKey
    relay: str
    consents: tuple[Consent, ...]
    bare: tuple[PubKey, ...]


def consent_draft(node: PubKey, relay: str, now: int, expires_at: int) -> Draft:
    """What a key signs to be on the lists of `node` at `relay`.

    Raises:
        MalformedEvent: the dates are not in order, or more than 366 days apart.
    """
    if not now < expires_at <= now + CONSENT_LIFE_S:
        raise MalformedEvent("A consent lasts from one second to 366 days.")
    return Draft(KEY_CONSENT, "", (("p", node), ("relay", relay), ("expiration", str(expires_at))), now)


def consent_of(event: Event) -> Consent:
    """The consent in a signed event that `consent_draft` drafted.

    Raises:
        MalformedEvent: it is another event.
    """
    expires = _number(event.value("expiration") or "")
    node, relay = event.value("p"), event.value("relay")
    if event.kind != KEY_CONSENT or node is None or relay is None:
        raise MalformedEvent("This is not a consent to a key list.")
    consent = Consent(event.pubkey, event.created_at, expires, event.sig)
    if consent.event(PubKey(node), relay).id != event.id:
        raise MalformedEvent("This is not a consent to a key list, or it says more than that.")
    return consent


def list_drafts(
    relay: str, entries: Sequence[Consent | PubKey], now: int, *, message_bytes: int = MAX_LIST_BYTES
) -> list[Draft]:
    """The lists that a node signs and sends, as many as the relay's message length makes necessary.

    Args:
        relay: as in the node's AUTH, and as in each consent.
        entries: consents, or bare keys for a relay that trusts this node.
        now: Unix seconds.
        message_bytes: longest message that the relay takes.
    """
    room = min(message_bytes, MAX_LIST_BYTES) - _ROOM - len(relay.encode())
    drafts: list[Draft] = []
    tags: list[tuple[str, ...]] = []
    used = 0
    for entry in entries:
        size = _BARE_BYTES if isinstance(entry, str) else _ENTRY_BYTES
        if tags and used + size > room:
            drafts.append(_draft(relay, tags, now))
            tags, used = [], 0
        tags.append(_tag(entry))
        used += size
    return [*drafts, _draft(relay, tags, now)] if tags else drafts


def _tag(entry: Consent | PubKey) -> tuple[str, ...]:
    if isinstance(entry, str):
        return ("key", entry)
    return ("key", entry.pubkey, str(entry.issued_at), str(entry.expires_at), entry.sig)


def _draft(relay: str, tags: Sequence[tuple[str, ...]], now: int) -> Draft:
    return Draft(KEY_LIST, "", (("relay", relay), ("expiration", str(now + LIST_LIFE_S)), *tags), now)


def parse_list(event: Event, now: int) -> KeyList:
    """Read a list. The event's own signature is checked elsewhere.

    Raises:
        MalformedEvent: it is no list, is not of now, or an entry is malformed or has expired.
    """
    relay = event.value("relay")
    if event.kind != KEY_LIST or relay is None:
        raise MalformedEvent("This is not a key list.")
    if abs(event.created_at - now) > LIST_LIFE_S or _number(event.value("expiration") or "") <= now:
        raise MalformedEvent("The key list has expired, or its date is far from now.")
    consents: list[Consent] = []
    bare: list[PubKey] = []
    for tag in event.all("key"):
        if len(tag) not in (2, 5) or not is_hex64(tag[1]):
            raise MalformedEvent("An entry of the key list is malformed.")
        if len(tag) == 2:
            bare.append(PubKey(tag[1]))
            continue
        consent = Consent(PubKey(tag[1]), _number(tag[2]), _number(tag[3]), _signature(tag[4]))
        _check_dates(consent, now)
        consents.append(consent)
    return KeyList(event.pubkey, relay, tuple(consents), tuple(bare))


def _check_dates(consent: Consent, now: int) -> None:
    if consent.issued_at > now + SKEW_S or consent.expires_at <= now:
        raise MalformedEvent("A consent in the key list has expired, or is not valid yet.")
    if not consent.issued_at < consent.expires_at <= consent.issued_at + CONSENT_LIFE_S:
        raise MalformedEvent("A consent lasts from one second to 366 days.")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise MalformedEvent("A date is not a number of seconds.")
    return int(text)


def _signature(text: str) -> str:
    if len(text) != 128 or not is_hex64(text[:64]) or not is_hex64(text[64:]):
        raise MalformedEvent("A signature is 128 lower-case hex digits.")
    return text


def proved_keys(listed: KeyList, trusted: Collection[PubKey]) -> frozenset[PubKey]:
    """The keys of a list, after every consent's signature was verified (about 30 µs each).

    Args:
        listed: a list whose own signature and relay were checked.
        trusted: nodes whose bare entries are believed.

    Raises:
        ForgedEvent: a consent is not by its key, or is for another node or relay.
        MalformedEvent: bare entries of a node that is not trusted.
    """
    if listed.bare and listed.node not in trusted:
        raise MalformedEvent("This relay wants the consent of each key on the list.")
    for consent in listed.consents:
        try:
            verify(consent.event(listed.node, listed.relay))
        except ForgedEvent as error:
            raise ForgedEvent(f"The consent of {consent.pubkey[:16]}… is not its own, or is for another.") from error
    return frozenset((*listed.bare, *(one.pubkey for one in listed.consents)))


def capacity(document: Mapping[str, Any]) -> int:
    """How many keys a relay takes by lists on one connection, from its decoded NIP-11 document; 0 if it takes none."""
    limitation = document.get("limitation")
    value = limitation.get("max_listed_keys") if isinstance(limitation, Mapping) else None
    return value if type(value) is int and value > 0 else 0
