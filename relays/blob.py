"""Results too large for an event: what says where their encrypted bytes lie, and who keeps files for whom. Pure.

The bytes lie on Blossom servers (BUD-01, BUD-02) under the hash of what is stored; in the event stands a *pointer*, a
JSON object in the words of NIP-17's kind 15. The key is in it where whoever reads the event may read the result. In a
sealed result (ADR 25) the pointer holds key and hash of the text sealed, so that the money buys them, and the bytes
themselves can be fetched and checked before any money can be taken.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

import orjson
from yarl import URL

from core.error import InvalidInput
from core.identifier import is_hex64
from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.file_message import ALGORITHM, FileMessage, decrypt_file
from relays.kind import BLOSSOM_SERVERS

MARK = "blob"  # the tag of requests that take pointers, and of results that are one
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
MAX_POINTER_CHARS = 8_192
ANY_SIZE = 1 << 60
MAX_URL = 512
MAX_PLACES = 4  # addresses of one pointer that count
MAX_SERVERS = 4  # of one list that count
_MAX_LOOKED_AT = 32
_MIME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,63}", re.I)
_NONCE = re.compile(r"[0-9a-f]{24}")
_SEALED = re.compile(r"[A-Za-z0-9+/]{1,2048}={0,2}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a result lies and how it is opened.

    Attributes:
        urls: addresses, in the order in which they are to be tried.
        x: sha256 of the stored bytes, hex.
        size: how many bytes are stored.
        mime: what the text is.
        nonce: of AES-256-GCM.
        ox: sha256 of the text, hex; empty as long as it is sealed.
        key: opens it; empty as long as it is sealed.
        sealed: key and `ox` under the seal, base64; empty if they are in clear.
    """

    urls: tuple[str, ...]
    x: str
    size: int
    mime: str
    nonce: bytes
    ox: str = ""
    key: bytes = field(default=b"", repr=False)
    sealed: str = ""

    def to_json(self) -> str:
        """As the content of a result; without the key if that is sealed."""
        value: dict[str, Any] = {
            "url": self.urls[0],
            "fallback": list(self.urls[1:]),
            "file-type": self.mime,
            "encryption-algorithm": ALGORITHM,
            "decryption-nonce": self.nonce.hex(),
            "x": self.x,
            "size": self.size,
        }
        value |= {"sealed": self.sealed} if self.sealed else self._secret()
        return orjson.dumps(value).decode()

    def _secret(self) -> dict[str, str]:
        return {"decryption-key": self.key.hex(), "ox": self.ox}

    def secret(self) -> str:
        """What is sealed: the key, and what it opens."""
        return orjson.dumps(self._secret() | {"x": self.x}).decode()

    def with_secret(self, text: str) -> "Pointer":
        """The pointer with what its seal held.

        Raises:
            MalformedEvent: that is no key, or one for other bytes: whoever sealed it lied.
        """
        value = _object(text)
        key, ox = _key(value), value.get("ox")
        if value.get("x") != self.x or type(ox) is not str or not is_hex64(ox):
            raise MalformedEvent("What was sealed is no key for the bytes that were announced.")
        return replace(self, key=key, ox=ox, sealed="")

    def open(self, stored: bytes) -> bytes:
        """The plain bytes.

        Raises:
            NotForUs: these are not the bytes that were announced, or the key does not open them.
        """
        return decrypt_file(FileMessage(self.urls, self.mime, self.key, self.nonce, self.x, self.ox, self.size), stored)


def is_pointer(event: Event) -> bool:
    """Whether a result says that its content is a pointer."""
    return bool(event.all(MARK))


