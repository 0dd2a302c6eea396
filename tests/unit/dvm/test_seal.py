"""Sealed results: who can open them, and what a lying author cannot hide."""

import base64
from dataclasses import replace

import pytest

from dvm.error import BadSeal
from dvm.seal import Pair, check_sealed, hash_of, is_key, open_sealed, preimage_of, seal
from relays.key import Key, Keyring
from tests.wallet_part import BUYER_WORDS, SELLER_WORDS

REQUEST = "ab" * 32
BUYER, SELLER, MINT = (Key(bytes([number]) * 32) for number in (1, 2, 3))
PREIMAGE = preimage_of(Keyring(SELLER_WORDS), REQUEST)
OURS = Pair(SELLER, BUYER.compressed, REQUEST)
THEIRS = Pair(BUYER, SELLER.compressed, REQUEST)
TEXT = "a result, with ünïcode"
SEALED = seal(TEXT, PREIMAGE, OURS)


def test_the_buyer_opens_with_the_key_what_the_seller_sealed():
    check_sealed(SEALED.content, SEALED.ct_hash)
    assert open_sealed(SEALED.content, SEALED.pt_hash, PREIMAGE, THEIRS) == TEXT
    assert TEXT.encode() not in base64.b64decode(SEALED.content)


def test_a_sellers_preimage_comes_from_its_seed_and_the_request():
    again = Keyring(SELLER_WORDS)
    assert preimage_of(again, REQUEST) == PREIMAGE
    assert preimage_of(again, "cd" * 32) != PREIMAGE
    assert preimage_of(Keyring(BUYER_WORDS), REQUEST) != PREIMAGE
    assert len(hash_of(PREIMAGE)) == 64


@pytest.mark.parametrize(
    "pair",
    [
        Pair(MINT, SELLER.compressed, REQUEST),  # the mint knows the preimage and none of the two keys
        Pair(MINT, BUYER.compressed, REQUEST),
        replace(THEIRS, request_id="cd" * 32),
    ],
)
def test_whoever_knows_only_the_preimage_reads_nothing(pair):
    with pytest.raises(BadSeal):
        open_sealed(SEALED.content, SEALED.pt_hash, PREIMAGE, pair)


def test_without_the_preimage_the_buyer_reads_nothing():
    with pytest.raises(BadSeal):
        open_sealed(SEALED.content, SEALED.pt_hash, b"\0" * 32, THEIRS)


def test_another_sealed_text_than_the_signed_one_is_noticed_before_it_is_paid_for():
    other = seal("junk", PREIMAGE, OURS)
    for content in (other.content, SEALED.content[:-4], "no base64!", "", base64.b64encode(b"short").decode()):
        with pytest.raises(BadSeal):
            check_sealed(content, SEALED.ct_hash)


def test_a_seal_that_opens_to_something_else_than_was_signed_is_fraud():
    other = seal("junk", PREIMAGE, OURS)
    with pytest.raises(BadSeal):
        open_sealed(other.content, SEALED.pt_hash, PREIMAGE, THEIRS)
    with pytest.raises(BadSeal):
        open_sealed(base64.b64encode(b"\0" * 60).decode(), SEALED.pt_hash, PREIMAGE, THEIRS)


def test_the_hash_of_a_short_text_does_not_tell_it():
    """Somebody who guesses the text cannot check the guess: the hash is keyed."""
    assert SEALED.pt_hash not in {hash_of(TEXT.encode()), hash_of(PREIMAGE + TEXT.encode())}
    assert seal(TEXT, PREIMAGE, replace(OURS, request_id="cd" * 32)).pt_hash != SEALED.pt_hash


def test_work_that_was_done_twice_uses_another_nonce():
    assert seal(TEXT, PREIMAGE, OURS) == SEALED
    other = base64.b64decode(seal(TEXT + "!", PREIMAGE, OURS).content)
    assert other[:12] != base64.b64decode(SEALED.content)[:12]


def test_only_points_are_keys():
    assert is_key(BUYER.compressed)
    for bad in ("", "04" * 33, BUYER.compressed.upper(), BUYER.pubkey, "zz" + BUYER.pubkey, "02" + "ff" * 32):
        assert not is_key(bad)
