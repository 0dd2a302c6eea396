"""Remote signing (NIP-46): addresses of signers, and the words between a client and a signer. Pure.

A signer's own key (it encrypts the talk) and the key of the user (whose signatures are wanted) may differ: the second
is asked for with `get_public_key` and never assumed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import orjson

from core.error import InvalidInput
from core.identifier import PubKey, is_hex64
from relays.address import canonical
from relays.error import MalformedEvent
from relays.event import Draft, Event, parse_json, verify

KIND = 24_133  # ephemeral
MAX_RELAYS = 4
MAX_TEXT_BYTES = 65_408  # what NIP-44 takes
AUTH_URL = "auth_url"  # the "result" of an answer that only says: a person must open the address in `error` first


@dataclass(frozen=True, slots=True)
class Bunker:
    """How to reach a remote signer. The secret is a password: it is shown to the signer alone."""

    signer: PubKey
    relays: tuple[str, ...]
    secret: str = ""

    def __repr__(self) -> str:
        return f"Bunker({self.signer}, {', '.join(self.relays)})"

    @property
    def uri(self) -> str:
        """As `bunker://…`, with the secret if there is one."""
        items = [("relay", url) for url in self.relays] + ([("secret", self.secret)] if self.secret else [])
        return f"bunker://{self.signer}?{urlencode(items)}"


@dataclass(frozen=True, slots=True)
class Response:
    """A signer's answer to the request with this id."""

    id: str
    result: str
    error: str


def parse_bunker(text: str) -> Bunker:
    """A signer's address from `bunker://<its key>?relay=…&secret=…`.

    Raises:
        InvalidInput: it is none, or names no relay.
    """
    try:
        parts = urlsplit(text.strip())
        items = parse_qsl(parts.query)
    except ValueError as error:
        raise InvalidInput("This is not a signer's address (bunker://…).") from error
    if parts.scheme != "bunker" or not is_hex64(parts.netloc):
        raise InvalidInput("This is not a signer's address (bunker://<64 hex digits>?relay=…).")
    relays = _relays([value for name, value in items if name == "relay"])
    secret = next((value for name, value in items if name == "secret"), "")
    return Bunker(PubKey(parts.netloc), relays, secret)


def _relays(urls: Sequence[str]) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(canonical(url) for url in urls))[:MAX_RELAYS]
    if not found:
        raise InvalidInput("The signer's address names no relay.")
    return found


def connect_uri(app: PubKey, relays: Sequence[str], secret: str, name: str, kinds: Sequence[int] = ()) -> str:
    """What a person gives to a signer so that it calls us: `nostrconnect://…`.

    Raises:
        InvalidInput: no relay is named.
    """
    wanted = [f"sign_event:{kind}" for kind in kinds] or ["sign_event"]
    wanted += ["nip44_encrypt", "nip44_decrypt", "nip04_encrypt", "nip04_decrypt"]
    items = [("relay", url) for url in _relays(relays)]
    items += [("secret", secret), ("perms", ",".join(wanted)), ("name", name)]
    return f"nostrconnect://{app}?{urlencode(items, quote_via=quote)}"


def request_text(request_id: str, method: str, params: Sequence[str]) -> str:
    """A request, before it is encrypted.

    Raises:
        InvalidInput: it is longer than NIP-44 takes.
    """
    raw = orjson.dumps({"id": request_id, "method": method, "params": list(params)})
    if len(raw) > MAX_TEXT_BYTES:
        raise InvalidInput("This is too long for a remote signer.")
    return raw.decode()


def read_response(text: str) -> Response:
    """A decrypted answer.

    Raises:
        MalformedEvent: it is none.
    """
    try:
        body: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("The signer's answer is not JSON.") from error
    if type(body) is not dict or type(body.get("id")) is not str:
        raise MalformedEvent("The signer's answer has no id.")
    result, error_text = body.get("result"), body.get("error")
    return Response(body["id"], result if type(result) is str else "", error_text if type(error_text) is str else "")


def draft_text(user: PubKey, draft: Draft) -> str:
    """The parameter of `sign_event`."""
    body = {
        "pubkey": user,
        "created_at": draft.created_at,
        "kind": draft.kind,
        "tags": draft.tags,
        "content": draft.content,
    }
    return orjson.dumps(body).decode()


def read_signed(text: str, user: PubKey, draft: Draft) -> Event:
    """What `sign_event` answered, if it is what was asked for.

    Raises:
        MalformedEvent: it is no event, or another than the draft, or another's.
        ForgedEvent: its id or signature is wrong.
    """
    event = parse_json(text)
    if event.pubkey != user or Draft(event.kind, event.content, event.tags, event.created_at) != draft:
        raise MalformedEvent("The signer signed something else than it was asked to.")
    verify(event)
    return event
