"""An agent's numbers, from its rows: each is computed when it is read, with queries that are bounded by an index."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from core.clock import Clock
from core.error import NotFound
from core.unit import Row, UnitOfWork
from node.agent.tick.limit import TickLimits, bounds

COUNTED = 1_000
OF = 200
"""Ticks of which times and failures are told."""
WINDOW_S = 60


class AgentMetrics:
    """One agent's numbers, as `/metrics` shows them.

    Args:
        agent: its name.
        unit: the database.
        clock: time.
        limits: those of an agent that has no others.
        usage: what was spent today, as `node.agent.view.BudgetView`.
    """

    def __init__(
        self,
        agent: str,
        unit: UnitOfWork,
        clock: Clock,
        limits: TickLimits,
        usage: Callable[[], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._agent, self._unit, self._clock, self._limits, self._usage = agent, unit, clock, limits, usage

    async def _row(self, *columns: str) -> Row:
        rows = await self._unit.select("agent", {"name": self._agent}, columns=columns)
        if not rows:
            raise NotFound("There is no agent with this name.")
        return rows[0]

    async def _last_ticks(self, limit: int) -> list[Row]:
        columns = ("n", "at_ms", "duration_ms", "error", "usage")
        return await self._unit.select("tick", {"agent": self._agent}, order=("-n",), limit=limit, columns=columns)

    async def ticks(self) -> dict[str, Any]:
        """How many ticks were committed, and of the last ones how many failed and how long they took.

        Raises:
            NotFound: there is no such agent.
        """
        row, last = await self._row("ticks"), await self._last_ticks(OF)
        times = sorted(int(one["duration_ms"]) for one in last)
        return {
            "total": row["ticks"],
            "failed": sum(1 for one in last if one["error"]),
            "of": len(last),
            "last_ms": last[0]["duration_ms"] if last else None,
            "last_at_ms": last[0]["at_ms"] if last else None,
            "p50_ms": quantile(times, 0.5),
            "p95_ms": quantile(times, 0.95),
        }

    async def apm(self) -> dict[str, Any]:
        """Files that its ticks of the last minute wrote or called. Of more than 1,000 ticks a minute, as many."""
        since = self._clock.millis() - WINDOW_S * 1_000
        last = [row for row in await self._last_ticks(COUNTED) if row["at_ms"] + row["duration_ms"] >= since]
        actions = sum(int(orjson.loads(row["usage"]).get("calls", 0)) for row in last)
        return {"value": actions * 60 / WINDOW_S, "window_secs": WINDOW_S}

    async def queue(self) -> dict[str, Any]:
        """How many envelopes wait, counted to 1,000, and since when the oldest of them does."""
        where = {"agent": self._agent, "state": "new"}
        depth = await self._unit.count("inbox", where, limit=COUNTED)
        oldest = await self._unit.select("inbox", where, order=("n",), limit=1, columns=("n", "at")) if depth else []
        return {"depth": depth, "oldest_at_ms": oldest[0]["at"] * 1_000 if oldest else None}

    async def spend(self) -> dict[str, Any]:
        """What was spent today, of what the node may spend."""
        day = await self._usage()
        return {
            "unit": day["unit"], "today": day["spent"], "held": day["held"], "limit": day["ceiling"], "scope": "node",
        }  # fmt: skip

    async def storage(self) -> dict[str, Any]:
        """What it keeps, of what it may.

        Raises:
            NotFound: there is no such agent.
        """
        row = await self._row("stored", "limits")
        return {"bytes": row["stored"], "limit": bounds(row["limits"], self._limits).storage_bytes or None}


def quantile(ordered: list[int], share: float) -> int | None:
    """The value below which this share of the ordered values is, by nearest rank; None of none."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else None
