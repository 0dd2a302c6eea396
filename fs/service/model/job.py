"""Jobs: what is asked for, and what is shown of them. Pure.

`*_msat` and `*_uusd` are whole numbers of msat and of micro-dollars; the latter are null where there was no rate.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from dvm.request import FIRST_KIND, LAST_KIND, MAX_INPUTS, MAX_PARAMS, MAX_TIMEOUT_S
from fs.body import Body, Fact

Status: TypeAlias = Literal["staged", "pending", "running", "complete", "failed", "cancelled"]
CANCEL = {"type": "string", "enum": ["cancel"]}


class Input(Body):
    """One input of a job: NIP-90's `i` tag."""

    data: str
    type: Literal["text", "url", "event", "job"] = "text"


class Wish(Body):
    """Work to buy. It is `dvm.request.ComputeRequest` that checks it."""

    kind: int = Field(ge=FIRST_KIND, le=LAST_KIND, description="NIP-90 request kind")
    input: str | Annotated[list[Input], Field(min_length=1, max_length=MAX_INPUTS)]
    params: dict[str, str | list[str]] | None = Field(None, json_schema_extra={"maxProperties": MAX_PARAMS})
    max_usd: str | None = Field(None, pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$", description="or max_msat, not both")
    max_msat: int | None = Field(None, ge=0, le=10**15)
    timeout_s: int | None = Field(None, ge=1, le=MAX_TIMEOUT_S)
    output: str = Field("", max_length=128, description="the MIME type that is wanted")
    prefer: Literal["cost", "latency", "quality", "reputation", "balanced"] | None = None
    to: str | None = Field(None, max_length=128, description="the one seller that is asked: npub or 64 hex digits")
    redundancy: str | None = Field(
        None, pattern="^[1-5]/[2-5]$", description="2/3: from how many sellers it is bought, and how many must agree"
    )
    private: bool | Literal["nip44", "nip04", "wrap"] | None = Field(None, description="needs `to`; true is nip44")


class Started(Fact):
    """A job that was asked for, and where to look."""

    job_id: str
    status: Literal["staged", "pending", "repeated"]
    status_path: str
    result_path: str
    stream_path: str


class Amount(Fact):
    """One amount, in both units."""

    msat: int
    uusd: int | None


class Payments(Fact):
    """What was reserved, paid, spent on fees and released."""

    money: str
    closed: bool
    seller: str | None
    mint: str | None
    locktime: int | None
    ys: list[str]
    reserved: Amount
    paid: Amount
    fees: Amount
    cost: Amount
    released: Amount


class Quote(Fact):
    """What somebody offered, and why it was taken or not."""

    event_id: str
    quote_id: str | None
    seller: str
    nature: str
    price_msat: int | None
    gross_msat: int | None
    mint: str | None
    expires_at: int | None
    eta_s: int | None
    reputation: int
    quality: int
    measured_ms: int | None
    paid_jobs: int
    at_ms: int
    chosen: bool
    refusal: str | None


class Part(Fact):
    """A part of the result that came before it. Not the result."""

    at_ms: int
    content: str


class Attempt(Fact):
    """One purchase of a job that several sellers do. `agrees` is null as long as it is not known."""

    job_id: str
    seller: str | None
    state: str
    money: str
    paid_msat: int
    cost_msat: int
    agrees: bool | None


class Panel(Fact):
    """How many sellers do a job, how many must agree, and what each purchase came to."""

    agree: int
    of: int
    attempts: list[Attempt]


class KeptResult(Fact):
    """A result that is too large for the job's status: it is read from its own file, `result`."""

    bytes: int
    sha256: str


class Job(Payments):
    """All that is known of a job. Times are Unix seconds, `at_ms` Unix ms."""

    job_id: str
    caller: str
    kind: int
    status: Status
    state: str
    provider: str | None
    result: str | None
    kept: KeptResult | None = None
    error: str | None
    request_id: str | None
    result_id: str | None
    bid_msat: int
    rate: dict[str, int | str] | None
    redundancy: Panel | None = None
    panel: str | None = Field(None, description="the job of which this is one purchase")
    prefer: str
    to: str | None
    private: str | None
    verdict: str | None
    took_ms: int | None
    chosen: str | None
    why: list[str]
    quotes: list[Quote]
    refused: list[dict[str, str]]
    refused_count: int
    events: list[dict[str, Any]]
    parts: list[Part]
    created_at: int
    deadline: int | None
    version: int


class Fraud(Fact):
    """A proof that a seller's key does not open what it signed; anybody can check it. `vendo fraud verify` does."""

    form: str
    result: dict[str, Any]
    preimage: str
    key: str
    sealed: str = ""


class Policy(Fact):
    """How work is bought. The most that a job may cost is in `default_max_uusd` or in `default_max_msat`."""

    order: list[str]
    prefer: str
    spread: bool
    default_max_uusd: int | None = None
    default_max_msat: int | None = None
    quote_window_ms: int
    patience_ms: int
    timeout_s: int
    fallback_timeout_s: int
    lock_margin_s: int
    max_input_bytes: int
    deterministic: list[int]
    invoices: bool
    max_unsecured_msat: int


class Usage(Fact):
    """Today's budget (UTC), in `unit`."""

    day: str
    unit: Literal["uusd", "msat"]
    ceiling: int
    held: int
    spent: int
    remaining: int


class Provider(Fact):
    """Who can do work. Sellers have a name, prices per kind and mints; what is built in has a price and a source."""

    id: str
    kinds: list[int]
    name: str = ""
    about: str = ""
    prices_msat: dict[str, int] = Field(default_factory=dict)
    mints: list[str] = Field(default_factory=list)
    created_at: int = 0
    price_msat: int = 0
    source: str = ""


class Reviewed(Fact):
    """One receipt that counts."""

    event_id: str
    buyer: str
    verdict: str
    amount_msat: int
    mint: str
    created_at: int


class Standing(Fact):
    """What is thought of a seller: 0 to 1000, where 500 is one of whom nothing is known, and why."""

    seller: str
    score: int
    delivered_msat: int
    undelivered_msat: int
    buyers: int
    deals: int
    frauds: list[str] = Field(default_factory=list)
    reasons: list[str]
    receipts: list[Reviewed] = Field(default_factory=list)


class Offered(Fact):
    """What this node sells. Amounts are in `unit`; `price_msat` is null if it is not the same for every job."""

    kind: int
    provider: str
    unit: Literal["msat", "uusd"]
    price: int
    per: str
    minimum: int | None
    maximum: int | None
    eta_s: int
    max_parallel: int
    state: Literal["selling", "paused", "stopped"]
    price_msat: int | None


class Sale(Fact):
    """A job that was sold. Times are Unix seconds."""

    request_id: str
    customer: str
    kind: int
    state: str
    price_msat: int
    quote_id: str | None
    earned_msat: int
    mint: str | None
    error: str | None
    result_id: str | None
    created_at: int
    updated_at: int
    paid_by: Literal["ecash", "invoice", "credit", "prepaid"] | None
    owed_msat: int


class Tip(Fact):
    """Money that somebody gave to us in public. `owed_msat` still pays for its sender's jobs."""

    id: str
    sender: str
    mint: str
    state: Literal["seen", "taken", "kept", "owed", "repaid", "refused"]
    net_msat: int
    owed_msat: int
    request_id: str | None
    reason: str | None
    created_at: int


class TipStatus(Fact):
    """The key to which nutzaps are locked, whether that is said in public, and what came."""

    pubkey: str
    offered: bool
    refused: dict[str, int]
    latest: list[Tip]
