"""The seed words at rest: `keys.json`, readable by its owner alone.

Encrypted, which is what `vendo init` asks for, it holds

    {"version": 2, "node": "npub1…", "lock": "ncryptsec1…", "words": "…"}

`lock` is a random key under the passphrase (NIP-49, which takes exactly 32 bytes; words have 16 to 32), and `words` is
base64 of a 12-byte nonce and ChaCha20-Poly1305 of the words under HKDF-SHA256 of that key. `node` names the node, so
that a keyring of the operating system can be asked for its passphrase, and is checked when the words are open.
Not encrypted, which takes an explicit wish, it holds {"words": "…"}.
"""

import base64
import binascii
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.error import InvalidInput
from node.error import HomeMissing
from node.identity.error import KeysDamaged
from relays.error import WrongPassphrase
from relays.key import Key, Keyring
from relays.nip49 import decrypt_key, encrypt_key, log_n_of

VERSION = 2
_NONCE_BYTES = 12
_INFO = b"vendo/keys.json/words"


@dataclass(frozen=True, slots=True, repr=False)
class Plain:
    """Words that anybody can read who can read the file."""

    words: str

    def ring(self) -> Keyring:
        """The keys.

        Raises:
            InvalidInput: these are no words.
        """
        return Keyring(self.words)


@dataclass(frozen=True, slots=True)
class Locked:
    """Words under a passphrase."""

    node: str
    lock: str
    sealed: bytes

    @property
    def log_n(self) -> int:
        """The cost of trying a passphrase: scrypt's N is 2 to this power."""
        return log_n_of(self.lock)

    def ring(self, passphrase: str) -> Keyring:
        """The keys.

        Raises:
            WrongPassphrase: the passphrase is another.
            KeysDamaged: the passphrase is right, and what it opens is not.
        """
        try:
            key = decrypt_key(self.lock, passphrase)
        except WrongPassphrase:
            raise
        except InvalidInput as error:
            raise KeysDamaged from error
        try:
            raw = _cipher(key).decrypt(self.sealed[:_NONCE_BYTES], self.sealed[_NONCE_BYTES:], self.node.encode())
            ring = Keyring(raw.decode())
        except (InvalidTag, ValueError, InvalidInput) as error:
            raise KeysDamaged from error
        if ring.node.npub != self.node:
            raise KeysDamaged("The file of keys names another node than its words make.")
        return ring


def _cipher(key: Key) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(HKDF(hashes.SHA256(), 32, None, _INFO).derive(key.secret))


def plain_text(ring: Keyring) -> str:
    """The file without encryption."""
    return json.dumps({"words": ring.words}) + "\n"


def locked_text(ring: Keyring, passphrase: str, log_n: int) -> str:
    """The file under a passphrase; random, so each call makes another.

    Raises:
        InvalidInput: the passphrase is empty, or the cost is out of range.
    """
    key, node = Key.generate(), ring.node.npub
    nonce = os.urandom(_NONCE_BYTES)
    sealed = nonce + _cipher(key).encrypt(nonce, ring.words.encode(), node.encode())
    body = {
        "version": VERSION,
        "node": node,
        "lock": encrypt_key(key, passphrase, log_n),
        "words": base64.b64encode(sealed).decode(),
    }
    return json.dumps(body, indent=1) + "\n"


def read_keys(path: Path) -> Plain | Locked:
    """What the file holds; nothing is computed.

    Raises:
        HomeMissing: there is none.
        InvalidInput: others can read it.
        KeysDamaged: it is not such a file, or of a version that is not known here.
    """
    try:
        mode = path.stat().st_mode & 0o077
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise HomeMissing(f"There is no {path.name} in {path.parent}.") from error
    if mode:
        raise InvalidInput(f"{path} can be read by others.", remedy=f"Run: chmod 600 {path}")
    return parse_keys(raw, path)


def parse_keys(raw: bytes, path: Path) -> Plain | Locked:
    """What the bytes of such a file hold; `path` is for messages.

    Raises:
        KeysDamaged: it is not such a file, or of a version that is not known here.
    """
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise KeysDamaged(f"{path} is damaged.") from error
    if not isinstance(body, dict) or not isinstance(body.get("words"), str):
        raise KeysDamaged(f"{path} is damaged.")
    if "version" not in body:
        return Plain(body["words"])
    if body["version"] != VERSION:
        raise KeysDamaged(f"{path} was written by another version of vendo.")
    return _locked(path, body)


def _locked(path: Path, body: dict[str, Any]) -> Locked:
    try:
        found = Locked(str(body["node"]), str(body["lock"]), base64.b64decode(body["words"], validate=True))
        log_n_of(found.lock)
    except (KeyError, binascii.Error, InvalidInput) as error:
        raise KeysDamaged(f"{path} is damaged.") from error
    return found


def write_private(path: Path, text: str) -> None:
    """A new file, its owner's alone, on the disk when this returns.

    Raises:
        FileExistsError: it is there already, and stays as it is.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def replace_private(path: Path, text: str) -> None:
    """Put another text in a private file's place: after a crash there is the one or the other, whole."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    write_private(draft, text)
    draft.replace(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """A file is on the disk when its name is, too."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
