"""Before it acts, each process of a node waits until what follows from a restore is done (`node.backup.copy`).

The one that leads does it; the others read that it was done. All of them renew their leases meanwhile, so that another
one goes on with it if the leader dies.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core.clock import Clock

log = logging.getLogger(__name__)

LOOK_S = 0.2


class Threshold:
    """A service that is ready when the rows may be acted upon. It comes before whatever ticks, rings or answers.

    Args:
        clock: time.
        leads: whether this process leads.
        is_adopted: whether it was done.
        adopt: does it; again, it does nothing.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        leads: Callable[[], bool],
        is_adopted: Callable[[], Awaitable[bool]],
        adopt: Callable[[], Awaitable[None]],
    ) -> None:
        self._clock, self._leads, self._is_adopted, self._adopt = clock, leads, is_adopted, adopt

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Wait until it is done, or do it.

        Raises:
            VendoError: the database failed.
        """
        waits = False
        while not stop.is_set() and not await self._is_adopted():
            if self._leads():
                await self._adopt()
                continue
            if not waits:
                log.info("the steward looks first at what was restored", extra={"action": "restored_waits"})
            waits = True
            await self._rest(stop)
        if not stop.is_set():
            ready.set()
            await stop.wait()

    async def _rest(self, stop: asyncio.Event) -> None:
        waiting = [asyncio.create_task(one) for one in (self._clock.sleep(LOOK_S), stop.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()
