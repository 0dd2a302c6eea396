"""`[fx]`: where the price of a bitcoin comes from. Pure."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wallet.price import KNOWN, Feed

_LEAST_AGE_S = 30


def check_source(url: str) -> None:
    """Whether prices may come from there: whoever can change an answer on its way can change what is paid.

    Raises:
        ValueError: neither https, nor http on this machine.
    """
    parts = urlsplit(url)
    if not parts.hostname or not (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))
    ):
        raise ValueError("a source of prices is asked over https, or over http on this machine")


class FeedSection(BaseModel):
    """A source of the price of a bitcoin that is not among those which are known by name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=24, pattern=r"^[a-z0-9-]+$")
    url: str
    field: str = Field(min_length=1, max_length=100)
    stamp: str = Field("", max_length=100)
    in_ms: bool = False

    @model_validator(mode="after")
    def _check(self) -> "FeedSection":
        check_source(self.url)
        return self


class FxSection(BaseModel):
    """Where the price of a bitcoin comes from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Literal["fixed", "oracle", "median"] = "fixed"
    btc_usd: int = Field(65_000, gt=0)
    url: str = ""
    field: str = "usd"
    feeds: tuple[str | FeedSection, ...] = tuple(KNOWN)
    least: int = Field(3, ge=2, le=16)
    max_age_s: int = Field(120, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "FxSection":
        if self.source == "oracle" and self.url:
            check_source(self.url)
        names = [feed if isinstance(feed, str) else feed.name for feed in self.feeds]
        for feed in self.feeds:
            if isinstance(feed, str) and feed not in KNOWN:
                raise ValueError(f"no source is called {feed!r}; known are {', '.join(KNOWN)}, others are tables")
        if len(set(names)) != len(names) or len(names) > 16:
            raise ValueError("[fx] feeds names at most 16 sources, each once")
        if self.source == "oracle" and not self.url:
            raise ValueError('[fx] source = "oracle" needs a url')
        if self.source == "median" and self.max_age_s < _LEAST_AGE_S:
            raise ValueError(
                f'[fx] source = "median" needs a max_age_s of at least {_LEAST_AGE_S}: sources are that old'
            )
        if self.source == "median" and len(names) < self.least:
            raise ValueError(f'[fx] source = "median" needs at least {self.least} feeds')
        return self

    def sources(self) -> list[Feed]:
        """Those that are asked."""
        if self.source == "oracle":
            return [Feed("oracle", self.url, self.field)]
        named = [KNOWN[feed] if isinstance(feed, str) else Feed(**feed.model_dump()) for feed in self.feeds]
        return named if self.source == "median" else []


TEMPLATE = """\
[fx]                           # the price of a bitcoin
source = "fixed"               # "oracle": one source, at url; "median": what several agree on
btc_usd = 65000                # whole dollars, for "fixed"
url = ""                       # for "oracle": https, or http on this machine
field = "usd"                  # for "oracle": where in the JSON answer the price is
feeds = ["kraken", "coinbase", "bitstamp", "mempool", "coingecko", "yadio"]  # for "median"; or {{name, url, field}}
least = 3                      # for "median": so many must agree within 1 %, and more than half
max_age_s = 120                # an older price is no rate: dollar budgets then authorise nothing

"""
