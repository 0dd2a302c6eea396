"""Names of things, each a type of its own; and ids that derive from what they name, so that a retry finds the same."""

import hashlib
import re
from typing import NewType

EventId = NewType("EventId", str)  # 64 lower-case hex: a Nostr event's id
PubKey = NewType("PubKey", str)  # 64 lower-case hex: an x-only public key
JobId = NewType("JobId", str)
EffectId = NewType("EffectId", str)
OperationId = NewType("OperationId", str)  # one wallet saga
AgentName = NewType("AgentName", str)

_HEX64 = re.compile(r"[0-9a-f]{64}")


def is_hex64(text: object) -> bool:
    """Whether it is 64 lower-case hex digits, the only form of ids and keys that is accepted."""
    return isinstance(text, str) and _HEX64.fullmatch(text) is not None


def derived_id(*parts: str) -> str:
    """32 hex digits that depend on every part and on where one part ends."""
    body = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))
    return hashlib.sha256(body).hexdigest()[:32]
