"""Keys under a passphrase, checked against the text of NIP-49 with other implementations of its ciphers."""

import hashlib
import unicodedata

import bech32
import pytest
from Cryptodome.Cipher import ChaCha20_Poly1305

from core.error import InvalidInput
from relays.error import WrongPassphrase
from relays.key import Key
from relays.nip49 import MAX_LOG_N, decrypt_key, encrypt_key, log_n_of

COST = 10


def opened_by_the_text(text: str, passphrase: str) -> bytes:
    """NIP-49, step by step: version, log_n, salt, nonce, associated data, ciphertext."""
    _, words = bech32.bech32_decode(text) if len(text) <= 90 else (None, None)
    if words is None:  # the library stops at 90 characters
        words = ["qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(letter) for letter in text.partition("1")[2][:-6]]
    raw = bytes(bech32.convertbits(words, 5, 8, False))
    assert raw[0] == 2
    log_n, salt, nonce, data, sealed = raw[1], raw[2:18], raw[18:42], raw[42:43], raw[43:]
    normal = unicodedata.normalize("NFKC", passphrase).encode()
    key = hashlib.scrypt(normal, salt=salt, n=1 << log_n, r=8, p=1, dklen=32, maxmem=1 << 30)
    cipher = ChaCha20_Poly1305.new(key=key, nonce=nonce)
    cipher.update(data)
    return cipher.decrypt_and_verify(sealed[:-16], sealed[-16:])


@pytest.mark.parametrize("passphrase", ["simple", "ÅΩẛ̣", "  spaces kept  "])
def test_the_form_is_that_of_the_text(passphrase):
    key = Key.generate()
    text = encrypt_key(key, passphrase, COST)
    assert opened_by_the_text(text, passphrase) == key.secret
    assert decrypt_key(text, passphrase).pubkey == key.pubkey
    assert log_n_of(text) == COST


def test_another_passphrase_opens_nothing():
    text = encrypt_key(Key.generate(), "right", COST)
    with pytest.raises(WrongPassphrase):
        decrypt_key(text, "wrong")


def test_each_encryption_is_another():
    key = Key.generate()
    assert encrypt_key(key, "p", COST) != encrypt_key(key, "p", COST)


def test_every_changed_letter_is_noticed():
    text = encrypt_key(Key.generate(), "p", COST)
    for place in range(0, len(text), 7):
        changed = text[:place] + ("q" if text[place] != "q" else "p") + text[place + 1 :]
        with pytest.raises(InvalidInput):
            decrypt_key(changed, "p")


def test_a_cost_that_would_take_all_memory_is_refused_before_it_is_computed():
    text = encrypt_key(Key.generate(), "p", COST)
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    bits = (2 << 12) | (40 << 4)
    head = "".join(letters[(bits >> shift) & 31] for shift in (15, 10, 5, 0))
    dear = text[:10] + head + text[14:]
    assert log_n_of(dear) == 40 > MAX_LOG_N
    with pytest.raises(InvalidInput, match="40"):
        decrypt_key(dear, "p")


@pytest.mark.parametrize(("passphrase", "log_n"), [("", COST), ("p", 9), ("p", 23)])
def test_no_passphrase_and_costs_out_of_range_are_refused(passphrase, log_n):
    with pytest.raises(InvalidInput):
        encrypt_key(Key.generate(), passphrase, log_n)
