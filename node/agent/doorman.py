"""Letters to agents that hibernate: their keys are listened for in turns, a window of them at a time.

A key that a relay is to watch costs memory here and there. So only `WINDOW` of the agents that hibernate are heard at
once; if there are no more, each of them is heard all the time, and if there are, each is for half a minute in its turn,
and what was sent meanwhile is read from the relays. What comes goes the way of all messages: admission is judged
first, so a stranger wakes nobody, and an inbox row wakes the agent.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from core.clock import Clock
from core.error import VendoError
from core.unit import Condition, Insert, UnitOfWork, Update, Within

log = logging.getLogger(__name__)

KEY = "doorman"
WINDOW = 500
TURN_S = 30.0
_RETRY_S = 60.0
_OVERLAP_S = 600  # clocks differ, and relays take a while to hand on


class Bell(Protocol):
    """The agents: `node.agent.roster.Roster`."""

    async def overhear(self, names: Sequence[str], since: int) -> None:
        """Hear agents that hibernate, from this time on (Unix seconds), without waking them."""

    def unhear(self, names: Sequence[str]) -> None:
        """Hear those of them no more that still hibernate."""


class Doorman:
    """Hears for agents that hibernate. A service: `run` goes round.

    Args:
        unit: the database.
        clock: time.
        bell: the agents.
        window: how many are heard at once.
        turn_s: how long, if there are more of them.
    """

    def __init__(
        self, unit: UnitOfWork, clock: Clock, bell: Bell, *, window: int = WINDOW, turn_s: float = TURN_S
    ) -> None:
        self._unit, self._clock, self._bell = unit, clock, bell
        self._window, self._turn_s = window, turn_s
        self._heard: list[str] = []
        self._wake = asyncio.Event()

    def changed(self) -> None:
        """An agent has begun to hibernate."""
        self._wake.set()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Go round until `stop`."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        after, begun, since = "", self._clock.now(), await self._since()
        try:
            while not stop.is_set():
                self._wake.clear()
                try:
                    names = await self._next(after)
                    await self._turn(names, since)
                except VendoError as error:
                    log.warning("nobody is at the door", extra={"action": "doorman_failed", "code": error.code})
                    await self._rest(stopping, _RETRY_S)
                    continue
                whole = len(names) < self._window
                if whole and not after:
                    await self._rest(stopping, None)  # all of them are heard; somebody new may come
                    continue
                await self._rest(stopping, self._turn_s)
                after = "" if whole else names[-1]
                if whole:
                    since = begun
                    begun = self._clock.now()
                    await self._remember(since)
        finally:
            stopping.cancel()
            self._bell.unhear(self._heard)
            self._heard = []

    async def _next(self, after: str) -> list[str]:
        where: dict[str, Condition] = {"status": "dormant", "name": Within(after + "\0" if after else "")}
        rows = await self._unit.select("agent", where, order=("name",), limit=self._window, columns=("name",))
        return [row["name"] for row in rows]

    async def _turn(self, names: Sequence[str], since: int) -> None:
        """Hear these, and no longer those of the turn before."""
        coming = set(names)
        self._bell.unhear([name for name in self._heard if name not in coming])
        known = set(self._heard)
        self._heard = [name for name in self._heard if name in coming]
        await self._bell.overhear([name for name in names if name not in known], since)
        self._heard = list(names)

    async def _since(self) -> int:
        """Since when the relays are to be read: the last whole round began then. 0: there was none."""
        rows = await self._unit.select("meta", {"key": KEY})
        return max(0, int(rows[0]["value"]) - _OVERLAP_S) if rows else 0

    async def _remember(self, at: int) -> None:
        await self._unit.commit(
            [
                Insert("meta", {"key": KEY, "value": str(at)}, or_ignore=True),
                Update("meta", {"key": KEY}, {"value": str(at)}),
            ]
        )

    async def _rest(self, stopping: asyncio.Task[bool], seconds: float | None) -> None:
        """Until the next turn, or the end; without a time, until somebody new hibernates."""
        woken = asyncio.create_task(self._wake.wait())
        waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {stopping}
        slept: asyncio.Task[None] | None = None
        if seconds is None:
            waiting.add(woken)
        else:
            slept = asyncio.create_task(self._clock.sleep(seconds))
            waiting.add(slept)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            if slept is not None:
                slept.cancel()
