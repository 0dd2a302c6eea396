"""Signed requests (NIP-98) as a client makes them, and as nobody should."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from relays.event import Draft, Event
from relays.key import Key
from relays.kind import HTTP_AUTH


def signed(
    key: Key,
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    *,
    at: int,
    kind: int = HTTP_AUTH,
    content: str = "",
    more: Sequence[Sequence[str]] = (),
    without: Sequence[str] = (),
) -> Event:
    """An event for one request; `more` are further tags, `without` names those that are left out."""
    tags = [("u", url), ("method", method)]
    if body is not None:
        tags.append(("payload", hashlib.sha256(body).hexdigest()))
    kept = [tag for tag in tags if tag[0] not in without]
    return key.sign(Draft(kind, content, (*kept, *(tuple(tag) for tag in more)), at))


def header(event: Event | dict[str, Any]) -> str:
    """The `Authorization` header for an event."""
    value = event if isinstance(event, dict) else event.to_dict()
    return "Nostr " + base64.b64encode(orjson.dumps(value)).decode()
