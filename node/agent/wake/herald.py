"""The one place where events meet interests.

Who is to be told is looked up in the database, so that hibernated agents are found too, and what tells them is handed
back as writes: they stand in the unit of what they tell of, and happen with it or not at all.
"""

from collections.abc import Mapping, Sequence

import orjson

from core.clock import Clock
from core.error import InvalidInput
from core.unit import Among, Condition, Insert, UnitOfWork, Within, Write
from node.agent.error import InboxFull
from node.agent.inbox.intake import Intake
from node.agent.inbox.row import envelope
from node.agent.wake.event import WATCHER, WATCHER_END, Event, Told
from node.agent.wake.interest import TABLE, names_for, read_pattern


class Herald:
    """Finds whom to tell.

    Args:
        unit: the database.
        clock: time.
        intake: the door of the inboxes.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, intake: Intake) -> None:
        self._unit, self._clock, self._intake = unit, clock, intake

    async def watchers(self) -> list[str]:
        """The agents that may know of everything, by name."""
        rows = await self._unit.select("meta", {"key": Within(WATCHER, WATCHER_END)}, order=("key",), columns=("key",))
        return [row["key"].removeprefix(WATCHER) for row in rows]

    async def audience(self, event: Event) -> dict[str, list[str]]:
        """Who is to be told, and by which of its interests."""
        may = {event.owner, *await self.watchers()} - {"", event.by}
        found: dict[str, list[str]] = {event.owner: []} if event.direct and event.owner in may else {}
        if not may:
            return found
        where: dict[str, Condition] = {"event": Among(names_for(event.type)), "agent": Among(tuple(sorted(may)))}
        for row in await self._unit.select(TABLE, where, order=("agent", "id")):
            if _wants(row["pattern"], event):
                found.setdefault(row["agent"], []).append(row["id"])
        return found

    def rows(self, event: Event, audience: Mapping[str, Sequence[str]]) -> list[Insert]:
        """The triggers, before anybody asked whether there is room."""
        return [
            envelope(
                agent, event.id_for(agent), cause="event", source=event.source, sender=event.subject,
                payload=orjson.dumps(event.payload(interests)).decode(), at=self._clock.now(), or_ignore=True,
                written_at=event.written_at,
            )
            for agent, interests in audience.items()
        ]  # fmt: skip

    async def tell(self, event: Event) -> Told:
        """What to commit together with the cause. An inbox that refuses newcomers is left out.

        Raises:
            VendoError: the database failed.
        """
        audience = await self.audience(event)
        return Told(tuple(await self.room_for(self.rows(event, audience))), tuple(audience))

    async def room_for(self, rows: Sequence[Insert]) -> list[Write]:
        """What these triggers become, for a unit of which nobody knows when it is committed."""
        writes: list[Write] = []
        for row in rows:
            try:
                writes += await self._intake.staged(row)
            except InboxFull:
                continue
        return writes


def _wants(pattern: str, event: Event) -> bool:
    try:
        return read_pattern(pattern).matches(event.fields)
    except InvalidInput:  # it was written by a newer version
        return False
