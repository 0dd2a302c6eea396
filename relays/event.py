"""The Nostr event (NIP-01): parsed once at the edge, then a frozen value. Pure.

`parse` checks shape, `verify` checks the id and the signature; nothing acts on an event before both (M6).
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from coincurve import PublicKeyXOnly

from core.identifier import EventId, PubKey
from relays.error import ForgedEvent, MalformedEvent

Tags = tuple[tuple[str, ...], ...]

MAX_EVENT_BYTES = 65_536
MAX_TAGS = 2_000
_KEY_CACHE = 20_000
_HEX256 = re.compile(r"[0-9a-f]{256}")
_ONLY_TEXT = {str}

_keys: OrderedDict[str, PublicKeyXOnly] = OrderedDict()


@dataclass(frozen=True, slots=True)
class Draft:
    """What an author wants to say, before it is signed."""

    kind: int
    content: str
    tags: Tags
    created_at: int


@dataclass(frozen=True, slots=True)
class Event:
    """A whole event. Having one does not mean that it was verified."""

    id: EventId
    pubkey: PubKey
    created_at: int
    kind: int
    tags: Tags
    content: str
    sig: str

    def value(self, name: str) -> str | None:
        """The second item of the first tag with this name."""
        for tag in self.tags:
            if tag[0] == name and len(tag) > 1:
                return tag[1]
        return None

    def values(self, name: str) -> list[str]:
        """The second items of all tags with this name."""
        return [tag[1] for tag in self.tags if tag[0] == name and len(tag) > 1]

    def all(self, name: str) -> list[tuple[str, ...]]:
        """All tags with this name, whole."""
        return [tag for tag in self.tags if tag[0] == name]

    def to_dict(self) -> dict[str, Any]:
        """The seven fields of NIP-01."""
        return {
            "id": self.id,
            "pubkey": self.pubkey,
            "created_at": self.created_at,
            "kind": self.kind,
            "tags": self.tags,
            "content": self.content,
            "sig": self.sig,
        }

    def to_json(self) -> str:
        """As JSON text, with the seven fields and nothing else."""
        return orjson.dumps(self.to_dict()).decode()


def tags(items: Iterable[Iterable[str]]) -> Tags:
    """Tags in the form that `Draft` and `Event` hold."""
    return tuple(tuple(item) for item in items)


def _canonical(pubkey: str, created_at: int, kind: int, event_tags: Any, content: str) -> bytes:
    try:
        return orjson.dumps([0, pubkey, created_at, kind, event_tags, content])
    except (TypeError, ValueError) as error:
        raise MalformedEvent("The event holds text that is not valid Unicode.") from error


def digest(pubkey: str, draft: Draft) -> bytes:
    """The 32 bytes that are signed, and whose hex is the id."""
    return hashlib.sha256(_canonical(pubkey, draft.created_at, draft.kind, draft.tags, draft.content)).digest()


def _checked_tags(value: Any) -> Tags:
    if type(value) is not list or len(value) > MAX_TAGS:
        raise MalformedEvent("The event's tags are not a list, or are too many.")
    for tag in value:
        # set(map(type)) is the cheapest look at every item: this runs for each event that anyone sends
        if type(tag) is not list or set(map(type, tag)) != _ONLY_TEXT:
            raise MalformedEvent("A tag is not a list of strings.")
    return tuple(map(tuple, value))


def parse(value: Any) -> Event:
    """An event from decoded JSON; fields that NIP-01 does not know are dropped.

    Raises:
        MalformedEvent: a field is missing or of the wrong type or form.
    """
    if type(value) is not dict:
        raise MalformedEvent("An event is a JSON object.")
    pubkey, sig, content = value.get("pubkey"), value.get("sig"), value.get("content")
    created_at, kind = value.get("created_at"), value.get("kind")
    event_id = value.get("id")
    if type(event_id) is not str or type(pubkey) is not str or len(event_id) != 64 or len(pubkey) != 64:
        raise MalformedEvent("An event's id and pubkey are 64 lower-case hex digits.")
    if type(sig) is not str or len(sig) != 128 or _HEX256.fullmatch(event_id + pubkey + sig) is None:
        raise MalformedEvent("An event's id, pubkey and signature are lower-case hex, the signature 128 digits.")
    if type(created_at) is not int or not 0 <= created_at < 1 << 53 or type(kind) is not int or not 0 <= kind <= 65_535:
        raise MalformedEvent("An event's created_at and kind are whole numbers in range.")
    if type(content) is not str:
        raise MalformedEvent("An event's content is text.")
    tagged = _checked_tags(value.get("tags"))
    return Event(EventId(event_id), PubKey(pubkey), created_at, kind, tagged, content, sig)


def parse_json(raw: str | bytes) -> Event:
    """An event from JSON text.

    Raises:
        MalformedEvent: not JSON, too long, or not an event.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise MalformedEvent(f"The event is longer than {MAX_EVENT_BYTES} bytes.")
    try:
        return parse(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("The event is not JSON.") from error


def _public(pubkey: str) -> PublicKeyXOnly:
    key = _keys.get(pubkey)
    if key is None:
        key = _keys[pubkey] = PublicKeyXOnly(bytes.fromhex(pubkey))
        if len(_keys) > _KEY_CACHE:
            _keys.popitem(last=False)
    return key


def verify(event: Event) -> None:
    """Check that the id is the hash of the body and that the author signed it (BIP-340).

    Raises:
        ForgedEvent: one of the two is not so.
    """
    body = _canonical(event.pubkey, event.created_at, event.kind, event.tags, event.content)
    hashed = hashlib.sha256(body).digest()
    if hashed.hex() != event.id:
        raise ForgedEvent("The event's id is not the hash of its content.")
    try:
        good = _public(event.pubkey).verify(bytes.fromhex(event.sig), hashed)
    except ValueError as error:
        raise ForgedEvent("The event's author is not a point on the curve.") from error
    if not good:
        raise ForgedEvent("The event's signature is wrong.")


def verified(value: Any) -> Event:
    """Parse and verify in one go; the only door for events from outside.

    Raises:
        MalformedEvent: it is not an event.
        ForgedEvent: its id or signature is wrong.
    """
    event = parse(value)
    verify(event)
    return event
