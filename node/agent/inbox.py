"""The durable inbox of an agent: triggers wait as rows and are acknowledged in the tick's own commit."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.unit import Among, Insert, Row, UnitOfWork, Write

LISTED = 1_000
_LOOKED_AT = 64
AGENT_CALLER = "agent:"


def envelope(
    agent: str,
    envelope_id: str,
    *,
    cause: str,
    source: str,
    sender: str,
    payload: str,
    at: int,
    or_ignore: bool = False,
) -> Insert:
    """The write that queues a trigger. `or_ignore`: one that is known already stays as it is."""
    return Insert(
        "inbox",
        {
            "agent": agent,
            "envelope_id": envelope_id,
            "cause": cause,
            "source": source,
            "sender": sender,
            "payload": payload,
            "at": at,
        },
        or_ignore=or_ignore,
    )


def job_finished(caller: str, job_id: str, view: str, at: int) -> tuple[Write, ...]:
    """The writes that tell an agent that its job has ended; none if no agent asked for it.

    Args:
        caller: who asked, as the gate names it.
        job_id: the job; one event per job, however often it is told.
        view: what is known of the job, as JSON.
        at: Unix seconds.
    """
    agent = agent_of(caller)
    if agent is None:
        return ()
    return (
        envelope(
            agent,
            f"job-{job_id}",
            cause="event",
            source="market",
            sender="",
            payload='{"type":"job.finished","job":' + view + "}",
            at=at,
            or_ignore=True,
        ),
    )


def agent_of(caller: str) -> str | None:
    """The agent's name in `agent:<name>`, or None for other callers."""
    return caller.removeprefix(AGENT_CALLER) if caller.startswith(AGENT_CALLER) else None


class AgentInbox:
    """One agent's inbox, as the file services see it."""

    def __init__(self, agent: str, unit: UnitOfWork, clock: Clock, notify: Callable[[str], None]) -> None:
        self._agent, self._unit, self._clock, self._notify = agent, unit, clock, notify

    async def names(self, state: str) -> Sequence[str]:
        """Envelope ids in a state, oldest first, at most 1,000."""
        rows = await self._unit.select("inbox", {"agent": self._agent, "state": state}, order=("n",), limit=LISTED)
        return [row["envelope_id"] for row in rows]

    async def find(self, envelope_id: str) -> dict[str, Any] | None:
        """One envelope as it is stored, or None."""
        rows = await self._unit.select("inbox", {"agent": self._agent, "envelope_id": envelope_id})
        return rows[0] if rows else None

    def message(self, envelope_id: str, sender: str, payload: str) -> tuple[Write, ...]:
        """Writes that queue a message from the control plane."""
        return (self._envelope(envelope_id, "message", sender, payload, or_ignore=False),)

    def manual(self, envelope_id: str, reason: str) -> tuple[Write, ...]:
        """Writes that queue a manual tick; one that is queued already stays."""
        payload = orjson.dumps({"reason": reason}).decode()
        return (self._envelope(envelope_id, "manual", "operator", payload, or_ignore=True),)

    def notify(self) -> None:
        """Say that a committed envelope waits."""
        self._notify(self._agent)

    def _envelope(self, envelope_id: str, cause: str, sender: str, payload: str, *, or_ignore: bool) -> Insert:
        return envelope(
            self._agent,
            envelope_id,
            cause=cause,
            source="control-plane",
            sender=sender,
            payload=payload,
            at=self._clock.now(),
            or_ignore=or_ignore,
        )


class Waiting:
    """What waits for agents, as the engine reads it."""

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    async def agents(self) -> set[str]:
        """The names of all agents for whom something waits. Read in pages: only names are kept."""
        found: set[str] = set()
        known = await self._unit.select("agent", {"status": "active"})
        for row in known:
            if await self._unit.select("inbox", {"agent": row["name"], "state": "new"}, order=("n",), limit=1):
                found.add(row["name"])
        return found

    async def next(self, agent: str, now_ms: int) -> Row | int | None:
        """The next envelope that is due; or when one will be (Unix ms); or None if nothing waits.

        Order is kept per source and sender. What one person sent is dealt with in the order in which it was written, as
        far as it waits together: wraps hide their time, so relays hand them over in any order. One that waits for its
        next try holds back only later ones of the same line.
        """
        rows = await self._unit.select("inbox", {"agent": agent, "state": "new"}, order=("n",), limit=_LOOKED_AT)
        if not rows:
            return None
        firsts: dict[tuple[str, str], tuple[int, Row]] = {}
        for row in rows:
            line = (row["source"], row["sender"])
            written = _written_at(row)
            if line not in firsts or written < firsts[line][0]:
                firsts[line] = (written, row)
        due = [row for _, row in firsts.values() if row["next_at_ms"] <= now_ms]
        if due:
            return min(due, key=lambda row: int(row["n"]))
        return min(int(row["next_at_ms"]) for _, row in firsts.values())

    async def find(self, n: int) -> Row | None:
        """The envelope with this number, or None."""
        rows = await self._unit.select("inbox", {"n": Among((n,))})
        return rows[0] if rows else None


def _written_at(row: Row) -> int:
    """When its sender wrote it, as far as that matters for the order: only people's messages say so."""
    if row["source"] != "nostr":
        return 0
    written = orjson.loads(row["payload"]).get("created_at")
    return written if type(written) is int else 0
