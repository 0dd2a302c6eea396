"""What is written down of agents besides their rows: rows of table `meta`.

`agent/<name>` has the settings of one that was added while the node ran, or what is left to do of its deletion.
`pending/<name>` stands beside it as long as something of that is to be done. `configured/<name>` has the settings of
one that stands in config.toml, as they were when the node started last: so that it is known when it is taken out.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from core.error import InvalidInput
from core.identifier import PubKey
from core.unit import Among, Condition, Delete, Row, UnitOfWork, Within, Write
from node.agent.tick.lap import ACTIVE, DORMANT, FROZEN, QUARANTINED, STOPPED
from node.config import AgentSection
from relays.key import npub

KEY, PENDING, NOTED = "agent/", "pending/", "configured/"
PAGE = 500
_PENDING_END, _NOTED_END = "pending0", "configured0"  # the text right after all that begin so
_THERE = Among((ACTIVE, DORMANT, STOPPED, QUARANTINED, FROZEN))
_SHOWN = ("name", "program", "pubkey", "status", "reason", "ticks")

Saved = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent.

    Attributes:
        section: its settings.
        configured: it stands in config.toml, and goes only from there.
        left: it stood there, and was taken out.
        problem: why its settings cannot be read; `section` has only what its row says then.
    """

    section: AgentSection
    configured: bool
    left: bool = False
    problem: str = ""


def read_section(value: Mapping[str, Any]) -> AgentSection:
    """An agent's settings, as in `[[agent]]`.

    Raises:
        InvalidInput: a setting is not valid.
    """
    try:
        return AgentSection.model_validate(dict(value))
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
        raise InvalidInput("; ".join(lines)[:500]) from error


def section_text(section: AgentSection) -> str:
    """Settings as they are kept."""
    return orjson.dumps(section.model_dump(mode="json")).decode()


def saved_text(section: AgentSection, *, left: bool = False) -> str:
    """The value of `agent/<name>`."""
    value: Saved = {"section": section.model_dump(mode="json")}
    return orjson.dumps(value | ({"left": True} if left else {})).decode()


def entry_of(name: str, saved: Mapping[str, Any]) -> Entry | None:
    """The agent that was saved; None if it is deleted, or none was."""
    if "section" not in saved or saved.get("deleted"):
        return None
    try:
        return Entry(read_section(saved["section"]), False, bool(saved.get("left")))
    except InvalidInput as error:  # an older version allowed what this one does not
        return Entry(AgentSection(name=name, public=False), False, bool(saved.get("left")), error.message)


def section_of_row(row: Row) -> AgentSection:
    """Settings of an agent of which only the row is known: nothing of it is public, and no stranger is heard."""
    section = AgentSection(name=row["name"], program=row["program"], public=False)
    return section.model_copy(update={"config": orjson.loads(row["config"])})


def shown(entry: Entry | None, row: Row) -> dict[str, Any]:
    """One agent, for people. Without an entry it can only be in the configuration of another process."""
    section = entry.section if entry is not None else AgentSection(name=row["name"], public=False)
    origin = "elsewhere"
    if entry is not None:
        origin = "config.toml" if entry.configured else "left" if entry.left else "added"
    return {
        "name": row["name"],
        "npub": npub(PubKey(row["pubkey"])),
        "program": row["program"],
        "about": section.about,
        "public": section.public,
        "strangers": section.strangers,
        "configured": entry is not None and entry.configured,
        "origin": origin,
        "status": row["status"],
        "reason": row["reason"],
        "ticks": row["ticks"],
    }


class Register:
    """Reads what is written down.

    Args:
        unit: the database.
    """

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    async def saved(self, names: Sequence[str]) -> AsyncIterator[tuple[str, Saved]]:
        """What is written down of added agents."""
        for begin in range(0, len(names), PAGE):
            keys = tuple(KEY + name for name in names[begin : begin + PAGE])
            for row in await self._unit.select("meta", {"key": Among(keys)}):
                yield row["key"].removeprefix(KEY), orjson.loads(row["value"])

    async def entries(self, names: Sequence[str]) -> AsyncIterator[tuple[str, Entry]]:
        """Those of these names that were added."""
        async for name, saved in self.saved(names):
            if (entry := entry_of(name, saved)) is not None:
                yield name, entry

    async def unfinished(self) -> list[str]:
        """Agents of which something is left to do."""
        rows = await self._unit.select("meta", {"key": Within(PENDING, _PENDING_END)})
        return [row["key"].removeprefix(PENDING) for row in rows]

    async def finished(self, names: Iterable[str]) -> None:
        """Nothing is left to do for these."""
        writes: list[Write] = [Delete("meta", {"key": PENDING + name}) for name in names]
        if writes:
            await self._unit.commit(writes)

    async def noted(self) -> dict[str, str]:
        """Settings of agents that stood in a configuration, as text; the empty name marks that this is noted."""
        rows = await self._unit.select("meta", {"key": Within(NOTED, _NOTED_END)})
        return {row["key"].removeprefix(NOTED): row["value"] for row in rows}

    async def show(self, name: str, entry: Entry) -> dict[str, Any] | None:
        """One agent as `shown`; None if it was never made."""
        rows = await self._unit.select("agent", {"name": name}, columns=_SHOWN)
        return shown(entry, rows[0]) if rows else None

    async def page(self, known: Mapping[str, Entry], after: str, limit: int) -> list[Saved]:
        """Agents that are not deleted, by name, those after a name.

        Args:
            known: those that are held ready.
            after: a name; empty for the first.
            limit: how many; fewer are there only at the end.
        """
        found: list[Saved] = []
        while len(found) < limit:
            low = after + "\0" if after else ""
            where: dict[str, Condition] = {"name": Within(low), "status": _THERE}
            rows = await self._unit.select("agent", where, order=("name",), limit=PAGE, columns=_SHOWN)
            away = [row["name"] for row in rows if row["name"] not in known]
            saved = dict([one async for one in self.entries(away)])
            found += [shown(known.get(row["name"]) or saved.get(row["name"]), row) for row in rows]
            if len(rows) < PAGE:
                break
            after = rows[-1]["name"]
        return found[:limit]
