"""Points and scalars of secp256k1 as NUT-00 uses them, over the library's curve code. Pure."""

from functools import lru_cache
from typing import Any

from wallet.cashu.fence import PrivateKey, PublicKey, hash_to_curve


def point(text: str) -> Any:
    """A compressed point. The library reads other forms as well; the protocol does not.

    Raises:
        ValueError: it is none.
    """
    if len(text) != 66:
        raise ValueError("a compressed point has 33 bytes")
    return PublicKey(bytes.fromhex(text))


@lru_cache(maxsize=512)
def key_point(text: str) -> Any:
    """The same for a mint's key, which is asked for again with every coin.

    Raises:
        ValueError: it is none.
    """
    return point(text)


def scalar(text: str) -> Any:
    """A number between 1 and the group's order, as a secret key.

    Raises:
        ValueError: it is none.
    """
    if len(text) != 64:
        raise ValueError("a scalar has 32 bytes")
    return PrivateKey(bytes.fromhex(text))


def is_point(text: object) -> bool:
    """Whether it is a compressed public key in lower-case hex. A lock to anything else burns the money."""
    if not isinstance(text, str) or text != text.lower():
        return False
    try:
        point(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=2_048)
def hashed(secret: str) -> Any:
    """NUT-00's hash_to_curve of a coin's secret. On its way from plan to booking a coin is asked for it many times."""
    return hash_to_curve(secret.encode())


@lru_cache(maxsize=2_048)
def y_of(secret: str) -> str:
    """The point that names a coin at its mint (NUT-07)."""
    return str(hashed(secret).format().hex())


def blind(secret: str, r: bytes) -> str:
    """The blinded message B_ = Y + rG."""
    return str((hashed(secret) + PrivateKey(r).public_key).format().hex())
