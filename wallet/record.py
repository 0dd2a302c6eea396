"""What the wallet keeps in sealed columns: coins, plans and results (DESIGN §6, "a copy of the database is not money").

Sealing is ChaCha20-Poly1305 under a key that derives from the seed. The row's own name is authenticated with it, so
that sealed bytes cannot be moved from one row to another.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from core.error import VendoError
from wallet.cashu.proof import Output, Proof

_NONCE = 12


class SealBroken(VendoError):
    """A sealed row cannot be opened: it was changed, or belongs to another seed."""

    code = "wallet.seal_broken"
    remedy = "Restore the wallet from its words."


@dataclass(frozen=True, slots=True)
class Plan:
    """All that finishing an operation takes, stored before the mint is called.

    Attributes:
        digest: of the request, so that an operation id cannot be used for another one.
        inputs: coins to spend; empty for a deposit.
        key: purpose and name of the key whose signature the inputs need, or empty.
        outputs: what the mint is asked to sign.
        past: outputs of earlier attempts, looked up together with these.
        fee: the mint's fee for the inputs, in its unit.
        quote: a deposit's or melt's quote id; `invoice` its invoice, `expires` its expiry (Unix seconds).
        terms: of a lock: pubkey, locktime, refund, price (msat), ceiling (msat), payload id; of a melt: see
            `wallet.melt`.
        copied: the row comes from an old copy of the database; see `wallet.copy`.
        loose: a melt went out to which no answer came; see `wallet.payment`.
        preimage: of the hash that the inputs are locked to (NUT-14), or empty.
        cosigned: others' signatures by the inputs' secrets, where the inputs need them.
    """

    digest: str
    inputs: tuple[Proof, ...] = field(default=(), repr=False)
    key: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = field(default=(), repr=False)
    past: tuple[tuple[Output, ...], ...] = field(default=(), repr=False)
    fee: int = 0
    attempt: int = 1
    quote: str = ""
    invoice: str = field(default="", repr=False)
    expires: int = 0
    terms: Mapping[str, str | int] = field(default_factory=dict)
    copied: bool = False
    loose: bool = False
    preimage: str = field(default="", repr=False)
    cosigned: Mapping[str, str] = field(default_factory=dict, repr=False)

    def to_json(self) -> bytes:
        """For a sealed column."""
        return orjson.dumps(
            {
                "digest": self.digest,
                "inputs": [proof.to_dict(dleq=True) for proof in self.inputs],
                "key": self.key,
                "outputs": [output.to_dict() for output in self.outputs],
                "past": [[output.to_dict() for output in group] for group in self.past],
                "fee": self.fee,
                "attempt": self.attempt,
                "quote": self.quote,
                "invoice": self.invoice,
                "expires": self.expires,
                "terms": dict(self.terms),
                "copied": self.copied,
                "loose": self.loose,
                "preimage": self.preimage,
                "cosigned": dict(self.cosigned),
            }
        )

    @classmethod
    def from_json(cls, raw: bytes) -> "Plan":
        """Undo `to_json`."""
        body = orjson.loads(raw)
        return cls(
            body["digest"],
            tuple(Proof.from_dict(item) for item in body["inputs"]),
            tuple(body["key"]),
            tuple(Output.from_dict(item) for item in body["outputs"]),
            tuple(tuple(Output.from_dict(item) for item in group) for group in body["past"]),
            body["fee"],
            body["attempt"],
            body["quote"],
            body["invoice"],
            body["expires"],
            body["terms"],
            body.get("copied", False),
            body.get("loose", False),
            body.get("preimage", ""),
            body.get("cosigned", {}),
        )


class Vault:
    """Seals and opens column values.

    Args:
        key: 32 bytes, `Keyring.derive("seal")`.
        entropy: gives random bytes for nonces.
    """

    def __init__(self, key: bytes, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._entropy = entropy

    def seal(self, raw: bytes, name: str) -> bytes:
        """Encrypt for the row with this name."""
        nonce = self._entropy(_NONCE)
        return nonce + self._cipher.encrypt(nonce, raw, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Undo `seal`.

        Raises:
            SealBroken: changed, moved from another row, or sealed under another seed.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], name.encode())
        except (InvalidTag, ValueError) as error:
            raise SealBroken from error

    def seal_proof(self, proof: Proof) -> bytes:
        """A coin for its row."""
        return self.seal(orjson.dumps(proof.to_dict(dleq=True)), f"proof/{proof.y}")

    def open_proof(self, sealed: bytes, y: str) -> Proof:
        """A coin from its row."""
        return Proof.from_dict(orjson.loads(self.open(sealed, f"proof/{y}")))

    def seal_result(self, body: Mapping[str, Any], operation: str) -> bytes:
        """An operation's result."""
        return self.seal(orjson.dumps(body), f"result/{operation}")

    def open_result(self, sealed: bytes, operation: str) -> dict[str, Any]:
        """Undo `seal_result`."""
        body: dict[str, Any] = orjson.loads(self.open(sealed, f"result/{operation}"))
        return body
