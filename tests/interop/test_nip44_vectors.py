"""NIP-44's official vectors, as the Go module of go-nostr ships them (its digest is checked when they are fetched).

Our code takes keys and never a conversation key, so the vectors are used twice: they prove a small implementation
from the NIP's text, and that one then measures ours: same keys, same payloads, the same refusals.
"""

import base64
import hashlib
import itertools
import json

import pytest

from core.error import InvalidInput, VendoError
from core.identifier import PubKey
from relays.error import NotForUs
from relays.key import Key
from tests.conftest import ROOT
from tests.interop.nip44_part import Refused, decrypt, encrypt, message_keys, pad, padded_length, seal

pytestmark = pytest.mark.needs("relays")
NONCE = bytes(range(32))


@pytest.fixture(scope="module")
def vectors():
    return json.loads((ROOT / ".tool/nip44.vectors.json").read_text(encoding="utf-8"))


def secret(text):
    return Key(bytes.fromhex(text))


def payload_for(key, peer):
    """What `decrypt` of ours yields for a payload of the given conversation key, made by other means."""
    return lambda conversation_key, text: key.decrypt(peer, encrypt(bytes.fromhex(conversation_key), NONCE, text))


def test_every_group_of_vectors_is_there(vectors):
    assert {name: len(cases) for name, cases in vectors.items()} == {
        "assertConversationKeyFail": 8, "assertConversationKeyGenerationPub": 35, "assertCryptLong": 3,
        "assertCryptPriv": 11, "assertDecryptFail": 12, "assertMessageKeyGeneration": 32,
    }  # fmt: skip


def test_message_keys_are_the_vectors_keys(vectors):
    for conversation_key, nonce, *wanted in vectors["assertMessageKeyGeneration"]:
        found = message_keys(bytes.fromhex(conversation_key), bytes.fromhex(nonce))
        assert [part.hex() for part in found] == wanted


def test_payloads_decrypt_with_either_secret_key(vectors):
    for first, second, conversation_key, nonce, text, payload in vectors["assertCryptPriv"]:
        one, two = secret(first), secret(second)
        assert encrypt(bytes.fromhex(conversation_key), bytes.fromhex(nonce), text) == payload
        assert one.decrypt(two.pubkey, payload) == text
        assert two.decrypt(one.pubkey, payload) == text


def test_long_texts_make_the_payload_of_the_vectors_and_decrypt(vectors):
    for conversation_key, nonce, pattern, repeat, text_digest, payload_digest in vectors["assertCryptLong"]:
        text = pattern * int(repeat)
        assert hashlib.sha256(text.encode()).hexdigest() == text_digest
        payload = encrypt(bytes.fromhex(conversation_key), bytes.fromhex(nonce), text)
        assert hashlib.sha256(payload.encode()).hexdigest() == payload_digest
        assert decrypt(bytes.fromhex(conversation_key), payload) == text


def test_our_keys_derive_the_vectors_conversation_keys(vectors):
    for first, pubkey, conversation_key in vectors["assertConversationKeyGenerationPub"]:
        key = secret(first)
        assert payload_for(key, PubKey(pubkey))(conversation_key, "the same key") == "the same key"
        assert decrypt(bytes.fromhex(conversation_key), key.encrypt(PubKey(pubkey), "and back")) == "and back"


def test_a_payload_of_another_conversation_key_is_refused(vectors):
    cases = vectors["assertConversationKeyGenerationPub"]
    for (first, pubkey, own), (_, _, other) in itertools.pairwise(cases):
        if own != other:
            with pytest.raises(NotForUs):
                payload_for(secret(first), PubKey(pubkey))(other, "not for us")


def test_keys_that_are_none_are_refused(vectors):
    for first, pubkey, _ in vectors["assertConversationKeyFail"]:
        with pytest.raises((VendoError, ValueError)):
            secret(first).encrypt(PubKey(pubkey), "a")


def test_payloads_that_break_the_rules_are_refused(vectors):
    for conversation_key, _, payload, reason in vectors["assertDecryptFail"]:
        with pytest.raises(Refused):
            decrypt(bytes.fromhex(conversation_key), payload)
        with pytest.raises(NotForUs):
            Key(b"\x01" * 32).decrypt(Key(b"\x02" * 32).pubkey, payload)
        assert reason


@pytest.fixture
def pair(vectors):
    """Two keys of ours, with the conversation key that the vectors give for them."""
    first, second, conversation_key, *_ = vectors["assertCryptPriv"][0]
    return secret(first), secret(second), bytes.fromhex(conversation_key)


def _padding(text, *, length=None, zeros=None):
    rest = padded_length(len(text)) - len(text) if zeros is None else zeros
    return (len(text) if length is None else length).to_bytes(2, "big") + text + bytes(rest)


FAULTS = {
    "the version is 1": lambda key: seal(key, NONCE, pad(b"a"), version=1),
    "the version is 3": lambda key: seal(key, NONCE, pad(b"a"), version=3),
    "a mark for a future version": lambda key: "#" + encrypt(key, NONCE, "a"),
    "not base64": lambda key: encrypt(key, NONCE, "a")[:-8] + "ふふ" + "A" * 6,
    "nothing": lambda key: "",
    "too short": lambda key: encrypt(key, NONCE, "a")[:128],
    "too few zeros": lambda key: seal(key, NONCE, _padding(b"a" * 40, zeros=8)),
    "too many zeros": lambda key: seal(key, NONCE, _padding(b"a", zeros=63)),
    "a length of zero": lambda key: seal(key, NONCE, _padding(b"a", length=0)),
    "a length beyond the text": lambda key: seal(key, NONCE, _padding(b"a", length=200)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_under_the_right_key_is_refused(pair, name):
    one, two, conversation_key = pair
    assert one.decrypt(two.pubkey, encrypt(conversation_key, NONCE, "a")) == "a"
    with pytest.raises(NotForUs):
        one.decrypt(two.pubkey, FAULTS[name](conversation_key))


def test_one_changed_bit_anywhere_is_refused(pair):
    one, two, conversation_key = pair
    raw = base64.b64decode(encrypt(conversation_key, NONCE, "authenticated"))
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(NotForUs):
            one.decrypt(two.pubkey, base64.b64encode(changed).decode())


@pytest.mark.parametrize("length", [1, 16, 31, 32, 33, 37, 45, 49, 64, 65, 100, 111, 200, 250, 320, 383, 384, 400, 500,
                                    512, 515, 700, 800, 900, 1020, 65_408])  # fmt: skip
def test_texts_are_padded_as_the_text_of_the_nip_says(pair, length):
    one, two, conversation_key = pair
    payload = one.encrypt(two.pubkey, "x" * length)
    assert len(base64.b64decode(payload)) == 1 + 32 + 2 + padded_length(length) + 32
    assert decrypt(conversation_key, payload) == "x" * length


@pytest.mark.parametrize("length", [0, 65_536, 100_000, 10_000_000])
def test_a_text_of_no_or_of_too_many_bytes_is_not_encrypted(pair, length):
    one, two, _ = pair
    with pytest.raises(InvalidInput):
        one.encrypt(two.pubkey, "x" * length)


def test_the_longest_text_of_the_nip_is_read(pair):
    one, two, conversation_key = pair
    text = "x" * 65_535
    assert one.decrypt(two.pubkey, encrypt(conversation_key, NONCE, text)) == text


def test_each_payload_has_a_nonce_of_its_own(pair):
    one, two, _ = pair
    assert len({base64.b64decode(one.encrypt(two.pubkey, "again"))[1:33] for _ in range(50)}) == 50
