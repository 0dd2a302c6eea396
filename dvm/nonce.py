"""Proof of work on a Nostr event (NIP-13), and the job that buys it (kind 5970). Pure.

The job's input is an unsigned event (`pubkey`, `created_at`, `kind`, `tags`, `content`) as JSON; `param pow` says how
many leading zero bits its id must have. The result is the same event with a `nonce` tag that commits to that target,
and with its `id`.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from core.error import InvalidInput
from core.identifier import EventId, PubKey, is_hex64
from dvm.error import BadResult
from relays.event import Draft, Tags, digest

MAX_BITS = 256
_CREATED_AT_DRIFT = 3_600


@dataclass(frozen=True, slots=True)
class Unsigned:
    """An event without id and signature."""

    pubkey: PubKey
    draft: Draft

    @property
    def id(self) -> EventId:
        """Its id (NIP-01)."""
        return EventId(digest(self.pubkey, self.draft).hex())

    def bare_tags(self) -> Tags:
        """Its tags without any `nonce`."""
        return tuple(tag for tag in self.draft.tags if tag[0] != "nonce")

    def with_nonce(self, nonce: str, bits: int) -> "Unsigned":
        """The same event with this nonce as its last tag, committed to `bits`."""
        tags = (*self.bare_tags(), ("nonce", nonce, str(bits)))
        return Unsigned(self.pubkey, Draft(self.draft.kind, self.draft.content, tags, self.draft.created_at))

    def to_json(self) -> str:
        """With its id, as the result of a job carries it."""
        return orjson.dumps(
            {
                "id": self.id,
                "pubkey": self.pubkey,
                "created_at": self.draft.created_at,
                "kind": self.draft.kind,
                "tags": self.draft.tags,
                "content": self.draft.content,
            }
        ).decode()


def leading_zero_bits(event_id: str) -> int:
    """Leading zero bits of an id."""
    return 4 * len(event_id) - int(event_id, 16).bit_length()


def parse_bits(text: str) -> int:
    """The value of `param pow`.

    Raises:
        InvalidInput: not a whole number from 0 to 256.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and int(text) <= MAX_BITS):
        raise InvalidInput(f"param pow is a number of bits from 0 to {MAX_BITS}.")
    return int(text)


def _object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("The input is not JSON.") from error
    if type(value) is not dict:
        raise InvalidInput("The input is not a JSON object.")
    return value


def parse_unsigned(text: str) -> Unsigned:
    """An unsigned event from JSON; an `id` or `sig` in it is ignored.

    Raises:
        InvalidInput: it is not such an event.
    """
    value = _object(text)
    pubkey, created_at, kind = value.get("pubkey"), value.get("created_at"), value.get("kind")
    tags, content = value.get("tags"), value.get("content")
    if not is_hex64(pubkey):
        raise InvalidInput("The event's pubkey is 64 lower-case hex digits.")
    if type(created_at) is not int or not 0 <= created_at < 1 << 53 or type(kind) is not int or not 0 <= kind <= 65_535:
        raise InvalidInput("The event's created_at and kind are whole numbers in range.")
    if type(content) is not str or type(tags) is not list:
        raise InvalidInput("The event has tags, a list, and content, a text.")
    if not all(type(tag) is list and tag and all(type(item) is str for item in tag) for tag in tags):
        raise InvalidInput("Every tag is a list of texts.")
    draft = Draft(kind, content, tuple(tuple(tag) for tag in tags), created_at)
    return Unsigned(PubKey(str(pubkey)), draft)


def check_mined(asked: str, bits: int, answer: str) -> None:
    """The buyer's check of a mined event: the same event, its id right, the work really done and committed to.

    Raises:
        BadResult: with what is wrong.
    """
    original = parse_unsigned(asked)
    try:
        mined = parse_unsigned(answer)
        claimed = _object(answer).get("id")
    except InvalidInput as error:
        raise BadResult("The result is not an unsigned event.") from error
    if claimed is not None and claimed != mined.id:
        raise BadResult("The result's id is not the hash of its content.")
    same = (mined.pubkey, mined.draft.kind, mined.draft.content) == (
        original.pubkey,
        original.draft.kind,
        original.draft.content,
    )
    if not same or mined.bare_tags() != original.bare_tags():
        raise BadResult("The result is another event than the one that was sent.")
    if not 0 <= mined.draft.created_at - original.draft.created_at <= _CREATED_AT_DRIFT:
        raise BadResult("The result's created_at was moved too far.")
    nonces = [tag for tag in mined.draft.tags if tag[0] == "nonce"]
    if len(nonces) != 1 or len(nonces[0]) < 3 or not nonces[0][2].isascii() or not nonces[0][2].isdigit():
        raise BadResult("The result has no nonce tag with a committed target (NIP-13).")
    if len(nonces[0][2]) > 3 or int(nonces[0][2]) < bits:
        raise BadResult(f"The result commits to fewer than {bits} bits.")
    if leading_zero_bits(mined.id) < bits:
        raise BadResult(f"The result's id has {leading_zero_bits(mined.id)} leading zero bits; {bits} were asked.")
