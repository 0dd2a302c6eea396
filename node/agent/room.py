"""Whether an agent may keep more: for what is written of it between its ticks. A tick asks at its own commit."""

from core.unit import UnitOfWork, Update, Write
from node.agent.error import StorageFull
from node.agent.tick.limit import TickLimits, bounds, full


class Room:
    """What one agent keeps, in bytes, against its limit.

    Args:
        agent: its name.
        unit: the database.
        limits: those of an agent that has no others; None asks for none.
    """

    def __init__(self, agent: str, unit: UnitOfWork, limits: TickLimits | None) -> None:
        self._agent, self._unit, self._limits = agent, unit, limits

    async def check(self, more: int) -> None:
        """Whether there is room for so many bytes more. Who keeps too much already may keep less.

        Raises:
            StorageFull: there is not.
        """
        if self._limits is None or more <= 0:
            return
        for row in await self._unit.select("agent", {"name": self._agent}, columns=("stored", "limits")):
            own, after = bounds(row["limits"], self._limits), row["stored"] + more
            if full(own, row["stored"], after):
                raise StorageFull(f"The agent would keep {after} bytes, of {own.storage_bytes}.")

    def counted(self, more: int) -> tuple[Write, ...]:
        """What counts them in the agent's row."""
        if not more:
            return ()
        return (Update("agent", {"name": self._agent}, add={"stored": more}, rows=None),)
