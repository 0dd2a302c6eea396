"""Money, as the wallet's files take and show it. Pure. Amounts are whole units of `unit`, or what their name says."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from fs.body import Body, Fact
from wallet.amount import MOST, SAT, Amount

MAX_SAT = 2_100_000_000_000_000


class Balance(Fact):
    """What is held at one mint in one unit: free, tied up in open operations, locked to others."""

    mint: str
    unit: str
    live: int
    reserved: int
    locked: int


class LightningBalance(Fact):
    """What the Lightning wallet says it has, in msat; null with the error's code where it does not say."""

    wallet: str
    balance_msat: int | None
    problem: str


class Balances(Fact):
    """All that is held. `lightning` is there for the operator, where a wallet is connected."""

    balances: list[Balance]
    live_sat: int
    lightning: LightningBalance | None = None


class FxRate(Fact):
    """So many micro-dollars are so many msat. `taken_at` in Unix seconds."""

    micro_usd: int
    msat: int
    taken_at: int
    source: str


class FxFeed(Fact):
    """A source of the exchange rate. `usd` for one bitcoin, as text; `at` in Unix seconds; `why` it does not count."""

    name: str
    usd: str | None
    at: int | None
    counts: bool
    why: str


class Transfer(Body):
    """So much shall arrive at a mint; another one pays: the one that holds the most, if none is named."""

    sat: int = Field(ge=1, le=MAX_SAT)
    target: str | None = None
    source: str | None = None
    max_fee_sat: int | None = Field(None, ge=0, le=MAX_SAT)


class Transferred(Fact):
    """Both halves, as operations; `state` is that of the deposit, `payment_state` of what was paid for it."""

    source: str
    target: str
    sat: int
    deposit: str
    payment: str
    payment_state: str
    state: str


class MintUnit(Fact):
    """A unit of a mint's coins; limits in its smallest part. `deposits` and `withdrawals` over Lightning, if it says.

    `active`: the mint gives out new coins of it.
    """

    unit: str
    active: bool
    deposits: bool | None
    withdrawals: bool | None
    least_deposit: int | None
    most_deposit: int | None
    least_withdrawal: int | None
    most_withdrawal: int | None


class Probed(Fact):
    """A mint. `proven`: it showed the preimage of a coin that was locked to a hash; `at` in Unix seconds.

    `units` is empty for a mint that did not answer, and for those who may not move money.
    """

    mint: str
    proven: bool
    at: int | None
    reason: str
    units: list[MintUnit]


_X_ONLY = 64


UnitName = Literal["sat", "msat", "usd", "eur"]


class Sum(Body):
    """How much, and at which mint. Without one a deposit goes where there is room, and the fullest mint pays.

    Either `sat`, or `amount` of a `unit` in its smallest part: cents of `usd`.
    """

    sat: int | None = Field(None, ge=1, le=MAX_SAT)
    amount: int | None = Field(None, ge=1, lt=MOST)
    unit: UnitName = "sat"
    mint: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.sat is None) == (self.amount is None) or (self.sat is not None and self.unit != SAT):
            raise ValueError("either sat, or amount with unit")
        return self

    @property
    def other(self) -> Amount | None:
        """The amount, if it is not in sat."""
        return None if self.amount is None or self.unit == SAT else Amount(self.amount, self.unit)

    @property
    def whole_sat(self) -> int:
        """The amount, if it is."""
        return self.sat if self.sat is not None else int(self.amount or 0)

    def in_sat(self, but: Sequence[str] = ()) -> dict[str, Any]:
        """The request as it was written before there were other units, for its digest."""
        return self.model_dump(exclude={"amount", "unit", *but}) | {"sat": self.whole_sat}


class SentSum(Sum):
    """How much, and at which mint; and the key that alone may take it (NUT-11): 66 hex digits, or 64 as in Nostr."""

    lock: str | None = Field(None, pattern=r"^(0[23])?[0-9a-f]{64}$")

    @property
    def pubkey(self) -> str:
        """The key, compressed; a Nostr key stands for the point with an even y (BIP-340). Empty if there is none."""
        lock = self.lock or ""
        return lock if len(lock) != _X_ONLY else f"02{lock}"


class DepositSum(Sum):
    """How much, and at which mint; and whether the node's own Lightning wallet pays for it."""

    from_lightning: bool = False


