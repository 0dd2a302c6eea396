"""The mint's blind signatures, checked on arrival (NUT-00, 12), and ours on inputs and quotes (NUT-11, 20). Pure."""

import json
from collections.abc import Sequence
from hashlib import sha256

from coincurve import PublicKeyXOnly

from relays.key import Key
from wallet.cashu.curve import hashed, key_point, point, scalar
from wallet.cashu.fence import alice_verify_dleq, step3_alice
from wallet.cashu.proof import Dleq, Output, Proof, Signature
from wallet.error import MintLied

_MAX_SIGNATURES = 8
_SIGNATURE = 64  # bytes (BIP-340)


def unblind(output: Output, signature: Signature, mint_key: str) -> Proof:
    """The coin, once the signature was found to be what we asked for.

    Raises:
        MintLied: another amount or keyset, no DLEQ, or one that does not hold.
    """
    if signature.keyset != output.keyset or signature.amount != output.amount:
        raise MintLied("The mint signed another amount or keyset than we asked for.")
    try:
        blinded, key = point(signature.c), key_point(mint_key)
        holds = alice_verify_dleq(point(output.b), blinded, scalar(signature.e), scalar(signature.s), key)
        unblinded = step3_alice(blinded, scalar(output.r), key)
    except ValueError as error:
        raise MintLied("The mint's signature is not well formed.") from error
    if not holds:
        raise MintLied("The mint's signature has no valid DLEQ proof.")
    dleq = Dleq(signature.e, signature.s, output.r)
    return Proof(output.keyset, output.amount, output.secret, unblinded.format().hex(), dleq)


def was_signed(proof: Proof, mint_key: str) -> bool:
    """Whether the coin's DLEQ shows that the mint signed it. A coin without one was not shown to be."""
    if proof.dleq is None:
        return False
    try:
        key, r = key_point(mint_key), scalar(proof.dleq.r)
        blinded = point(proof.c) + key * r
        message = hashed(proof.secret) + r.public_key
        return bool(alice_verify_dleq(message, blinded, scalar(proof.dleq.e), scalar(proof.dleq.s), key))
    except ValueError:
        return False


def sign_secret(secret: str, key: Key) -> str:
    """A signature over one coin's secret (NUT-11, SIG_INPUTS), in hex."""
    return key.sign_digest(sha256(secret.encode()).digest()).hex()


def is_signed(secret: str, signature: str, pubkey: str) -> bool:
    """Whether this is the signature of the holder of `pubkey` (compressed hex) over a coin's secret."""
    try:
        raw, key = bytes.fromhex(signature), PublicKeyXOnly(bytes.fromhex(pubkey)[1:])
        whole = len(raw) == _SIGNATURE and len(signature) == 2 * _SIGNATURE  # no blanks: a witness may not be long
        return whole and bool(key.verify(raw, sha256(secret.encode()).digest()))
    except ValueError:
        return False


def witness(secret: str, key: Key, *, preimage: str = "", cosigned: str = "") -> str:
    """The witness for one input: our signature over the secret (NUT-11), and what a lock to a hash needs (NUT-14).

    Args:
        secret: the coin's.
        key: signs.
        preimage: 64 hex digits, or empty.
        cosigned: another holder's signature, or empty.
    """
    signatures = [sign_secret(secret, key), *([cosigned] if cosigned else [])]
    return json.dumps({"preimage": preimage, "signatures": signatures} if preimage else {"signatures": signatures})


def quote_signature(quote: str, outputs: Sequence[Output], key: Key) -> str:
    """The NUT-20 signature without which nobody else can mint our paid quote."""
    message = quote.encode() + b"".join(output.b.encode() for output in outputs)
    return key.sign_digest(sha256(message).digest()).hex()


def holds(signature: object, text: str, pubkey: str) -> bool:
    """Whether it is the key's signature (BIP-340, hex) on the SHA-256 of a text."""
    try:
        key = PublicKeyXOnly(bytes.fromhex(pubkey)[1:])
        return isinstance(signature, str) and key.verify(bytes.fromhex(signature), sha256(text.encode()).digest())
    except ValueError:
        return False


def signed_by(secret: str, witness: str | None, pubkey: str) -> bool:
    """Whether a witness, as a mint reports it of a spent coin, holds a signature of the key on the secret (NUT-11)."""
    try:
        said = json.loads(witness or "")
    except (ValueError, RecursionError):
        return False
    signatures = said.get("signatures") if isinstance(said, dict) else None
    return isinstance(signatures, list) and any(holds(one, secret, pubkey) for one in signatures[:_MAX_SIGNATURES])
