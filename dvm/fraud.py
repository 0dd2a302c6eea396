"""Proof of a fraud that needs nobody's word: the key that was paid for does not open a sealed result (ADR 25). Pure.

The seller has signed, in one event, the hash of its preimage, the hashes of the sealed and of the plain text, the
request and both keys of the seal. So the cipher key follows from the preimage, which the mint shows once the money was
taken, and from the buyer's secret key for this job, which it discloses: it was used for this job alone. Whoever has the
three can try it. The buyer can alter none of them: the preimage must have the hash, the key the public half, and the
sealed text the hash that the seller signed; and with them an honest seller's result opens.

What is true to its hash and of no use is no fraud.
"""

import re
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from core.error import VendoError
from core.identifier import is_hex64
from dvm.error import BadSeal, NoFraud
from dvm.receipt import NAMESPACE
from dvm.seal import Pair, check_sealed, is_key, open_sealed
from relays.blob import is_pointer, sealed_part
from relays.error import ForgedEvent, MalformedEvent
from relays.event import MAX_EVENT_BYTES, Draft, Event, parse, verify
from relays.key import Key
from relays.nip32 import label_draft, read_label
from relays.nip90 import JobResult, read_answer
from wallet.cashu.lock import MAX_PREIMAGE

FRAUD = "fraud"  # the word in `dvm.settled`
FORM = "vendo/fraud/1"
MAX_PROOF_CHARS = 4 * MAX_EVENT_BYTES  # a sealed text that is not in its event stands beside it
_PREIMAGE = re.compile(f"(?:[0-9a-f]{{2}}){{1,{MAX_PREIMAGE}}}")
_FIELDS = {"form", "result", "preimage", "key", "sealed"}


@dataclass(frozen=True, slots=True)
class Proof:
    """What is shown. Having one does not mean that it proves anything: see `examine`.

    Attributes:
        result: the sealed result as its seller signed it.
        preimage: what the mint has shown.
        key: the buyer's secret half of the seal. Whoever has it and the preimage can read this result, and no other.
        sealed: the sealed text as base64, where it is not the content of the event itself.
    """

    result: Event
    preimage: bytes = field(repr=False)
    key: bytes = field(repr=False)
    sealed: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether it is proven, and why or why not. Seller, request and result are empty where the event is forged."""

    proven: bool
    reason: str
    seller: str = ""
    request_id: str = ""
    result_id: str = ""
    kind: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "proven": self.proven,
            "reason": self.reason,
            "seller": self.seller or None,
            "request_id": self.request_id or None,
            "result_id": self.result_id or None,
            "kind": self.kind or None,
        }


def examine(proof: Proof) -> Finding:
    """Check all of it: signature and id, the preimage's hash, the key, the sealed text's hash, and what it opens to."""
    try:
        verify(proof.result)
        answer = read_answer(proof.result)
    except (ForgedEvent, MalformedEvent) as error:
        return Finding(False, f"The result is not its seller's: {error.message}")
    if not isinstance(answer, JobResult) or answer.seal is None:
        return _not(proof, "The event is no sealed result that names the keys of its seal.")
    seal = answer.seal
    sellers, buyers = seal.keys
    if sha256(proof.preimage).hexdigest() != seal.hash:
        return _not(proof, "The preimage is not the one whose hash the seller signed.")
    if not is_key(sellers) or not is_key(buyers):
        return _not(proof, "A key of the seal is no point: no buyer pays for that.")
    try:
        ours = Key(proof.key)
    except ValueError:
        return _not(proof, "The buyer's key is no secret key.")
    if ours.compressed != buyers:
        return _not(proof, "The buyer's key is not the one that the seller signed.")
    try:
        text = proof.sealed or sealed_part(proof.result)
        check_sealed(text, seal.ct_hash)
    except (BadSeal, MalformedEvent):
        return _not(proof, "The sealed text is not the one whose hash the seller signed: no buyer pays for that.")
    try:
        open_sealed(text, seal.pt_hash, proof.preimage, Pair(ours, sellers, answer.request_id))
    except BadSeal as error:
        return Finding(True, error.message, answer.seller, answer.request_id, answer.event_id, answer.kind)
    if is_pointer(proof.result):
        return _not(
            proof, "The seal opens to a large result's key as signed. Whether that opens its bytes is not examined."
        )
    return _not(proof, "The key opens what the seller signed: that is no fraud, whatever it is worth.")


def _not(proof: Proof, reason: str) -> Finding:
    """Not proven, by an event that is its seller's."""
    return Finding(False, reason, proof.result.pubkey, result_id=proof.result.id, kind=proof.result.kind)


