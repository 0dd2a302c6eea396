"""Money, as the wallet's files take and show it. Pure. Amounts are whole units of `unit`, or what their name says."""

from pydantic import ConfigDict, Field

from fs.body import Body, Fact

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


class Probed(Fact):
    """A mint. `proven`: it showed the preimage of a coin that was locked to a hash; `at` in Unix seconds."""

    mint: str
    proven: bool
    at: int | None
    reason: str


_X_ONLY = 64


class Sum(Body):
    """How much, and at which mint. Without one a deposit goes where there is room, and the fullest mint pays."""

    sat: int = Field(ge=1, le=MAX_SAT)
    mint: str | None = None


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
    """A Lightning invoice, with or without `lightning:`, and what its fees may come to; by default what is usual."""

    invoice: str = Field(min_length=1, max_length=4_200)
    mint: str | None = None
    max_fee_sat: int | None = Field(default=None, ge=0, le=MAX_SAT)


class Prepared(Fact):
    """What paying an invoice takes at most: its amount, all fees, both together. `expires_at` in Unix seconds."""

    mint: str
    amount_sat: int
    max_fee_sat: int
    total_sat: int
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
    """What was found at a mint, and whether it is on our list; `problem`: the error's code if it did not say all."""

    mint: str
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
    """One mint and unit: what the coins' rows say, and what the journal says."""

    journal: dict[str, int]


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

    `pending_sat` of what is reserved is on its way over Lightning.
    """

    mints: list[AuditedMint]
    open_operations: int
    pending_sat: int
    differences: list[str]
    clean: bool
    lightning: AuditedLightning | None = None
