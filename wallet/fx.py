"""What a dollar is worth: a fixed rate, or a source on the web (DESIGN §6 M8). Without a fresh rate nothing is priced.

Prices are decimal text until they are whole micro-dollars; floats never touch them.
"""

import asyncio
import json
import logging
from decimal import Decimal, InvalidOperation
from typing import Any, Protocol

import aiohttp

from core.clock import Clock
from core.money import MICRO, MSAT_PER_BTC, Rate
from core.unit import Insert
from wallet.error import FxUnpriced

_TIMEOUT = aiohttp.ClientTimeout(total=3)
_MAX_ANSWER = 65_536
_LEAST, _MOST = Decimal("0.01"), Decimal("1e9")
_MOST_JUMP = Decimal("0.10")
_JUMP_WINDOW_S = 900
_PERIOD_S = 60.0
_log = logging.getLogger(__name__)


class Fx(Protocol):
    """Gives the rate that a job freezes."""

    async def rate(self) -> Rate:
        """A fresh rate.

        Raises:
            FxUnpriced: there is none.
        """


class Fixed:
    """A rate that the owner chose; it is as fresh as the clock."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate

    async def rate(self) -> Rate:
        """See `Fx`."""
        return self._rate


class Oracle:
    """The price of one bitcoin in dollars from a JSON answer.

    Args:
        url: where it is; chosen by the owner.
        field: where in the answer, as names and places with dots between: `data.amount`, `result.XXBTZUSD.c.0`.
        max_age_s: how old a price may be that is used.
        http: makes the connections; its owner closes it.
        clock: stamps prices.
    """

    def __init__(self, url: str, field: str, max_age_s: int, http: aiohttp.ClientSession, clock: Clock) -> None:
        self._url = url
        self._field = field
        self._max_age_s = max_age_s
        self._http = http
        self._clock = clock
        self._last: Rate | None = None
        self._asking = asyncio.Lock()

    async def rate(self) -> Rate:
        """See `Fx`. Asks the source only if what is known is too old."""
        if not self._fresh():
            async with self._asking:
                if not self._fresh():
                    await self._refresh()
        if self._last is None or not self._fresh():
            raise FxUnpriced
        return self._last

    def _fresh(self) -> bool:
        return self._last is not None and 0 <= self._clock.now() - self._last.taken_at <= self._max_age_s

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Ask every minute, so that no job has to wait for a price."""
        ready.set()
        while not stop.is_set():
            async with self._asking:
                await self._refresh()
            waiting = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._clock.sleep(_PERIOD_S))]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    async def _refresh(self) -> None:
        try:
            price = await self._price()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError) as error:
            _log.warning("no exchange rate", extra={"action": "fx_failed", "error": type(error).__name__})
            return
        fetched = Rate(int(price * MICRO), MSAT_PER_BTC, self._clock.now(), self._url)
        if self._jumps(fetched):
            _log.warning("the exchange rate jumps too far to be used", extra={"action": "fx_jump"})
            return
        self._last = fetched

    def _jumps(self, new: Rate) -> bool:
        old = self._last
        if old is None or new.taken_at - old.taken_at > _JUMP_WINDOW_S:
            return False
        return abs(new.micro_usd - old.micro_usd) > old.micro_usd * _MOST_JUMP

    async def _price(self) -> Decimal:
        async with self._http.get(self._url, timeout=_TIMEOUT, allow_redirects=False) as response:
            if response.status != 200:
                raise ValueError("not answered with 200")
            raw = await response.content.read(_MAX_ANSWER + 1)
            while len(raw) <= _MAX_ANSWER and (more := await response.content.read(_MAX_ANSWER)):
                raw += more
        if len(raw) > _MAX_ANSWER:
            raise ValueError("the answer is too long")
        return read_price(raw, self._field)


def read_price(raw: bytes, field: str) -> Decimal:
    """The price in an answer.

    Raises:
        ValueError: not JSON, or not a plausible price.
        LookupError: the field is not there.
    """
    found: Any = json.loads(raw, parse_float=Decimal)
    for step in field.split("."):
        found = found[int(step)] if isinstance(found, list) else found[step]
    if isinstance(found, bool) or not isinstance(found, str | int | Decimal):
        raise ValueError("the field holds no number")
    try:
        price = Decimal(found)
    except InvalidOperation as error:
        raise ValueError("the field holds no number") from error
    if not price.is_finite() or not _LEAST <= price <= _MOST:
        raise ValueError("the price is not plausible")
    return price


def history(rate: Rate) -> Insert:
    """The row that keeps a rate which was used; committed with what used it."""
    return Insert(
        "rate",
        {"micro_usd": rate.micro_usd, "msat": rate.msat, "taken_at": rate.taken_at, "source": rate.source},
    )