class Invoice(Body):
    """A Lightning invoice, with or without `lightning:`, and what its fees may come to; by default what is usual.

    With another `unit` it is paid with such coins: `most` is what may be spent with all fees, in the unit's smallest
    part; without it what is usual at the exchange rate of the moment.
    """

    invoice: str = Field(min_length=1, max_length=4_200)
    mint: str | None = None
    max_fee_sat: int | None = Field(default=None, ge=0, le=MAX_SAT)
    unit: UnitName = "sat"
    most: int | None = Field(None, ge=1, lt=MOST)

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if self.unit == SAT and self.most is not None:
            raise ValueError("most is for other units than sat; there it is max_fee_sat")
        return self

    @property
    def is_other(self) -> bool:
        """Whether it is paid with coins of another unit than sat."""
        return self.unit != SAT


class Agreed(Body):
    """What `/wallet/prepare` answered, and the owner has said yes to. `total` in the unit's smallest part."""

    mint: str = Field(min_length=1)
    total: int = Field(ge=1, lt=MOST)


class Withdrawal(Invoice):
    """An invoice to be paid now. `agreed` holds a payment in another unit to what its owner was shown before.

    It counts for a key that is new, where `mint` and `most` are not said; it is no part of what the key stands for, so
    that the key is answered whatever a plan says by then.
    """

    agreed: Agreed | None = None

    @model_validator(mode="after")
    def _agreed_unit(self) -> Self:
        if self.unit == SAT and self.agreed is not None:
            raise ValueError("agreed is for other units than sat; there it is max_fee_sat")
        return self


class Prepared(Fact):
    """What paying an invoice takes at most: its amount, all fees, both together. `expires_at` in Unix seconds.

    `total` is what may be spent with all fees, in `unit`; fees and sum in sat are there where that is sat.
    """

    mint: str
    unit: str
    total: int
    amount_sat: int
    max_fee_sat: int | None = None
    total_sat: int | None = None
    payment_hash: str
    expires_at: int


class Token(Body):
    """A Cashu token; it may be sent as it is."""

    model_config = ConfigDict(json_schema_extra={"x-vendo-text": True})

    token: str = Field(min_length=1)


class Recall(Body):
    """Where to look for the wallet's memo, besides the node's own relays."""

    relays: list[str] = Field(default_factory=list, max_length=20)


class Operation(Fact):
    """One operation of the wallet. Which fields it has depends on its kind and its state; a sent token is money.

    `pending`: its mint says that the payment is under way. `preimage` is the receipt for an invoice that was paid.
    `amount` and `fee` are in `unit`; `price_msat` is what an invoice asks for that buys or is paid with another unit.
    """

    op_id: str
    state: str
    kind: str = ""
    mint: str = ""
    unit: str = ""
    amount: int = 0
    fee: int = 0
    reason: str = ""
    invoice: str = ""
    token: str = ""
    expires_at: int = 0
    amount_sat: int = 0
    fee_sat: int = 0
    price_msat: int = 0
    payment: str = ""
    payment_state: str = ""
    stage: str = ""
    payment_hash: str = ""
    note: str = ""
    purpose: str = ""
    created_at: int = 0
    preimage: str = ""
    pending: bool = False


class FoundCoins(Fact):
    """What was found at a mint in one unit, and whether the mint is on our list.

    `problem` is the error's code if it did not say all.
    """

    mint: str
    unit: str
    amount: int
    coins: int
    keysets: int
    listed: bool
    problem: str


class FoundOperation(Fact):
    """What a memo named, and how far it is: waiting, begun (an operation of the wallet), done, gone (taken), or absent.

    `due` in Unix seconds: until then locked money stays so. `problem`: the code of the error that keeps it waiting.
    """

    operation: str
    kind: str
    mint: str
    unit: str
    amount: int
    due: int
    standing: str
    problem: str


class Restored(Fact):
    """What was found at every mint, and what in `memos` events on relays; what waits is gone on with by itself."""

    restored: list[FoundCoins]
    pending: list[FoundOperation]
    memos: int


class AuditedMint(Balance):
    """One mint and unit: what the coins' rows and the journal say; `pending` is on its way over Lightning."""

    journal: dict[str, int]
    pending: int


class AuditedLightning(Fact):
    """The Lightning wallet: sums of our rows in msat, and what it says it has, which may be shared with others."""

    wallet: str
    paid: int
    fees: int
    received: int
    open: int
    balance: int | None
    others: int
    journal: dict[str, int]


class Audit(Fact):
    """Whether rows, journal, mints and Lightning wallet agree, and every way in which they do not.

    `pending_sat` of what is reserved in sat is on its way over Lightning; of other units each mint's row tells.
    """

    mints: list[AuditedMint]
    open_operations: int
    pending_sat: int
    differences: list[str]
    clean: bool
    lightning: AuditedLightning | None = None
