import pytest

from relays.key import Keyring
from tests.wallet_part import BUYER_WORDS, SELLER_WORDS
from wallet.cashu.derive import Derivation
from wallet.cashu.proof import Dleq, Proof
from wallet.record import Plan, SealBroken, Vault

KEY = Keyring(BUYER_WORDS).derive("seal")
PROOF = Proof("01" + "ab" * 32, 8, "secret", "02" + "11" * 32, Dleq("11", "22", "33"))


def test_a_plan_reads_back_whole():
    derive = Derivation(Keyring(BUYER_WORDS))
    outputs = tuple(derive.output(PROOF.keyset, n, 1 << n, gives=n == 0) for n in range(3))
    plan = Plan(
        "digest", (PROOF,), ("refund", "op"), outputs, (outputs[:1],), 1, 2, "quote", "lnbc", 5, {"price": 1, "a": "b"}
    )
    assert Plan.from_json(plan.to_json()) == plan


def test_sealed_bytes_open_only_for_their_own_row_under_their_own_key():
    vault = Vault(KEY)
    sealed = vault.seal_proof(PROOF)
    assert vault.open_proof(sealed, PROOF.y) == PROOF
    assert b"secret" not in sealed
    assert vault.seal_proof(PROOF) != sealed
    for attempt in (
        lambda: vault.open_proof(sealed, "02" + "00" * 32),
        lambda: vault.open_proof(sealed[:-1] + bytes([sealed[-1] ^ 1]), PROOF.y),
        lambda: vault.open_proof(b"", PROOF.y),
        lambda: Vault(Keyring(SELLER_WORDS).derive("seal")).open_proof(sealed, PROOF.y),
    ):
        with pytest.raises(SealBroken):
            attempt()
