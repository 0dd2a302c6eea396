"""Secret keys under a passphrase (NIP-49): scrypt stretches it, XChaCha20-Poly1305 seals the key. Pure.

nostr-sdk does both. A key from elsewhere names its own cost, so that is looked at before anything is computed: each
step up doubles the memory, and a file could ask for more than there is.
"""

import nostr_sdk

from core.error import InvalidInput
from relays.error import WrongPassphrase
from relays.key import Key

MIN_LOG_N, DEFAULT_LOG_N, MAX_LOG_N = 10, 16, 22  # memory is 1 KiB << log_n: 64 MiB at 16, 4 GiB at 22
_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"  # bech32
_PREFIX = "ncryptsec1"
_TEXT_CHARS = 162


def log_n_of(text: str) -> int:
    """The cost that an encrypted key names: scrypt's N is 2 to this power (second byte of NIP-49's form).

    Raises:
        InvalidInput: it is no encrypted key of version 2.
    """
    text = text.strip().lower()
    if not text.startswith(_PREFIX) or len(text) != _TEXT_CHARS or not set(text[len(_PREFIX) :]) <= set(_ALPHABET):
        raise InvalidInput("This is not an encrypted secret key (ncryptsec1…, NIP-49).")
    bits = 0
    for letter in text[len(_PREFIX) : len(_PREFIX) + 4]:  # 20 bits: the first two bytes and a half
        bits = bits << 5 | _ALPHABET.index(letter)
    if bits >> 12 != 2:
        raise InvalidInput("This encrypted secret key is of a version that is not known here.")
    return bits >> 4 & 0xFF


def encrypt_key(key: Key, passphrase: str, log_n: int = DEFAULT_LOG_N) -> str:
    """A secret key under a passphrase, as `ncryptsec1…`.

    Raises:
        InvalidInput: the passphrase is empty, or the cost is out of range.
    """
    if not passphrase:
        raise InvalidInput("The passphrase is empty.")
    if not MIN_LOG_N <= log_n <= MAX_LOG_N:
        raise InvalidInput(f"The cost of an encrypted key is {MIN_LOG_N} to {MAX_LOG_N}, not {log_n}.")
    secret = nostr_sdk.SecretKey.from_bytes(key.secret)
    return str(nostr_sdk.EncryptedSecretKey(secret, passphrase, log_n, nostr_sdk.KeySecurity.UNKNOWN).to_bech32())


def decrypt_key(text: str, passphrase: str) -> Key:
    """Undo `encrypt_key`.

    Raises:
        InvalidInput: it is no encrypted key, was changed, or asks for more memory than 4 GiB.
        WrongPassphrase: the passphrase is another.
    """
    if (cost := log_n_of(text)) > MAX_LOG_N:
        raise InvalidInput(f"This encrypted key asks for a cost of {cost}; at most {MAX_LOG_N} is computed.")
    try:
        sealed = nostr_sdk.EncryptedSecretKey.from_bech32(text.strip())
    except nostr_sdk.NostrSdkError as error:
        raise InvalidInput("This encrypted secret key is damaged.") from error
    try:
        return Key(bytes.fromhex(sealed.decrypt(passphrase).to_hex()))
    except nostr_sdk.NostrSdkError as error:
        raise WrongPassphrase from error
