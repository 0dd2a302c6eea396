"""Which agents there are: those of the configuration, and those that were added while the node ran.

An added agent is a row in table `meta` (`agent/<name>`) before anything is made for it, and so is its deletion before
anything is taken away: whatever a crash interrupts goes on at the next start. A name that was deleted stays used.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import ValidationError

from core.clock import Clock
from core.error import InvalidInput, NotFound, VendoError
from core.identifier import PubKey
from core.unit import Insert, UnitOfWork, Update
from node.config import AgentSection
from node.error import AgentConfigured, AgentTaken
from node.message.admission import Rules
from node.message.voice import Voices
from relays.key import npub
from relays.signer import Signer

log = logging.getLogger(__name__)

KEY = "agent/"
_RESERVED = ("list", "new")  # files of the operator's /agents
MAX_AGENTS = 20_000
_BREATH = 64


class Keys(Voices, Protocol):
    """Identities that can be made and given up: `node.identity.registry.Identities`."""

    async def load(self, names: Sequence[str] = ()) -> None:
        """Give a key to each name that has none."""

    async def add(self, name: str) -> Signer:
        """Give a new name its first key, and tell whoever wants to know."""

    async def retire(self, name: str) -> None:
        """Give up a name's keys."""


class Maker(Protocol):
    """Where agents live: `node.agent.engine.Engine`."""

    async def create(self, name: str, program: str, pubkey: PubKey) -> None:
        """See to it that an agent is there."""


class Hearing(Protocol):
    """What hears for agents: `node.message.service.Messages`."""

    def attach(self, agent: str, since: int, rules: Rules | None = None) -> None:
        """Hear an agent from now on."""

    def detach(self, agent: str) -> None:
        """Hear it no more."""


class Publishing(Protocol):
    """What tells the public: `node.agent.presence.Presence`."""

    def renew(self, name: str) -> None:
        """Say who an agent is, soon."""

    async def withdraw(self, name: str, signer: Signer) -> None:
        """Take back what was said."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent. `configured`: it stands in config.toml, and goes only from there."""

    section: AgentSection
    configured: bool


