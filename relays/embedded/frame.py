"""What the relay writes: NIP-01 messages as JSON, and websocket frames around them. Pure.

Frames from a server are not masked, so one frame serves every socket that it goes to (RFC 6455 §5.1).
"""

import struct
from typing import Any

import orjson

_TEXT, _CLOSE = 0x81, 0x88


def pack(payload: bytes, first: int = _TEXT) -> bytes:
    """A whole, final, unmasked frame."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload


def closing(code: int, reason: str) -> bytes:
    """A close frame. Its reason is cut to the 123 bytes that fit."""
    return pack(struct.pack("!H", code) + reason.encode()[:123], _CLOSE)


def event_head(sub_id: str) -> bytes:
    """What stands before an event's JSON in every EVENT message of one subscription; after it stands `]`."""
    return b'["EVENT",' + orjson.dumps(sub_id) + b","


def event(head: bytes, raw: bytes) -> bytes:
    """The frame of one EVENT message, from text that was serialised once."""
    return pack(head + raw + b"]")


def message(*parts: Any) -> bytes:
    """The frame of any other message."""
    return pack(orjson.dumps(parts))


def ok(event_id: str, accepted: bool, reason: str) -> bytes:
    """The answer to an EVENT. The reason of a refusal begins with one of NIP-01's words and a colon."""
    return message("OK", event_id, accepted, reason)


def notice(text: str) -> bytes:
    """Words for the person behind the client."""
    return message("NOTICE", text)


def closed(sub_id: str, reason: str) -> bytes:
    """The relay ends a subscription, or refuses to open it."""
    return message("CLOSED", sub_id, reason)


def eose(sub_id: str) -> bytes:
    """All stored events were sent."""
    return message("EOSE", sub_id)


def count(sub_id: str, number: int) -> bytes:
    """The answer to a COUNT (NIP-45)."""
    return message("COUNT", sub_id, {"count": number})


def challenge(text: str) -> bytes:
    """What a client signs to prove a key (NIP-42)."""
    return message("AUTH", text)


def sync_message(sub_id: str, reply: str) -> bytes:
    """The relay's turn in a reconciliation (NIP-77)."""
    return message("NEG-MSG", sub_id, reply)


def sync_error(sub_id: str, reason: str) -> bytes:
    """A reconciliation is over (NIP-77)."""
    return message("NEG-ERR", sub_id, reason)
