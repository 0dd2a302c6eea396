"""The processes that share one database, as one of them sees it: what every part needs of that, put together.

A node on a file, or in memory, has no company: it is alone, and none of this exists.
"""

import os
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from core.clock import Clock
from node.service import Service
from node.share.bell import AGENTS, GIVE, LEFT, Bell
from node.share.claim import SharedClaims
from node.share.member import Membership
from node.share.shift import Shift, Ticking
from node.storage.error import Fenced
from node.storage.fence import Fence
from node.storage.lease import Leases


class Company:
    """One member. `join` before anything is written; then `fence` goes into every transaction.

    Args:
        url: the database.
        clock: time.
        lock: names the lock of this process's home.
        lease_s: how long a lease runs.
        renew_s: how often it is renewed.
        end: ends the process; called once when it was put out.
        agents: those that stand in this process's configuration.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        lock: str,
        lease_s: float,
        renew_s: float,
        end: Callable[[Fenced], None],
        agents: Collection[str] = (),
    ) -> None:
        self._clock, self._agents = clock, sorted(agents)
        self._leases = Leases(url, int(lease_s * 1_000))
        self.member = Membership(
            self._leases, clock, lock=lock, lease_s=lease_s, renew_s=renew_s, about=self._about, end=end
        )
        self.bell = Bell(self._leases, lambda: self.member.place.id)
        self.claims = SharedClaims(self._leases, self.member, clock, self._ready, self.bell.agents, self.bell.give)
        self.bell.on(GIVE, self.claims.wanted)
        self.bell.on(LEFT, lambda _: self.member.hurry())
        self._shift: Shift | None = None
        self._rouse: Callable[[str], Awaitable[bool]] | None = None
        self._url = ""

    async def join(self) -> Fence:
        """Take a place among the others.

        Raises:
            StoreFailed: the database does not answer.
        """
        await self.member.join()
        return self.member.fence

    async def aclose(self) -> None:
        """Leave, if that was not done in order, and end the connections."""
        await self.member.leave()
        await self._leases.aclose()

    def employ(self, engine: Ticking, rouse: Callable[[str], Awaitable[bool]]) -> None:
        """Share out the ticks of this engine with the others.

        Args:
            engine: ticks.
            rouse: makes this process ready for an agent; false if it cannot tick it.
        """
        self._rouse = rouse
        self._shift = shift = Shift(self._leases, self.member, self.claims, engine, self._clock, self.bell.agents)
        self.member.on_roll(shift.called)
        shift.called(self.member.roll)
        self.bell.on(AGENTS, shift.heard)

    async def _ready(self, agent: str) -> bool:
        return self._rouse is not None and await self._rouse(agent)

    def notify(self, agent: str) -> None:
        """Something was committed to an agent's inbox, by this process."""
        if self._shift is not None:
            self._shift.notify(agent)

    @property
    def parts(self) -> list[tuple[str, Service]]:
        """Its services; the first of a node, so that they stop last."""
        found: list[tuple[str, Service]] = [("lease", self.member), ("bell", self.bell), ("claims", self.claims)]
        return [*found, ("shift", self._shift)] if self._shift is not None else found

    # ---- for the gate: `node.gate.gate.Shared`

    @property
    def slot(self) -> int:
        """Its place, from 0."""
        return self.member.place.slot

    @property
    def leads(self) -> bool:
        """Whether it is the steward."""
        return self.member.leads

    def slots(self) -> Collection[int]:
        """The places of the others."""
        return [int(one.partition(".")[0]) for one in self.member.others()]

    def begun(self) -> None:
        """It began an effect that the steward goes on with."""
        self.bell.work()

    def check(self) -> None:
        """Called before anything is done outside of the database.

        Raises:
            LeaseUnsure: another process may have taken its place.
        """
        self.member.check()

    def changed(self) -> None:
        """Agents, their keys or whom they hear are not what they were."""
        self.bell.change()

    # ---- for people, and for the others

    def listens(self, url: str) -> None:
        """Where this process's control plane is."""
        self._url = url
        self.member.hurry()

    def _about(self) -> Mapping[str, Any]:
        return {"host": self.host, "pid": os.getpid(), "url": self._url, "agents": self._agents}

    def named(self) -> set[str] | None:
        """Agents that stand in the configuration of another member; None if one of an older version does not say."""
        found = [self.member.about(one).get("agents") for one in self.member.others()]
        return None if None in found else {str(name) for names in found if names for name in names}

    def facts(self) -> dict[str, Any]:
        """Who is in, who leads, and how many agents this process holds."""
        return {**self.member.facts(), "agents_held": self.claims.held}

    @property
    def host(self) -> str:
        """The name of this machine."""
        return socket.gethostname()

    def steward(self) -> Mapping[str, str]:
        """What the steward says of itself: where its control plane is, and on which machine."""
        about = self.member.about(self.member.roll.steward)
        return {name: str(about.get(name, "")) for name in ("url", "host")} if about else {}

    def neighbours(self) -> list[str]:
        """Control planes of the other members on this machine."""
        found = [self.member.about(one) for one in self.member.others()]
        return [str(one["url"]) for one in found if one.get("url") and one.get("host") == self.host]

    async def health(self) -> str | None:
        """Why this process may not act, if so; for `/readyz`."""
        if not self.member.may_act:
            return "the lease could not be renewed in time"
        return None if self.member.roll.steward else "there is no steward at the moment"
