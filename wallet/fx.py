"""What a dollar is worth: a fixed rate, or what sources on the web agree on (DESIGN §6 M8).

Sources are asked in the background, all at once. Without a fresh rate nothing is priced: it is never guessed.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import aiohttp

from core.clock import Clock
from core.money import MICRO, MSAT_PER_BTC, Rate
from core.unit import Insert, UnitOfWork
from wallet.error import FxUnpriced
from wallet.price import Agreement, Feed, NoPrice, Price, agreed, jumps, read_price

_TIMEOUT = aiohttp.ClientTimeout(total=3)
_MAX_ANSWER = 65_536
_PERIOD_S, _LEAST_S, _LONGEST_S = 60, 15, 900  # between two questions to one source
_SHOWN = 100
_AHEAD_S = 10  # a rate is renewed so long before it is too old
_FAILURES = (
    aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError,
)  # fmt: skip
_log = logging.getLogger(__name__)


class Fx(Protocol):
    """Gives the rate that a job freezes."""

    async def rate(self) -> Rate:
        """A fresh rate.

        Raises:
            FxUnpriced: there is none.
        """

    def known(self) -> Rate | None:
        """The rate if it is known and fresh: nobody is asked for it."""

    def sources(self) -> list[dict[str, Any]]:
        """Each source: `name`, `usd` as decimal text, `at` in Unix seconds, `counts`, and why if it does not."""


class Fixed:
    """A rate that the owner chose; it is as fresh as the clock."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate

    async def rate(self) -> Rate:
        """See `Fx`."""
        return self._rate

    def known(self) -> Rate | None:
        """See `Fx`."""
        return self._rate

    def sources(self) -> list[dict[str, Any]]:
        """See `Fx`."""
        usd = Decimal(self._rate.micro_usd) / MICRO
        return [{"name": self._rate.source, "usd": f"{usd:f}", "at": self._rate.taken_at, "counts": True, "why": ""}]


@dataclass(slots=True)
class _Asked:
    """What is known of one source. It is not asked before `not_before`; the more `failures` in a row, the later."""

    feed: Feed
    price: Price | None = None
    why: str = "not asked yet"
    failures: int = 0
    not_before: float = 0.0


class _Busy(NoPrice):
    """A source wants to be left alone for some seconds."""

    def __init__(self, seconds: int) -> None:
        super().__init__("asked too often")
        self.seconds = seconds


