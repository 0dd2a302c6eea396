"""Proofs of fraud: what stands, and that nobody can frame an honest seller with one."""

import base64
from dataclasses import replace
from hashlib import sha256

import orjson
import pytest

from dvm.error import NoFraud
from dvm.fraud import (
    FRAUD,
    MAX_PROOF_CHARS,
    Proof,
    decode,
    encode,
    examine,
    fraud_draft,
    make,
    read_any,
    read_fraud,
)
from dvm.receipt import NAMESPACE
from dvm.renown import standing
from dvm.seal import Sealed, seal
from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.key import Key
from relays.nip32 import label_draft
from tests.fraud_part import NOW, Swap

SWAP = Swap()
OTHER = Swap(question="another question", ours=Key(b"\7" * 32), preimage=b"\x08" * 32)
GOOD, BAD = SWAP.result(), SWAP.lie()
READER = Key(b"\x09" * 32)


def altered(event: Event, **changes) -> Event:
    """As somebody else would change it who cannot sign for its author."""
    return replace(event, **changes)


def resigned(event: Event, by: Key) -> Event:
    return by.sign(Draft(event.kind, event.content, event.tags, event.created_at))


def retagged(event: Event, name: str, *values: str) -> Event:
    """Signed by the seller itself with another tag: what it may do and its accuser may not."""
    kept = tuple((name, *values) if tag[0] == name else tag for tag in event.tags)
    return SWAP.seller.sign(Draft(event.kind, event.content, kept, event.created_at))


def test_a_result_that_opens_to_something_else_than_was_signed_is_proven_a_fraud():
    finding = examine(make(BAD, SWAP.preimage.hex(), SWAP.ours.secret))
    assert (finding.proven, finding.seller, finding.request_id) == (True, SWAP.seller.pubkey, SWAP.request.id)
    assert (finding.result_id, finding.kind) == (BAD.id, 6050)


@pytest.mark.parametrize(
    "sealed",
    [
        seal("what was asked for", b"\x0a" * 32, SWAP.pair),  # under another preimage than the signed one
        seal("what was asked for", SWAP.preimage, OTHER.pair),  # with other keys
        seal("what was asked for", SWAP.preimage, replace(SWAP.pair, request_id="ab" * 32)),
    ],
)
def test_a_result_that_does_not_open_at_all_is_proven_a_fraud(sealed: Sealed):
    assert examine(SWAP.proof(SWAP.result(sealed))).proven


