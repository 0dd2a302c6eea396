"""Files in private messages (NIP-17, kind 15): the bytes lie encrypted on a server, the key travels in the rumor. Pure.

AES-256-GCM with a key and a nonce for one file alone. `x` is the hash of what is stored, so that a server can be
checked before anything is decrypted; `ox` is the hash of the file itself.
"""

import re
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.error import InvalidInput
from core.identifier import PubKey, is_hex64
from relays.error import MalformedEvent, NotForUs
from relays.event import Draft
from relays.kind import BLOSSOM_AUTH, FILE
from relays.nip17 import Rumor

ALGORITHM = "aes-gcm"
MAX_URL = 1_024
MAX_FALLBACKS = 4
_MIME = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}/[a-z0-9][a-z0-9.+-]{0,63}", re.I)
_KEY_BYTES = (16, 24, 32)
_NONCE_BYTES = (12, 16)
_HEX = re.compile(r"(?:[0-9a-f]{2})+", re.I)


@dataclass(frozen=True, slots=True)
class FileMessage:
    """Where a file is, and how to open it. `size` is that of the encrypted bytes, 0 if it was not said."""

    urls: tuple[str, ...]
    mime: str
    key: bytes
    nonce: bytes
    x: str
    ox: str
    size: int = 0

    def __repr__(self) -> str:
        return f"FileMessage({self.urls[0]!r}, {self.mime}, x={self.x})"


def encrypt_file(data: bytes, key: bytes, nonce: bytes) -> bytes:
    """The bytes to store. A key and nonce are used once."""
    return AESGCM(key).encrypt(nonce, data, None)


def decrypt_file(message: FileMessage, stored: bytes) -> bytes:
    """The file.

    Raises:
        NotForUs: the bytes are not those that were announced, or the key does not open them.
    """
    if sha256(stored).hexdigest() != message.x:
        raise NotForUs("The server answered with other bytes than were announced.")
    try:
        data = AESGCM(message.key).decrypt(message.nonce, stored, None)
    except InvalidTag as error:
        raise NotForUs("The file's key does not open it.") from error
    if message.ox and sha256(data).hexdigest() != message.ox:
        raise NotForUs("The file in the message is another one than was announced.")
    return data


def file_draft(message: FileMessage, receiver: PubKey, created_at: int) -> Draft:
    """The rumor's draft: it goes into a wrap like any other message."""
    tags = [
        ("p", receiver),
        ("file-type", message.mime),
        ("encryption-algorithm", ALGORITHM),
        ("decryption-key", message.key.hex()),
        ("decryption-nonce", message.nonce.hex()),
        ("x", message.x),
        ("ox", message.ox),
        ("size", str(message.size)),
        *(("fallback", url) for url in message.urls[1:]),
    ]
    return Draft(FILE, message.urls[0], tuple(tags), created_at)


def read_file_message(rumor: Rumor) -> FileMessage:
    """What a kind-15 rumor says.

    Raises:
        MalformedEvent: it is of another kind, or something that is needed is missing or not valid.
    """
    if rumor.kind != FILE:
        raise MalformedEvent("This is not a file message (NIP-17, kind 15).")
    urls = [rumor.content.strip(), *rumor.values("fallback")[:MAX_FALLBACKS]]
    if any(len(url) > MAX_URL or not url.startswith(("http://", "https://")) for url in urls):
        raise MalformedEvent("The file's address does not begin with http:// or https://.")
    if rumor.value("encryption-algorithm") != ALGORITHM:
        raise MalformedEvent("The file is not encrypted with aes-gcm.")
    key, nonce = _bytes(rumor.value("decryption-key")), _bytes(rumor.value("decryption-nonce"))
    x, ox, size = rumor.value("x"), rumor.value("ox") or "", rumor.value("size") or "0"
    if len(key) not in _KEY_BYTES or len(nonce) not in _NONCE_BYTES or not is_hex64(x) or (ox and not is_hex64(ox)):
        raise MalformedEvent("The file message lacks its key, nonce or hash.")
    mime = rumor.value("file-type") or ""
    return FileMessage(
        tuple(dict.fromkeys(urls)),
        mime.lower() if _MIME.fullmatch(mime) else "application/octet-stream",
        key,
        nonce,
        str(x),
        ox,
        int(size) if size.isascii() and size.isdigit() and len(size) <= 15 else 0,
    )


def _bytes(text: str | None) -> bytes:
    """Hex as most clients write it; anything else is no key."""
    return bytes.fromhex(text) if text and len(text) <= 128 and _HEX.fullmatch(text) else b""


def upload_draft(x: str, now: int, expires: int) -> Draft:
    """What authorises storing a blob at a Blossom server (BUD-01, BUD-02; kind 24242).

    Raises:
        InvalidInput: `x` is not a hash.
    """
    if not is_hex64(x):
        raise InvalidInput("A blob is named by 64 hex digits.")
    return Draft(BLOSSOM_AUTH, "Upload a file", (("t", "upload"), ("x", x), ("expiration", str(expires))), now)
