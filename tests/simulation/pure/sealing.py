"""Sealed results and what is signed of them (ADR 25), without ciphers: a seal is a word that only its preimage opens.

A text that is sealed is the body of its message. What the product checks with hashes is asked here of the facts:
whether the ciphertext is the one whose hash is signed, whether the preimage opens it, and whether it is the text that
is signed.
"""

from hashlib import sha256
from typing import NamedTuple

from dvm.acceptance import check_result
from dvm.buyer_event import KeyShown
from dvm.error import BadResult
from dvm.request import ComputeRequest
from dvm.settlement import Settlement
from tests.simulation.pure.mint import Lock, Unlock, cosignature, hash_of

OFFER = Settlement()
ORDER = Settlement(order_max=OFFER.max_unsecured)


class Seal(NamedTuple):
    """A sealed result as it is published. `hash` is what it says; `under` what really opens it."""

    hash: str
    under: str
    text: str
    fits: bool = True  # the ciphertext is the one whose hash is signed
    signed: bool = True  # the text is the one whose hash is signed


def preimage_of(seller: str, request_id: str) -> str:
    """The seller's preimage for a request: the same after a restart."""
    return sha256(f"{seller}/{request_id}".encode()).hexdigest()


def sealed(seller: str, request_id: str, text: str) -> Seal:
    """An honest one."""
    hash_ = hash_of(preimage_of(seller, request_id))
    return Seal(hash_, hash_, text)


def opened(seal: Seal, preimage: str, ask: ComputeRequest, now: int) -> KeyShown:
    """What `dvm.envelope.Envelope.opened` says of it."""
    if hash_of(preimage) != seal.under:
        return KeyShown(now, preimage, "", "The key that was paid for does not open the sealed result.", fraud=True)
    if not seal.signed:
        return KeyShown(now, preimage, "", "It is not the one whose hash the seller signed.", fraud=True)
    try:
        check_result(ask, seal.text)
    except BadResult as error:
        return KeyShown(now, preimage, seal.text, error.message)
    return KeyShown(now, preimage, seal.text, "")


def signatures(cosigner: str, coins: tuple[str, ...]) -> tuple[str, ...]:
    """One for each coin, in order."""
    return tuple([cosignature(cosigner, name) for name in coins])


def unlock_of(seller: str, request_id: str, lock: Lock | None, cosigned: tuple[str, ...]) -> Unlock | None:
    """What opens a payment for a sealed result; None for a lock to a key alone."""
    return Unlock(preimage_of(seller, request_id), cosigned) if lock is not None and lock.hash else None
