"""Deterministic secrets and blinding factors, so that words alone find the money again (NUT-13). Pure."""

import hashlib
import hmac

from bip32 import BIP32
from mnemonic import Mnemonic

from relays.key import Keyring
from wallet.cashu.curve import blind
from wallet.cashu.proof import Output

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_DOMAIN = b"Cashu_KDF_HMAC_SHA256"
_CHILDREN = 2**31 - 1


class Derivation:
    """Outputs by keyset and counter, and outputs of locks by operation."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._seed: bytes = Mnemonic.to_seed(keyring.words)
        self._root = BIP32.from_seed(self._seed)

    def _pair(self, keyset: str, counter: int) -> tuple[bytes, bytes]:
        if keyset.startswith("01"):
            message = _DOMAIN + bytes.fromhex(keyset) + counter.to_bytes(8, "big")
            secret, r = (hmac.new(self._seed, message + end, hashlib.sha256).digest() for end in (b"\0", b"\1"))
            return secret, r
        child = int.from_bytes(bytes.fromhex(keyset), "big") % _CHILDREN
        path = f"m/129372'/0'/{child}'/{counter}'"
        return self._root.get_privkey_from_path(f"{path}/0"), self._root.get_privkey_from_path(f"{path}/1")

    def output(self, keyset: str, counter: int, amount: int, *, gives: bool = False) -> Output:
        """The output with this counter. The same counter must never ask for two signatures."""
        secret, r = self._pair(keyset, counter)
        return Output(keyset, amount, secret.hex(), r.hex(), blind(secret.hex(), r), gives)

    def lock_nonce(self, name: str) -> str:
        """The nonce of one locked coin. `name` tells operation, keyset, place and attempt."""
        return self._keyring.derive("lock", name)[:16].hex()

    def lock_output(self, name: str, keyset: str, amount: int, secret: str) -> Output:
        """A locked output: its blinding factor comes from the seed as well, so that a restore can refund it."""
        raw = self._keyring.derive("lock-blind", name)
        r = (int.from_bytes(raw, "big") % (_ORDER - 1) + 1).to_bytes(32, "big")
        return Output(keyset, amount, secret, r.hex(), blind(secret, r), gives=True)


def lock_name(operation: str, keyset: str, place: int, attempt: int) -> str:
    """What one locked coin derives from."""
    return f"{operation}/{keyset}/{place}" + (f"/{attempt}" if attempt > 1 else "")
