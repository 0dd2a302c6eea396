"""Spending conditions (NUT-10, 11, 14): written in one strict form, and read with nothing taken on trust. Pure."""

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from wallet.cashu.curve import is_point
from wallet.error import TokenLock

MAX_SECRET = 1024
MAX_WITNESS = 1024  # mints refuse longer ones
MAX_PREIMAGE = 64  # bytes; NUT-14 has 32, and mints look at the hash
_MAX_REFUNDS = 8
_KNOWN_TAGS = {"sigflag", "locktime", "refund", "n_sigs", "n_sigs_refund", "pubkeys"}
_LETTER = re.compile(r"[A-Za-z]")
_NONE = re.compile(r"(?!)")
_HEX32 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Lock:
    """Spendable by `pubkey`; after `locktime` (Unix seconds, the mint's clock) by `refund` as well."""

    pubkey: str
    locktime: int
    refund: str

    def secret(self, nonce: str) -> str:
        """The secret of one coin under this lock.

        Raises:
            TokenLock: a key is no key; mints accept such locks and the money is gone for good.
        """
        if not is_point(self.pubkey) or not is_point(self.refund):
            raise TokenLock("A lock needs two compressed public keys.")
        tags = [["sigflag", "SIG_INPUTS"], ["locktime", str(self.locktime)], ["refund", self.refund]]
        return json.dumps(["P2PK", {"nonce": nonce, "data": self.pubkey, "tags": tags}], separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class KeyLock:
    """Spendable by `pubkey`; if there is a `locktime` (Unix seconds, the mint's clock), after it by others as well.

    `refunds` says how many keys may take it then; with none of them anybody may. `giver` is the Nostr key that the lock
    calls its sender's, if it does: such a tag conditions nothing at a mint.
    """

    pubkey: str
    locktime: int | None = None
    refunds: int = 0
    giver: str = ""

    def secret(self, nonce: str) -> str:
        """The secret of one coin that is the holder's of `pubkey` for good; nothing brings it back.

        Raises:
            TokenLock: the key is no key; mints accept such locks and the money is gone.
        """
        if not is_point(self.pubkey) or self.locktime is not None:
            raise TokenLock("A lock for good needs one compressed public key, and no locktime.")
        body = {"nonce": nonce, "data": self.pubkey, "tags": [["sigflag", "SIG_INPUTS"]]}
        return json.dumps(["P2PK", body], separators=(",", ":"))

    def opens_to(self, pubkey: str) -> bool:
        """Whether the holder of this key (compressed hex) can spend it. Signatures know no sign (BIP-340)."""
        return self.pubkey[2:] == pubkey[2:]


@dataclass(frozen=True, slots=True)
class HashLock:
    """Spendable with the preimage of `hash` (NUT-14) and the signatures of `seller` and, if there is one, `cosigner`.

    After `locktime` (Unix seconds, the mint's clock) `refund` alone can spend it as well, without the preimage.
    """

    hash: str
    seller: str
    locktime: int
    refund: str
    cosigner: str = ""

    def secret(self, nonce: str) -> str:
        """The secret of one coin under this lock.

        Raises:
            TokenLock: a key is none, two keys are the same, or the hash is none.
        """
        self.check()
        keys = [self.seller, self.cosigner] if self.cosigner else [self.seller]
        tags = [["sigflag", "SIG_INPUTS"], ["pubkeys", *keys], ["n_sigs", str(len(keys))]]
        tags += [["locktime", str(self.locktime)], ["refund", self.refund]]
        return json.dumps(["HTLC", {"nonce": nonce, "data": self.hash, "tags": tags}], separators=(",", ":"))

    def check(self) -> None:
        """Whether this lock is safe for both sides.

        A signature covers only the secret (SIG_INPUTS), so one that was given for the main path is good for the refund
        path too: a refund key that also co-signs would give the money away without the preimage. Signatures know no
        sign of a point (BIP-340), so keys are compared without it; mints refuse a lock with the same key twice.

        Raises:
            TokenLock: it is not.
        """
        keys = [self.seller, self.refund, *([self.cosigner] if self.cosigner else [])]
        if not all(is_point(key) for key in keys) or not _HEX32.fullmatch(self.hash):
            raise TokenLock("A lock to a hash needs compressed public keys and a SHA-256.")
        if len({key[2:] for key in keys}) != len(keys):
            raise TokenLock("The keys of a lock to a hash must differ.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def condition(secret: str) -> tuple[str, dict[str, list[str]], str] | None:
    """Kind, tags and data of a secret with a condition; None for a plain secret.

    Raises:
        TokenLock: it looks like a condition but is not one that anybody could be sure of.
    """
    if not secret.lstrip().startswith("["):
        return None
    # What one reader takes for JSON and another does not (half of a surrogate pair, a blank of which there are many
    # kinds) is a condition to one mint, and to the other a plain secret, which anybody may spend.
    if not secret.startswith("[") or not secret.isascii() or "\\" in secret:
        raise TokenLock("A spending condition is not written in plain ASCII without escapes.")
    try:
        body = json.loads(secret, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise TokenLock("A coin's secret is not valid JSON.") from error
    if len(body) != 2 or not isinstance(body[0], str) or not isinstance(body[1], dict):
        raise TokenLock("A coin's secret is not a spending condition.")
    kind, inner = body
    data, pairs = inner.get("data"), inner.get("tags", [])
    # A mint takes a condition that it cannot read for a plain secret, which anybody may spend.
    if set(inner) - {"nonce", "data", "tags"} or not all(
        isinstance(inner.get(name), str) for name in ("nonce", "data")
    ):
        raise TokenLock("A spending condition lacks its nonce or data, or has unknown parts.")
    if not isinstance(data, str) or not isinstance(pairs, list):
        raise TokenLock("A spending condition's tags are not a list.")
    tags: dict[str, list[str]] = {}
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) >= 2 and all(isinstance(item, str) for item in pair)):
            raise TokenLock("A spending condition has a tag that is not a list of strings.")
        if pair[0] in tags:
            raise TokenLock("A spending condition has a tag twice; readers may not agree on which counts.")
        tags[pair[0]] = pair[1:]
    return kind, tags, data


def _number(tags: dict[str, list[str]], name: str) -> int | None:
    values = tags.get(name)
    if values is None:
        return None
    if len(values) != 1 or not values[0].isascii() or not values[0].isdigit() or len(values[0]) > 12:
        raise TokenLock(f"The tag {name} is not a number.")
    return int(values[0])


def _asks(tags: dict[str, list[str]], name: str, signatures: int) -> bool:
    """Whether so many signatures are asked for. One is what a lock asks for that does not say.

    Of 0 mints think differently: for some it is one, for others none at all, and NUT-11 calls it unspendable.
    """
    said = _number(tags, name)
    return said == signatures if said is not None else signatures == 1


def read_key_lock(secret: str) -> KeyLock:
    """The lock of a coin that one key can spend by itself (NUT-11), for good or until a locktime.

    Raises:
        TokenLock: any other condition, or none: SIG_ALL, several keys or signatures, unknown tags, and refund keys
            without a locktime, of which readers may think differently.
    """
    # Nostr clients write there what the coin is for, as in `["e", …]`: it conditions nothing.
    data, tags = _single(secret, more=_LETTER)
    locktime, refund = _number(tags, "locktime"), tags.get("refund", [])
    if locktime is None and "refund" in tags:
        raise TokenLock("A lock names a refund key and no locktime.")
    if len(refund) > _MAX_REFUNDS or not all(is_point(key) for key in (data, *refund)):
        raise TokenLock("A lock names a key that is none, or too many.")
    # A locktime of 0 is none for some and long past for others.
    if locktime == 0:
        raise TokenLock("A lock's locktime is 0.")
    return KeyLock(data, locktime, len(refund), "".join(tags.get("P", [])))


def _single(secret: str, more: re.Pattern[str] = _NONE) -> tuple[str, dict[str, list[str]]]:
    """Key and tags of a P2PK condition that one signature of one key meets. `more`: other tags that it may have.

    Raises:
        TokenLock: any other condition, or none.
    """
    found = condition(secret)
    if found is None:
        raise TokenLock("A coin is not locked.")
    kind, tags, data = found
    if kind != "P2PK":
        raise TokenLock("A coin is locked in another way than to a public key.")
    unknown = [name for name in tags if name not in _KNOWN_TAGS and not more.fullmatch(name)]
    if unknown or "pubkeys" in tags:
        raise TokenLock("A lock has further keys or unknown tags.")
    if tags.get("sigflag", ["SIG_INPUTS"]) != ["SIG_INPUTS"]:
        raise TokenLock("A lock asks for another kind of signature.")
    if not _asks(tags, "n_sigs", 1) or not _asks(tags, "n_sigs_refund", 1):
        raise TokenLock("A lock asks for several signatures.")
    return data, tags


def read_lock(secret: str) -> Lock:
    """The lock of a coin that is spendable by one key, with a refund to one key (NUT-11).

    Raises:
        TokenLock: any other condition, or none: SIG_ALL, several keys or signatures, unknown tags, no refund.
    """
    data, tags = _single(secret)
    locktime, refund = _number(tags, "locktime"), tags.get("refund", [])
    # Without a refund key anyone may spend the coin after the locktime.
    if locktime is None or len(refund) != 1:
        raise TokenLock("A lock needs a locktime and one refund key.")
    if not is_point(data) or not is_point(refund[0]):
        raise TokenLock("A lock names a key that is none.")
    return Lock(data, locktime, refund[0])


def read_hash_lock(secret: str) -> HashLock:
    """The lock of a coin that is spendable with a preimage and all of one or two keys, with one refund key (NUT-14).

    Raises:
        TokenLock: any other condition, or none; further keys, fewer signatures than keys, a key twice, no refund.
    """
    found = condition(secret)
    if found is None:
        raise TokenLock("A coin is not locked.")
    kind, tags, data = found
    if kind != "HTLC":
        raise TokenLock("A coin is locked in another way than to a hash.")
    if not set(tags) <= _KNOWN_TAGS or tags.get("sigflag", ["SIG_INPUTS"]) != ["SIG_INPUTS"]:
        raise TokenLock("A lock has unknown tags or asks for another kind of signature.")
    keys, refund, locktime = tags.get("pubkeys", []), tags.get("refund", []), _number(tags, "locktime")
    if len(keys) not in (1, 2) or not _asks(tags, "n_sigs", len(keys)):
        raise TokenLock("A lock to a hash needs one or two keys, and the signatures of all of them.")
    # Without a refund key anyone may spend the coin after the locktime.
    if locktime is None or len(refund) != 1 or not _asks(tags, "n_sigs_refund", 1):
        raise TokenLock("A lock needs a locktime and one refund key.")
    lock = HashLock(data, keys[0], locktime, refund[0], "".join(keys[1:]))
    lock.check()
    return lock


def revealed(witness: str | None, hash_: str) -> str | None:
    """The preimage (lower hex) that a spent coin's witness shows (NUT-07, NUT-14); None if it shows none.

    It is read as loosely as any mint reads it: in capitals, with blanks, or shorter than 32 bytes. What the mint took
    for the preimage opens what was bought, however it was written.

    Args:
        witness: as the mint gave it; None where it withholds it.
        hash_: what the preimage must hash to.
    """
    try:
        body = json.loads(witness or "null")
        preimage = body.get("preimage") if isinstance(body, dict) else None
        raw = bytes.fromhex(preimage) if isinstance(preimage, str) else b""
    except (ValueError, RecursionError):
        return None
    return raw.hex() if 0 < len(raw) <= MAX_PREIMAGE and sha256(raw).hexdigest() == hash_ else None
