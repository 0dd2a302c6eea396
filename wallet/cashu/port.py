"""What the wallet asks of a mint. `MintClient` fulfils it over HTTP; the model mint of the tests in memory. Pure.

Every method may raise MintUnreachable (never sent), MintSilent (sent, no usable answer), MintBusy (rate limited),
MintRejected (a definite no) or MintLied. Those that take a permit change something at the mint.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from core.effect import Permit
from wallet.cashu.keyset import Keyset, KeysetInfo
from wallet.cashu.limit import Limits
from wallet.cashu.proof import Output, Proof, Signature

# How many outputs or coins one look-up names; mints take at most a thousand.
BATCH = 100


class CoinState(StrEnum):
    """The state of a coin at its mint (NUT-07)."""

    UNSPENT = "UNSPENT"
    PENDING = "PENDING"
    SPENT = "SPENT"


class QuoteState(StrEnum):
    """The state of a mint quote (NUT-04)."""

    UNPAID = "UNPAID"
    PENDING = "PENDING"
    PAID = "PAID"
    ISSUED = "ISSUED"


class MeltState(StrEnum):
    """The state of a melt quote (NUT-05)."""

    UNPAID = "UNPAID"
    PENDING = "PENDING"
    PAID = "PAID"


@dataclass(frozen=True, slots=True)
class CoinReport:
    """A coin's state, and the witness it was spent with where the mint gives it."""

    state: CoinState
    witness: str | None = None


@dataclass(frozen=True, slots=True)
class MintQuote:
    """A mint's invoice for `amount` of its unit; `expiry` in Unix seconds."""

    id: str
    request: str = field(repr=False)
    state: QuoteState
    expiry: int | None = None
    amount: int | None = None
    unit: str | None = None
    pubkey: str | None = None


@dataclass(frozen=True, slots=True)
class MeltQuote:
    """What a mint says of paying an invoice for us; amounts in its unit, `expiry` in Unix seconds.

    `preimage` is its receipt once it has paid, `change` its signatures on the first blank outputs (NUT-08).
    """

    id: str
    amount: int
    fee_reserve: int
    state: MeltState
    expiry: int | None = None
    unit: str | None = None
    request: str | None = field(default=None, repr=False)
    preimage: str | None = field(default=None, repr=False)
    change: tuple[Signature, ...] = field(default=(), repr=False)


class Mint(Protocol):
    """One mint."""

    @property
    def url(self) -> str:
        """Its canonical address."""

    async def nuts(self) -> frozenset[int]:
        """The optional parts of the protocol that it says it has (NUT-06)."""

    async def keysets(self) -> tuple[KeysetInfo, ...]:
        """All its keysets, active or not (NUT-02)."""

    async def keys(self, info: KeysetInfo) -> Keyset:
        """The keys of one keyset, checked against its id (NUT-01, NUT-02)."""

    async def swap(self, inputs: Sequence[Proof], outputs: Sequence[Output], permit: Permit) -> list[Signature]:
        """Spend the inputs for signatures on the outputs (NUT-03). All or nothing at an honest mint."""

    async def request_quote(self, amount: int, unit: str, pubkey: str, permit: Permit) -> MintQuote:
        """Ask for an invoice that buys coins (NUT-04), to be minted by the holder of `pubkey` alone (NUT-20)."""

    async def quote(self, quote_id: str) -> MintQuote:
        """A quote's state (NUT-04)."""

    async def mint(self, quote_id: str, outputs: Sequence[Output], signature: str, permit: Permit) -> list[Signature]:
        """Signatures for a paid quote (NUT-04, NUT-20)."""

    async def restore(self, outputs: Sequence[Output]) -> Mapping[str, Signature]:
        """Signatures that the mint has ever given on these outputs, by B_ (NUT-09)."""

    async def states(self, ys: Sequence[str]) -> Mapping[str, CoinReport]:
        """The state of each coin (NUT-07)."""

    async def limits(self) -> Limits:
        """What it says of itself about amounts in and out over Lightning (NUT-06)."""

    async def request_melt(self, invoice: str, unit: str, permit: Permit) -> MeltQuote:
        """Ask what paying this invoice takes (NUT-05). Moves nothing."""

    async def melt_quote(self, quote_id: str) -> MeltQuote:
        """A melt quote's state (NUT-05)."""

    async def melt(
        self, quote_id: str, inputs: Sequence[Proof], outputs: Sequence[Output], permit: Permit
    ) -> MeltQuote:
        """Have the invoice paid with these coins (NUT-05); blank outputs bring the change back (NUT-08)."""
