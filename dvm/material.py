"""Fetches what a job builds on: results of earlier jobs and events, from our own relays alone, within a bounded time.

Only a job that was paid for, or that the free allowance covers, comes here (M7); the free ones wait for less, and ask
in places of their own, so that a crowd of them is not in the way of those that paid. Relays that a request names
are not asked: a stranger's word makes us connect to nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from core.clock import Clock
from core.identifier import is_hex64
from dvm.chain import (
    MAX_REFERENCES,
    NOT_YET,
    Found,
    as_compute,
    earlier_request,
    event_text,
    previewed,
    references,
    resolved,
    result_text,
    wanted,
)
from dvm.error import ProviderFailed
from dvm.request import MAX_INPUT_BYTES, ComputeRequest, Datum
from relays.event import Event
from relays.filter import Filter
from relays.nip90 import JobRequest

LONGEST_WAIT_S = 60.0
FREE_WAIT_S = 10.0
PAID_PLACES, FREE_PLACES = 32, 4  # questions to our relays at once
FETCH_S = 10.0
_FIRST_LOOK_S, _LAST_LOOK_S = 0.5, 5.0
Fetch = Callable[[Sequence[Filter], float], Awaitable[list[Event]]]


class Material:
    """Turns references into text.

    Args:
        fetch: what our relays have stored, verified, within so many seconds.
        clock: time.
        most_bytes: all inputs together, with what they stand for.
    """

    def __init__(self, fetch: Fetch, clock: Clock, most_bytes: int = MAX_INPUT_BYTES) -> None:
        self._fetch, self._clock, self._most_bytes = fetch, clock, most_bytes
        self._paid, self._free = asyncio.Semaphore(PAID_PLACES), asyncio.Semaphore(FREE_PLACES)

    async def gather(self, request: JobRequest, within_s: float, *, paid: bool) -> ComputeRequest:
        """The request as its provider works on it, with everything that it builds on in place.

        Args:
            request: as it came.
            within_s: how long the work may take in all.
            paid: whether a verified payment came for it.

        Raises:
            ProviderFailed: something is not there in time, will never be, or is too long.
        """
        asked = as_compute(request)
        if references(asked) and previewed(asked) is asked:
            raise ProviderFailed(f"It builds on more than {MAX_REFERENCES} others, or on something that is no event.")
        end = self._clock.monotonic() + min(within_s, LONGEST_WAIT_S if paid else FREE_WAIT_S)
        places = self._paid if paid else self._free
        texts: dict[Datum, str] = {}
        pinned = dict(request.results)
        if not all(is_hex64(one) for one in pinned.values()):
            raise ProviderFailed("It names a result by something that is no event id.")
        for item in references(asked):
            texts[item] = await self._text(item, pinned.get(item.data, ""), end, places)
        whole = resolved(asked, texts)
        size = sum(len(item.data.encode(errors="replace")) for item in whole.inputs)
        if texts and size > self._most_bytes:
            raise ProviderFailed(f"With what it builds on, the input has {size} bytes; {self._most_bytes} are served.")
        return whole

    async def _text(self, item: Datum, pinned: str, end: float, places: asyncio.Semaphore) -> str:
        wait = _FIRST_LOOK_S
        earlier: Event | None = None
        while True:
            async with places:
                if item.type == "job" and earlier is None:
                    earlier = earlier_request(item, await self._fetch(wanted(item, None, ""), FETCH_S))
                found = await self._look(item, earlier, pinned)
            if found.text is not None:
                return found.text
            if self._clock.monotonic() + wait > end:
                raise ProviderFailed(f"The {item.type} that this one builds on did not come in time: {item.data[:16]}…")
            await self._clock.sleep(wait)
            wait = min(wait * 1.5, _LAST_LOOK_S)

    async def _look(self, item: Datum, earlier: Event | None, pinned: str) -> Found:
        if item.type == "job" and earlier is None:
            return NOT_YET
        events = await self._fetch(wanted(item, earlier, pinned), FETCH_S)
        return event_text(item, events) if earlier is None else result_text(earlier, events, pinned)
