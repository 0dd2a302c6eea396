"""`[policy]`, `[strangers]` and `[[sell]]`: how work is bought and sold. Pure."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.money import MicroUsd, Money, Msat
from dvm.redundancy import DETERMINISTIC
from dvm.tariff import MAX_PRICE, Tariff
from node.error import ConfigInvalid
from node.section import Section, Usd
from relays.key import parse_pubkey


class PolicySection(Section):
    """How work is bought."""

    order: tuple[Literal["dvm", "builtin"], ...] = ("dvm", "builtin")
    prefer: Literal["cost", "latency", "quality", "reputation", "balanced"] = "cost"
    spread: bool = False
    default_max_usd: Usd = 50_000
    default_max_msat: int = Field(50_000, ge=0)
    quote_window_ms: int = Field(1_500, ge=50, le=60_000)
    timeout_s: int = Field(60, ge=1, le=3_600)
    lock_margin_s: int = Field(300, ge=1, le=86_400)
    publish_receipts: bool = True
    deterministic: tuple[Annotated[int, Field(ge=5_000, le=5_999)], ...] = DETERMINISTIC
    invoices: bool = True
    max_unsecured_msat: int = Field(50_000, ge=0)


class StrangerSection(Section):
    """What customers may take without paying, and what they show for it."""

    free_per_second: int = Field(1_000, ge=0, le=100_000)
    free_burst: int = Field(8_000, ge=0, le=1_000_000)
    per_second: int = Field(1_000, ge=0, le=100_000)
    burst: int = Field(8_000, ge=0, le=1_000_000)
    broadcast: bool = True
    pow_bits: int = Field(0, ge=0, le=64)
    pow_bits_full: int = Field(16, ge=0, le=64)
    floor_msat: int = Field(0, ge=0, le=MAX_PRICE)
    free_per_day: int = Field(0, ge=0, le=100_000)
    allow: tuple[str, ...] = ()
    ban: tuple[str, ...] = ()

    invoices_per_minute: int = Field(6, ge=0, le=6_000)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key in (*self.allow, *self.ban):
            parse_pubkey(key)
        return self


class SellSection(Section):
    """One service for sale, at a price in msat or in dollars."""

    kind: int = Field(ge=5_000, le=5_999)
    price_msat: int | None = Field(None, ge=0, le=MAX_PRICE)
    price_usd: Usd | None = None
    per: str = "job"
    min_msat: int | None = Field(None, ge=0, le=MAX_PRICE)
    max_msat: int | None = Field(None, ge=0, le=MAX_PRICE)
    min_usd: Usd | None = None
    max_usd: Usd | None = None
    provider: str
    eta_s: int = Field(10, ge=1, le=3_600)
    max_parallel: int = Field(4, ge=1, le=1_024)
    invoice: Literal["before", "after", "none"] = "before"

    @model_validator(mode="after")
    def _check(self) -> Self:
        _ = self.tariff()
        return self

    def tariff(self) -> Tariff:
        """What a job costs.

        Raises:
            ValueError: no price, two, bounds in another unit of money, or an unknown unit of work.
        """
        price, low, high = (
            _amount(name, getattr(self, f"{name}_msat"), getattr(self, f"{name}_usd"))
            for name in ("price", "min", "max")
        )
        if price is None:
            raise ValueError("a service has a price: price_msat or price_usd")
        return Tariff(price, self.per, low, high)


def _amount(name: str, msat: int | None, usd: int | None) -> Money | None:
    if msat is not None and usd is not None:
        raise ValueError(f"{name}_msat and {name}_usd exclude each other")
    if msat is not None:
        return Msat(msat)
    return None if usd is None else MicroUsd(usd)


def parse_service(text: str) -> SellSection:
    """One service in short form, `KIND:PRICE_MSAT:PROVIDER`.

    Raises:
        ConfigInvalid: it is not of that form.
    """
    kind, _, rest = text.partition(":")
    price, _, provider = rest.partition(":")
    try:
        return SellSection(kind=int(kind), price_msat=int(price), provider=provider)
    except ValueError as error:
        raise ConfigInvalid(
            f"{text[:80]!r} is not KIND:PRICE_MSAT:PROVIDER, for example 5001:21000:summarizer."
        ) from error


MARKET_TEMPLATE = """\
[policy]                       # how work is bought
order = ["dvm", "builtin"]     # who is asked, in this order, under the same job id
prefer = "cost"                # which admissible quote wins: cost, latency, quality, reputation, balanced
spread = false                 # draw one of the best three, so that the best is not overrun
default_max_usd = "0.05"       # when a job names no maximum
default_max_msat = 50000       # the same, when [limits] unit = "msat"
quote_window_ms = 1500         # how long quotes are collected; shorter when every known seller has answered
timeout_s = 60                 # how long the chosen seller has
lock_margin_s = 300            # the refund opens this long after the timeout
publish_receipts = true        # say in public which sellers took our money, and whether they delivered; with proof
deterministic = [5400, 5901]   # kinds with one right answer: results of several sellers can be compared (--redundancy)
invoices = true                # pay sellers over Lightning who take nothing else, as most do: nothing comes back
max_unsecured_msat = 50000     # so paid to one seller, for good, before it delivered; [settlement] has one for locks

[strangers]
free_per_second = 1000         # free jobs in all, however many keys ask for them
free_burst = 8000              # so many of them may come at once
per_second = 1000              # requests of all keys together that are not named in allow
burst = 8000                   # so many of them may come at once
broadcast = true               # answer requests that name no seller, too
pow_bits = 0                   # proof of work (NIP-13) that an unknown key shows for a free job
pow_bits_full = 16             # the same when every place is taken; it rises from three quarters on, for paid jobs too
floor_msat = 0                 # what an unknown key pays at least, unless it shows pow_bits of work
free_per_day = 0               # jobs that each key in allow has for nothing every day
allow = []                     # known keys, npub or hex: they need no proof of work
ban = []                       # keys that are not heard
invoices_per_minute = 6        # Lightning invoices that nobody pays, in all; each is a few calls to a mint

"""

SELL_TEMPLATE = """\

# Selling: one table per kind. A price of 0 is a free service.
# [[sell]]
# kind = 5001                  # 5001 summarise, 5970 proof of work, 5050 echo
# price_msat = 21000           # what you get, net of the mint's fees
# price_usd = "0.01"           # instead: in dollars, at the rate of each quote
# per = "job"                  # or "1k_chars", "1k_bytes", "input", "1k_tokens" (max_tokens), "1m_hashes" (pow)
# min_msat = 1000              # the least that a job costs, with price_msat
# max_msat = 100000            # the most that a job costs, with price_msat
# min_usd = "0.001"            # the least that a job costs, with price_usd
# max_usd = "0.50"             # the most that a job costs, with price_usd
# provider = "summarizer"      # who does it: "summarizer" (5001), "pow" (5970), "echo" (5050)
# eta_s = 10                   # how long it takes; stands in the quote
# max_parallel = 4             # jobs worked on at once
# invoice = "before"           # who cannot send ecash pays an invoice before the work; the price is then whole sats, up
#                              # "after": with the result, to those you trust, up to [settlement] credit_msat
#                              # "none": only ecash is taken
"""
