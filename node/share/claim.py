"""Which agents this process holds, where several share a database: who holds an agent ticks it (`agent.holder`).

A claim takes an agent before its first tick, durably and under a higher epoch, which the tick's commit compares. It is
given back when nothing was to be done for a second, or sooner if another member waits for it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Protocol

from core.clock import Clock
from core.error import VendoError
from node.storage.seat import Place

log = logging.getLogger(__name__)

IDLE_S = 1.0
FOREIGN_S = 30.0
TAKE_S, WANTED_S = 5.0, 1.0
_PACE_S = 0.25
_ASK_S = 0.1


class Holders(Protocol):
    """Where it is written who holds an agent: `node.storage.lease.Leases`."""

    async def claim(self, place: Place, agents: Collection[str]) -> set[str]:
        """Take agents that nobody holds."""

    async def release(self, place: Place, agents: Collection[str]) -> None:
        """Give agents back."""


class Member(Protocol):
    """This process among the others: `node.share.member.Membership`."""

    @property
    def place(self) -> Place:
        """Its place."""

    @property
    def may_act(self) -> bool:
        """Whether its lease is certain."""


class SharedClaims:
    """`node.agent.tick.engine.Claims` over table `agent`. A service: `run` gives back what is idle.

    Args:
        holders: who holds what.
        member: this process.
        clock: time.
        ready: makes this process ready to tick an agent that it holds; false if it cannot: the agent stands in the
            configuration of another process, or its program is not here.
        tell: tells the others that something waits for agents that one of them holds.
        ask: asks the others for agents that one of them holds.
    """

    def __init__(
        self,
        holders: Holders,
        member: Member,
        clock: Clock,
        ready: Callable[[str], Awaitable[bool]],
        tell: Callable[[Collection[str]], None],
        ask: Callable[[Collection[str]], None],
    ) -> None:
        self._holders, self._member, self._clock, self._ready = holders, member, clock, ready
        self._tell, self._ask = tell, ask
        self._wanted: dict[str, float] = {}  # agents that another member waits for, and until when
        self._held: dict[str, float | None] = {}  # since when it is idle, by the monotonic clock; None: in use
        self._doubtful: set[str] = set()  # agents that may be ours in the database: a question about them broke off
        self._foreign: dict[str, float] = {}  # agents that cannot be ticked here, and until when that is believed

    async def claim(self, agents: Collection[str]) -> set[str]:
        """Those of these agents that this process may tick now.

        Raises:
            StoreFailed: the database does not answer.
        """
        if not self._member.may_act:
            return set()
        agents = [name for name in agents if not self._is_wanted(name)]
        mine = {name for name in agents if name in self._held}
        self._held.update(dict.fromkeys(mine))
        wanted = [name for name in agents if name not in mine and self.knows(name)]
        if wanted:
            with self._doubted(wanted):
                taken = await self._holders.claim(self._member.place, wanted)
                if refused := [name for name in wanted if name not in taken]:
                    self._tell(refused)
                mine |= await self._readied(taken)
        return mine

    @contextmanager
    def _doubted(self, agents: Collection[str]) -> Iterator[None]:
        """What is not known to be held when this ends too early is given back later, in case it is ours."""
        self._doubtful.difference_update(agents)
        is_known = False
        try:
            yield
            is_known = True
        finally:
            if not is_known:
                self._doubtful.update(name for name in agents if name not in self._held)

    async def _readied(self, taken: Collection[str]) -> set[str]:
        """Those of these that can be ticked here; the others are given back.

        One that cannot be ticked in this process at all is not asked for again for a while.
        """
        names = list(taken)
        found = await asyncio.gather(*map(self._ready, names), return_exceptions=True)
        able: set[str] = set()
        for name, result in zip(names, found, strict=True):
            if result is True:
                able.add(name)
            elif result is False:
                self._foreign[name] = self._clock.monotonic() + FOREIGN_S
            elif isinstance(result, VendoError):
                log.warning(
                    "an agent cannot be made ready",
                    extra={"action": "agent_unready", "agent": name, "code": result.code},
                )
            else:
                raise result
        self._held.update(dict.fromkeys(able))
        if others := [name for name in names if name not in able]:
            await self._holders.release(self._member.place, others)
            self._tell(others)
        return able

    async def take(self, agent: str) -> bool:
        """As `claim`, for somebody who waits: whoever holds the agent is asked to give it back.

        Raises:
            StoreFailed: the database does not answer.
        """
        until = self._clock.monotonic() + TAKE_S
        while agent not in await self.claim([agent]):
            if not self._member.may_act or not self.knows(agent) or self._clock.monotonic() >= until:
                return False
            self._ask([agent])
            await self._clock.sleep(_ASK_S)
        return True

    def wanted(self, agents: Sequence[str]) -> None:
        """Another member waits for these: they go back as soon as nothing is to be done for them."""
        until = self._clock.monotonic() + WANTED_S
        for name in agents:
            if name in self._held:
                self._wanted[name] = until
                if self._held[name] is not None:
                    self._held[name] = -inf

    def _is_wanted(self, agent: str) -> bool:
        until = self._wanted.get(agent)
        if until is not None and until <= self._clock.monotonic():
            del self._wanted[agent]
        return agent in self._wanted

    def knows(self, agent: str) -> bool:
        """Whether an agent may be ticked here, as far as is known."""
        until = self._foreign.get(agent)
        if until is not None and until <= self._clock.monotonic():
            del self._foreign[agent]
        return agent not in self._foreign

    async def release(self, agents: Collection[str]) -> None:
        """Nothing is to be done for these at the moment; others may have them in a second."""
        now = self._clock.monotonic()
        self._held.update({name: -inf if self._is_wanted(name) else now for name in agents if name in self._held})

    def lost(self, agent: str) -> None:
        """A commit found that somebody else holds it."""
        self._held.pop(agent, None)

    def holds(self, agent: str) -> bool:
        """Whether this process holds an agent."""
        return agent in self._held

    @property
    def held(self) -> int:
        """How many agents this process holds."""
        return len(self._held)

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Give back what is idle, until `stop`; what is then held goes back with the lease."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                pause = asyncio.create_task(self._clock.sleep(_PACE_S))
                await asyncio.wait((pause, stopping), return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
                await self._give_back()
        finally:
            stopping.cancel()

    async def _give_back(self) -> None:
        before = self._clock.monotonic() - IDLE_S
        idle = [name for name, since in self._held.items() if since is not None and since <= before]
        for name in idle:
            del self._held[name]  # at once: who wants it now claims it behind this release, on the same connection
        given = [*idle, *(name for name in self._doubtful if name not in self._held)]
        try:
            if given:
                with self._doubted(given):
                    await self._holders.release(self._member.place, given)
        except VendoError as error:  # nobody else takes them before that has worked, and we may claim them again
            if not idle:
                return  # it was said when they were tried for the first time
            log.warning("agents were not given back", extra={"action": "release_failed", "code": error.code})
