"""One agent's inbox as the file services see it: what waits, what is dead, and what the operator does about it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.error import NotFound
from core.unit import Among, Condition, Row, UnitOfWork, Update, Write
from fs.service.inbox import Letter
from fs.session import Session
from node.agent.inbox.intake import Intake
from node.agent.inbox.row import DEAD, DISCARDED, DROPPED, EXPIRED, NEW, TABLE, envelope

LISTED = 1_000
_COUNTED = 1_000
_SOURCE = "control-plane"


class AgentInbox:
    """One agent's inbox.

    Args:
        agent: its name.
        unit: the database.
        clock: time.
        notify: wakes an agent for whom something was committed.
        intake: the door that everything from outside passes.
    """

    def __init__(
        self, agent: str, unit: UnitOfWork, clock: Clock, notify: Callable[[str], None], intake: Intake | None = None
    ) -> None:
        self._agent, self._unit, self._clock, self._notify = agent, unit, clock, notify
        self._intake = intake or Intake(unit, clock)

    def _where(self, state: str) -> dict[str, Condition]:
        return {"agent": self._agent, "state": state}

    # ---- looking

    async def names(self, state: str) -> Sequence[str]:
        """Envelope ids in a state (`new` by turn, `dead` oldest first), at most 1,000."""
        wanted = ("envelope_id",)
        rows = await self._unit.select(TABLE, self._where(state), order=_order(state), limit=LISTED, columns=wanted)
        return [row["envelope_id"] for row in rows]

    async def peek(self, state: str, limit: int) -> list[dict[str, Any]]:
        """The first envelopes in a state as they are stored."""
        return await self._unit.select(TABLE, self._where(state), order=_order(state), limit=limit)

    async def find(self, envelope_id: str) -> dict[str, Any] | None:
        """One envelope as it is stored, or None."""
        rows = await self._unit.select(TABLE, {"agent": self._agent, "envelope_id": envelope_id})
        return rows[0] if rows else None

    async def counts(self) -> dict[str, int]:
        """How many wait, are dead, were dropped and came too late; each counted to 1,000."""
        states = (NEW, DEAD, DROPPED, EXPIRED)
        return {state: await self._unit.count(TABLE, self._where(state), limit=_COUNTED) for state in states}

    # ---- leaving something

    async def leave(self, session: Session, envelope_id: str, letter: Letter) -> str:
        """Queue a message from the control plane: where it is then, `queued`, `dead` or `dropped`.

        Raises:
            Conflict: the envelope id is taken.
            InboxFull: there is no room, and the policy refuses newcomers.
        """
        row = envelope(
            self._agent, envelope_id, cause="message", source=_SOURCE, sender=session.caller, payload=letter.payload,
            at=self._clock.now(), priority=letter.priority, expires_at=letter.expires_at, seq=letter.seq,
            reply_to=letter.reply_to,
        )  # fmt: skip
        async with self._intake.room(row) as writes:
            await session.apply(writes, self.notify)
        known = await self.find(envelope_id) if not session.staged else None
        return shown_state(known)

    async def manual(self, session: Session, envelope_id: str, reason: str) -> None:
        """Queue a manual tick; one that is queued already stays.

        Raises:
            InboxFull: there is no room.
        """
        row = envelope(
            self._agent, envelope_id, cause="manual", source=_SOURCE, sender="operator",
            payload=orjson.dumps({"reason": reason}).decode(), at=self._clock.now(), or_ignore=True,
        )  # fmt: skip
        async with self._intake.room(row, strict=True) as writes:
            await session.apply(writes, self.notify)

    def notify(self) -> None:
        """Say that a committed envelope waits."""
        self._notify(self._agent)

    # ---- the dead letter

    async def replay(self, session: Session, envelope_id: str) -> dict[str, Any]:
        """Hand a dead envelope out again, with fresh tries and no expiry. One that is not dead stays as it is.

        Raises:
            NotFound: there is none with this id.
        """
        return await self._end(session, envelope_id, _AGAIN, self.notify)

    async def discard(self, session: Session, envelope_id: str) -> dict[str, Any]:
        """Give up a dead envelope for good. One that is not dead stays as it is.

        Raises:
            NotFound: there is none with this id.
        """
        return await self._end(session, envelope_id, self._given_up(), None)

    async def replay_all(self, session: Session) -> int:
        """Hand out all dead envelopes again, oldest first; how many."""
        return await self._end_all(session, _AGAIN, self.notify)

    async def discard_all(self, session: Session) -> int:
        """Give up all dead envelopes; how many."""
        return await self._end_all(session, self._given_up(), None)

    def _given_up(self) -> dict[str, Any]:
        return {"state": DISCARDED, "ended_at": self._clock.now()}

    async def _end(
        self, session: Session, envelope_id: str, change: Mapping[str, Any], then: Callable[[], None] | None
    ) -> dict[str, Any]:
        row = await self.find(envelope_id)
        if row is None:
            raise NotFound("There is no envelope with this id.")
        if row["state"] == DEAD:
            where = {"agent": self._agent, "envelope_id": envelope_id, "state": DEAD}
            await session.apply([Update(TABLE, where, set=change, rows=None)], then)
            row = {**row, **change}
        return {"envelope_id": envelope_id, "state": row["state"]}

    async def _end_all(self, session: Session, change: Mapping[str, Any], then: Callable[[], None] | None) -> int:
        count = 0
        while rows := await self._unit.select(TABLE, self._where(DEAD), order=("n",), limit=LISTED, columns=("n",)):
            numbers = Among(tuple(row["n"] for row in rows))
            await session.apply([Update(TABLE, {"n": numbers, "state": DEAD}, set=change, rows=None)], then)
            count += len(rows)
            if session.staged:
                break
        return count

    # ---- the bound

    async def overflow(self) -> dict[str, Any]:
        """The bound and its policy."""
        return (await self._intake.policy(self._agent)).to_dict()

    async def set_overflow(self, session: Session, value: Mapping[str, Any]) -> None:
        """Change the bound or its policy.

        Raises:
            InvalidInput: a field is not known, or not within its bounds.
            Conflict: somebody else changed the agent's limits meanwhile.
        """
        writes: Sequence[Write] = await self._intake.set_policy(self._agent, dict(value))
        await session.apply(writes, lambda: self._intake.forget(self._agent))


_AGAIN: dict[str, Any] = {
    "state": NEW, "tries": 0, "error": "", "next_at_ms": 0, "ended_at": None, "expires_at": None
}  # fmt: skip


def _order(state: str) -> tuple[str, ...]:
    """The order that the state's own index has."""
    return ("priority", "n") if state == NEW else ("n",)


def shown_state(row: Row | None) -> str:
    """A stored state as whoever sent something is told it."""
    return "queued" if row is None or row["state"] == NEW else str(row["state"])