def make(result: Event, preimage: str, key: bytes) -> Proof:
    """A proof that stands.

    Args:
        result: the sealed result as its seller signed it.
        preimage: hex.
        key: the buyer's secret half of the seal.

    Raises:
        NoFraud: nothing is proven by it.
    """
    if not _PREIMAGE.fullmatch(preimage):
        raise NoFraud("The mint has shown no preimage for this job.")
    proof = Proof(result, bytes.fromhex(preimage), key)
    finding = examine(proof)
    if not finding.proven:
        raise NoFraud(f"No fraud can be shown: {finding.reason}")
    return proof


def told(result_id: str) -> str:
    """Why a seller is not trusted, in few words."""
    return f"the key that was paid for does not open what it signed, in the result {result_id}"


# ---- as one document


def to_dict(proof: Proof) -> dict[str, Any]:
    """For JSON."""
    whole = {
        "form": FORM,
        "result": proof.result.to_dict(),
        "preimage": proof.preimage.hex(),
        "key": proof.key.hex(),
    }
    return whole | ({"sealed": proof.sealed} if proof.sealed else {})


def encode(proof: Proof) -> str:
    """As JSON text."""
    return orjson.dumps(to_dict(proof)).decode()


def decode(text: str) -> Proof:
    """A proof out of JSON text, its form checked and nothing else.

    Raises:
        MalformedEvent: it is none, or too long.
    """
    if len(text) > MAX_PROOF_CHARS:
        raise MalformedEvent("A proof of fraud is not that long.")
    try:
        whole: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("A proof of fraud is JSON.") from error
    if type(whole) is not dict or whole.get("form") != FORM or whole.keys() - _FIELDS:
        raise MalformedEvent(f"This is not a proof of the form {FORM}.")
    preimage, key, sealed = whole.get("preimage"), whole.get("key"), whole.get("sealed", "")
    if not _PREIMAGE.fullmatch(str(preimage)) or not is_hex64(key) or type(sealed) is not str:
        raise MalformedEvent("Preimage and key are bytes in hex, and a sealed text is a text.")
    return Proof(parse(whole.get("result")), bytes.fromhex(str(preimage)), bytes.fromhex(str(key)), sealed)


# ---- as a label


def fraud_draft(proof: Proof, created_at: int) -> Draft:
    """The label (NIP-32) that tells of it.

    Raises:
        NoFraud: it proves nothing.
        MalformedEvent: it does not fit one event.
    """
    finding = examine(proof)
    if not finding.proven:
        raise NoFraud(finding.reason)
    tags = [
        ("e", finding.request_id),
        ("e", finding.result_id),
        ("p", finding.seller),
        ("k", str(finding.kind - 1_000)),
    ]
    draft = label_draft(NAMESPACE, FRAUD, tags, encode(proof), created_at)
    if len(orjson.dumps([draft.tags, draft.content])) + 400 > MAX_EVENT_BYTES:
        raise MalformedEvent("The proof is too long for an event; it can be given as a file.")
    return draft


def read_fraud(event: Event) -> Finding:
    """What a verified label of somebody proves, of the seller that it names.

    Raises:
        MalformedEvent: it is no such label, or names another seller than its proof does.
    """
    if read_label(event, NAMESPACE).word != FRAUD:
        raise MalformedEvent("This label tells of no fraud.")
    finding = examine(decode(event.content))
    if finding.seller not in event.values("p"):
        raise MalformedEvent("The label names another seller than its proof.")
    return finding


def read_any(text: str) -> Finding:
    """What a document proves, be it a proof or the label of one.

    Raises:
        MalformedEvent: it is neither.
    """
    if len(text) > MAX_PROOF_CHARS:
        raise MalformedEvent("A proof of fraud is not that long.")
    try:
        whole: Any = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("A proof of fraud is JSON.") from error
    if type(whole) is not dict or "sig" not in whole:
        return examine(decode(text))
    label = parse(whole)
    try:
        verify(label)
    except VendoError as error:
        raise MalformedEvent("The label is forged.") from error
    return read_fraud(label)
