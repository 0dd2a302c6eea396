"""Sealed results: texts that are published at once and can be read only with the key that money buys (ADR 25). Pure.

The seller knows a preimage k from its seed and publishes h = sha256(k). The text is sealed under a key that needs k
*and* the Diffie-Hellman secret of two keys that both sides made for this job alone: the mint and the relays, which see
k or the sealed text, can read nothing. Whoever buys checks the hash of the sealed text before any money can move.
"""

import base64
import binascii
import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from coincurve import PrivateKey, PublicKey
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dvm.error import BadSeal
from relays.key import Key, Keyring

PREIMAGE = "preimage"  # purposes in `Keyring`
SEAL_KEY = "job-seal"
_NONCE, _TAG = 12, 16
_INFO = b"vendo/seal/1\0"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed text as base64, and the two hashes that its author signs: of its bytes, and of what is in it."""

    content: str
    ct_hash: str
    pt_hash: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One side of a seal: our key for this job, the other side's (compressed hex), and the request they are about."""

    ours: Key = field(repr=False)
    theirs: str
    request_id: str

    @property
    def public(self) -> tuple[str, str]:
        """Our public key and the other side's, as they stand in a seal that we sign."""
        return self.ours.compressed, self.theirs

    def keys(self, preimage: bytes) -> tuple[bytes, bytes]:
        """The key that seals, and the one under which the text is hashed: a plain hash would tell a short text."""
        shared = PrivateKey(self.ours.secret).ecdh(bytes.fromhex(self.theirs))
        info = _INFO + self.request_id.encode()
        both = HKDF(hashes.SHA256(), 64, shared, info).derive(preimage)
        return both[:32], both[32:]


def preimage_of(keyring: Keyring, request_id: str) -> bytes:
    """The seller's preimage for a request: from its seed, so that it can claim after any restart."""
    return keyring.derive(PREIMAGE, request_id)


def hash_of(preimage: bytes) -> str:
    """What the money is locked to, in hex."""
    return sha256(preimage).hexdigest()


def is_key(text: str) -> bool:
    """Whether it is a compressed point: a key that is none must not reach the cipher."""
    try:
        return len(text) == 66 and text == text.lower() and bool(PublicKey(bytes.fromhex(text)))
    except ValueError:
        return False


def seal(text: str, preimage: bytes, pair: Pair) -> Sealed:
    """Seal a text. The nonce follows from the text, so that work that was done twice never reuses one."""
    key, commit = pair.keys(preimage)
    plain = text.encode()
    nonce = hmac.digest(commit, b"nonce" + plain, "sha256")[:_NONCE]
    raw = nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, pair.request_id.encode())
    return Sealed(base64.b64encode(raw).decode(), sha256(raw).hexdigest(), _plain_hash(commit, plain))


def check_sealed(content: str, ct_hash: str) -> None:
    """Whether this is the sealed text whose hash was signed. Nobody may pay for another one.

    Raises:
        BadSeal: it is not.
    """
    if sha256(_raw(content)).hexdigest() != ct_hash:
        raise BadSeal("The sealed result is not the one whose hash is signed with it.")


def open_sealed(content: str, pt_hash: str, preimage: bytes, pair: Pair) -> str:
    """The text.

    Raises:
        BadSeal: the preimage does not open it, or what is in it is not what was signed: the seller's fraud.
    """
    raw = _raw(content)
    key, commit = pair.keys(preimage)
    try:
        plain = ChaCha20Poly1305(key).decrypt(raw[:_NONCE], raw[_NONCE:], pair.request_id.encode())
        text = plain.decode()
    except (InvalidTag, UnicodeDecodeError) as error:
        raise BadSeal("The key that was paid for does not open the sealed result.") from error
    if not hmac.compare_digest(_plain_hash(commit, plain), pt_hash):
        raise BadSeal("The sealed result is not the one whose hash the seller signed.")
    return text


def _plain_hash(commit: bytes, plain: bytes) -> str:
    return hmac.digest(commit, b"text" + plain, "sha256").hex()


def _raw(content: str) -> bytes:
    try:
        raw = base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSeal("The sealed result is not base64.") from error
    if len(raw) < _NONCE + _TAG:
        raise BadSeal("The sealed result is too short to be one.")
    return raw
