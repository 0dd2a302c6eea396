"""What of a tick may be kept: texts without secrets, long ones as their beginning and a digest. Pure.

A secret is found by its form (`node/gate/redaction.py`) or because its value is known, and a handle takes its place. A
program that is run again gets the handle where it had the secret, and whatever it builds from it is cleaned in the same
way: so a secret that is only passed on compares as the same.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from node.gate.redaction import scrub, suspicious

SHORT = 1_000
HANDLE = "[redacted secret]"
_BEGINNING = 200
_MIN_SETTING = 8
_SECRET_WORDS = frozenset({"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS"})
_MIN_SECRET = 4  # what is shorter is no secret, and would tear every text to pieces


def digest_of(body: bytes) -> str:
    """SHA-256, as hex."""
    return hashlib.sha256(body).hexdigest()


def shortened(text: str) -> str:
    """The text, or of a long one its beginning and its digest: enough to compare, and to see what it was."""
    if len(text) <= SHORT:
        return text
    raw = text.encode()
    return f"{text[:_BEGINNING]}… ({len(raw)} bytes, sha256 {digest_of(raw)})"


def secrets_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values of environment variables that are secrets by their names, as programs' keys for others often are."""
    return tuple(
        value
        for name, value in environ.items()
        if len(value) >= _MIN_SETTING and not _SECRET_WORDS.isdisjoint(name.upper().split("_"))
    )


class Redactor:
    """Puts handles in the place of secrets. `known` are those to be found by value."""

    __slots__ = ("_forms", "_known")

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = frozenset(secret for secret in known if len(secret) >= _MIN_SECRET)
        # the longest first: one secret may be part of another
        self._forms = sorted({form for secret in self._known for form in _forms(secret)}, key=len, reverse=True)

    def knowing(self, secrets: Iterable[str]) -> "Redactor":
        """One that knows these as well."""
        more = frozenset(secrets)
        return self if more <= self._known else Redactor(self._known | more)

    def learn(self, secrets: Iterable[str]) -> None:
        """Know these as well, from now on, wherever this one is in use."""
        fresh = {secret for secret in secrets if len(secret) >= _MIN_SECRET} - self._known
        if fresh:
            self._known |= fresh
            self._forms = sorted({form for secret in self._known for form in _forms(secret)}, key=len, reverse=True)

    def suspects(self, text: str) -> bool:
        """Whether there may be a secret in it; never wrong where it says no."""
        return suspicious(text, self._forms)

    def text(self, text: str) -> str:
        """The text with handles. What is no Unicode is escaped, so that it can be written down."""
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode()
        return scrub(text, self._forms)

    def body(self, body: bytes) -> bytes:
        """The same for bytes of any kind."""
        try:
            return self.text(body.decode()).encode()
        except UnicodeError:
            return self.text(body.decode("latin-1")).encode("latin-1", "replace")

    def argument(self, value: str | bytes) -> str:
        """An argument as it is kept and compared: text; bytes that are no text as their digest."""
        if isinstance(value, str):
            return shortened(self.text(value))
        try:
            return shortened(self.text(value.decode()))
        except UnicodeDecodeError:
            body = self.body(value)
            return f"({len(body)} bytes, sha256 {digest_of(body)})"


def _escaped(secret: str) -> str:
    try:
        return orjson.dumps(secret)[1:-1].decode()
    except orjson.JSONEncodeError:
        return secret


def _forms(secret: str) -> tuple[str, ...]:
    """A secret as it stands in text, in JSON, and in JSON within JSON."""
    once = _escaped(secret)
    if once == secret:
        return (secret,)
    twice = _escaped(once)
    return secret, once, twice, _escaped(twice)


def _text(secret: bytes) -> str:
    try:
        return secret.decode()
    except UnicodeDecodeError:
        return secret.decode("latin-1")


def _handles(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _handles(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_handles(part) for part in value]
    return value if value is None or isinstance(value, bool) else HANDLE


def _leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _leaves(part)]
    if isinstance(value, list):
        return [text for part in value for text in _leaves(part)]
    return [value.strip()] if isinstance(value, str) else []


def handle_of(secret: bytes) -> tuple[bytes, list[str]]:
    """What stands for an answer that is secret as a whole, and the values that are to be known from then on.

    JSON keeps its form, so that a program that is run again finds its way through it.
    """
    text = _text(secret).strip()
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict | list):
        return HANDLE.encode(), [text]
    return orjson.dumps(_handles(value)), _leaves(value)
