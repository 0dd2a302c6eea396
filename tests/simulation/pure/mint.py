"""A mint and its Lightning, as books without curves: a coin is a name, and only outputs that it signed are coins.

The books are facts: the judge reads them, no node does. `owner` of a coin is who knows its secret; the mint itself
never asks for it.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

SPENT, PENDING_CODE, SIGNED, FUNDS, CONDITION, KEYSET, REFUSED, UNPAID = (
    11001,
    11002,
    10002,
    11005,
    11000,
    12002,
    12001,
    20001,
)
UNPAID_QUOTE, PAID_QUOTE, ISSUED_QUOTE = "unpaid", "paid", "issued"


class Lock(NamedTuple):
    """NUT-11: spendable by `key`, from `locktime` (Unix seconds) on by `refund` as well.

    NUT-14, with a `hash`: `key` needs its preimage, and the signature of `cosigner` if there is one.
    """

    key: str
    locktime: int
    refund: str
    hash: str = ""
    cosigner: str = ""
    giver: str = ""  # whom the lock calls its sender: it conditions nothing


class Unlock(NamedTuple):
    """What opens locks to a hash: the preimage (hex), and the co-signer's signatures, each for one coin."""

    preimage: str
    cosigned: tuple[str, ...] = ()


def cosignature(cosigner: str, coin: str) -> str:
    """A signature: only who owns the key `cosigner` writes this word."""
    return f"{cosigner} signs {coin}"


@lru_cache(4_096)
def hash_of(preimage: str) -> str:
    """SHA-256 of hex digits, in hex."""
    return sha256(bytes.fromhex(preimage)).hexdigest()


class Output(NamedTuple):
    """What is asked of the mint; with its signature it is a coin of the same name."""

    name: str
    amount: int
    owner: str
    keyset: int
    lock: Lock | None = None
    gives: bool = False


class Mint:
    """`url`, and a fee of `ppk` thousandths of a sat per input."""

    __slots__ = (
        "balance",
        "circulating",
        "issued",
        "keyset",
        "melts",
        "paid_out",
        "pending",
        "ppk",
        "quotes",
        "shown",
        "signed",
        "spent",
        "stalled",
        "taken",
        "url",
    )

    def __init__(self, url: str, ppk: int) -> None:
        self.url, self.ppk = url, ppk
        self.keyset = 0
        self.signed: dict[str, Output] = {}
        self.spent: dict[str, str] = {}  # name of a coin, and the key that spent it
        self.pending: set[str] = set()
        self.balance: dict[str, int] = {}
        self.circulating = 0
        self.issued = 0
        self.taken = 0  # fees
        self.paid_out = 0  # over Lightning
        self.melts: dict[str, Any] = {}  # by quote: see `lightning.Melt`
        self.shown: dict[str, str] = {}  # name of a coin, and the preimage in its witness (NUT-07)
        self.stalled = False
        self.quotes: dict[str, list[Any]] = {}

    def fee(self, inputs: int) -> int:
        return -(-inputs * self.ppk // 1000)

    def give(self, output: Output) -> None:
        """Coins from nowhere, at the beginning of a history."""
        self.signed[output.name] = output
        self.balance[output.owner] = self.balance.get(output.owner, 0) + output.amount
        self.circulating += output.amount
        self.issued += output.amount

    def refusal(
        self, now: int, inputs: tuple[str, ...], key: str, outputs: tuple[Output, ...], unlock: Unlock | None = None
    ) -> int:
        """The code with which a swap is refused; 0 if it is not."""
        worth = 0
        for name in inputs:
            coin = self.signed.get(name)
            if coin is None:
                return CONDITION
            if name in self.spent:
                return SPENT
            if name in self.pending:
                return PENDING_CODE
            lock = coin.lock
            if lock is not None and not _meets(lock, name, now, key, unlock):
                return CONDITION
            worth += coin.amount
        if len(set(inputs)) != len(inputs):
            return SPENT
        for output in outputs:
            if output.name in self.signed:
                return SIGNED
            if output.keyset != self.keyset:
                return KEYSET
            worth -= output.amount
        return 0 if worth == self.fee(len(inputs)) else FUNDS

    def swap(
        self, inputs: tuple[str, ...], key: str, outputs: tuple[Output, ...], unlock: Unlock | None = None
    ) -> tuple[Output, ...]:
        """Do a swap that `refusal` does not refuse; the coins that went into it."""
        coins = tuple([self.signed[name] for name in inputs])
        balance = self.balance
        for coin in coins:
            self.spent[coin.name] = key
            if unlock is not None and coin.lock is not None and key == coin.lock.key:
                self.shown[coin.name] = unlock.preimage
            balance[coin.owner] -= coin.amount
        for output in outputs:
            self.signed[output.name] = output
            balance[output.owner] = balance.get(output.owner, 0) + output.amount
        fee = self.fee(len(inputs))
        self.circulating -= fee
        self.taken += fee
        return coins

    def mint(self, quote: str, outputs: tuple[Output, ...]) -> int:
        """Issue the coins of a paid quote; the code of the refusal, or 0."""
        state = self.quotes[quote]
        if state[0] == ISSUED_QUOTE:
            return SIGNED
        if state[0] != PAID_QUOTE:
            return UNPAID
        for output in outputs:
            if output.name in self.signed:
                return SIGNED
            if output.keyset != self.keyset:
                return KEYSET
        state[0] = ISSUED_QUOTE
        for output in outputs:
            self.give(output)
        return 0


def _meets(lock: Lock, name: str, now: int, key: str, unlock: Unlock | None) -> bool:
    if key == lock.refund and now >= lock.locktime * 1000:
        return True
    if key != lock.key:
        return False
    if not lock.hash:
        return True
    if unlock is None or hash_of(unlock.preimage) != lock.hash:
        return False
    return not lock.cosigner or cosignature(lock.cosigner, name) in unlock.cosigned
