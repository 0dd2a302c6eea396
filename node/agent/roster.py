"""Which agents there are: those of the configuration, and those that were added while the node ran.

An added agent is a row in table `meta` (`agent/<name>`) before anything is made for it, and so is its deletion before
anything is taken away. `pending/<name>` stands beside it as long as something of that is to be done, so whatever a
crash interrupts goes on at the next start. A name that was deleted stays used.

Of an agent that hibernates nothing is here: no settings, no key, no ear. `rouse` brings it back, `rest` lays it down,
and `visit` looks at it without waking it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from pydantic import ValidationError

from core.clock import Clock
from core.error import InvalidInput, NotFound, VendoError
from core.identifier import PubKey
from core.unit import Among, Condition, Delete, Insert, Row, UnitOfWork, Update, Value, Within, Write
from node.agent.tick.limit import Own
from node.config import AgentSection
from node.error import AgentConfigured, AgentTaken
from node.message.admission import Rules
from node.message.voice import Voices
from relays.key import npub
from relays.signer import Signer

log = logging.getLogger(__name__)

KEY, PENDING = "agent/", "pending/"
_PENDING_END = "pending0"  # the text right after all that begin with `pending/`
LIVING = ("active", "stopped", "quarantined")  # whose settings and keys are held ready
_ASLEEP = Among(("dormant", "frozen"))
_RESERVED = ("list", "new", "import")  # files of the operator's /agents
MAX_AGENTS = 1_000_000
MAX_AWAKE = 20_000
GUESTS = 64  # agents that hibernate and are looked at
_BREATH = 64
_PAGE = 500


class Keys(Voices, Protocol):
    """Identities that can be made and given up: `node.identity.registry.Identities`."""

    async def load(self, names: Sequence[str] = ()) -> None:
        """Read the keys of those who do not hibernate, and give one to each of these names that has none."""

    async def recall(self, names: Sequence[str]) -> None:
        """Read the keys of those who were left out."""

    def forget(self, name: str) -> None:
        """Keep nothing of a name in memory."""

    async def refresh(self, names: Sequence[str]) -> None:
        """Read those anew that another process has changed."""

    async def add(self, name: str) -> Signer:
        """Give a new name its first key, and tell whoever wants to know."""

    async def retire(self, name: str) -> None:
        """Give up a name's keys."""


class Maker(Protocol):
    """Where agents live: `node.agent.tick.engine.Engine`."""

    def check(self, program: str, config: Mapping[str, Any] | None = None, own: Own | None = None) -> None:
        """Whether an agent can be made of these.

        Raises:
            VendoError: it cannot.
        """

    async def create(
        self,
        name: str,
        program: str,
        pubkey: PubKey,
        config: Mapping[str, Any] | None = None,
        own: Own | None = None,
    ) -> None:
        """See to it that an agent is there, with these settings."""

    async def delete(self, name: str) -> None:
        """End an agent for good, with its last words."""


class Hearing(Protocol):
    """What hears for agents: `node.message.service.Messages`."""

    def attach(self, agent: str, since: int, rules: Rules | None = None) -> None:
        """Hear an agent from now on."""

    async def recall(self, agents: Sequence[str]) -> None:
        """Read whom they hear by now."""

    def detach(self, agent: str) -> None:
        """Hear it no more."""


