"""What this process holds ready of agents where others tick them too: keys, settings, ears come with the first tick.

The steward hears all agents that do not hibernate. The others learn of one when they are to tick it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from core.error import NotFound
from core.unit import Row
from node.agent.presence import Presence
from node.agent.roster import Roster
from relays.signer import Signer


class Others(Protocol):
    """The other processes: `node.share.company.Company`."""

    @property
    def leads(self) -> bool:
        """Whether this is the steward."""

    def changed(self) -> None:
        """Tell them that agents are not what they were."""


class Household:
    """`node.agent.tick.engine.Household` of a process among others.

    Args:
        roster: the agents.
        programs: what there is to run here.
        others: who hears of it.
    """

    def __init__(self, roster: Roster, programs: Mapping[str, Any], others: Others) -> None:
        self._roster, self._programs, self._others = roster, programs, others

    async def ready(self, name: str) -> bool:
        """Hold an agent ready that is to have a tick here; false if it cannot have one in this process.

        Raises:
            VendoError: it cannot be done now.
        """
        if self._roster.is_awake(name):
            return self._can_run(name)
        return await self._roster.visit(name) and self._can_run(name) and await self._roster.rouse(name)

    def _can_run(self, name: str) -> bool:
        section = self._roster.find(name)
        return section is not None and self._programs.get(section.program) is not None

    async def rouse(self, name: str, row: Row | None = None) -> bool:
        """An agent wakes that hibernated."""
        found = await self._roster.rouse(name, row)
        self._tell()
        return found

    def rest(self, name: str) -> None:
        """An agent hibernates."""
        self._roster.rest(name)
        self._tell()

    async def follow(self) -> None:
        """Other processes have changed agents.

        Raises:
            VendoError: the database failed.
        """
        await self._roster.follow(everybody=self._others.leads)

    def _tell(self) -> None:
        if not self._others.leads:
            self._others.changed()


class Announcing:
    """`node.agent.roster.Publishing` of a process among others: only the steward says anything in public.

    Args:
        presence: says it.
        leads: whether this is the steward.
    """

    def __init__(self, presence: Presence, leads: Callable[[], bool]) -> None:
        self._presence, self._leads = presence, leads

    def renew(self, name: str) -> None:
        """Say who an agent is, soon."""
        if self._leads():
            self._presence.renew(name)

    def forget(self, name: str) -> None:
        """Say nothing more of it."""
        self._presence.forget(name)

    async def withdraw(self, name: str, signer: Signer) -> None:
        """Take back what was said.

        Raises:
            NotFound: this is not the steward.
        """
        if not self._leads():
            raise NotFound("Only the steward takes back what was said in public.")
        await self._presence.withdraw(name, signer)
