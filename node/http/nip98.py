"""Requests that a Nostr key signs (NIP-98): `Authorization: Nostr <base64 of an event of kind 27235>`. Pure.

The event names the address, the method and the body's hash, and holds for a minute and once. Its signature is checked
before it is looked up whose key it is, so that only who has a key can learn whether it is known here.

Stricter than the NIP, which leaves it to servers: a body must be hashed, and no event is taken twice (`once.py`).
"""

import base64
import binascii
import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass

import orjson

from node.http.token import Grant
from relays.error import ForgedEvent, MalformedEvent
from relays.event import Event, parse, verify
from relays.kind import HTTP_AUTH

WINDOW_S = 60
MAX_HEADER = 8_000  # characters; what aiohttp takes of a header is little more
_SCHEME = "nostr "


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for.

    Attributes:
        method: as it came.
        target: path and query as they came.
        bases: what may stand before the target in an absolute URL of ours, like `https://node.example`.
    """

    method: str
    target: str
    bases: Container[str]


@dataclass(frozen=True, slots=True)
class Claim:
    """A signature that holds, by a key that is known. Its body is still to be compared, and whether it was used."""

    grant: Grant
    event: str
    created_at: int
    payload: str | None

    def covers(self, body: bytes, now: int) -> bool:
        """Whether it is for a request with this body, and still fresh: the body may have taken its time."""
        if (body or self.payload is not None) and self.payload != hashlib.sha256(body).hexdigest():
            return False
        return _is_fresh(self.created_at, now)


def is_signed(authorization: str) -> bool:
    """Whether an `Authorization` header is of this scheme."""
    return authorization[: len(_SCHEME)].lower() == _SCHEME


class Signatures:
    """Whose signatures count.

    Args:
        keys: a public key, hex → whose it is.
    """

    def __init__(self, keys: Mapping[str, Grant]) -> None:
        self._keys = dict(keys)

    def claim(self, authorization: str, asked: Asked, now: int) -> Claim | None:
        """Who signed this request, or None if anything of it does not hold. `now` is Unix seconds."""
        event = _event(authorization)
        if event is None or event.kind != HTTP_AUTH or not _is_fresh(event.created_at, now):
            return None
        url, method, payload = _one(event, "u"), _one(event, "method"), _one(event, "payload")
        if payload is None and event.all("payload"):
            return None
        if method != asked.method or url is None or not _is_address(url, asked):
            return None
        try:
            verify(event)
        except (ForgedEvent, MalformedEvent):
            return None
        grant = self._keys.get(event.pubkey)
        return Claim(grant, event.id, event.created_at, payload) if grant is not None else None


def _is_fresh(created_at: int, now: int) -> bool:
    return abs(now - created_at) <= WINDOW_S


def _event(authorization: str) -> Event | None:
    if len(authorization) > MAX_HEADER or not is_signed(authorization):
        return None
    try:
        raw = base64.b64decode(authorization[len(_SCHEME) :].strip(), validate=True)
        return parse(orjson.loads(raw))
    except (binascii.Error, ValueError, MalformedEvent):  # also what is no ASCII, and no JSON
        return None


def _one(event: Event, name: str) -> str | None:
    """The value of a tag that is there once and has one value."""
    tags = event.all(name)
    return tags[0][1] if len(tags) == 1 and len(tags[0]) == 2 else None


def _is_address(url: str, asked: Asked) -> bool:
    return url.endswith(asked.target) and url[: len(url) - len(asked.target)] in asked.bases
