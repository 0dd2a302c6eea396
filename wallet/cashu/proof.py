"""Coins and what becomes coins (NUT-00). Secrets are left out of every repr. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wallet.cashu.curve import y_of


@dataclass(frozen=True, slots=True)
class Dleq:
    """The mint's proof that it signed with its published key, with the blinding factor (NUT-12)."""

    e: str
    s: str
    r: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """One coin: whoever knows `secret` and `c` owns it, unless the secret states a condition (NUT-10)."""

    keyset: str
    amount: int
    secret: str = field(repr=False)
    c: str = field(repr=False)
    dleq: Dleq | None = field(default=None, repr=False)
    witness: str | None = field(default=None, repr=False)

    @property
    def y(self) -> str:
        """The coin's public name at the mint (NUT-07)."""
        return y_of(self.secret)

    def signed(self, witness: str) -> "Proof":
        """The same coin with its spending condition met."""
        return replace(self, witness=witness)

    def to_dict(self, *, dleq: bool = False) -> dict[str, Any]:
        """NUT-00's JSON. The DLEQ goes to a next owner, never to the mint: its `r` links the coin to us."""
        body: dict[str, Any] = {"id": self.keyset, "amount": self.amount, "secret": self.secret, "C": self.c}
        if dleq and self.dleq is not None:
            body["dleq"] = {"e": self.dleq.e, "s": self.dleq.s, "r": self.dleq.r}
        if self.witness is not None:
            body["witness"] = self.witness
        return body

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "Proof":
        """Undo `to_dict`; for rows that we wrote ourselves."""
        dleq = body.get("dleq")
        return cls(
            body["id"],
            body["amount"],
            body["secret"],
            body["C"],
            None if dleq is None else Dleq(dleq["e"], dleq["s"], dleq["r"]),
        )


@dataclass(frozen=True, slots=True)
class Output:
    """A blinded message that we ask the mint to sign. `gives` marks what is meant for someone else."""

    keyset: str
    amount: int
    secret: str = field(repr=False)
    r: str = field(repr=False)
    b: str
    gives: bool = False

    def to_wire(self) -> dict[str, Any]:
        """What the mint sees of it."""
        return {"amount": self.amount, "id": self.keyset, "B_": self.b}

    def to_dict(self) -> dict[str, Any]:
        """All of it, for a sealed row."""
        return {
            "id": self.keyset,
            "amount": self.amount,
            "secret": self.secret,
            "r": self.r,
            "B_": self.b,
            "gives": self.gives,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "Output":
        """Undo `to_dict`."""
        return cls(body["id"], body["amount"], body["secret"], body["r"], body["B_"], body["gives"])


@dataclass(frozen=True, slots=True)
class Signature:
    """The mint's blind signature on one output, as it came: not yet checked."""

    keyset: str
    amount: int
    c: str
    e: str = ""
    s: str = ""


def total(coins: Iterable[Proof | Output]) -> int:
    """The sum of their amounts, in the keyset's unit."""
    return sum(coin.amount for coin in coins)
