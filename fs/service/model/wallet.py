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


class Balances(Fact):
    """All that is held."""

    balances: list[Balance]
    live_sat: int


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


class Sum(Body):
    """How much, and at which mint: it may be left out where this node trusts exactly one."""

    sat: int = Field(ge=1, le=MAX_SAT)
    mint: str | None = None


class Token(Body):
    """A Cashu token; it may be sent as it is."""

    model_config = ConfigDict(json_schema_extra={"x-vendo-text": True})

    token: str = Field(min_length=1)


class Nothing(Body):
    """No fields."""


class Operation(Fact):
    """One operation of the wallet. Which fields it has depends on its kind and its state; a sent token is money."""

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


class FoundCoins(Fact):
    """What was found at a mint."""

    mint: str
    amount: int
    coins: int
    keysets: int


class Restored(Fact):
    """What was found at every mint."""

    restored: list[FoundCoins]


class AuditedMint(Balance):
    """One mint and unit: what the coins' rows say, and what the journal says."""

    journal: dict[str, int]


class Audit(Fact):
    """Whether rows, journal and mints agree, and every way in which they do not."""

    mints: list[AuditedMint]
    open_operations: int
    differences: list[str]
    clean: bool
