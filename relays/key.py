"""Secret keys and what they may do. Never printed, never serialised; `nsec` is for backups alone.

All keys of a node derive from one seed: identities by NIP-06 accounts, wallet and per-job keys by HKDF, so that
a restart or a restore from the words finds them again (DESIGN §3, "Keys have roles").
"""

import os
from hashlib import sha256

import nostr_sdk
from coincurve import PrivateKey
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from mnemonic import Mnemonic

from core.error import InvalidInput
from core.identifier import EventId, PubKey, is_hex64
from relays.error import NotForUs
from relays.event import Draft, Event, digest

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OPERATOR_ACCOUNT = 0
NODE_ACCOUNT = 1
_AGENT_ACCOUNTS = 1_000


class Key:
    """One secret key on secp256k1, and its x-only public key."""

    __slots__ = ("_private", "pubkey")

    def __init__(self, secret: bytes) -> None:
        self._private = PrivateKey(secret)
        self.pubkey = PubKey(self._private.public_key.format(compressed=True)[1:].hex())

    def __repr__(self) -> str:
        return f"Key({self.pubkey})"

    @classmethod
    def generate(cls) -> "Key":
        """A fresh random key."""
        return cls(os.urandom(32))

    @classmethod
    def parse(cls, text: str) -> "Key":
        """From an nsec (NIP-19) or 64 hex digits.

        Raises:
            InvalidInput: it is neither.
        """
        try:
            return cls(bytes.fromhex(nostr_sdk.SecretKey.parse(text.strip()).to_hex()))
        except nostr_sdk.NostrSdkError as error:
            raise InvalidInput("This is not a secret key (nsec1… or 64 hex digits).") from error

    @property
    def secret(self) -> bytes:
        """The 32 secret bytes. For libraries that sign or decrypt; never for logs or rows."""
        return bytes(self._private.secret)

    @property
    def compressed(self) -> str:
        """The 33-byte public key in hex, as Cashu's NUT-11 wants it."""
        return str(self._private.public_key.format(compressed=True).hex())

    @property
    def npub(self) -> str:
        """The public key in NIP-19 form."""
        return npub(self.pubkey)

    @property
    def nsec(self) -> str:
        """The secret key in NIP-19 form."""
        return str(nostr_sdk.SecretKey.from_bytes(self.secret).to_bech32())

    @property
    def sdk(self) -> nostr_sdk.Keys:
        """The same key for nostr-sdk's NIP-44 and NIP-59 code."""
        return nostr_sdk.Keys(nostr_sdk.SecretKey.from_bytes(self.secret))

    def sign(self, draft: Draft) -> Event:
        """Sign an event (NIP-01)."""
        hashed = digest(self.pubkey, draft)
        return Event(
            EventId(hashed.hex()),
            self.pubkey,
            draft.created_at,
            draft.kind,
            draft.tags,
            draft.content,
            self._private.sign_schnorr(hashed).hex(),
        )

    def sign_digest(self, hashed: bytes) -> bytes:
        """A BIP-340 signature over 32 bytes. For NUT-11 witnesses only."""
        return bytes(self._private.sign_schnorr(hashed))

    def encrypt(self, peer: PubKey, text: str) -> str:
        """NIP-44 version 2, at most 65,408 bytes."""
        peer_key = nostr_sdk.PublicKey.parse(peer)
        return str(nostr_sdk.nip44_encrypt(self.sdk.secret_key(), peer_key, text, nostr_sdk.Nip44Version.V2))

    def decrypt(self, peer: PubKey, payload: str) -> str:
        """Undo `encrypt`.

        Raises:
            NotForUs: the payload is not from that peer to us, or was changed.
        """
        try:
            return str(nostr_sdk.nip44_decrypt(self.sdk.secret_key(), nostr_sdk.PublicKey.parse(peer), payload))
        except nostr_sdk.NostrSdkError as error:
            raise NotForUs from error


def npub(pubkey: PubKey) -> str:
    """A public key in NIP-19 form."""
    return str(nostr_sdk.PublicKey.parse(pubkey).to_bech32())


def parse_pubkey(text: str) -> PubKey:
    """A public key from npub (NIP-19) or 64 hex digits.

    Raises:
        InvalidInput: it is neither.
    """
    text = text.strip()
    if is_hex64(text):
        return PubKey(text)
    try:
        return PubKey(nostr_sdk.PublicKey.parse(text).to_hex())
    except nostr_sdk.NostrSdkError as error:
        raise InvalidInput(f"This is not a public key (npub1… or 64 hex digits): {text[:80]}") from error


def new_words() -> str:
    """Twelve fresh BIP-39 words."""
    return str(Mnemonic("english").generate(128))


class Keyring:
    """Every key of a node, from its words.

    Raises:
        InvalidInput: the words fail BIP-39's checksum.
    """

    def __init__(self, words: str) -> None:
        self._words = " ".join(words.split())
        if not Mnemonic("english").check(self._words):
            raise InvalidInput("These are not valid seed words (BIP-39 checksum).")
        self._seed: bytes = Mnemonic.to_seed(self._words)

    def __repr__(self) -> str:
        return "Keyring(…)"

    @property
    def words(self) -> str:
        """The words themselves, for the wallet's NUT-13 derivation and for showing them once."""
        return self._words

    def _account(self, account: int) -> Key:
        keys = nostr_sdk.Keys.from_mnemonic(self._words, None, account)
        return Key(bytes.fromhex(keys.secret_key().to_hex()))

    @property
    def operator(self) -> Key:
        """Signs writs (may be replaced by an outside key)."""
        return self._account(OPERATOR_ACCOUNT)

    @property
    def node(self) -> Key:
        """Signs ledger entries, quotes and jobs."""
        return self._account(NODE_ACCOUNT)

    def agent(self, name: str) -> Key:
        """Signs an agent's DMs."""
        return self._account(_AGENT_ACCOUNTS + int.from_bytes(sha256(name.encode()).digest()[:3], "big"))

    def derive(self, purpose: str, name: str = "") -> bytes:
        """32 secret bytes for one purpose and name, e.g. the sealing key or a lock's nonce."""
        info = b"vendo/" + purpose.encode() + b"\0" + name.encode()
        return HKDF(hashes.SHA256(), 32, None, info).derive(self._seed)

    def key(self, purpose: str, name: str = "") -> Key:
        """A signing key for one purpose and name: `wallet`, or `refund` with a job's id."""
        value = int.from_bytes(self.derive(purpose, name), "big") % (_ORDER - 1) + 1
        return Key(value.to_bytes(32, "big"))