class Oracle:
    """What one source says, or what several agree on.

    Args:
        feeds: the sources; chosen by the owner.
        least: so many must agree.
        max_age_s: how old a price may be that is used.
        http: makes the connections; its owner closes it.
        clock: stamps prices.
    """

    def __init__(
        self, feeds: Sequence[Feed], least: int, max_age_s: int, http: aiohttp.ClientSession, clock: Clock
    ) -> None:
        self._asked = [_Asked(feed) for feed in feeds]
        self._least, self._max_age_s = least, max_age_s
        self._http, self._clock = http, clock
        self._last: Rate | None = None
        self._agreement = Agreement(None, reason="no source has been asked yet")
        self._asking = asyncio.Lock()

    async def rate(self) -> Rate:
        """See `Fx`. Asks the sources only if what is known is too old."""
        if not self._fresh():
            async with self._asking:
                if not self._fresh():
                    await self._refresh()
        if self._last is None or not self._fresh():
            raise FxUnpriced(f"There is no fresh exchange rate: {self._agreement.reason or 'the last one is too old'}.")
        return self._last

    def sources(self) -> list[dict[str, Any]]:
        """See `Fx`."""
        return [
            {
                "name": one.feed.name,
                "usd": f"{one.price.usd:f}" if one.price is not None else None,
                "at": one.price.at if one.price is not None else None,
                "counts": one.feed.name in self._agreement.counted,
                "why": self._agreement.left_out.get(one.feed.name) or one.why,
            }
            for one in self._asked
        ]

    def known(self) -> Rate | None:
        """See `Fx`."""
        return self._last if self._fresh() else None

    def _fresh(self) -> bool:
        return self._last is not None and -_AHEAD_S <= self._clock.now() - self._last.taken_at <= self._max_age_s

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Ask every minute, and sooner if what is known grows old, so that no job has to wait for a price."""
        ready.set()
        while not stop.is_set():
            async with self._asking:
                await self._refresh()
            waiting = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self._clock.sleep(self._pause()))]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.gather(*waiting, return_exceptions=True)

    def _pause(self) -> float:
        if self._last is None:
            return float(_LEAST_S)
        left = self._last.taken_at + self._max_age_s - _AHEAD_S - self._clock.now()
        return float(max(_LEAST_S, min(_PERIOD_S, left)))

    async def _refresh(self) -> None:
        """Ask all that may be asked, and see what they come to. The last rate stays if they come to nothing."""
        now = self._clock.monotonic()
        asked = [one for one in self._asked if now >= one.not_before]
        await asyncio.gather(*map(self._ask, asked))
        prices = [one.price for one in self._asked if one.price is not None]  # also of one that is silent for a moment
        self._agreement = agreed(prices, self._clock.now(), self._max_age_s, self._least)
        found = self._agreement
        if found.usd is None:
            if not asked:  # nothing is new, however many jobs want a rate
                return
            _log.warning("no exchange rate", extra={"action": "fx_failed", "reason": found.reason})
            return
        rate = Rate(int(found.usd * MICRO), MSAT_PER_BTC, found.at, "+".join(found.counted))
        if self._last is not None and jumps(self._last, rate):
            self._agreement = Agreement(None, left_out=found.left_out, reason="it jumps too far to be believed at once")
            _log.warning("the exchange rate jumps too far to be used", extra={"action": "fx_jump"})
            return
        self._last = rate

    async def _ask(self, one: _Asked) -> None:
        try:
            one.price, one.why, one.failures = await self._price(one.feed), "", 0
            one.not_before = self._clock.monotonic() + _LEAST_S
        except _FAILURES as error:
            one.failures += 1
            wait = error.seconds if isinstance(error, _Busy) else min(_LEAST_S * one.failures, _PERIOD_S)
            one.not_before = self._clock.monotonic() + wait
            one.why = str(error) if isinstance(error, NoPrice) else f"no answer ({type(error).__name__})"
            said = {"action": "fx_source_failed", "source": one.feed.name, "error": type(error).__name__}
            _log.info("a source gives no price", extra=said)

    async def _price(self, feed: Feed) -> Price:
        async with self._http.get(feed.url, timeout=_TIMEOUT, allow_redirects=False) as response:
            if response.status in (429, 503):
                asked = response.headers.get("Retry-After", "")
                seconds = int(asked) if asked.isdecimal() and len(asked) < 9 else _PERIOD_S
                raise _Busy(min(max(seconds, _PERIOD_S), _LONGEST_S))
            if response.status != 200:
                raise NoPrice(f"answered with {response.status}")
            raw = await response.content.read(_MAX_ANSWER + 1)
            while len(raw) <= _MAX_ANSWER and (more := await response.content.read(_MAX_ANSWER)):
                raw += more
        if len(raw) > _MAX_ANSWER:
            raise NoPrice("the answer is too long")
        return read_price(raw, feed, self._clock.now())


def history(rate: Rate) -> Insert:
    """The row that keeps a rate which was used; committed with what used it."""
    return Insert(
        "rate",
        {"micro_usd": rate.micro_usd, "msat": rate.msat, "taken_at": rate.taken_at, "source": rate.source},
    )


async def used(unit: UnitOfWork) -> list[dict[str, Any]]:
    """The last rates that were used, oldest first: `micro_usd`, `msat`, `taken_at`, `source`."""
    columns = ("micro_usd", "msat", "taken_at", "source")
    return (await unit.select("rate", order=("-n",), limit=_SHOWN, columns=columns))[::-1]
