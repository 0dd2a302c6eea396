"""Keys: derivation, signing, and the ciphers of NIP-04 and NIP-44."""

import hashlib

import nostr_sdk
import pytest
from coincurve import PublicKeyXOnly

from core.error import InvalidInput
from relays.error import KindForbidden, NotForUs
from relays.event import Draft, verify
from relays.key import Key, Keyring, parse_pubkey
from relays.local_signer import KeySigner
from relays.nip49 import encrypt_key

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"


def test_accounts_are_those_of_another_implementation_of_nip_06():
    ring = Keyring(WORDS)
    foreign = [nostr_sdk.Keys.from_mnemonic(WORDS, None, account).public_key().to_hex() for account in (0, 1)]
    assert [ring.operator.pubkey, ring.node.pubkey] == foreign
    drawn = 1_000 + int.from_bytes(hashlib.sha256(b"agent").digest()[:3], "big")
    assert ring.agent("agent").pubkey == nostr_sdk.Keys.from_mnemonic(WORDS, None, drawn).public_key().to_hex()


@pytest.mark.parametrize("account", [2, 999, 1_000, 77_777, 1 << 24, (1 << 31) - 1])
def test_any_account_is_that_of_another_implementation(account):
    ring = Keyring(WORDS)

    assert ring._account(account).pubkey == nostr_sdk.Keys.from_mnemonic(WORDS, None, account).public_key().to_hex()


def test_each_epoch_of_each_agent_has_a_key_of_its_own():
    ring = Keyring(WORDS)
    keys = {ring.agent(name, epoch).pubkey for name in ("a", "b", "a0") for epoch in range(4)}
    assert len(keys) == 12
    assert Keyring(WORDS).agent("a", 3).pubkey in keys


def test_signatures_are_valid_and_use_fresh_randomness():
    key, draft = Key.generate(), Draft(1, "words", (), 1_800_000_000)
    first, second = key.sign(draft), key.sign(draft)
    for event in (first, second):
        verify(event)
    assert first.id == second.id
    assert first.sig != second.sig


def test_a_digest_signature_is_one_of_another_implementation():
    key, hashed = Key.generate(), hashlib.sha256(b"x").digest()
    assert PublicKeyXOnly(bytes.fromhex(key.pubkey)).verify(key.sign_digest(hashed), hashed)
    with pytest.raises(ValueError, match="32"):
        key.sign_digest(hashed + b"\0")


def test_secrets_are_not_in_representations():
    key, ring = Key.generate(), Keyring(WORDS)
    shown = repr(key) + repr(ring) + repr(KeySigner(key))
    assert key.secret.hex() not in shown
    assert "legal" not in shown


async def test_a_signer_signs_its_kinds_and_no_others():
    signer = KeySigner(Key.generate(), frozenset({1}))
    verify(await signer.sign(Draft(1, "", (), 1)))
    with pytest.raises(KindForbidden):
        await signer.sign(Draft(4, "", (), 1))


async def test_ciphers_open_only_for_the_two_they_are_between():
    here, there, other = (KeySigner(Key.generate()) for _ in range(3))
    for close, open_ in (("encrypt", "decrypt"), ("encrypt_legacy", "decrypt_legacy")):
        payload = await getattr(here, close)(there.pubkey, "grüße")
        assert await getattr(there, open_)(here.pubkey, payload) == "grüße"
        assert payload != await getattr(here, close)(there.pubkey, "grüße")
        with pytest.raises(NotForUs):
            await getattr(there, open_)(here.pubkey, "junk")
    with pytest.raises(NotForUs):
        await other.decrypt(here.pubkey, await here.encrypt(there.pubkey, "x"))


async def test_what_cannot_be_encrypted_is_refused_as_input():
    signer, no_point = KeySigner(Key.generate()), "f" * 64
    for call in (signer.encrypt, signer.encrypt_legacy):
        with pytest.raises(InvalidInput):
            await call(no_point, "x")
    with pytest.raises(InvalidInput):
        await signer.encrypt(Key.generate().pubkey, "x" * 70_000)


def test_a_secret_key_in_the_place_of_a_public_one_is_not_repeated_in_the_error():
    key = Key.generate()
    for text in (key.nsec, key.nsec.upper(), "nostr:" + key.nsec, encrypt_key(key, "x", 10)):
        with pytest.raises(InvalidInput) as caught:
            parse_pubkey(text)
        assert text[10:30] not in str(caught.value)
    with pytest.raises(InvalidInput, match="npub1nonsense"):
        parse_pubkey("npub1nonsense")
