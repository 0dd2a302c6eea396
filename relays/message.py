"""The frames of the Nostr wire (NIP-01, 42, 45, 67), read strictly and written compactly. Pure.

A relay's frame becomes one of `Delivered`, `Answered`, `Ended`, `Closed`, `Challenged`, `Noticed`, `Counted`,
`Compared`, `Uncompared`; a client's one of `Publish`, `Request`, `Count`, `Close`, `Authenticate`. Events inside are
still raw JSON objects: their reader is `relays.event`, which also verifies.
"""

from typing import Any, NamedTuple, TypeAlias

import orjson

from relays.error import MalformedEvent
from relays.event import Event
from relays.filter import Filter, parse_filter

MAX_FRAME_BYTES = 1 << 20
MAX_SUB_CHARS = 64
MAX_FILTERS = 50
MAX_REASON_CHARS = 1_000


class Delivered(NamedTuple):
    """EVENT from a relay: an event under one of our subscriptions, neither parsed nor verified."""

    sub: str
    value: Any


class Answered(NamedTuple):
    """OK: what the relay did with an event that we published (or with our AUTH)."""

    event_id: str
    accepted: bool
    reason: str


class Ended(NamedTuple):
    """EOSE: all stored events were sent. `finish` (NIP-67) says that there is no further page; None if unsaid."""

    sub: str
    finish: bool | None


class Closed(NamedTuple):
    """CLOSED: the relay ended a subscription or refused it."""

    sub: str
    reason: str


class Challenged(NamedTuple):
    """AUTH from a relay (NIP-42)."""

    challenge: str


class Noticed(NamedTuple):
    """NOTICE: words for people. Nothing may depend on them."""

    text: str


class Counted(NamedTuple):
    """COUNT from a relay (NIP-45)."""

    sub: str
    total: int


class Compared(NamedTuple):
    """NEG-MSG: the other side of a reconciliation (NIP-77), in hex."""

    sub: str
    message: str


class Uncompared(NamedTuple):
    """NEG-ERR: the relay will not reconcile (NIP-77)."""

    sub: str
    reason: str


class Publish(NamedTuple):
    """EVENT from a client, neither parsed nor verified."""

    value: Any


class Request(NamedTuple):
    """REQ from a client."""

    sub: str
    filters: tuple[Filter, ...]


class Count(NamedTuple):
    """COUNT from a client (NIP-45)."""

    sub: str
    filters: tuple[Filter, ...]


class Close(NamedTuple):
    """CLOSE from a client."""

    sub: str


class Authenticate(NamedTuple):
    """AUTH from a client (NIP-42): a kind 22242 event, neither parsed nor verified."""

    value: Any


RelayFrame: TypeAlias = Delivered | Answered | Ended | Closed | Challenged | Noticed | Counted | Compared | Uncompared
ClientFrame: TypeAlias = Publish | Request | Count | Close | Authenticate


def encode(*parts: Any) -> str:
    """A frame of these parts: strings, numbers, booleans, `Event`s, `Filter`s, and JSON values made of those.

    Raises:
        MalformedEvent: a part is not valid Unicode or has no JSON form.
    """
    try:
        return orjson.dumps([part.to_dict() if type(part) is Filter else part for part in parts]).decode()
    except (TypeError, ValueError) as error:
        raise MalformedEvent("The frame holds something that JSON cannot say.") from error


def encode_raw(label: str, sub: str | None, raw: str) -> str:
    """An EVENT frame around an event that is JSON text already, unchanged: to a client with `sub`, to a relay without.

    `raw` must come from `Event.to_json` (or have passed `parse_json`); it is not looked at again.
    """
    if sub is None:
        return f'["{label}",{raw}]'
    return f'["{label}",{orjson.dumps(sub).decode()},{raw}]'


def parse_frame(raw: str | bytes, limit: int = MAX_FRAME_BYTES) -> list[Any]:
    """The items of any frame: a JSON list that begins with a label.

    Raises:
        MalformedEvent: longer than `limit`, not JSON, or not such a list.
    """
    if len(raw) > limit:
        raise MalformedEvent(f"The frame is longer than {limit} bytes.")
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("The frame is not JSON.") from error
    if type(value) is not list or not value or type(value[0]) is not str:
        raise MalformedEvent("A frame is a JSON list that begins with a label.")
    return value


def prefix(reason: str) -> str:
    """The machine-readable word before the colon of an OK's or a CLOSED's reason, or the empty string (NIP-01)."""
    word, colon, _ = reason.partition(":")
    return word if colon and word.replace("-", "").isalpha() else ""


def _sub(value: Any) -> str:
    if type(value) is not str or not 0 < len(value) <= MAX_SUB_CHARS:
        raise MalformedEvent(f"A subscription id is text of 1 to {MAX_SUB_CHARS} characters.")
    return value


def _text(items: list[Any], at: int) -> str:
    value = items[at] if len(items) > at else ""
    return value[:MAX_REASON_CHARS] if type(value) is str else ""


def parse_relay(raw: str | bytes, limit: int = MAX_FRAME_BYTES) -> RelayFrame:
    """What a relay says to a client.

    Raises:
        MalformedEvent: it is no such frame, or its label is unknown.
    """
    items = parse_frame(raw, limit)
    label, size = items[0], len(items)
    if label == "EVENT" and size == 3:
        return Delivered(_sub(items[1]), items[2])
    if label == "OK" and size >= 3 and type(items[1]) is str and type(items[2]) is bool:
        return Answered(items[1], items[2], _text(items, 3))
    if label == "EOSE" and size >= 2:
        hint = items[2] if size > 2 else None
        return Ended(_sub(items[1]), "finish" in hint if type(hint) is list else None)
    if label == "CLOSED" and size >= 2:
        return Closed(_sub(items[1]), _text(items, 2))
    if label == "AUTH" and size >= 2 and type(items[1]) is str:
        return Challenged(items[1][:MAX_REASON_CHARS])
    if label == "NOTICE":
        return Noticed(_text(items, 1))
    if label == "COUNT" and size >= 3 and type(items[2]) is dict and type(items[2].get("count")) is int:
        return Counted(_sub(items[1]), items[2]["count"])
    if label == "NEG-MSG" and size >= 3 and type(items[2]) is str:
        return Compared(_sub(items[1]), items[2])
    if label == "NEG-ERR" and size >= 2:
        return Uncompared(_sub(items[1]), _text(items, 2))
    raise MalformedEvent(f"The relay's frame {label[:20]!r} is unknown or malformed.")


def parse_client(raw: str | bytes, limit: int = MAX_FRAME_BYTES) -> ClientFrame:
    """What a client says to a relay.

    Raises:
        MalformedEvent: it is no such frame, its label is unknown, or a filter is malformed.
    """
    items = parse_frame(raw, limit)
    label, size = items[0], len(items)
    if label == "EVENT" and size == 2:
        return Publish(items[1])
    if label in ("REQ", "COUNT") and 3 <= size <= 2 + MAX_FILTERS:
        filters = tuple(map(parse_filter, items[2:]))
        return Request(_sub(items[1]), filters) if label == "REQ" else Count(_sub(items[1]), filters)
    if label == "CLOSE" and size >= 2:
        return Close(_sub(items[1]))
    if label == "AUTH" and size == 2:
        return Authenticate(items[1])
    raise MalformedEvent(f"The frame {label[:20]!r} is unknown or malformed.")


def encode_event(event: Event) -> str:
    """The frame that publishes an event."""
    return encode("EVENT", event)
