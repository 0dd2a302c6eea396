"""Coins as the product's verification reads them: real secrets (NUT-10, NUT-11) and proofs, without curves.

A signature of the mint is a word: `good` where the mint signed this very coin, else whatever a forger wrote.
"""

import json
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any

from coincurve import PrivateKey

from tests.simulation.pure.mint import Mint
from wallet.cashu.keyset import KeysetInfo
from wallet.cashu.lock import HashLock
from wallet.cashu.lock import Lock as Condition
from wallet.cashu.proof import Dleq, Proof
from wallet.cashu.token import Payment

KEYSET = "00" + "a" * 14


@cache
def key_of(name: str) -> str:
    """A wallet key: a real point, since locks to anything else are refused."""
    return PrivateKey(sha256(name.encode()).digest()).public_key.format().hex()


@cache
def identity(name: str) -> str:
    """A public key: 64 hex digits that still tell the name."""
    return name.encode().hex().ljust(64, "0")


FOR_GOOD = 1 << 40
REFUND = key_of("any refund key")
GOOD = Dleq("e", "s", "r")


class Keys:
    """A keyset that signs any amount."""

    class _Any:
        def get(self, amount: int) -> int:
            return amount

    keys = _Any()


class Book:
    """A mint's keysets, as `wallet.verification` asks for them."""

    def __init__(self, mint: Mint) -> None:
        self.mint = mint
        self.infos = {KEYSET: KeysetInfo(KEYSET, "sat", True, mint.ppk)}

    async def expand(self, short: str) -> str:
        return short

    async def keys(self, keyset: str) -> Any:
        return Keys


@lru_cache(4_096)
def _secret(key: str, locktime: int, hash_: str, cosigner: str) -> str:
    if hash_:
        return HashLock(hash_, key, locktime, REFUND, cosigner).secret("nonce")
    return Condition(key, locktime, REFUND).secret("nonce")


@lru_cache(4_096)
def _given(key: str, locktime: int, giver: str) -> str:
    """A lock to one key, for good or until a locktime, that may name who gave it (NIP-61)."""
    tags = [["sigflag", "SIG_INPUTS"]]
    if locktime < FOR_GOOD:
        tags.append(["locktime", str(locktime)])
    if giver:
        tags.append(["P", giver])
    return json.dumps(["P2PK", {"nonce": "nonce", "data": key, "tags": tags}], separators=(",", ":"))


def gift(body: dict[str, Any]) -> Payment:
    """The coins of a nutzap."""
    forged = body.get("forged", {})
    proofs = []
    for coin in body["coins"]:
        lock = coin.lock
        secret = _given(lock.key, lock.locktime, lock.giver) if lock is not None else coin.name
        proofs.append(Proof(KEYSET, coin.amount, secret, coin.name, forged.get(coin.name, GOOD)))
    return Payment(body["mint"], "sat", tuple(proofs), "")


def paper(body: dict[str, Any]) -> Payment:
    """The payment that a wrap's body stands for. `forged` names its coins that no mint signed, and what they carry."""
    forged = body.get("forged", {})
    proofs = []
    for coin in body["coins"]:
        lock = coin.lock
        secret = _secret(lock.key, lock.locktime, lock.hash, lock.cosigner) if lock is not None else coin.name
        proofs.append(Proof(KEYSET, coin.amount, secret, coin.name, forged.get(coin.name, GOOD)))
    return Payment(body["mint"], "sat", tuple(proofs), body["quote"])


def was_signed(proof: Proof, key: Any) -> bool:
    """In the place of `wallet.cashu.signature.was_signed`: whether the coin shows the mint's signature."""
    return proof.dleq is GOOD


def signed_by(key: str, text: str) -> str:
    """A signature: only who owns the key writes this word."""
    return f"{key} signs {text}"


def holds(signature: str, text: str, key: str) -> bool:
    """In the place of `wallet.cashu.signature.holds`."""
    return signature == signed_by(key, text)
