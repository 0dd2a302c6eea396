"""Which signed requests were taken: in the database, so that one counts once for all processes and over restarts."""

from core.clock import Clock
from core.error import Conflict
from core.unit import Insert, UnitOfWork


class Once:
    """Takes each event once. What was taken stays in the table of events that were acted on (`[retention] inbox_days`).

    Args:
        unit: the database.
        clock: time.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock) -> None:
        self._unit, self._clock = unit, clock

    async def take(self, event: str) -> bool:
        """Use up a signed event, by its id; durable when it returns. False: it was used before.

        Raises:
            VendoError: the database did not take it. Nobody knows then whether it is used up, so nothing may be done.
        """
        try:
            await self._unit.commit([Insert("seen", {"event_id": event, "at": self._clock.now()})])
        except Conflict:
            return False
        return True
