"""An agent's goals, as rows."""

from collections.abc import Sequence

from core.clock import Clock
from core.unit import Delete, Insert, Row, UnitOfWork, Update, Write


class AgentGoals:
    """One agent's goals, as the file services see them."""

    def __init__(self, agent: str, unit: UnitOfWork, clock: Clock) -> None:
        self._agent, self._unit, self._clock = agent, unit, clock

    async def names(self) -> Sequence[str]:
        """Ids, sorted."""
        return [row["id"] for row in await self._unit.select("goal", {"agent": self._agent}, order=("id",))]

    async def find(self, goal: str) -> str | None:
        """The JSON that was written, or None."""
        rows = await self._unit.select("goal", {"agent": self._agent, "id": goal})
        return str(rows[0]["body"]) if rows else None

    def put(self, goal: str, body: str, before: int) -> tuple[Write, ...]:
        """Writes that replace a goal of so many bytes; what the agent keeps is counted."""
        row: Row = {"agent": self._agent, "id": goal, "body": body, "updated_at": self._clock.now()}
        more = len(body.encode()) - before
        return (
            Delete("goal", {"agent": self._agent, "id": goal}),
            Insert("goal", row),
            Update("agent", {"name": self._agent}, add={"stored": more}, rows=None),
        )
