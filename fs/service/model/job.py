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
    at_ms: int
    chosen: bool
    refusal: str | None


class Job(Payments):
    """All that is known of a job. Times are Unix seconds, `at_ms` Unix ms."""

    job_id: str
    caller: str
    kind: int
    status: Status
    state: str
    provider: str | None
    result: str | None
    error: str | None
    request_id: str | None
    result_id: str | None
    bid_msat: int
    rate: dict[str, int | str] | None
    chosen: str | None
    why: list[str]
    quotes: list[Quote]
    refused: list[dict[str, str]]
    refused_count: int
    events: list[dict[str, Any]]
    created_at: int
    deadline: int | None
    version: int


class Policy(Fact):
    """How work is bought. The most that a job may cost is in `default_max_uusd` or in `default_max_msat`."""

    order: list[str]
    prefer: str
    default_max_uusd: int | None = None
    default_max_msat: int | None = None
    quote_window_ms: int
    patience_ms: int
    timeout_s: int
    fallback_timeout_s: int
    lock_margin_s: int
    max_input_bytes: int


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


class Offered(Fact):
    """What this node sells."""

    kind: int
    price_msat: int
    provider: str
    eta_s: int


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
