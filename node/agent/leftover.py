"""Agents that were taken out of config.toml: stopped, with a reason, and from then on like one that was added.

Nothing is lost by that: what comes for such an agent waits, `start` lets it go on, `delete` ends it with its last
words, and in the configuration again it goes on by itself.

Where several processes share a database their configurations may differ. An agent that another living process names in
its own is not left over, whoever leads: that process ticks it. So each tells the others which agents it names. One
whose process is away for longer than that process takes to start is stopped by the steward, as nobody could tick it;
the process claims it back when it comes.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import orjson

from core.error import InvalidInput
from core.unit import Delete, Insert, UnitOfWork, Update, Write
from node.agent.register import KEY, NOTED, PENDING, Register, read_section, saved_text, section_of_row, section_text
from node.agent.surrounding import Maker
from node.agent.tick.lap import DELETED, DORMANT
from node.config import AgentSection

log = logging.getLogger(__name__)

_MARK = ""  # notes are kept since this stands among them


class Leftovers:
    """Finds and claims them.

    Args:
        unit: the database.
        register: what is written down.
        maker: where agents live.
        configured: those of this process's configuration.
        named: those of the others'; None if that is not known, and then nobody is stopped.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        register: Register,
        maker: Maker,
        configured: Sequence[AgentSection],
        named: Callable[[], Collection[str] | None],
    ) -> None:
        self._unit, self._register, self._maker, self._named = unit, register, maker, named
        self._configured = {one.name: one for one in configured}

    async def reclaim(self) -> None:
        """Agents that were left over and stand in this configuration go on.

        Raises:
            VendoError: the database failed.
        """
        async for name, saved in self._register.saved(list(self._configured)):
            if saved.get("left") and not saved.get("deleted"):
                await self._maker.reclaim(name, [Delete("meta", {"key": KEY + name})])
                log.info("an agent is in the configuration again", extra={"action": "agent_reclaimed", "agent": name})

    async def settle(self, unknown: Iterable[str] = ()) -> list[str]:
        """Note who stands in the configuration, and stop those who do no longer.

        Args:
            unknown: agents that are neither configured nor added, so far as is known.

        Returns:
            Who was stopped now.

        Raises:
            VendoError: the database failed.
        """
        noted = await self._register.noted()
        elsewhere = self._named()
        if elsewhere is None:
            await self._note(noted)
            return []
        found = {name for name in (*noted, *unknown) if name and name not in self._configured}
        if _MARK not in noted:
            found |= set(await self._never_noted())
        gone = [name for name in sorted(found.difference(elsewhere)) if await self._leave(name, noted.get(name))]
        await self._note(noted)
        return gone

    async def _note(self, noted: Mapping[str, str]) -> None:
        writes: list[Write] = []
        for name, text in [(_MARK, "1"), *((name, section_text(one)) for name, one in self._configured.items())]:
            if noted.get(name) is None:
                writes.append(Insert("meta", {"key": NOTED + name, "value": text}, or_ignore=True))
            elif noted[name] != text:
                writes.append(Update("meta", {"key": NOTED + name}, {"value": text}, rows=None))
        if writes:
            await self._unit.commit(writes)

    async def _never_noted(self) -> list[str]:
        """Agents that sleep and of which nothing is written down: an older version noted nothing. Once only."""
        rows = await self._unit.select("agent", {"status": DORMANT}, columns=("name",))
        asleep = [row["name"] for row in rows if row["name"] not in self._configured]
        added = {name async for name, _ in self._register.saved(asleep)}
        return [name for name in asleep if name not in added]

    async def _leave(self, name: str, noted: str | None) -> bool:
        columns = ("name", "program", "config", "status")
        rows = await self._unit.select("agent", {"name": name}, columns=columns)
        forget = Delete("meta", {"key": NOTED + name})
        if not rows or rows[0]["status"] == DELETED or [one async for one in self._register.saved([name])]:
            await self._unit.commit([forget])  # it was added before it was configured: that it is again
            return False
        section = section_of_row(rows[0])
        if noted is not None:
            try:
                section = read_section(orjson.loads(noted))
            except InvalidInput:
                log.warning("noted settings cannot be read", extra={"action": "note_unread", "agent": name})
        kept = Insert("meta", {"key": KEY + name, "value": saved_text(section, left=True)})
        await self._maker.leave_behind(name, [kept, forget, Delete("meta", {"key": PENDING + name})])
        log.warning("an agent is no longer in config.toml", extra={"action": "agent_left", "agent": name})
        return True