class Publishing(Protocol):
    """What tells the public: `node.agent.presence.Presence`."""

    def renew(self, name: str) -> None:
        """Say who an agent is, soon."""

    def forget(self, name: str) -> None:
        """Say nothing more of it."""

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
        programs: Container[str],
        gone: Callable[[str], None],
    ) -> None:
        self._unit, self._clock, self._keys, self._maker = unit, clock, keys, maker
        self._hearing, self._publishing, self._rules = hearing, publishing, rules
        self._programs, self._gone = programs, gone
        self._entries = {one.name: Entry(one, True) for one in configured}
        self._made: dict[str, int] = {}
        self._leaving: set[str] = set()
        self._silent: set[str] = set()  # of those, who lives on elsewhere and takes nothing back
        self._overheard: set[str] = set()  # those that hibernate and are heard in their turn
        self._guests: dict[str, None] = {}  # the one that was looked at last is the last
        self._changing = asyncio.Lock()
        self._rested: Callable[[], None] = lambda: None

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
        made = await self._living()
        pending = await self._unit.select("meta", {"key": Within(PENDING, _PENDING_END)})
        unfinished = [row["key"].removeprefix(PENDING) for row in pending]
        async for name, saved in self._saved([*made, *unfinished]):
            if saved.get("deleted"):
                self._leaving |= {name} if name in unfinished else set()
                self._silent |= {name} if saved.get("silent") else set()
            elif name not in self._entries:
                self._entries[name] = Entry(AgentSection.model_validate(saved["section"]), False)
        asleep = await self._dormant(list(self._entries))
        awake = [name for name in self._entries if name not in asleep]
        await self._keys.load(awake)
        for count, name in enumerate(awake):
            if count % _BREATH == 0:
                await asyncio.sleep(0)
            await self._join(self._entries[name], made.get(name))
        await self._finished(name for name in unfinished if name in self._made)
        for name in sorted(self._leaving):
            try:
                await self._keys.recall([name])
                await self._leave(name)
            except VendoError as error:
                log.warning("an agent is not gone yet", extra={"action": "leaving", "agent": name, "code": error.code})

    async def _living(self) -> dict[str, int]:
        """Who does not hibernate, and since when each is there, Unix seconds."""
        where = {"status": Among(LIVING)}
        rows = await self._unit.select("agent", where, columns=("name", "created_at"))
        return {row["name"]: int(row["created_at"]) for row in rows}

    async def _dormant(self, names: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for begin in range(0, len(names), _PAGE):
            page = Among(tuple(names[begin : begin + _PAGE]))
            where: dict[str, Condition] = {"status": _ASLEEP, "name": page}
            found |= {row["name"] for row in await self._unit.select("agent", where, columns=("name",))}
        return found

    async def _saved(self, names: Sequence[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """What is written down of added agents."""
        for begin in range(0, len(names), _PAGE):
            keys = tuple(KEY + name for name in names[begin : begin + _PAGE])
            for row in await self._unit.select("meta", {"key": Among(keys)}):
                yield row["key"].removeprefix(KEY), orjson.loads(row["value"])

    async def _finished(self, names: Iterable[str]) -> None:
        writes: list[Write] = [Delete("meta", {"key": PENDING + name}) for name in names]
        if writes:
            await self._unit.commit(writes)

    async def _join(self, entry: Entry, made_at: int | None) -> None:
        section = entry.section
        signer = self._keys.get(section.name)
        if signer is None:
            raise NotFound(f"The agent {section.name!r} has no key.")
        await self._maker.create(section.name, section.program, signer.pubkey, section.config, section.limits())
        self._guests.pop(section.name, None)
        self._overheard.discard(section.name)
        since = self._made[section.name] = made_at if made_at is not None else self._clock.now()
        self._hearing.attach(section.name, since, self._rules(section))
        self._publishing.renew(section.name)

    # ---- hibernation

    def is_awake(self, name: str) -> bool:
        """Whether it is heard and seen."""
        return name in self._made

    async def visit(self, name: str) -> bool:
        """Hold an agent's settings and keys ready, without waking it; whether there is such an agent."""
        if name in self._made:
            return True
        if name in self._overheard:
            return True
        if name in self._guests:
            self._guests[name] = self._guests.pop(name)
            return True
        rows = await self._unit.select("agent", {"name": name}, columns=("status",))
        if not rows or rows[0]["status"] == "deleted":
            return name in self._entries
        if name not in self._entries:
            saved = dict([one async for one in self._saved([name])]).get(name, {})
            if "section" not in saved or saved.get("deleted"):
                return False
            self._entries[name] = Entry(AgentSection.model_validate(saved["section"]), False)
        await self._keys.recall([name])
        if name not in self._made:  # it may have been roused meanwhile
            self._guests[name] = None
            while len(self._guests) > GUESTS:
                self._drop(next(iter(self._guests)))
        return True

    async def rouse(self, name: str) -> bool:
        """Bring an agent back that hibernates: it hears and is seen again. Whether there is such an agent.

        Raises:
            AgentTaken: too many are awake.
        """
        if name in self._made:
            return True
        if not await self.visit(name):
            return False
        if name not in self._made:
            if len(self._made) >= MAX_AWAKE:
                raise AgentTaken(f"A node has at most {MAX_AWAKE} agents that are awake.")
            rows = await self._unit.select("agent", {"name": name}, columns=("created_at",))
            await self._join(self._entries[name], rows[0]["created_at"] if rows else None)
            await self._hearing.recall([name])
        return True

    def rest(self, name: str) -> None:
        """Keep nothing of an agent: its row says that it hibernates."""
        self._made.pop(name, None)
        self._hearing.detach(name)
        self._publishing.forget(name)
        self._drop(name)
        self._rested()

    def on_rest(self, callback: Callable[[], None]) -> None:
        """Call when an agent has begun to hibernate."""
        self._rested = callback

    async def overhear(self, names: Sequence[str], since: int) -> None:
        """As `node.agent.doorman.Bell`."""
        await self._keys.recall(names)
        missing = [name for name in names if name not in self._entries]
        async for name, saved in self._saved(missing):
            if "section" in saved and not saved.get("deleted"):
                self._entries[name] = Entry(AgentSection.model_validate(saved["section"]), False)
        for begin in range(0, len(names), _PAGE):
            where: dict[str, Condition] = {"status": "dormant", "name": Among(tuple(names[begin : begin + _PAGE]))}
            rows = await self._unit.select("agent", where, columns=("name", "created_at", "last_tick_at"))
            for row in rows:
                entry = self._entries.get(row["name"])
                if entry is not None and row["name"] not in self._made:
                    self._guests.pop(row["name"], None)
                    self._overheard.add(row["name"])
                    rules = self._rules(entry.section)
                    self._hearing.attach(row["name"], max(since, row["last_tick_at"] or row["created_at"]), rules)
        await self._hearing.recall(names)

    def unhear(self, names: Sequence[str]) -> None:
        """As `node.agent.doorman.Bell`."""
        for name in self._overheard.intersection(names):
            self._hearing.detach(name)
            self._drop(name)
        self._overheard.difference_update(names)

    def _drop(self, name: str) -> None:
        self._guests.pop(name, None)
        entry = self._entries.get(name)
        if entry is not None and not entry.configured:
            del self._entries[name]
        self._keys.forget(name)
        self._gone(name)

    async def follow(self, *, everybody: bool) -> None:
        """Other processes have changed agents, their keys or whom they hear.

        Args:
            everybody: whoever does not hibernate is to be heard and seen by this process.

        Raises:
            VendoError: the database failed.
        """
        living = await self._living()
        for name in [name for name in self._made if name not in living]:
            self.rest(name)
        if everybody:
            for name in [name for name in living if name not in self._made]:
                await self.rouse(name)
        names = list(self._made)
        await self._keys.refresh(names)
        await self._hearing.recall(names)

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
        self._maker.check(section.program, section.config, section.limits())
        async with self._changing:
            known = self._entries.get(section.name) if await self.visit(section.name) else None
            if known is None:
                await self._begin(section)
            elif known.configured or known.section != section:
                raise AgentTaken(f"There is an agent {section.name!r} already.")
            elif section.name not in self._made and section.name not in self._guests:
                await self._finish(known)
        return await self.show(section.name)

    async def _begin(self, section: AgentSection) -> None:
        await self._unit.commit(await self._record(section))
        entry = self._entries[section.name] = Entry(section, False)
        await self._finish(entry)

    async def _record(self, section: AgentSection) -> list[Write]:
        """What writes a new agent down.

        Raises:
            AgentTaken: there is, or was, one of this name; or there are too many.
        """
        if len(self._made) >= MAX_AWAKE or await self._unit.count("agent", limit=MAX_AGENTS) >= MAX_AGENTS:
            raise AgentTaken(f"A node has at most {MAX_AGENTS} agents, and {MAX_AWAKE} of them awake.")
        taken = await self._unit.select("agent", {"name": section.name})
        saved = await self._unit.select("meta", {"key": KEY + section.name})
        if taken or saved or section.name in self._entries:
            raise AgentTaken(f"There is an agent {section.name!r}, or was one before.")
        pending = Insert("meta", {"key": PENDING + section.name, "value": "1"}, or_ignore=True)
        return [Insert("meta", {"key": KEY + section.name, "value": _saved_text(section)}), pending]

    @asynccontextmanager
    async def arriving(self, section: AgentSection) -> AsyncIterator[Sequence[Write]]:
        """Let an agent in that was elsewhere. Its rows are committed within the block, with these; then it is heard.

        Raises:
            InvalidInput: it cannot have this name.
            AgentTaken: there is, or was, one of this name; or there are too many.
        """
        if section.name in _RESERVED:
            raise InvalidInput(f"{section.name!r} is no name for an agent.")
        async with self._changing:
            yield await self._record(section)
            entry = self._entries[section.name] = Entry(section, False)
            await self._finish(entry)
            await self._hearing.recall([section.name])

    @asynccontextmanager
    async def returning(self, section: AgentSection) -> AsyncIterator[tuple[AgentSection, Sequence[Write]]]:
        """The same for one that is frozen here: what it is made of from now on, and the writes to commit with its rows.

        Raises:
            NotFound: there is none.
        """
        name = section.name
        async with self._changing:
            if not await self.visit(name):
                raise NotFound("There is no agent with this name.")
            known = self._entries[name]
            if known.configured:
                section = known.section
                yield section, ()
            else:
                saved: dict[str, Value] = {"value": _saved_text(section)}
                yield section, [Update("meta", {"key": KEY + name}, saved)]
                self._entries[name] = Entry(section, False)
            await self.rouse(name)

    async def _finish(self, entry: Entry) -> None:
        """What is left to do once the row is there; again if it failed half way."""
        name = entry.section.name
        if self._keys.get(name) is None:
            await self._keys.add(name)
        await self._join(entry, None)
        await self._finished([name])
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
            entry = self._entries.get(name) if await self.visit(name) else None
            if entry is None and name not in self._leaving:
                raise NotFound("There is no agent with this name.")
            if entry is not None:
                if entry.configured:
                    raise AgentConfigured
                gone: dict[str, Any] = {"deleted": True}
                if await self._unit.count("agent", {"name": name, "status": "frozen"}, limit=1):
                    self._silent.add(name)
                    gone["silent"] = True
                await self._mark(name, gone)
                self._leaving.add(name)
                await self._maker.delete(name)  # while it still has its files and its voice: for its last words
                self._entries.pop(name, None)  # it is not there any more if its end put it to sleep
            await self._leave(name)

    async def _mark(self, name: str, value: dict[str, Any]) -> None:
        pending: Write = Delete("meta", {"key": PENDING + name})
        if not value.get("done"):
            pending = Insert("meta", {"key": PENDING + name, "value": "1"}, or_ignore=True)
        text = orjson.dumps(value).decode()
        await self._unit.commit([Update("meta", {"key": KEY + name}, {"value": text}), pending])

    async def _leave(self, name: str) -> None:
        self._hearing.detach(name)
        self._made.pop(name, None)
        self._guests.pop(name, None)
        self._overheard.discard(name)
        await self._maker.delete(name)
        await self._keys.recall([name])
        signer = self._keys.get(name)
        if signer is not None:
            if name not in self._silent:
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
        if not await self.visit(name):
            raise NotFound("There is no agent with this name.")
        rows = await self._unit.select("agent", {"name": name}, columns=_SHOWN)
        entry = self._entries.get(name)
        if entry is None or not rows:
            raise NotFound("There is no agent with this name.")
        return _shown(entry, rows[0])

    async def list_agents(self) -> list[dict[str, Any]]:
        """All agents, by name, also those that hibernate."""
        found: list[dict[str, Any]] = []
        low = ""
        while True:
            rows = await self._unit.select("agent", {"name": Within(low)}, order=("name",), limit=_PAGE, columns=_SHOWN)
            away = [row["name"] for row in rows if row["name"] not in self._entries and row["status"] != "deleted"]
            entries = {
                name: Entry(AgentSection.model_validate(saved["section"]), False)
                async for name, saved in self._saved(away)
                if "section" in saved
            }
            for row in rows:
                entry = self._entries.get(row["name"]) or entries.get(row["name"])
                if entry is not None and row["status"] != "deleted":
                    found.append(_shown(entry, row))
            if len(rows) < _PAGE:
                return found
            low = rows[-1]["name"] + "\0"


def _saved_text(section: AgentSection) -> str:
    return orjson.dumps({"section": section.model_dump(mode="json")}).decode()


_SHOWN = ("name", "pubkey", "status", "ticks")


def _shown(entry: Entry, row: Row) -> dict[str, Any]:
    section = entry.section
    return {
        "name": section.name,
        "npub": npub(PubKey(row["pubkey"])),
        "program": section.program,
        "about": section.about,
        "public": section.public,
        "strangers": section.strangers,
        "configured": entry.configured,
        "status": row["status"],
        "ticks": row["ticks"],
    }