class Roster:
    """Adds, lists and deletes agents.

    Args:
        unit: the database.
        clock: time.
        keys: their identities.
        maker: where they live.
        hearing: what hears for them.
        publishing: what tells the public of them.
        configured: those of the configuration.
        rules: whom an agent hears, from its settings.
        programs: what there is to run.
        gone: is told of a name that is no more.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        keys: Keys,
        maker: Maker,
        hearing: Hearing,
        publishing: Publishing,
        configured: Sequence[AgentSection],
        rules: Callable[[AgentSection], Rules],
        programs: Sequence[str],
        gone: Callable[[str], None],
    ) -> None:
        self._unit, self._clock, self._keys, self._maker = unit, clock, keys, maker
        self._hearing, self._publishing, self._rules = hearing, publishing, rules
        self._programs, self._gone = tuple(programs), gone
        self._entries = {one.name: Entry(one, True) for one in configured}
        self._made: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._changing = asyncio.Lock()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def find(self, name: str) -> AgentSection | None:
        """An agent's settings, or None."""
        entry = self._entries.get(name)
        return entry.section if entry is not None else None

    def names(self) -> list[str]:
        """All agents."""
        return list(self._entries)

    def is_leaving(self, name: str) -> bool:
        """Whether it was deleted, and something of that is still to do."""
        return name in self._leaving

    # ---- life

    async def prepare(self) -> None:
        """At start: make what is missing, and finish deletions, as far as that goes: a signer may be away (NIP-46).

        Raises:
            InvalidInput: an agent was made with another program or key.
        """
        for row in await self._unit.select("meta"):
            if not row["key"].startswith(KEY):
                continue
            name, saved = row["key"].removeprefix(KEY), orjson.loads(row["value"])
            if saved.get("deleted"):
                self._leaving |= set() if saved.get("done") else {name}
            elif name not in self._entries:
                self._entries[name] = Entry(AgentSection.model_validate(saved["section"]), False)
        await self._keys.load(list(self._entries))
        made = {row["name"]: row["created_at"] for row in await self._unit.select("agent")}
        for count, (name, entry) in enumerate(self._entries.items()):
            if count % _BREATH == 0:
                await asyncio.sleep(0)
            await self._join(entry, made.get(name))
        for name in sorted(self._leaving):
            try:
                await self._leave(name)
            except VendoError as error:
                log.warning("an agent is not gone yet", extra={"action": "leaving", "agent": name, "code": error.code})

    async def _join(self, entry: Entry, made_at: int | None) -> None:
        section = entry.section
        signer = self._keys.get(section.name)
        if signer is None:
            raise NotFound(f"The agent {section.name!r} has no key.")
        await self._maker.create(section.name, section.program, signer.pubkey)
        since = self._made[section.name] = made_at if made_at is not None else self._clock.now()
        self._hearing.attach(section.name, since, self._rules(section))
        self._publishing.renew(section.name)

    def rekeyed(self, name: str) -> None:
        """An agent's key was replaced: hear the new one too, and say so in public."""
        if name in self._entries and self._keys.get(name) is not None and name in self._made:
            self._hearing.attach(name, self._made[name])
            self._publishing.renew(name)

    # ---- changes

    async def add(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """Make an agent. The same settings again change nothing.

        Args:
            value: its settings, as in `[[agent]]`.

        Raises:
            InvalidInput: a setting is not valid.
            AgentTaken: there is, or was, another agent of this name.
        """
        try:
            section = AgentSection.model_validate(dict(value))
        except ValidationError as error:
            lines = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
            raise InvalidInput("; ".join(lines)[:500]) from error
        if section.name in _RESERVED:
            raise InvalidInput(f"{section.name!r} is no name for an agent.")
        if section.program not in self._programs:
            raise InvalidInput(f"This node has no program called {section.program!r}.")
        async with self._changing:
            known = self._entries.get(section.name)
            if known is None:
                await self._begin(section)
            elif known.configured or known.section != section:
                raise AgentTaken(f"There is an agent {section.name!r} already.")
            elif section.name not in self._made:
                await self._finish(known)
        return await self.show(section.name)

    async def _begin(self, section: AgentSection) -> None:
        if len(self._entries) >= MAX_AGENTS:
            raise AgentTaken(f"A node has at most {MAX_AGENTS} agents.")
        taken = await self._unit.select("agent", {"name": section.name})
        saved = await self._unit.select("meta", {"key": KEY + section.name})
        if taken or saved:
            raise AgentTaken(f"There was an agent {section.name!r} before.")
        value = orjson.dumps({"section": section.model_dump(mode="json")}).decode()
        await self._unit.commit([Insert("meta", {"key": KEY + section.name, "value": value})])
        entry = self._entries[section.name] = Entry(section, False)
        await self._finish(entry)

    async def _finish(self, entry: Entry) -> None:
        """What is left to do once the row is there; again if it failed half way."""
        name = entry.section.name
        if self._keys.get(name) is None:
            await self._keys.add(name)
        await self._join(entry, None)
        log.info("an agent was added", extra={"action": "agent_added", "agent": name})

    async def delete(self, name: str) -> None:
        """Take an agent away: it is heard no more, what it published is taken back, its key is given up.

        What a signer that is away could not sign is taken back when it is asked for again, and at the next start.

        Raises:
            NotFound: there is none.
            AgentConfigured: it stands in the configuration.
            SignerUnavailable: its signer is away; it is deleted, and what it published is still there.
        """
        async with self._changing:
            entry = self._entries.get(name)
            if entry is None and name not in self._leaving:
                raise NotFound("There is no agent with this name.")
            if entry is not None:
                if entry.configured:
                    raise AgentConfigured
                await self._mark(name, {"deleted": True})
                self._leaving.add(name)
                del self._entries[name]
            await self._leave(name)

    async def _mark(self, name: str, value: dict[str, Any]) -> None:
        await self._unit.commit([Update("meta", {"key": KEY + name}, {"value": orjson.dumps(value).decode()})])

    async def _leave(self, name: str) -> None:
        self._hearing.detach(name)
        self._made.pop(name, None)
        where = {"name": name, "status": "active"}  # the version ends a tick that is under way
        await self._unit.commit([Update("agent", where, {"status": "deleted"}, {"version": 1}, rows=None)])
        signer = self._keys.get(name)
        if signer is not None:
            await self._publishing.withdraw(name, signer)
            await self._keys.retire(name)
        self._gone(name)
        await self._mark(name, {"deleted": True, "done": True})
        self._leaving.discard(name)
        log.info("an agent was deleted", extra={"action": "agent_deleted", "agent": name})

    # ---- looking

    async def show(self, name: str) -> dict[str, Any]:
        """One agent.

        Raises:
            NotFound: there is none.
        """
        entry, signer = self._entries.get(name), self._keys.get(name)
        rows = await self._unit.select("agent", {"name": name})
        if entry is None or signer is None or not rows:
            raise NotFound("There is no agent with this name.")
        return {
            "name": name,
            "npub": npub(signer.pubkey),
            "program": entry.section.program,
            "about": entry.section.about,
            "public": entry.section.public,
            "strangers": entry.section.strangers,
            "configured": entry.configured,
            "status": rows[0]["status"],
            "ticks": rows[0]["ticks"],
        }

    async def list_agents(self) -> list[dict[str, Any]]:
        """All agents, by name."""
        return [await self.show(name) for name in sorted(self._entries)]
