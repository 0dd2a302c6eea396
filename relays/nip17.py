"""Private messages (NIP-17): a rumor in a seal in a gift wrap (NIP-59), so that a relay sees only the receiver.

`wrap` and `unwrap` are for a key of this process, `wrap_by` and `unwrap_by` for any `Signer`; both sides share every
check: the seal's signature, that seal and rumor name the same author, and that the rumor's id is the hash of its body.
"""

import secrets
from collections.abc import Callable
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
from relays.signer import Signer

BACKDATE_S = 2 * 86_400  # wraps and seals are dated up to so long ago (NIP-59)
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

    def values(self, name: str) -> list[str]:
        """The second items of all tags with this name."""
        return [tag[1] for tag in self.tags if tag[0] == name and len(tag) > 1]


def rumor_id(sender: PubKey, draft: Draft) -> EventId:
    """The id under which both copies of a message are known."""
    return EventId(digest(sender, draft).hex())


def rumor_json(sender: PubKey, draft: Draft) -> str:
    """The rumor as it stands in a seal: an event without a signature."""
    rumor: dict[str, Any] = {
        "id": rumor_id(sender, draft),
        "pubkey": sender,
        "created_at": draft.created_at,
        "kind": draft.kind,
        "tags": draft.tags,
        "content": draft.content,
    }
    return orjson.dumps(rumor).decode()


def wrap(sender: Key, receiver: PubKey, draft: Draft) -> Event:
    """A gift wrap (kind 1059) around a draft. Call it for the receiver and again for oneself: same rumor id.

    The wrap's key is random and its `created_at` up to two days back (NIP-59), so a stored wrap must be kept to
    be sent again: a second call makes other bytes.

    Raises:
        InvalidInput: the text is too long for one event, or the receiver is not a key.
    """
    try:
        unsigned = nostr_sdk.UnsignedEvent.from_json(rumor_json(sender.pubkey, draft))
        gift = nostr_sdk.nip59_make_gift_wrap(sender.sdk, nostr_sdk.PublicKey.parse(receiver), unsigned)
    except nostr_sdk.NostrSdkError as error:
        raise InvalidInput("The message cannot be wrapped: it is too long, or the receiver is not a key.") from error
    return parse_json(_fitting(gift.as_json()))


async def wrap_by(
    signer: Signer, receiver: PubKey, draft: Draft, *, random: Callable[[int], int] = secrets.randbelow
) -> Event:
    """As `wrap`, by a signer that may be far away. `random(n)` gives a whole number from 0 to n - 1.

    Raises:
        InvalidInput: the text is too long for one event, or the receiver is not a key.
        KindForbidden, SignerUnavailable: as `Signer.sign`.
    """
    sealed = await signer.encrypt(receiver, rumor_json(signer.pubkey, draft))
    seal = await signer.sign(Draft(SEAL, sealed, (), draft.created_at - random(BACKDATE_S)))
    once = Key.generate()
    content = once.encrypt(receiver, seal.to_json())
    gift = once.sign(Draft(GIFT_WRAP, content, (("p", receiver),), draft.created_at - random(BACKDATE_S)))
    _fitting(gift.to_json())
    return gift


def _fitting(raw: str) -> str:
    if len(raw) > MAX_EVENT_BYTES:
        raise InvalidInput(f"The message is too long: wrapped it has {len(raw)} of at most {MAX_EVENT_BYTES} bytes.")
    return raw


def check_wrap(wrap: Event) -> None:
    """See that an event can be a gift wrap at all.

    Raises:
        NotForUs: it is of another kind.
    """
    if wrap.kind not in (GIFT_WRAP, EPHEMERAL_GIFT_WRAP):
        raise NotForUs("This is not a gift wrap.")


def read_seal(text: str) -> Event:
    """The seal, from what a gift wrap held; verified.

    Raises:
        NotForUs: it is no seal, or it is forged.
    """
    try:
        seal = parse(_json(text))
        verify(seal)
    except (MalformedEvent, ForgedEvent) as error:
        raise NotForUs("The gift wrap holds no valid seal.") from error
    if seal.kind != SEAL:
        raise NotForUs("The gift wrap holds an event that is not a seal.")
    return seal


def read_rumor(seal: Event, text: str) -> Rumor:
    """The rumor, from what a verified seal held.

    Raises:
        NotForUs: the seal's author is not the rumor's, or the rumor's id is not the hash of its body.
    """
    inside = _json(text)
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


def unwrap(key: Key, wrap: Event) -> Rumor:
    """The rumor in a verified gift wrap.

    Raises:
        NotForUs: it is no gift wrap, it was not made for this key, the seal is forged, the seal's author is not
            the rumor's, or the rumor's id is not the hash of its body.
    """
    check_wrap(wrap)
    seal = read_seal(key.decrypt(wrap.pubkey, wrap.content))
    return read_rumor(seal, key.decrypt(seal.pubkey, seal.content))


async def open_wrap(signer: Signer, wrap: Event) -> Event:
    """The seal in a verified gift wrap: half the work of `unwrap_by`, and it tells already who the sender is.

    Raises:
        NotForUs: it is no gift wrap, it was not made for this signer, or the seal is forged.
        SignerUnavailable: as `Signer.decrypt`.
    """
    check_wrap(wrap)
    return read_seal(await signer.decrypt(wrap.pubkey, wrap.content))


async def open_seal(signer: Signer, seal: Event) -> Rumor:
    """The rumor in a seal that `open_wrap` gave.

    Raises:
        NotForUs: as `read_rumor`.
        SignerUnavailable: as `Signer.decrypt`.
    """
    return read_rumor(seal, await signer.decrypt(seal.pubkey, seal.content))


async def unwrap_by(signer: Signer, wrap: Event) -> Rumor:
    """As `unwrap`, by a signer that may be far away.

    Raises:
        NotForUs: as `unwrap`.
        SignerUnavailable: as `Signer.decrypt`.
    """
    return await open_seal(signer, await open_wrap(signer, wrap))


def _json(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotForUs("What was encrypted to us is not JSON.") from error


def _draft(inside: dict[str, Any]) -> Draft:
    try:
        shaped = parse({**inside, "id": "0" * 64, "sig": _NO_SIGNATURE})
    except MalformedEvent as error:
        raise NotForUs("The seal holds no rumor.") from error
    return Draft(shaped.kind, shaped.content, shaped.tags, shaped.created_at)
