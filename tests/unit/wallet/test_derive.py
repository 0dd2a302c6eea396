import json
import subprocess
import sys

from relays.key import Keyring
from tests.wallet_part import BUYER_WORDS, SELLER_WORDS
from wallet.cashu.derive import Derivation, lock_name

KEYSETS = ["01" + "ab" * 32, "009a1f293253e41e"]
# The library's own derivation, run in a process of its own for its side effects on import.
PROGRAM = """
import asyncio, json, sys
from bip32 import BIP32
from mnemonic import Mnemonic
from cashu.wallet.secrets import WalletSecrets
class Plain(WalletSecrets):
    def __init__(self, words):
        self.seed = Mnemonic.to_seed(words)
        self.bip32 = BIP32.from_seed(self.seed)
async def main():
    wallet = Plain(sys.argv[1])
    found = []
    for keyset in json.loads(sys.argv[2]):
        for counter in (0, 1, 300):
            secret, r, _ = await wallet.generate_determinstic_secret(counter, keyset)
            found.append([secret.hex(), r.hex()])
    print(json.dumps(found))
asyncio.run(main())
"""


def test_secrets_and_blinding_factors_are_those_of_nut_13(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, BUYER_WORDS, json.dumps(KEYSETS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    derive = Derivation(Keyring(BUYER_WORDS))
    outputs = [derive.output(keyset, counter, 1) for keyset in KEYSETS for counter in (0, 1, 300)]
    assert [[output.secret, output.r] for output in outputs] == json.loads(ran.stdout), ran.stderr


def test_the_first_secret_of_nut_13s_own_vector():
    # NUT-13, test vectors for version 1 keysets.
    words = "half depart obvious quality work element tank gorilla view sugar picture humble"
    output = Derivation(Keyring(words)).output("009a1f293253e41e", 0, 1)
    assert output.secret == "485875df74771877439ac06339e284c3acfcd9be7abf3bc20b516faeadfe77ae"
    assert output.r == "ad00d431add9c673e843d4c2bf9a778a5f402b985b8da2d5550bf39cda41d679"


def test_locked_coins_derive_from_seed_operation_keyset_place_and_attempt():
    derive, other = Derivation(Keyring(BUYER_WORDS)), Derivation(Keyring(SELLER_WORDS))
    names = [lock_name(op, keyset, place, attempt) for op in "ab" for keyset in KEYSETS for place in (0, 1)
             for attempt in (1, 2)]  # fmt: skip
    made = {(derive.lock_nonce(name), derive.lock_output(name, KEYSETS[0], 1, "secret").r) for name in names}
    assert len(made) == len(names)
    assert len({nonce for nonce, _ in made}) == len({r for _, r in made}) == len(names)
    assert derive.lock_nonce(names[0]) == Derivation(Keyring(BUYER_WORDS)).lock_nonce(names[0])
    assert derive.lock_nonce(names[0]) != other.lock_nonce(names[0])
