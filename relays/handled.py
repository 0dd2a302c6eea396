"""Which events were handled lately, kept in the database so that a restart does not hand them over again.

Written in groups some time after the handler has succeeded: after a crash a few events may come once more, none less.
"""

import logging
from collections.abc import Iterable

from core.clock import Clock
from core.error import VendoError
from core.unit import Condition, Delete, Insert, UnitOfWork, Within, Write
from relays.delivery import Delivery
from relays.subscription import BACKDATE_S

log = logging.getLogger(__name__)

TABLE = "handled"
WINDOW_S = 3_600  # what is not backdated is asked for again only from shortly before the cursor
BACKDATED_WINDOW_S = BACKDATE_S + 3_600
PRUNE_S = 300.0
_GROUP = 2_000
_PRUNE_ROWS = 500
_MOST_UNSAVED = 100_000
_KEPT = 50_000  # rows of one subscription that are loaded at the start


class Handled:
    """Table `handled`. Beyond the time that reading ever goes back, rows are of no use and are deleted."""

    def __init__(self, unit: UnitOfWork, clock: Clock) -> None:
        self._unit = unit
        self._clock = clock
        self._gone: set[str] = set()
        self._unsaved: dict[tuple[str, str], int] = {}
        self._pruned_at = clock.monotonic()

    async def recall(self, delivery: Delivery) -> None:
        """Tell a subscription what it has handled in an earlier run."""
        name = delivery.spec.name
        if name in self._gone:
            return
        since = self._clock.now() - window(delivery)
        rows = await self._unit.select(
            TABLE, {"name": name, "created_at": Within(since, None)}, order=("-created_at",), limit=_KEPT
        )
        delivery.recall((str(row["event_id"]), int(row["created_at"])) for row in reversed(rows))

    def forget(self, name: str) -> None:
        """The subscription ended for good."""
        self._gone.add(name)
        self._unsaved = {key: at for key, at in self._unsaved.items() if key[0] != name}

    async def save(self, deliveries: Iterable[Delivery]) -> None:
        """Write what was handled since. A failure is logged, and the next call tries again."""
        gone = set(self._gone)
        writes: list[Write] = [Delete(TABLE, {"name": name}) for name in gone]
        for delivery in deliveries:
            fresh, delivery.fresh = delivery.fresh, []
            since = self._clock.now() - window(delivery)
            for event_id, created_at in fresh:
                if created_at >= since:
                    self._unsaved[delivery.spec.name, event_id] = created_at
        for key in list(self._unsaved)[: max(0, len(self._unsaved) - _MOST_UNSAVED)]:
            del self._unsaved[key]  # the database has failed for long; these may be handed over once more
        unsaved = dict(self._unsaved)
        writes += [
            Insert(TABLE, {"name": name, "event_id": event_id, "created_at": created_at}, or_ignore=True)
            for (name, event_id), created_at in unsaved.items()
        ]
        try:
            for at in range(0, len(writes), _GROUP):
                await self._unit.commit(writes[at : at + _GROUP])
        except VendoError as error:
            log.warning(
                "What was handled was not written: %s", error, extra={"action": "handled_failed", "code": error.code}
            )
            return
        self._gone -= gone
        for key in unsaved:
            self._unsaved.pop(key, None)

    async def prune(self, deliveries: Iterable[Delivery]) -> None:
        """Now and then, a little at a time, delete what is older than reading ever goes back."""
        if self._clock.monotonic() - self._pruned_at < PRUNE_S:
            return
        self._pruned_at = self._clock.monotonic()
        try:
            for delivery in deliveries:
                await self._prune_one(delivery.spec.name, self._clock.now() - window(delivery))
        except VendoError as error:
            log.warning("What was handled was not pruned: %s", error, extra={"action": "handled_unpruned"})

    async def _prune_one(self, name: str, before: int) -> None:
        where: dict[str, Condition] = {"name": name, "created_at": Within(None, before)}
        while rows := await self._unit.select(TABLE, where, limit=_PRUNE_ROWS):
            await self._unit.commit([Delete(TABLE, {"name": name, "event_id": row["event_id"]}) for row in rows])
            await self._clock.sleep(0.05)


def window(delivery: Delivery) -> int:
    """How far back, in seconds, a subscription's events may be asked for again."""
    return BACKDATED_WINDOW_S if delivery.spec.backdated else WINDOW_S
