"""Webhooks in: whether a call is authentic, which delivery it is, and what it says. Pure.

* `hmac`: `X-Hub-Signature-256: sha256=<hex>` over the body, as GitHub signs. With `X-Vendo-Timestamp` (Unix seconds)
  the signature is over `<timestamp>.<body>`, and the call is taken for five minutes and once. `X-Vendo-Signature`, the
  name under which nodes sign what they send, means the same. A body that begins as such a text does (ten digits and a
  dot) is not taken without the header: else a captured call could be sent for ever, its timestamp moved into the body.
* `hmac-timestamp`: the same, and the timestamp must be there.
* `token`: `Authorization: Bearer <secret>`.

A delivery is known by the id that its sender gives it. Without one, a body that comes again within five minutes is the
same delivery (within ten, if it falls so).
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl

import orjson

from core.error import InvalidInput
from core.identifier import derived_id
from node.agent.error import HookBody, HookType

MAX_HOOKS = 100
MAX_CALL = 262_144
MAX_NAME = 64
FRESH_S = 300
_MAX_DELIVERY = 200
_MAX_FIELDS = 1_000
_MAX_DEPTH = 64
_SIGNATURE = re.compile(r"sha256=[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([^\"';\s]+)")
_STAMPED_BODY = re.compile(rb"[0-9]{10}\.")
_BEARER = "bearer "
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Scheme(StrEnum):
    """How a caller shows that it knows the secret."""

    HMAC = "hmac"
    STAMPED = "hmac-timestamp"
    TOKEN = "token"  # noqa: S105 - the name of a scheme


@dataclass(frozen=True, slots=True)
class Call:
    """What came in. A header that is not there, or is there twice, is None."""

    body: bytes
    content_type: str | None = None
    signature: str | None = None
    timestamp: str | None = None
    authorization: str | None = None
    delivery: str | None = None
    label: str | None = None


def check_name(name: str) -> str:
    """A hook's name.

    Raises:
        InvalidInput: it is not 1 to 64 of a-z, 0-9, `_` and `-`.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"A hook's name is 1 to {MAX_NAME} of a-z, 0-9, _ and -.")
    return name


def authentic(scheme: str, secret: str, call: Call, now: int) -> bool:
    """Whether a call shows that its sender knows the secret. The comparison takes the same time, whatever comes.

    Args:
        scheme: one of `Scheme`.
        secret: the text that the sender was given.
        call: what came in.
        now: Unix seconds.
    """
    key = secret.encode()
    if scheme == Scheme.TOKEN:
        given = call.authorization or ""
        offered = given[len(_BEARER) :].strip() if given[: len(_BEARER)].lower() == _BEARER else ""
        return hmac.compare_digest(_mac(key, offered.encode("utf-8", "surrogateescape")), _mac(key, key))
    signature = (call.signature or "").lower()
    signed = call.body
    if call.timestamp is not None:
        signed = call.timestamp.encode("utf-8", "surrogateescape") + b"." + call.body
    good = hmac.compare_digest(f"sha256={_mac(key, signed).hex()}".encode(), _plain(signature))
    moved = call.timestamp is None and _STAMPED_BODY.match(call.body) is not None
    return good and not moved and is_fresh(scheme, call.timestamp, now)


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")


def _plain(signature: str) -> bytes:
    return signature.encode() if _SIGNATURE.fullmatch(signature) else b""


def is_fresh(scheme: str, timestamp: str | None, now: int) -> bool:
    """Whether a call's timestamp is one, and of the last or next five minutes."""
    if timestamp is None:
        return scheme != Scheme.STAMPED
    return _TIMESTAMP.fullmatch(timestamp) is not None and abs(now - int(timestamp)) <= FRESH_S


def names_of(hook: str, call: Call, now: int) -> tuple[str, str]:
    """The envelope ids under which this delivery may be known: its own, and the one it had five minutes ago.

    Raises:
        HookBody: the delivery's id is too long, or not printable.
    """
    if call.delivery is not None:
        if (
            not 0 < len(call.delivery) <= _MAX_DELIVERY
            or not call.delivery.isascii()
            or not call.delivery.isprintable()
        ):
            raise HookBody(f"A delivery's id is 1 to {_MAX_DELIVERY} printable ASCII characters.")
        name = f"hook-{derived_id(hook, 'delivery', call.delivery)}"
        return name, name
    digest, window = hashlib.sha256(call.body).hexdigest(), now // FRESH_S
    this, before = (f"hook-{derived_id(hook, 'body', digest, str(one))}" for one in (window, window - 1))
    return this, before


def stamp_of(hook: str, call: Call) -> str | None:
    """What a signed timestamp makes of a call: a name that it has once. None without one."""
    if call.timestamp is None:
        return None
    return derived_id("hook", hook, call.timestamp, hashlib.sha256(call.body).hexdigest())


def content(call: Call) -> Any:
    """What a call says: JSON as it is, a form as an object, text as a text.

    Raises:
        HookType: it is none of these.
        HookBody: it is not what its type says.
    """
    kind, charset = _kind(call.content_type)
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise HookType("A call's text is UTF-8.")
    if kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json")):
        return _json(call.body)
    try:
        text = call.body.decode("utf-8")
        if kind == "application/x-www-form-urlencoded":
            return _form(text)
    except ValueError as error:  # UnicodeDecodeError is one
        raise HookBody from error
    if kind == "text/plain" or (kind.startswith("text/") and kind != "text/html"):
        return text
    raise HookType


def _kind(header: str | None) -> tuple[str, str]:
    """The media type and the charset that it names, in small letters; empty where there is none."""
    kind, _, more = (header or "").lower().partition(";")
    charset = _CHARSET.search(more)
    return kind.strip(), charset[1] if charset else ""


def _json(body: bytes) -> Any:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise HookBody("The body is not JSON.") from error
    if _is_deep(value):
        raise HookBody(f"The body is nested more than {_MAX_DEPTH} deep.")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        below: list[object] = []
        for one in level:
            below += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        if not below:
            return False
        level = below
    return True


def _form(text: str) -> dict[str, str | list[str]]:
    found: dict[str, str | list[str]] = {}
    pairs = parse_qsl(
        text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=_MAX_FIELDS
    )
    for name, value in pairs:
        known = found.get(name)
        if known is None:
            found[name] = value
        else:
            found[name] = [*known, value] if isinstance(known, list) else [known, value]
    return found


def told(hook: Mapping[str, Any], call: Call, body: Any) -> dict[str, Any]:
    """The event's data."""
    return {
        "hook": hook["id"],
        "name": hook["name"],
        "content_type": _kind(call.content_type)[0],
        "delivery": call.delivery,
        "label": call.label,
        "body": body,
    }
