"""Which signed requests were taken: in the database, so that one counts once for all processes and over restarts."""

from core.clock import Clock
from core.error import Conflict
from core.unit import Delete, Insert, UnitOfWork, Within, Write

_NAME, _END = "nip98/", "nip980"  # "0" comes next to "/": all names that begin so are within
KEPT_S = 3_600
"""So long a row is kept: many times as long as a signature holds, for a clock that is set back."""
_TIDY_S = 300


class Once:
    """Takes each event once. What was taken stands in the table of events that were acted on, for an hour.

    Args:
        unit: the database.
        clock: time.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock) -> None:
        self._unit, self._clock = unit, clock
        self._tidied = 0

    async def take(self, event: str) -> bool:
        """Use up a signed event, by its id; durable when it returns. False: it was used before.

        Raises:
            VendoError: the database did not take it. Nobody knows then whether it is used up, so nothing may be done.
        """
        now = self._clock.now()
        writes: list[Write] = [Insert("seen", {"event_id": _NAME + event, "at": now})]
        if abs(now - self._tidied) >= _TIDY_S:
            self._tidied = now
            writes.append(Delete("seen", {"event_id": Within(_NAME, _END), "at": Within(high=now - KEPT_S)}))
        try:
            await self._unit.commit(writes)
        except Conflict:
            return False
        return True
