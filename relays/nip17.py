"""Private messages (NIP-17): a rumor in a seal in a gift wrap (NIP-59), so that a relay sees only the receiver.

nostr-sdk does the wrapping and the NIP-44 ciphers. Unwrapping checks each layer itself: the seal's signature,
that seal and rumor name the same author, and that the rumor's id is the hash of its body.
"""

from dataclasses import dataclass
from typing import Any

import nostr_sdk
import orjson

from core.error import InvalidInput
from core.identifier import EventId, PubKey
from relays.error import ForgedEvent, MalformedEvent, NotForUs
from relays.event import MAX_EVENT_BYTES, Draft, Event, Tags, digest, parse, parse_json, verify
from relays.key import Key
from relays.kind import EPHEMERAL_GIFT_WRAP, GIFT_WRAP, SEAL

_NO_SIGNATURE = "0" * 128


@dataclass(frozen=True, slots=True)
class Rumor:
    """An unsigned event out of a seal: its author is proven to us, but to nobody else."""

    sender: PubKey
    kind: int
    content: str
    tags: Tags
    created_at: int
    id: EventId

    def value(self, name: str) -> str | None:
        """The second item of the first tag with this name."""
        for tag in self.tags:
            if tag[0] == name and len(tag) > 1:
                return tag[1]
        return None


def rumor_id(sender: PubKey, draft: Draft) -> EventId:
    """The id under which both copies of a message are known."""
    return EventId(digest(sender, draft).hex())


def wrap(sender: Key, receiver: PubKey, draft: Draft) -> Event:
    """A gift wrap (kind 1059) around a draft. Call it for the receiver and again for oneself: same rumor id.

    The wrap's key is random and its `created_at` up to two days back (NIP-59), so a stored wrap must be kept to
    be sent again: a second call makes other bytes.

    Raises:
        InvalidInput: the text is too long for one event, or the receiver is not a key.
    """
    rumor: dict[str, Any] = {
        "id": rumor_id(sender.pubkey, draft),
        "pubkey": sender.pubkey,
        "created_at": draft.created_at,
        "kind": draft.kind,
        "tags": draft.tags,
        "content": draft.content,
    }
    try:
        unsigned = nostr_sdk.UnsignedEvent.from_json(orjson.dumps(rumor).decode())
        gift = nostr_sdk.nip59_make_gift_wrap(sender.sdk, nostr_sdk.PublicKey.parse(receiver), unsigned)
    except nostr_sdk.NostrSdkError as error:
        raise InvalidInput("The message cannot be wrapped: it is too long, or the receiver is not a key.") from error
    raw = gift.as_json()
    if len(raw) > MAX_EVENT_BYTES:
        raise InvalidInput(f"The message is too long: wrapped it has {len(raw)} of at most {MAX_EVENT_BYTES} bytes.")
    return parse_json(raw)


def _opened(key: Key, layer: Event) -> Any:
    try:
        return orjson.loads(key.decrypt(layer.pubkey, layer.content))
    except orjson.JSONDecodeError as error:
        raise NotForUs("What was encrypted to us is not JSON.") from error


def unwrap(key: Key, wrap: Event) -> Rumor:
    """The rumor in a verified gift wrap.

    Raises:
        NotForUs: it is no gift wrap, it was not made for this key, the seal is forged, the seal's author is not
            the rumor's, or the rumor's id is not the hash of its body.
    """
    if wrap.kind not in (GIFT_WRAP, EPHEMERAL_GIFT_WRAP):
        raise NotForUs("This is not a gift wrap.")
    try:
        seal = parse(_opened(key, wrap))
        verify(seal)
    except (MalformedEvent, ForgedEvent) as error:
        raise NotForUs("The gift wrap holds no valid seal.") from error
    if seal.kind != SEAL:
        raise NotForUs("The gift wrap holds an event that is not a seal.")
    inside = _opened(key, seal)
    if type(inside) is not dict:
        raise NotForUs("The seal holds no rumor.")
    claimed = inside.get("id")
    draft = _draft(inside)
    true_id = rumor_id(seal.pubkey, draft)
    if inside.get("pubkey") != seal.pubkey:
        raise NotForUs("The rumor claims another author than the one who sealed it.")
    if claimed is not None and claimed != true_id:
        raise NotForUs("The rumor's id is not the hash of its body.")
    return Rumor(seal.pubkey, draft.kind, draft.content, draft.tags, draft.created_at, true_id)


def _draft(inside: dict[str, Any]) -> Draft:
    try:
        shaped = parse({**inside, "id": "0" * 64, "sig": _NO_SIGNATURE})
    except MalformedEvent as error:
        raise NotForUs("The seal holds no rumor.") from error
    return Draft(shaped.kind, shaped.content, shaped.tags, shaped.created_at)
