"""Whose turn an agent is first, where several processes share a database.

So that members do not race for every message, each agent has one member that claims it first; the others try a little
later, and everybody looks in the table once a second for what nobody heard of.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from core.clock import Clock
from core.error import VendoError
from node.share.claim import Member, SharedClaims
from node.share.tenure import turn
from node.storage.seat import Roll

log = logging.getLogger(__name__)

LOOK_S = 1.0
OTHERS_TURN_MS = 300
_FOUND = 500


class Inboxes(Protocol):
    """Where it is seen for whom something waits: `node.storage.lease.Leases`."""

    async def waiting(self, limit: int) -> list[str]:
        """Agents that nobody holds and for whom something is due."""


class Ticking(Protocol):
    """What ticks agents: `node.agent.tick.engine.Engine`."""

    def notify(self, agent: str) -> None:
        """Something was committed to its inbox."""

    def notify_at(self, agent: str, at_ms: int) -> None:
        """Look at its inbox about then."""


class Shift:
    """Hands notices to the member whose turn it is. A service: `run` looks for what nobody heard of.

    Args:
        inboxes: for whom something waits.
        member: this process.
        claims: what this process holds.
        engine: ticks.
        clock: time.
        tell: as in `SharedClaims`.
    """

    def __init__(
        self,
        inboxes: Inboxes,
        member: Member,
        claims: SharedClaims,
        engine: Ticking,
        clock: Clock,
        tell: Callable[[Collection[str]], None],
    ) -> None:
        self._inboxes, self._member, self._claims, self._engine = inboxes, member, claims, engine
        self._clock, self._tell = clock, tell
        self._members: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._failing = False

    def called(self, roll: Roll) -> None:
        """Who is in, as of now. If somebody was put out, what it left undone is looked for at once."""
        self._members = {seat.place.id: seat.place.slot * 1_000_003 + seat.place.token for seat in roll.members}
        if roll.put_out:
            self._wake.set()

    def notify(self, agent: str) -> None:
        """Something was committed to an agent's inbox, by this process."""
        if not self._take(agent):
            self._tell((agent,))

    def heard(self, agents: Sequence[str]) -> None:
        """Another member said that something waits for these agents."""
        for agent in agents:
            if self._claims.knows(agent):
                self._take(agent)

    def _take(self, agent: str) -> bool:
        """Look at its inbox, at once if that is this member's to do; whether it is."""
        own = self._claims.holds(agent) or turn(agent, self._members) in (self._member.place.id, "")
        if own:
            self._engine.notify(agent)
        else:
            self._engine.notify_at(agent, self._clock.millis() + OTHERS_TURN_MS)
        return own

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Look for agents that nobody holds and for whom something waits, until `stop`."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                waiting = [asyncio.create_task(one) for one in (self._clock.sleep(LOOK_S), self._wake.wait())]
                await asyncio.wait((*waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
                for one in waiting:
                    one.cancel()
                self._wake.clear()
                if not stop.is_set():
                    await self._look()
        finally:
            stopping.cancel()

    async def _look(self) -> None:
        try:
            found = await self._inboxes.waiting(_FOUND)
        except VendoError as error:
            if not self._failing:  # once, and not each second
                log.warning("inboxes are not looked at", extra={"action": "look_failed", "code": error.code})
            self._failing = True
            return
        self._failing = False
        for agent in found:
            if self._claims.knows(agent):
                self._engine.notify(agent)
