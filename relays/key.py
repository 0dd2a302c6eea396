"""Secret keys and what they may do. Never printed, never serialised; `nsec` is for backups alone.

All keys of a node derive from one seed: identities by NIP-06 accounts, wallet and per-job keys by HKDF, so that
a restart or a restore from the words finds them again (DESIGN §3, "Keys have roles").
"""

import hmac
import os
from functools import lru_cache
from hashlib import sha256
from typing import Any

import nostr_sdk
from bip32 import BIP32
from coincurve import PrivateKey, PublicKey
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from mnemonic import Mnemonic

import relays.binding  # noqa: F401 (from here on nostr-sdk's binding copies text at once)
from core.error import InvalidInput
from core.identifier import EventId, PubKey, is_hex64
from relays.error import NotForUs
from relays.event import Draft, Event, digest

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
OPERATOR_ACCOUNT = 0
NODE_ACCOUNT = 1
_AGENT_ACCOUNTS = 1_000
_LATER_ACCOUNTS = _AGENT_ACCOUNTS + (1 << 24)  # agents' keys after a rotation
_LAST_ACCOUNT = (1 << 31) - 1
_HARDENED = 1 << 31
_NOSTR_PATH = "m/44'/1237'"  # NIP-06
DIGEST_BYTES = 32
_AT_ONCE = 64  # signatures for which randomness is fetched together: asking each time lets other threads in between
_KNOWN = 4_096  # texts of public keys
_fresh: list[bytes] = []


def _auxiliary() -> bytes:
    """32 random bytes for one signature (BIP-340, "Default Signing")."""
    try:
        return _fresh.pop()  # in one step, so no two threads get the same
    except IndexError:
        block = os.urandom(32 * _AT_ONCE)
        _fresh.extend(block[at : at + 32] for at in range(32, len(block), 32))
        return block[:32]


class Key:
    """One secret key on secp256k1, and its x-only public key."""

    __slots__ = ("_foreign", "_pair", "_private", "pubkey")

    def __init__(self, secret: bytes) -> None:
        self._private = PrivateKey(secret)
        self.pubkey = PubKey(self._private.public_key.format(compressed=True)[1:].hex())
        self._pair = _pair(self._private.secret)
        self._foreign: nostr_sdk.Keys | None = None

    def __repr__(self) -> str:
        return f"Key({self.pubkey})"

    def __reduce__(self) -> str:
        raise TypeError("A secret key is not serialised.")

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
        """The same key for nostr-sdk's NIP-44 and NIP-59 code; made once, since making it costs as much as a cipher."""
        if self._foreign is None:
            self._foreign = nostr_sdk.Keys(nostr_sdk.SecretKey.from_bytes(self.secret))
        return self._foreign

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
            self.sign_digest(hashed).hex(),
        )

    def sign_digest(self, hashed: bytes) -> bytes:
        """A BIP-340 signature over 32 bytes, with fresh auxiliary randomness. Beside `sign`, for NUT-11 witnesses only.

        coincurve's own `sign_schnorr` computes the key pair anew and verifies each signature, which takes 3.5 times as
        long; the pair is kept here, and whoever reads the event verifies it (BIP-340 leaves that to the signer).
        """
        if len(hashed) != DIGEST_BYTES:
            raise ValueError("a digest has 32 bytes")
        signature = ffi.new("unsigned char[64]")
        if not lib.secp256k1_schnorrsig_sign32(GLOBAL_CONTEXT.ctx, signature, hashed, self._pair, _auxiliary()):
            raise ValueError("libsecp256k1 did not sign")
        return bytes(ffi.buffer(signature))

    def encrypt(self, peer: PubKey, text: str) -> str:
        """NIP-44 version 2, at most 65,408 bytes.

        Raises:
            InvalidInput: the text is empty or too long, or the peer is no point on the curve.
        """
        try:
            peer_key = nostr_sdk.PublicKey.parse(peer)
            return str(nostr_sdk.nip44_encrypt(self.sdk.secret_key(), peer_key, text, nostr_sdk.Nip44Version.V2))
        except nostr_sdk.NostrSdkError as error:
            raise InvalidInput("This cannot be encrypted: its length or its receiver is not valid.") from error

    def decrypt(self, peer: PubKey, payload: str) -> str:
        """Undo `encrypt`.

        Raises:
            NotForUs: the payload is not from that peer to us, or was changed.
        """
        try:
            return str(nostr_sdk.nip44_decrypt(self.sdk.secret_key(), nostr_sdk.PublicKey.parse(peer), payload))
        except nostr_sdk.NostrSdkError as error:
            raise NotForUs from error

    def encrypt_legacy(self, peer: PubKey, text: str) -> str:
        """NIP-04: AES-CBC without authentication, for people whose clients know nothing else.

        Raises:
            InvalidInput: the peer is no point on the curve.
        """
        try:
            return str(nostr_sdk.nip04_encrypt(self.sdk.secret_key(), nostr_sdk.PublicKey.parse(peer), text))
        except nostr_sdk.NostrSdkError as error:
            raise InvalidInput("This cannot be encrypted: its receiver is not a key.") from error

    def decrypt_legacy(self, peer: PubKey, payload: str) -> str:
        """Undo `encrypt_legacy`. What comes out is not authenticated by itself: only the event around it is (NIP-04).

        Raises:
            NotForUs: the payload is not from that peer to us, or was changed so that it is no text any more.
        """
        try:
            return str(nostr_sdk.nip04_decrypt(self.sdk.secret_key(), nostr_sdk.PublicKey.parse(peer), payload))
        except nostr_sdk.NostrSdkError as error:
            raise NotForUs from error


