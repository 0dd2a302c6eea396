"""The door for webhooks: a call that shows that it knows the hook's secret becomes an event of the hook's agent.

A hook that does not exist and a call that is not authentic get the same answer after the same work, so nobody learns
which hooks there are. Only authentic calls count against a hook's rate: a forger cannot use it up.
"""

from collections.abc import Callable, Sequence
from typing import Any

from core.clock import Clock
from core.error import Conflict, KeyReused, NotFound
from core.identifier import derived_id
from core.unit import Delete, Insert, Row, UnitOfWork, Write
from dvm.admission import Meter
from fs.session import Session
from node.agent.error import HookBusy, HookUnknown
from node.agent.inbox.intake import Intake
from node.agent.wake.alarm import afford
from node.agent.wake.event import Event
from node.agent.wake.herald import Herald
from node.agent.wake.hook import MAX_HOOKS, Call, Scheme, authentic, check_name, content, names_of, stamp_of, told
from node.agent.wake.interest import check_hook_event

TABLE = "hook"
QUEUED, DUPLICATE = "queued", "duplicate"
_NOBODY: Row = {"agent": "", "name": "", "event": "", "scheme": Scheme.HMAC.value}


class Porter:
    """Takes calls.

    Args:
        unit: the database.
        clock: time.
        secret: a hook's secret from its id; the same on every run of this node.
        herald: finds whom else to tell.
        intake: the door of the inboxes.
        notify: wakes an agent for whom something was committed.
        per_minute: authentic calls of one hook; all of them may come at once.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        secret: Callable[[str], str],
        herald: Herald,
        intake: Intake,
        notify: Callable[[str], None],
        per_minute: int = 120,
    ) -> None:
        self._unit, self._clock, self._secret = unit, clock, secret
        self._herald, self._intake, self._notify = herald, intake, notify
        self._meter = Meter(per_minute, per_minute / 60)

    async def call(self, hook: str, call: Call) -> str:
        """Take a call: `queued`, or `duplicate` if this delivery came before.

        Raises:
            HookUnknown: there is no such hook, or the call is not authentic.
            HookBusy: too many came.
            HookType, HookBody: it says nothing that can be read.
            InboxFull: the agent takes no more now.
            VendoError: the database did not take it.
        """
        now = self._clock.now()
        rows = await self._unit.select(TABLE, {"id": hook})
        row = rows[0] if rows else _NOBODY
        known = authentic(row["scheme"], self._secret(hook), call, now)
        if not known or not rows:
            raise HookUnknown
        if not self._meter.take(hook, self._clock.monotonic()):
            raise HookBusy
        name, before = names_of(hook, call, now)
        event = Event(
            name, row["event"], "webhook", row["name"], told(row, call, content(call)), row["agent"], direct=True
        )
        if await self._unit.count("inbox", {"agent": row["agent"], "envelope_id": before}, limit=1):
            return DUPLICATE
        if await self._unit.count("inbox", {"agent": row["agent"], "envelope_id": name}, limit=1):
            return DUPLICATE
        return await self._commit(event, stamp_of(hook, call), now)

    async def _commit(self, event: Event, stamp: str | None, now: int) -> str:
        audience = await self._herald.audience(event)
        own, *others = self._herald.rows(event, audience)  # whose hook it is stands first
        beside: list[Write] = [] if stamp is None else [Insert("seen", {"event_id": stamp, "at": now})]
        beside += await self._herald.room_for(others)
        async with self._intake.room(own) as writes:
            try:
                await self._unit.commit([*beside, *writes])
            except Conflict:  # the timestamp's: this very call came before
                return DUPLICATE
        for agent in audience:
            self._notify(agent)
        return QUEUED


class AgentHooks:
    """One agent's hooks, as the file services see them. For its operator alone.

    Args:
        agent: its name.
        unit: the database.
        clock: time.
        secret: a hook's secret from its id.
    """

    def __init__(self, agent: str, unit: UnitOfWork, clock: Clock, secret: Callable[[str], str]) -> None:
        self._agent, self._unit, self._clock, self._secret = agent, unit, clock, secret

    async def names(self) -> Sequence[str]:
        """Ids, oldest first."""
        rows = await self._unit.select(
            TABLE, {"agent": self._agent}, order=("created_at", "id"), columns=("created_at", "id")
        )
        return [row["id"] for row in rows]

    async def find(self, hook: str) -> dict[str, Any] | None:
        """One hook, without its secret; or None."""
        rows = await self._unit.select(TABLE, {"id": hook, "agent": self._agent})
        return _shown(rows[0]) if rows else None

    async def add(self, session: Session, name: str, event: str, scheme: str) -> dict[str, Any]:
        """Make a hook; the same key makes the same one.

        Raises:
            InvalidInput: a value is not valid, the event is one of the node's own, or there are too many.
            KeyReused: the key was used for another one.
        """
        event = check_hook_event(event or f"webhook.{check_name(name)}")
        row: Row = {
            "id": derived_id("hook", session.caller, self._agent, session.effect_key()),
            "agent": self._agent,
            "name": check_name(name),
            "event": event,
            "scheme": Scheme(scheme).value,
            "created_at": self._clock.now(),
        }
        known = await self.find(row["id"])
        if known is None:
            await afford(self._unit, TABLE, self._agent, (row["id"],), MAX_HOOKS)
            await session.apply([Insert(TABLE, row)])
            return _shown(row)
        if {**known, "created_at": 0} != {**_shown(row), "created_at": 0}:
            raise KeyReused
        return known

    async def remove(self, session: Session, hook: str) -> None:
        """Close a hook; calls of it are not known from then on. One that is closed is fine too."""
        await session.apply([Delete(TABLE, {"id": hook, "agent": self._agent})])

    async def secret(self, hook: str) -> str:
        """What a caller must know.

        Raises:
            NotFound: there is no such hook.
        """
        if await self.find(hook) is None:
            raise NotFound("There is no hook with this id.")
        return self._secret(hook)


def _shown(row: Row) -> dict[str, Any]:
    names = ("id", "name", "event", "scheme", "created_at")
    return {**{name: row[name] for name in names}, "path": f"/hooks/{row['id']}"}
