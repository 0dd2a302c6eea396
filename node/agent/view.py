"""What the node tells about itself, for the files to show: agents, the ledger, budgets."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import orjson

from core.clock import Clock
from core.error import NotFound
from core.unit import Among, Condition, Row, UnitOfWork, Within
from node.agent.tick.lap import ACTIVE, DELETED, DORMANT, FROZEN, QUARANTINED, STOPPED
from node.agent.tick.limit import TickLimits, bounds, shown

_COUNTED = 1_000
_SHOWN = 100
_PAGE = 1_000
_STATUSES = (ACTIVE, DORMANT, STOPPED, QUARANTINED, FROZEN, DELETED)


class AgentView:
    """One agent's status.

    Args:
        agent: its name.
        unit: the database.
        clock: time.
        limits: those of an agent that has no others.
    """

    def __init__(self, agent: str, unit: UnitOfWork, clock: Clock, limits: TickLimits) -> None:
        self._agent, self._unit, self._clock, self._limits = agent, unit, clock, limits

    async def status(self) -> dict[str, Any]:
        """How it is doing: its status and why, what waits, what it has used of its limits, and until when one holds.

        Raises:
            NotFound: it was never made.
        """
        rows = await self._unit.select("agent", {"name": self._agent})
        if not rows:
            raise NotFound("There is no agent with this name.")
        row = rows[0]
        names = ("name", "status", "reason", "program", "code", "pubkey", "ticks", "failures", "last_tick_at")
        return {
            **{name: row[name] for name in names},
            "last_cause": row["last_cause"],
            "queue_depth": await self._count("new"),
            "dead_letters": await self._count("dead"),
            "created_at": row["created_at"],
            **shown(row, bounds(row["limits"], self._limits), self._clock.millis() * 1_000),
        }

    async def _count(self, state: str) -> int:
        return await self._unit.count("inbox", {"agent": self._agent, "state": state}, limit=_COUNTED)


async def agent_counts(unit: UnitOfWork) -> dict[str, int]:
    """How many agents there are of each status; those of which there are none are left out."""
    counts = {status: await unit.count("agent", {"status": status}) for status in _STATUSES}
    return {status: count for status, count in counts.items() if count}


async def every_agent(unit: UnitOfWork) -> AsyncIterator[dict[str, Any]]:
    """All agents that are not deleted, by name, however many there are."""
    names, after = ("name", "status", "program", "pubkey", "ticks"), ""
    while True:
        where: dict[str, Condition] = {
            "status": Among((ACTIVE, DORMANT, STOPPED, QUARANTINED, FROZEN)),
            "name": Within(low=after),
        }
        rows = await unit.select("agent", where, order=("name",), limit=_PAGE, columns=names)
        for row in rows:
            if row["name"] != after:
                yield row
        if len(rows) < _PAGE:
            return
        after = rows[-1]["name"]


async def agents(unit: UnitOfWork) -> list[dict[str, Any]]:
    """Agents that are not deleted, the first 100: those in quarantine, then the stopped ones, then by name."""
    names = ("name", "status", "reason", "program", "pubkey", "ticks", "last_tick_at")
    found: list[dict[str, Any]] = []
    for statuses in ((QUARANTINED,), (STOPPED,), (ACTIVE, DORMANT, FROZEN)):
        if room := _SHOWN - len(found):
            where = {"status": Among(statuses)}
            found += await unit.select("agent", where, order=("name",), limit=room, columns=names)
    return found


class LedgerView:
    """The node's ledger, the last page of it."""

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    async def head(self) -> dict[str, Any]:
        """The last entry's run, seq, id and type; an empty object before the first."""
        rows = await self._unit.select("entry", order=("-n",), limit=1)
        return {name: rows[0][name] for name in ("run", "seq", "id", "type")} if rows else {}

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last entries as signed events, newest first."""
        return [orjson.loads(row["raw"]) for row in await self._unit.select("entry", order=("-n",), limit=limit)]

    async def open(self) -> list[dict[str, Any]]:
        """Effects that have not ended: begun or unknown."""
        names = ("id", "caller", "path", "subject", "state", "unit", "reserved", "begun_at")
        rows = await self._unit.select("effect", {"state": Among(("begun", "unknown"))}, limit=_COUNTED)
        return [{name: row[name] for name in names} for row in rows]


class BudgetView:
    """What was spent today, of what may be."""

    def __init__(self, unit: UnitOfWork, clock: Clock, ceiling: int, money_unit: str) -> None:
        """`ceiling` is the limit per day in `money_unit` (uusd or msat), for days on which nothing was spent yet."""
        self._unit, self._clock, self._ceiling, self._money_unit = unit, clock, ceiling, money_unit

    async def usage(self) -> dict[str, Any]:
        """Today's budget (UTC): ceiling, held, spent and remaining."""
        day = datetime.fromtimestamp(self._clock.now(), UTC).date().isoformat()
        rows = await self._unit.select("budget", {"name": f"day:{day}"})
        row: Row = rows[0] if rows else {"unit": self._money_unit, "ceiling": self._ceiling, "held": 0, "spent": 0}
        return {
            "day": day,
            "unit": row["unit"],
            "ceiling": row["ceiling"],
            "held": row["held"],
            "spent": row["spent"],
            "remaining": row["ceiling"] - row["held"] - row["spent"],
        }
