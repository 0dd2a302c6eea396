"""Selling: what is put up for sale, and what is shown of it. Pure."""

from pydantic import Field, RootModel

from dvm.request import FIRST_KIND, LAST_KIND
from dvm.tariff import MAX_PRICE
from fs.body import Body, Fact

_USD = r"^[0-9]{1,9}(\.[0-9]{1,6})?$"


class NewPrice(Body):
    """A price in msat or in dollars, for each `per`, and bounds for a job in the same money."""

    price_msat: int | None = Field(None, ge=0, le=MAX_PRICE)
    price_usd: str | None = Field(None, pattern=_USD)
    per: str = Field("job", max_length=32, description="job, input, 1k_chars, 1k_bytes, 1k_tokens or 1m_hashes")
    min_msat: int | None = Field(None, ge=0, le=MAX_PRICE)
    max_msat: int | None = Field(None, ge=0, le=MAX_PRICE)
    min_usd: str | None = Field(None, pattern=_USD)
    max_usd: str | None = Field(None, pattern=_USD)


class NewOffer(NewPrice):
    """A kind to sell."""

    kind: int = Field(ge=FIRST_KIND, le=LAST_KIND)
    provider: str = Field("", max_length=64, description="who does it; the only one that can if it is left out")
    eta_s: int = Field(10, ge=1, le=3_600)
    max_parallel: int = Field(4, ge=1, le=1_024)


class KindStatus(Fact):
    """The work of one kind: places that are taken, jobs that wait, jobs at work."""

    kind: int
    open: int
    capacity: int
    waiting: int
    running: int
    workers: int


class SellStatus(Fact):
    """How selling is doing; `dropped` counts requests that were not served, by reason, since the start."""

    open: int
    capacity: int
    quotes: int
    kinds: list[KindStatus]
    dropped: dict[str, int]


class Earned(Fact):
    """Settled sales of one kind at one mint: what was asked, and what arrived."""

    kind: int
    mint: str
    sales: int
    price_msat: int
    earned_msat: int


class Earnings(RootModel[list[Earned]]):
    """By kind and mint: sums of different mints are never added up."""
