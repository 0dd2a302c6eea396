"""Which agents there are: those of the configuration, and those that were added while the node ran.

An added agent is written down (`register.py`) before anything is made for it, and so is its deletion before anything is
taken away; whatever a crash interrupts goes on at the next start. A name that was deleted stays used. One that is taken
out of the configuration becomes an added one that is stopped (`leftover.py`).

An agent whose settings cannot be taken is quarantined with the reason, and the others go on: a node that does not start
for the sake of one agent would drive no open money either.

Of an agent that hibernates nothing is here: no settings, no key, no ear. `rouse` brings it back, `rest` lays it down,
and `visit` looks at it without waking it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson

from core.clock import Clock
from core.error import InvalidInput, NotFound, VendoError
from core.unit import Among, Condition, Delete, Insert, Row, UnitOfWork, Update, Value, Write
from node.agent.error import AgentDiffers, SettingsRefused
from node.agent.leftover import Leftovers
from node.agent.register import KEY, PENDING, Entry, Register, entry_of, read_section, saved_text
from node.agent.surrounding import Hearing, Keys, Maker, Publishing
from node.agent.tick.lap import DELETED
from node.agent.tick.supervision import Failure, Kind
from node.config import AgentSection
from node.error import AgentConfigured, AgentTaken
from node.message.admission import Rules

log = logging.getLogger(__name__)

LIVING = ("active", "stopped", "quarantined")  # whose settings and keys are held ready
_ASLEEP = Among(("dormant", "frozen"))
_RESERVED = ("list", "new", "import")  # files of the operator's /agents
MAX_AGENTS = 1_000_000
MAX_AWAKE = 20_000
GUESTS = 64  # agents that hibernate and are looked at
_BREATH = 64
_PAGE = 500


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
        named: agents that stand in the configuration of another process that lives; None if that is not known.
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
        named: Callable[[], Collection[str] | None] = tuple,
    ) -> None:
        self._unit, self._clock, self._keys, self._maker = unit, clock, keys, maker
        self._hearing, self._publishing, self._rules = hearing, publishing, rules
        self._programs, self._gone, self._named = programs, gone, named
        self._register = Register(unit)
        self._leftovers = Leftovers(unit, self._register, maker, configured, named)
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
            VendoError: the database failed.
        """
        await self._leftovers.reclaim()
        unfinished = await self._register.unfinished()
        made = await self._read(unfinished)
        if await self._leftovers.settle(self._unknown(made)):
            made = await self._read(unfinished)
        asleep = await self._asleep(list(self._entries))
        awake = [name for name in self._entries if name not in asleep]
        await self._keys.load(awake)
        for count, name in enumerate(awake):
            if count % _BREATH == 0:
                await asyncio.sleep(0)
            await self._take_in(self._entries[name], made.get(name))
        await self._register.finished(name for name in unfinished if name in self._made)
        for name in sorted(self._leaving):
            try:
                await self._keys.recall([name])
                await self._leave(name)
            except VendoError as error:
                log.warning("an agent is not gone yet", extra={"action": "leaving", "agent": name, "code": error.code})

    async def _read(self, unfinished: Sequence[str]) -> dict[str, int]:
        """Read who was added; who is awake, and since when each is there, Unix seconds."""
        made = await self._living()
        async for name, saved in self._register.saved([*made, *unfinished]):
            entry = entry_of(name, saved)
            if entry is None:
                self._leaving |= {name} if name in unfinished else set()
                self._silent |= {name} if saved.get("silent") else set()
            elif name not in self._entries or not self._entries[name].configured:
                self._entries[name] = entry  # another process may have changed what was read before
        return made

    async def _living(self) -> dict[str, int]:
        """Who does not hibernate, and since when each is there, Unix seconds."""
        where = {"status": Among(LIVING)}
        rows = await self._unit.select("agent", where, columns=("name", "created_at"))
        return {row["name"]: int(row["created_at"]) for row in rows}

    async def _asleep(self, names: Sequence[str]) -> set[str]:
        """Those of these that hibernate. One that is deleted and stands in the configuration is left out for good."""
        found: set[str] = set()
        for begin in range(0, len(names), _PAGE):
            page = Among(tuple(names[begin : begin + _PAGE]))
            where: dict[str, Condition] = {"status": Among((*_ASLEEP.values, DELETED)), "name": page}
            for row in await self._unit.select("agent", where, columns=("name", "status")):
                found.add(row["name"])
                if row["status"] == DELETED:
                    del self._entries[row["name"]]
                    about = {"action": "agent_refused", "agent": row["name"]}
                    log.error("a deleted agent's name stands in config.toml; it is not used again", extra=about)
        return found

    async def _take_in(self, entry: Entry, made_at: int | None, row: Row | None = None) -> None:
        """As `_join`; an agent that cannot be what its settings say is set aside, and nobody else is held up.

        Raises:
            VendoError: the database failed.
        """
        name = entry.section.name
        try:
            if entry.problem:
                raise SettingsRefused(f"Its settings cannot be read: {entry.problem}")
            await self._join(entry, made_at, row)
        except VendoError as error:
            if Failure.of(error).kind is Kind.PAUSED:
                raise
            about = {"action": "agent_refused", "agent": name, "code": error.code}
            log.error("an agent cannot be what its settings say: %s", error, extra=about)
            await self._maker.set_aside(name, error)
            if isinstance(error, AgentDiffers | SettingsRefused):  # what comes for it waits
                self._hear(entry, made_at)

    async def _join(self, entry: Entry, made_at: int | None, row: Row | None = None) -> None:
        section = entry.section
        signer = self._keys.get(section.name)
        if signer is None:
            raise NotFound(f"The agent {section.name!r} has no key.")
        config, limits = section.config, section.limits()
        await self._maker.create(section.name, section.program, signer.pubkey, config, limits, row)
        self._hear(entry, made_at)

    def _hear(self, entry: Entry, made_at: int | None) -> None:
        name = entry.section.name
        self._guests.pop(name, None)
        self._overheard.discard(name)
        since = self._made[name] = made_at if made_at is not None else self._clock.now()
        self._hearing.attach(name, since, self._rules(entry.section))
        self._publishing.renew(name)

    # ---- hibernation

    @property
    def awake(self) -> int:
        """How many agents are heard and seen."""
        return len(self._made)

    @property
    def room(self) -> int:
        """How many more may be."""
        return MAX_AWAKE - len(self._made)

    def is_awake(self, name: str) -> bool:
        """Whether it is heard and seen."""
        return name in self._made

    async def visit(self, name: str, row: Row | None = None) -> bool:
        """Hold an agent's settings and keys ready, without waking it; whether there is such an agent.

        `row`: its row, if that was read just now.
        """
        if name in self._made:
            return True
        if name in self._overheard:
            return True
        if name in self._guests:
            self._guests[name] = self._guests.pop(name)
            return True
        rows = [row] if row is not None else await self._unit.select("agent", {"name": name}, columns=("status",))
        if not rows or rows[0]["status"] == "deleted":
            return name in self._entries
        if name not in self._entries:
            found = dict([one async for one in self._register.entries([name])])
            if name not in found:
                return False
            self._entries[name] = found[name]
        await self._keys.recall([name])
        if name not in self._made:  # it may have been roused meanwhile
            self._guests[name] = None
            while len(self._guests) > GUESTS:
                self._drop(next(iter(self._guests)))
        return True

    async def rouse(self, name: str, row: Row | None = None) -> bool:
        """Bring an agent back that hibernates: it hears and is seen again. Whether there is such an agent.

        `row`: its row, if that was read just now.

        Raises:
            AgentTaken: too many are awake.
        """
        if name in self._made:
            return True
        known = self._entries.get(name)
        if not await self.visit(name, row):
            return False
        if known is not None and not known.configured:  # another process may have changed what was read before
            self._entries |= dict([one async for one in self._register.entries([name])])
        if name not in self._made:
            if len(self._made) >= MAX_AWAKE:
                raise AgentTaken(f"A node has at most {MAX_AWAKE} agents that are awake.")
            if row is None:
                row = next(iter(await self._unit.select("agent", {"name": name})), None)
            await self._take_in(self._entries[name], row["created_at"] if row is not None else None, row)
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
        async for name, entry in self._register.entries(missing):
            self._entries[name] = entry
        for begin in range(0, len(names), _PAGE):
            where: dict[str, Condition] = {"status": "dormant", "name": Among(tuple(names[begin : begin + _PAGE]))}
            rows = await self._unit.select("agent", where, columns=("name", "created_at", "last_tick_at"))
            for row in rows:
                known = self._entries.get(row["name"])
                if known is not None and row["name"] not in self._made:
                    self._guests.pop(row["name"], None)
                    self._overheard.add(row["name"])
                    rules = self._rules(known.section)
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
        await self._leftovers.reclaim()
        if everybody:
            await self._leftovers.settle()
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
        section = read_section(value)
        self._check(section)
        async with self._changing:
            known = self._entries.get(section.name) if await self.visit(section.name) else None
            if known is None:
                await self._begin(section)
            elif known.configured or known.section != section:
                raise AgentTaken(f"There is an agent {section.name!r} already.")
            elif section.name not in self._made and section.name not in self._guests:
                await self._finish(known)
        return await self.show(section.name)

    def _check(self, section: AgentSection) -> None:
        if section.name in _RESERVED:
            raise InvalidInput(f"{section.name!r} is no name for an agent.")
        if section.program not in self._programs:
            raise InvalidInput(f"This node has no program called {section.program!r}.")
        self._maker.check(section.program, section.config, section.limits())

    async def set_settings(self, name: str, value: Mapping[str, Any]) -> dict[str, Any]:
        """Give an added agent other settings, all of them at once; they hold from its next tick on.

        Whom it hears stays as it is if that was changed in its `/nostr/admission`.

        Args:
            name: the agent.
            value: its settings, as in `[[agent]]`; what is left out is as if the agent were made new.

        Raises:
            InvalidInput: a setting is not valid; ConfigRefused: its program does not take them.
            AgentDiffers: its name or program would be another.
            AgentConfigured: its settings stand in config.toml.
            NotFound: there is none.
        """
        if value.get("name", name) != name:
            raise AgentDiffers("An agent's name cannot be changed.")
        async with self._changing:
            known = self._entries.get(name) if await self.visit(name) else None
            rows = await self._unit.select("agent", {"name": name}, columns=("program", "pubkey"))
            if known is None or not rows:
                raise NotFound("There is no agent with this name.")
            if known.configured:
                raise AgentConfigured("This agent's settings stand in config.toml.")
            section = read_section({"program": rows[0]["program"], **value, "name": name})
            if section.program != rows[0]["program"]:
                raise AgentDiffers("An agent's program cannot be changed: its state is that program's.")
            self._check(section)
            text: dict[str, Value] = {"value": saved_text(section, left=known.left)}
            await self._unit.commit([Update("meta", {"key": KEY + name}, text)])
            entry = Entry(section, False, known.left)
            if name in self._entries:  # it was held ready only for this question otherwise, and that is over
                self._entries[name] = entry
            # a crash between the two: the next start does this
            await self._maker.create(name, section.program, rows[0]["pubkey"], section.config, section.limits())
            if name in self._made:
                self._hear(entry, self._made[name])
                await self._hearing.recall([name])
            elif name in self._overheard:
                self._hearing.attach(name, self._clock.now(), self._rules(section))
                await self._hearing.recall([name])
        return await self.show(name)

    async def settings(self, name: str) -> dict[str, Any]:
        """An agent's settings, as in `[[agent]]`.

        Raises:
            NotFound: there is none.
        """
        section = self.find(name) if await self.visit(name) else None
        if section is None:
            raise NotFound("There is no agent with this name.")
        return section.model_dump(mode="json")

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
        return [Insert("meta", {"key": KEY + section.name, "value": saved_text(section)}), pending]

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
                saved: dict[str, Value] = {"value": saved_text(section, left=known.left)}
                yield section, [Update("meta", {"key": KEY + name}, saved)]
                self._entries[name] = Entry(section, False)
            await self.rouse(name)

    async def _finish(self, entry: Entry) -> None:
        """What is left to do once the row is there; again if it failed half way."""
        name = entry.section.name
        if self._keys.get(name) is None:
            await self._keys.add(name)
        await self._join(entry, None)
        await self._register.finished([name])
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
            if (entry is None or entry.left) and name in (self._named() or ()):
                raise AgentConfigured("It stands in the configuration of another process.")
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
        entry = self._entries.get(name)
        found = await self._register.show(name, entry) if entry is not None else None
        if found is None:
            raise NotFound("There is no agent with this name.")
        return found

    async def list_agents(self, after: str = "", limit: int | None = None) -> list[dict[str, Any]]:
        """Agents by name, also those that hibernate.

        Args:
            after: those after this name.
            limit: how many; fewer are there only at the end. None is all.
        """
        return await self._register.page(self._entries, after, MAX_AGENTS if limit is None else limit)

    def _unknown(self, names: Collection[str]) -> list[str]:
        """Who is neither configured, nor added, nor being deleted."""
        return [name for name in names if name not in self._entries and name not in self._leaving]