PROOF = SWAP.proof(GOOD)
FORGERIES = {
    "an honest result": PROOF,
    "another preimage": replace(PROOF, preimage=OTHER.preimage),
    "another key for the job": replace(PROOF, key=OTHER.ours.secret),
    "the negated key, which gives the same point but for its sign": replace(
        PROOF, key=(0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
                    - int.from_bytes(SWAP.ours.secret, "big")).to_bytes(32, "big"),
    ),
    "no secret key at all": replace(PROOF, key=b"\0" * 32),
    "an altered sealed text": replace(PROOF, result=altered(GOOD, content=BAD.content)),
    "an altered sealed text beside the event": replace(PROOF, sealed=BAD.content),
    "sealed text that is not base64": replace(PROOF, sealed="no base64!"),
    "altered hashes": replace(PROOF, result=altered(GOOD, tags=BAD.tags)),
    "an altered id": replace(PROOF, result=altered(GOOD, id=BAD.id)),
    "another's signature": replace(PROOF, result=altered(GOOD, sig=BAD.sig)),
    "a result that somebody else signed": replace(PROOF, result=altered(resigned(BAD, READER), pubkey=GOOD.pubkey)),
    "the fraud of another job": replace(PROOF, result=OTHER.lie()),
    "the other job's preimage with this job's key": replace(
        PROOF, result=OTHER.lie(), preimage=OTHER.preimage
    ),
    "a quote": replace(PROOF, result=SWAP.seller.sign(Draft(7000, "", (("e", SWAP.request.id),), NOW))),
    "a result without a seal": replace(PROOF, result=SWAP.seller.sign(Draft(6050, "x", GOOD.tags[:3], NOW))),
    "a result that names no keys": replace(PROOF, result=retagged(GOOD, *GOOD.all("seal")[0][:5])),
    "a key of the seller that is no point": replace(
        PROOF, result=SWAP.result(keys=("02" + "ff" * 32, SWAP.ours.compressed))
    ),
    "a sealed text of another hash, which nobody pays for": replace(PROOF, result=SWAP.result(ct_hash="ab" * 32)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGERIES)
def test_an_honest_seller_cannot_be_framed(name: str):
    proof = FORGERIES[name]
    finding = examine(proof)
    assert not finding.proven, name
    assert finding.reason.endswith((".", "is worth.")), "people are told why"
    with pytest.raises(NoFraud):
        make(proof.result, proof.preimage.hex(), proof.key) if not proof.sealed else fraud_draft(proof, NOW)


def test_whoever_signs_junk_accuses_himself_alone():
    forged = resigned(BAD, READER)
    finding = examine(SWAP.proof(forged))
    assert finding.seller == READER.pubkey != SWAP.seller.pubkey


def test_a_document_says_what_it_said_and_shows_no_secret_in_a_log():
    proof = SWAP.proof(BAD)
    assert decode(encode(proof)) == proof
    beside = replace(SWAP.proof(GOOD), sealed=GOOD.content)
    assert decode(encode(beside)) == beside
    for secret in (SWAP.ours.secret, SWAP.preimage):
        assert repr(secret) not in repr(proof)
        assert secret.hex() not in repr(proof)


WHOLE = orjson.loads(encode(SWAP.proof(BAD)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "[" * 5_000,
        orjson.dumps(WHOLE | {"form": "vendo/fraud/2"}).decode(),
        orjson.dumps(WHOLE | {"more": 1}).decode(),
        orjson.dumps(WHOLE | {"preimage": "abc"}).decode(),
        orjson.dumps(WHOLE | {"preimage": ""}).decode(),
        orjson.dumps(WHOLE | {"preimage": "ab" * 65}).decode(),
        orjson.dumps(WHOLE | {"preimage": 5}).decode(),
        orjson.dumps(WHOLE | {"key": None}).decode(),
        orjson.dumps(WHOLE | {"sealed": 7}).decode(),
        orjson.dumps(WHOLE | {"result": {}}).decode(),
        orjson.dumps(WHOLE | {"result": WHOLE["result"] | {"kind": "6050"}}).decode(),
        orjson.dumps(WHOLE | {"sealed": "A" * MAX_PROOF_CHARS}).decode(),
    ],
)
def test_what_is_no_proof_or_too_long_is_said_to_be_none(text: str):
    for read in (decode, read_any):
        with pytest.raises(MalformedEvent):
            read(text)


def label(proof: Proof, *, seller: str = SWAP.seller.pubkey, word: str = FRAUD) -> Event:
    return READER.sign(label_draft(NAMESPACE, word, [("p", seller)], encode(proof), NOW))


def test_a_label_tells_of_it_and_anybody_can_check_it():
    event = READER.sign(fraud_draft(SWAP.proof(BAD), NOW))
    assert read_fraud(event).proven
    assert event.values("e") == [SWAP.request.id, BAD.id]
    assert (event.value("p"), event.value("k")) == (SWAP.seller.pubkey, "5050")
    assert read_any(event.to_json()).proven
    assert read_any(encode(SWAP.proof(BAD))).proven


def test_a_label_that_proves_nothing_counts_for_nothing():
    with pytest.raises(NoFraud):
        fraud_draft(SWAP.proof(GOOD), NOW)
    assert not read_fraud(label(SWAP.proof(GOOD))).proven
    for other in (label(SWAP.proof(BAD), seller=READER.pubkey), label(SWAP.proof(BAD), word="delivered")):
        with pytest.raises(MalformedEvent):
            read_fraud(other)
    forged = replace(label(SWAP.proof(BAD)), sig="ab" * 64)
    with pytest.raises(MalformedEvent):
        read_any(forged.to_json())


def test_a_proof_that_is_too_long_for_an_event_is_not_published():
    long = Swap(text="x" * 48_600)
    with pytest.raises(MalformedEvent, match="as a file"):
        fraud_draft(long.proof(long.result(replace(long.sealed(), pt_hash="ab" * 32))), NOW)


def test_one_proven_fraud_makes_a_seller_untrusted_and_says_why():
    found = standing((), NOW, [BAD.id])
    assert (found.score, found.frauds) == (0, (BAD.id,))
    assert BAD.id in found.reasons[0]
    assert "nothing else is known" in found.reasons[-1]
    many = standing((), NOW, [str(number) for number in range(9)])
    assert len(many.reasons) == 4


def test_a_sealed_text_with_one_bit_changed_before_it_was_signed_is_a_fraud():
    raw = base64.b64decode(SWAP.sealed().content)
    flipped = base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode()
    ct_hash = sha256(base64.b64decode(flipped)).hexdigest()
    assert examine(SWAP.proof(SWAP.result(Sealed(flipped, ct_hash, SWAP.sealed().pt_hash)))).proven
