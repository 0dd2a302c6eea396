"""What a relay says about itself (NIP-11), as far as it can be used. Pure.

The document is a stranger's word: each field stands or falls alone, and what is of the wrong type, or a limit under
which nothing at all could be said, counts as absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from core.identifier import is_hex64
from relays.error import MalformedEvent

MAX_DOCUMENT_BYTES = 65_536
MEDIA_TYPE = "application/nostr+json"

_MAX_NUMBER = (1 << 53) - 1
_MAX_NIPS = 200
_MAX_FEES = 16
_TEXT_CHARS = {"name": 100, "description": 1_000, "contact": 200, "software": 200, "version": 64, "payments_url": 512}
# The least value of a limit with which a relay could still be used; below it the number is a mistake.
_LEAST = {
    "max_message_length": 512,
    "max_subscriptions": 1,
    "max_filters": 1,
    "max_limit": 1,
    "default_limit": 1,
    "max_subid_length": 1,
    "max_event_tags": 1,
    "max_content_length": 1,
    "max_listed_keys": 1,
    "min_pow_difficulty": 0,
    "created_at_lower_limit": 0,
    "created_at_upper_limit": 0,
}
_FLAGS = ("auth_required", "payment_required", "restricted_writes")


@dataclass(frozen=True, slots=True)
class Fee:
    """What a relay asks for: `amount` in `unit` (msat unless it says otherwise).

    Attributes:
        reason: `admission`, `subscription` or `publication`.
        amount: how much.
        unit: as the relay writes it, `msats` as a rule.
        period_s: for a subscription, how long it lasts; None is not said.
        kinds: for a publication, the kinds that it is for; empty is all.
    """

    reason: str
    amount: int
    unit: str
    period_s: int | None = None
    kinds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Information:
    """One relay's document. None is "not said"; so is False for the flags.

    Attributes:
        name: what the relay calls itself; with the other texts it is a stranger's word, cut to length.
        description: in its own words.
        pubkey: whom to write to about it, in hex; empty if unknown.
        contact: another way to reach them.
        software: which program it is.
        version: of the program.
        supported_nips: numbers of the NIPs that it says it serves.
        max_message_length: bytes of one frame from us.
        max_subscriptions: open REQs on one connection.
        max_filters: filters in one REQ.
        max_limit: to which a filter's `limit` is cut.
        default_limit: what counts for a filter that has none.
        max_subid_length: characters of a subscription id.
        max_event_tags: tags of one event.
        max_content_length: characters of an event's content.
        max_listed_keys: keys that one AUTH may speak for on one connection (relays.keylist); None if none.
        min_pow_difficulty: bits of NIP-13 that every event needs.
        created_at_lower_limit: seconds that an event may be dated back.
        created_at_upper_limit: seconds that an event may be dated ahead.
        auth_required: nothing without NIP-42.
        payment_required: nothing before somebody has paid.
        restricted_writes: some condition holds for writing.
        payments_url: where to pay.
        fees: what it costs.
    """

    name: str = ""
    description: str = ""
    pubkey: str = ""
    contact: str = ""
    software: str = ""
    version: str = ""
    supported_nips: frozenset[int] = frozenset()
    max_message_length: int | None = None
    max_subscriptions: int | None = None
    max_filters: int | None = None
    max_limit: int | None = None
    default_limit: int | None = None
    max_subid_length: int | None = None
    max_event_tags: int | None = None
    max_content_length: int | None = None
    max_listed_keys: int | None = None
    min_pow_difficulty: int | None = None
    created_at_lower_limit: int | None = None
    created_at_upper_limit: int | None = None
    auth_required: bool = False
    payment_required: bool = False
    restricted_writes: bool = False
    payments_url: str = ""
    fees: tuple[Fee, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The document with what was said and understood; `parse_information` reads the same back."""
        out: dict[str, Any] = {name: getattr(self, name) for name in ("pubkey", *_TEXT_CHARS) if getattr(self, name)}
        if self.supported_nips:
            out["supported_nips"] = sorted(self.supported_nips)
        limits = {name: getattr(self, name) for name in _LEAST if getattr(self, name) is not None}
        limits |= {name: True for name in _FLAGS if getattr(self, name)}
        if limits:
            out["limitation"] = limits
        if self.fees:
            out["fees"] = {}
            for fee in self.fees:
                out["fees"].setdefault(fee.reason, []).append(_shown(fee))
        return out

    def to_json(self) -> str:
        """`to_dict` as text, to be kept."""
        return orjson.dumps(self.to_dict()).decode()


def parse_information(raw: bytes) -> Information:
    """A relay's document from the body of its answer.

    Raises:
        MalformedEvent: it is too long, or no JSON object.
    """
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise MalformedEvent(f"The relay's document is longer than {MAX_DOCUMENT_BYTES} bytes.")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("The relay's document is not JSON.") from error
    if type(document) is not dict:
        raise MalformedEvent("The relay's document is not an object.")
    found: dict[str, Any] = {name: _text(document.get(name), most) for name, most in _TEXT_CHARS.items()}
    pubkey = document.get("pubkey")
    found["pubkey"] = pubkey if is_hex64(pubkey) else ""
    found["supported_nips"] = _nips(document.get("supported_nips"))
    found |= _limits(document.get("limitation"))
    found["fees"] = _fees(document.get("fees"))
    return Information(**found)


def _text(value: Any, most: int) -> str:
    if type(value) is not str:
        return ""
    return "".join(char for char in value[:most] if char.isprintable() or char == " ").strip()


def _number(value: Any, least: int) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and least <= value <= _MAX_NUMBER else None


def _nips(value: Any) -> frozenset[int]:
    if type(value) is not list:
        return frozenset()
    return frozenset(nip for nip in value[:_MAX_NIPS] if type(nip) is int and 0 < nip <= 65_535)


def _limits(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        return {}
    found: dict[str, Any] = {name: _number(value.get(name), least) for name, least in _LEAST.items()}
    return found | {name: value.get(name) is True for name in _FLAGS}


def _fees(value: Any) -> tuple[Fee, ...]:
    if type(value) is not dict:
        return ()
    found = []
    for reason in ("admission", "subscription", "publication"):
        listed = value.get(reason)
        for one in listed[:_MAX_FEES] if type(listed) is list else ():
            fee = _fee(reason, one)
            if fee is not None:
                found.append(fee)
    return tuple(found)


def _fee(reason: str, value: Any) -> Fee | None:
    if type(value) is not dict:
        return None
    amount = _number(value.get("amount"), 0)
    if amount is None:
        return None
    kinds = value.get("kinds")
    wanted = tuple(kind for kind in kinds if type(kind) is int and 0 <= kind <= 65_535) if type(kinds) is list else ()
    return Fee(reason, amount, _text(value.get("unit"), 16) or "msats", _number(value.get("period"), 1), wanted[:64])


def _shown(fee: Fee) -> Mapping[str, Any]:
    out: dict[str, Any] = {"amount": fee.amount, "unit": fee.unit}
    if fee.period_s is not None:
        out["period"] = fee.period_s
    if fee.kinds:
        out["kinds"] = list(fee.kinds)
    return out
