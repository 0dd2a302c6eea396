"""What a bitcoin costs according to several sources that may be late, wrong or gone: what they agree on, or nothing.

Prices are decimal text until they are whole micro-dollars; floats never touch them. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any

from core.money import Rate

LEAST_USD, MOST_USD = Decimal("0.01"), Decimal("1e9")
APART = Decimal("0.01")
"""A price so far from the middle, as a share of it, is not counted."""
MOST_JUMP, JUMP_WINDOW_S = Decimal("0.10"), 900
"""A rate that is farther from the last one, as a share of it, is not believed within so many seconds of that."""
AHEAD_S = 10
"""A source's clock may be so far ahead of ours; what is stamped later is not counted."""


class NoPrice(ValueError):
    """An answer without a price that could be one."""


@dataclass(frozen=True, slots=True)
class Feed:
    """A source on the web that answers with JSON.

    Attributes:
        name: for people.
        url: where it is.
        field: where in the answer the price of one bitcoin in dollars is: names and places with dots between.
        stamp: where the time of that price is, in Unix seconds, or in milliseconds with `in_ms`; empty if it says none.
        in_ms: as above.
    """

    name: str
    url: str
    field: str
    stamp: str = ""
    in_ms: bool = False


KNOWN: Mapping[str, Feed] = MappingProxyType(
    {
        feed.name: feed
        for feed in (
            Feed("kraken", "https://api.kraken.com/0/public/Ticker?pair=XBTUSD", "result.XXBTZUSD.c.0"),
            Feed("coinbase", "https://api.coinbase.com/v2/prices/BTC-USD/spot", "data.amount"),
            Feed("bitstamp", "https://www.bitstamp.net/api/v2/ticker/btcusd/", "last", "timestamp"),
            Feed("mempool", "https://mempool.space/api/v1/prices", "USD", "time"),
            Feed(
                "coingecko",
                "https://api.coingecko.com/api/v3/simple/price?ids=bitcoin&vs_currencies=usd&include_last_updated_at=true",
                "bitcoin.usd",
                "bitcoin.last_updated_at",
            ),
            Feed("yadio", "https://api.yadio.io/exrates/BTC", "BTC.USD", "timestamp", in_ms=True),
        )
    }
)
"""Public sources that need no key."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a source said: dollars for a bitcoin, as of `at` (Unix seconds; when it was asked, if it says no time)."""

    source: str
    usd: Decimal
    at: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the sources come to.

    Attributes:
        usd: the price; None if they do not agree, and then `reason` says why.
        at: the time of the oldest price that counts, in Unix seconds.
        counted: whose prices count.
        left_out: whose do not, and why.
    """

    usd: Decimal | None
    at: int = 0
    counted: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


def read_price(raw: bytes, feed: Feed, asked_at: int) -> Price:
    """The price in an answer.

    Raises:
        NoPrice: not a plausible price or time.
        ValueError, RecursionError: it is not JSON.
        LookupError, TypeError: a field is not there.
    """
    try:
        answer = json.loads(raw, parse_float=Decimal)
    except ArithmeticError as error:  # an exponent beyond what decimals can have
        raise NoPrice("the answer holds a number that is none") from error
    usd = _number(_found(answer, feed.field))
    if not LEAST_USD <= usd <= MOST_USD:
        raise NoPrice("the price is not plausible")
    if not feed.stamp:
        return Price(feed.name, usd, asked_at)
    stamp = _number(_found(answer, feed.stamp))
    if not 0 < stamp < 10**15:
        raise NoPrice("the time is not plausible")
    return Price(feed.name, usd, int(stamp) // (1_000 if feed.in_ms else 1))


def _found(answer: Any, path: str) -> Any:
    for step in path.split("."):
        answer = answer[int(step)] if isinstance(answer, list) else answer[step]
    return answer


def _number(found: Any) -> Decimal:
    """A number, or text that is one.

    Raises:
        NoPrice: neither.
    """
    if isinstance(found, bool) or not isinstance(found, str | int | Decimal) or len(str(found)) > 40:
        raise NoPrice("the field holds no number")
    try:
        number = Decimal(found)
    except InvalidOperation as error:
        raise NoPrice("the field holds no number") from error
    if not number.is_finite():
        raise NoPrice("the field holds no number")
    return number


def agreed(prices: Sequence[Price], now: int, max_age_s: int, least: int) -> Agreement:
    """The middle of those prices that are fresh and near each other.

    Args:
        prices: one of each source.
        now: Unix seconds.
        max_age_s: an older price does not count.
        least: so many must count, and they must be more than half of the fresh ones.
    """
    out: dict[str, str] = {}
    for price in prices:
        if now - price.at > max_age_s:
            out[price.source] = "too old"
        elif price.at - now > AHEAD_S:
            out[price.source] = "from the future"
    fresh = [price for price in prices if price.source not in out]
    if len(fresh) < least:
        return Agreement(None, left_out=out, reason=f"{len(fresh)} of {least} sources that are needed have a price")
    middle = median([price.usd for price in fresh])
    near = [price for price in fresh if abs(price.usd - middle) <= middle * APART]
    out |= {price.source: "too far from the others" for price in fresh if price not in near}
    if len(near) < least or 2 * len(near) <= len(fresh):
        return Agreement(None, left_out=out, reason=f"{len(near)} of {len(fresh)} sources agree")
    usd = median([price.usd for price in near])
    return Agreement(usd, min(price.at for price in near), tuple(price.source for price in near), out)


def jumps(old: Rate, new: Rate) -> bool:
    """Whether a rate is too far from the last one to be believed so soon after it."""
    if new.taken_at - old.taken_at > JUMP_WINDOW_S:
        return False
    return abs(new.micro_usd - old.micro_usd) > old.micro_usd * MOST_JUMP


def median(values: Sequence[Decimal]) -> Decimal:
    """The middle one, or the mean of the middle two."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