def _pair(secret: bytes) -> Any:
    """libsecp256k1's form of a secret key with its public key."""
    pair = ffi.new("secp256k1_keypair *")
    if not lib.secp256k1_keypair_create(GLOBAL_CONTEXT.ctx, pair, secret):
        raise ValueError("not a secret key of secp256k1")
    return pair


@lru_cache(1_024)
def npub(pubkey: PubKey) -> str:
    """A public key in NIP-19 form."""
    return str(nostr_sdk.PublicKey.parse(pubkey).to_bech32())


def parse_pubkey(text: str) -> PubKey:
    """A public key from npub (NIP-19) or 64 hex digits.

    Raises:
        InvalidInput: it is neither.
    """
    text = text.strip()
    return PubKey(text) if is_hex64(text) else _parsed(text)


@lru_cache(_KNOWN)  # thousands of agents hear the same few people
def _parsed(text: str) -> PubKey:
    try:
        return PubKey(nostr_sdk.PublicKey.parse(text).to_hex())
    except nostr_sdk.NostrSdkError as error:
        if any(word in text.lower() for word in ("nsec1", "ncryptsec1")):  # a slip, which no log is to keep
            raise InvalidInput("This is a secret key, where a public one (npub1…) is wanted.") from None
        raise InvalidInput(f"This is not a public key (npub1… or 64 hex digits): {text[:80]}") from error


def new_words() -> str:
    """Twelve fresh BIP-39 words."""
    return str(Mnemonic("english").generate(128))


def _child(secret: bytes, chain: bytes, index: int) -> tuple[bytes, bytes]:
    """A step of BIP-32 from a secret key and its chain code to the next.

    The library that takes the first steps makes each step's public key twice, in 0.8 ms an account; thousands of agents
    are one account each.

    Raises:
        InvalidInput: this index gives no key, which happens once in 2^127.
    """
    head = b"\0" + secret if index >= _HARDENED else PublicKey.from_valid_secret(secret).format()
    mixed = hmac.digest(chain, head + index.to_bytes(4, "big"), "sha512")
    added = int.from_bytes(mixed[:32], "big")
    child = (added + int.from_bytes(secret, "big")) % _ORDER
    if added >= _ORDER or child == 0:
        raise InvalidInput("These words give no key for this account (BIP-32); take another name.")
    return child.to_bytes(32, "big"), mixed[32:]


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
        self._parent: tuple[bytes, bytes] | None = None
        self._accounts: dict[int, Key] = {}

    def __repr__(self) -> str:
        return "Keyring(…)"

    def __reduce__(self) -> str:
        raise TypeError("The words of a node are not serialised.")

    @property
    def words(self) -> str:
        """The words themselves, for the wallet's NUT-13 derivation and for showing them once."""
        return self._words

    def _account(self, account: int) -> Key:
        """The key at m/44'/1237'/account'/0/0 (NIP-06)."""
        if self._parent is None:  # two of five steps, and the stretching of the words, are the same for all accounts
            chain, secret = BIP32.from_seed(self._seed).get_extended_privkey_from_path(_NOSTR_PATH)
            self._parent = secret, chain
        return Key(_child(*_child(*_child(*self._parent, _HARDENED + account), 0), 0)[0])

    def _own(self, account: int) -> Key:
        found = self._accounts.get(account)
        if found is None:
            found = self._accounts[account] = self._account(account)
        return found

    @property
    def operator(self) -> Key:
        """Signs writs (may be replaced by an outside key)."""
        return self._own(OPERATOR_ACCOUNT)

    @property
    def node(self) -> Key:
        """Signs ledger entries, quotes and jobs."""
        return self._own(NODE_ACCOUNT)

    def agent(self, name: str, epoch: int = 0) -> Key:
        """Signs an agent's DMs. Each rotation takes the key of the next epoch.

        Two names may have the same first key by chance (1 in 16 million pairs): whoever adds an agent looks, and takes
        a later epoch for one of them. Later epochs are drawn from 2 thousand million accounts.
        """
        if epoch == 0:
            return self._account(_AGENT_ACCOUNTS + int.from_bytes(sha256(name.encode()).digest()[:3], "big"))
        drawn = int.from_bytes(sha256(f"{name}\0{epoch}".encode()).digest()[:8], "big")
        return self._account(_LATER_ACCOUNTS + drawn % (_LAST_ACCOUNT + 1 - _LATER_ACCOUNTS))

    def derive(self, purpose: str, name: str = "") -> bytes:
        """32 secret bytes for one purpose and name, e.g. the sealing key or a lock's nonce."""
        info = b"vendo/" + purpose.encode() + b"\0" + name.encode()
        return HKDF(hashes.SHA256(), 32, None, info).derive(self._seed)

    def key(self, purpose: str, name: str = "") -> Key:
        """A signing key for one purpose and name: `wallet`, or `refund` with a job's id."""
        value = int.from_bytes(self.derive(purpose, name), "big") % (_ORDER - 1) + 1
        return Key(value.to_bytes(32, "big"))
