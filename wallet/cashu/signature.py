"""The mint's blind signatures, checked on arrival (NUT-00, 12), and ours on inputs and quotes (NUT-11, 20). Pure."""

import json
from collections.abc import Sequence
from hashlib import sha256

from relays.key import Key
from wallet.cashu.curve import hashed, point, scalar
from wallet.cashu.fence import alice_verify_dleq, step3_alice
from wallet.cashu.proof import Dleq, Output, Proof, Signature
from wallet.error import MintLied


def unblind(output: Output, signature: Signature, mint_key: str) -> Proof:
    """The coin, once the signature was found to be what we asked for.

    Raises:
        MintLied: another amount or keyset, no DLEQ, or one that does not hold.
    """
    if signature.keyset != output.keyset or signature.amount != output.amount:
        raise MintLied("The mint signed another amount or keyset than we asked for.")
    try:
        blinded, key = point(signature.c), point(mint_key)
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
        key, r = point(mint_key), scalar(proof.dleq.r)
        blinded = point(proof.c) + key * r
        message = hashed(proof.secret) + r.public_key
        return bool(alice_verify_dleq(message, blinded, scalar(proof.dleq.e), scalar(proof.dleq.s), key))
    except ValueError:
        return False


def witness(secret: str, key: Key) -> str:
    """The NUT-11 witness for one input: a signature over the secret."""
    signature = key.sign_digest(sha256(secret.encode()).digest())
    return json.dumps({"signatures": [signature.hex()]})


def quote_signature(quote: str, outputs: Sequence[Output], key: Key) -> str:
    """The NUT-20 signature without which nobody else can mint our paid quote."""
    message = quote.encode() + b"".join(output.b.encode() for output in outputs)
    return key.sign_digest(sha256(message).digest()).hex()
