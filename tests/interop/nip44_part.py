"""NIP-44 version 2 from its text, by other means than the node's: it takes a conversation key and a nonce as given.

Only a measure for tests: the official vectors prove it, and it then shows what the node's own code derives and refuses.
"""

import base64
import hashlib
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

MAX_TEXT = 65_535
_SHORTEST, _LONGEST = 99, 65_603  # bytes of a decoded payload


class Refused(ValueError):
    """The payload or the text breaks NIP-44."""


def message_keys(conversation_key: bytes, nonce: bytes) -> tuple[bytes, bytes, bytes]:
    """ChaCha key, ChaCha nonce and HMAC key."""
    keys = HKDFExpand(hashes.SHA256(), 76, nonce).derive(conversation_key)
    return keys[:32], keys[32:44], keys[44:]


def padded_length(length: int) -> int:
    """To how many bytes a text of so many is padded."""
    if length <= 32:
        return 32
    power = 1 << (length - 1).bit_length()
    chunk = 32 if power <= 256 else power // 8
    return chunk * ((length - 1) // chunk + 1)


def pad(text: bytes) -> bytes:
    """The text with its length before it and zeros behind it."""
    if not 1 <= len(text) <= MAX_TEXT:
        raise Refused("length")
    return len(text).to_bytes(2, "big") + text + bytes(padded_length(len(text)) - len(text))


def seal(conversation_key: bytes, nonce: bytes, padded: bytes, version: int = 2) -> str:
    """A payload around bytes that are padded already, rightly or wrongly."""
    chacha_key, chacha_nonce, hmac_key = message_keys(conversation_key, nonce)
    ciphertext = _chacha(chacha_key, chacha_nonce, padded)
    mac = hmac.digest(hmac_key, nonce + ciphertext, hashlib.sha256)
    return base64.b64encode(bytes([version]) + nonce + ciphertext + mac).decode()


def encrypt(conversation_key: bytes, nonce: bytes, text: str) -> str:
    """The payload of a text."""
    return seal(conversation_key, nonce, pad(text.encode()))


def decrypt(conversation_key: bytes, payload: str) -> str:
    """The text of a payload."""
    if payload.startswith("#"):
        raise Refused("unknown version")
    try:
        raw = base64.b64decode(payload, validate=True)
    except ValueError as error:
        raise Refused("invalid base64") from error
    if not _SHORTEST <= len(raw) <= _LONGEST:
        raise Refused("payload length")
    if raw[0] != 2:
        raise Refused("unknown version")
    nonce, ciphertext, mac = raw[1:33], raw[33:-32], raw[-32:]
    chacha_key, chacha_nonce, hmac_key = message_keys(conversation_key, nonce)
    if not hmac.compare_digest(hmac.digest(hmac_key, nonce + ciphertext, hashlib.sha256), mac):
        raise Refused("invalid hmac")
    padded = _chacha(chacha_key, chacha_nonce, ciphertext)
    length = int.from_bytes(padded[:2], "big")
    text = padded[2 : 2 + length]
    if len(text) != length or length == 0 or len(padded) != 2 + padded_length(length):
        raise Refused("invalid padding")
    return text.decode()


def _chacha(key: bytes, nonce: bytes, data: bytes) -> bytes:
    # RFC 8439's cipher: this library takes the 32-bit counter, at zero, in front of the 12-byte nonce
    return Cipher(algorithms.ChaCha20(key, bytes(4) + nonce), None).encryptor().update(data)