def read_pointer(text: str, most: int) -> Pointer:
    """A pointer that somebody sent.

    Args:
        text: the content of a result, in clear.
        most: bytes of text that are taken.

    Raises:
        MalformedEvent: with what is missing, wrong or too large.
    """
    value = _object(text)
    x, size, nonce = value.get("x"), value.get("size"), value.get("decryption-nonce")
    if type(x) is not str or not is_hex64(x):
        raise MalformedEvent("The pointer names no hash.")
    if value.get("encryption-algorithm") != ALGORITHM:
        raise MalformedEvent(f"The bytes are not encrypted with {ALGORITHM}.")
    if type(nonce) is not str or not _NONCE.fullmatch(nonce):
        raise MalformedEvent("The pointer has no nonce of 12 bytes.")
    if type(size) is not int or size <= TAG_BYTES:
        raise MalformedEvent("The pointer does not say how many bytes there are.")
    if size > most + TAG_BYTES:
        raise MalformedEvent(f"The result has {size - TAG_BYTES} bytes; at most {most} are taken.")
    mime = value.get("file-type")
    good = type(mime) is str and _MIME.fullmatch(mime)
    pointer = Pointer(_urls(value, x), x, size, str(mime).lower() if good else "text/plain", bytes.fromhex(nonce))
    sealed = value.get("sealed")
    if sealed is None:
        return pointer.with_secret(text)
    if type(sealed) is not str or not _SEALED.fullmatch(sealed) or "decryption-key" in value or "ox" in value:
        raise MalformedEvent("The pointer's seal is not one.")
    return replace(pointer, sealed=sealed)


def sealed_part(event: Event) -> str:
    """What is sealed in a sealed result: its content, or a part of the pointer that its content is.

    Raises:
        MalformedEvent: the pointer is none.
    """
    return read_pointer(event.content, ANY_SIZE).sealed if is_pointer(event) else event.content


def _object(text: str) -> dict[str, Any]:
    if len(text) > MAX_POINTER_CHARS:
        raise MalformedEvent("The pointer is too long to be one.")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("The pointer is not JSON.") from error
    if type(value) is not dict:
        raise MalformedEvent("The pointer is not a JSON object.")
    return value


def _key(value: dict[str, Any]) -> bytes:
    text = value.get("decryption-key")
    if type(text) is not str or not is_hex64(text):
        raise MalformedEvent("There is no key of 32 bytes.")
    return bytes.fromhex(text)


def _urls(value: dict[str, Any], x: str) -> tuple[str, ...]:
    """The first few addresses; each must name the bytes by their hash (BUD-01), or it would lead anywhere."""
    more = value.get("fallback", [])
    if type(more) is not list:
        raise MalformedEvent("The pointer's further addresses are no list.")
    named = [value.get("url"), *more][:MAX_PLACES]
    urls = tuple(dict.fromkeys(url for url in named if type(url) is str and _address(url) and _names(url, x)))
    if not urls:
        raise MalformedEvent("The pointer names no address at which such bytes could lie.")
    return urls


def _names(url: str, x: str) -> bool:
    return URL(url).path.rpartition("/")[2].partition(".")[0] == x


def _address(url: str) -> bool:
    """Whether it is an address on the web, without a name or a password in it."""
    if not url.startswith(("http://", "https://")) or len(url) > MAX_URL or not _VISIBLE.fullmatch(url):
        return False
    try:
        parsed = URL(url)
        return bool(parsed.host) and parsed.user is None and parsed.password is None and parsed.port != 0
    except ValueError:
        return False


def place(server: str, x: str) -> str:
    """Where a server has a blob (BUD-01)."""
    return f"{server.rstrip('/')}/{x}"


def hash_of(stored: bytes) -> str:
    """The name of a blob."""
    return sha256(stored).hexdigest()


# ---- who keeps files for whom (BUD-03)


def check_server(url: str) -> str:
    """A server's address, without a slash at its end.

    Raises:
        InvalidInput: it is none.
    """
    if not _address(url) or URL(url).query_string or URL(url).fragment:
        raise InvalidInput(f"{url[:80]!r} is no address of a file server: it begins with http:// or https://.")
    return url.rstrip("/")


def servers_draft(servers: Sequence[str], created_at: int) -> Draft:
    """Our list of file servers (kind 10063), the most trusted first; an empty one says that there are none.

    Raises:
        InvalidInput: an address is none.
    """
    return Draft(BLOSSOM_SERVERS, "", tuple(("server", check_server(url)) for url in servers), created_at)


def read_servers(event: Event) -> tuple[str, ...]:
    """The first few servers of an author's list; what is no address is passed over.

    Raises:
        MalformedEvent: not of kind 10063.
    """
    if event.kind != BLOSSOM_SERVERS:
        raise MalformedEvent("This is not a list of file servers (BUD-03).")
    found: dict[str, None] = {}
    for tag in event.all("server")[:_MAX_LOOKED_AT]:
        try:
            found[check_server(tag[1] if len(tag) > 1 else "")] = None
        except InvalidInput:
            continue
    return tuple(found)[:MAX_SERVERS]
