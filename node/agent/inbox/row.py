"""The durable inbox of an agent: triggers wait as rows and are acknowledged in the tick's own commit.

A *line* is what one sender sends by one way with one priority. A line keeps its order: by the source's own numbers
(`seq`), else by when it was written where people write (`written_at`), else as it came. Between lines the more urgent
goes first (a lower `priority` is sooner), then what came first.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from core.unit import Among, Condition, Insert, Row, UnitOfWork, Update

log = logging.getLogger(__name__)

TABLE = "inbox"
NEW, DONE, DEAD, DROPPED, EXPIRED, DISCARDED = "new", "done", "dead", "dropped", "expired", "discarded"
PAGE = 64
AGENT_CALLER = "agent:"
_ORDER = ("priority", "n")
_LINE = ("n", "priority", "source", "sender", "seq", "written_at", "next_at_ms", "expires_at")
_WIDER = 8
_WIDEST = PAGE * _WIDER**3

Line: TypeAlias = tuple[int, str, str]


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
    priority: int = 0,
    expires_at: int | None = None,
    seq: int | None = None,
    reply_to: str = "",
    written_at: int = 0,
) -> Insert:
    """The write that queues a trigger.

    Args:
        agent: whose inbox it is.
        envelope_id: unique in that inbox, for months.
        cause: message, event, manual, initialize or alarm.
        source: which way it came in.
        sender: who sent it, as that way names people.
        payload: what it says, as JSON.
        at: when it came, Unix seconds.
        or_ignore: one that is known already stays as it is; else it is a conflict.
        priority: lower is sooner.
        expires_at: Unix seconds; from then on it is not handed out any more.
        seq: the source's own number, if it numbers what it sends.
        reply_to: the envelope that it answers.
        written_at: when its sender wrote it (Unix seconds), where messages are carried in any order.
    """
    row: Row = {
        "agent": agent,
        "envelope_id": envelope_id,
        "cause": cause,
        "source": source,
        "sender": sender,
        "payload": payload,
        "at": at,
        "priority": priority,
        "expires_at": expires_at,
        "seq": seq,
        "reply_to": reply_to,
        "written_at": written_at,
    }
    return Insert(TABLE, row, or_ignore=or_ignore)


def agent_of(caller: str) -> str | None:
    """The agent's name in `agent:<name>`, or None for other callers."""
    return caller.removeprefix(AGENT_CALLER) if caller.startswith(AGENT_CALLER) else None


def ended(row: Mapping[str, object], state: str, at: int, error: str = "") -> Update:
    """The write that ends a waiting trigger for good (`done`, `dropped`, `expired`), if it still waits.

    It stays as a row, so that its envelope id is known for months; its payload may be taken from it later.
    """
    return Update(TABLE, {"n": _number(row), "state": NEW}, set={"state": state, "ended_at": at, "error": error})


def _number(row: Mapping[str, object]) -> int:
    n = row["n"]
    assert type(n) is int
    return n


@dataclass(slots=True)
class Turn:
    """What may be dealt with now, and what not.

    Attributes:
        due: in the order in which they may be dealt with. When one of them fails, the rest of its line must wait.
        late: those that have expired.
        again_ms: when the first of those that wait for their next try may be tried, or is too late for it and lets the
            rest of its line go on (Unix ms); None if none waits.
    """

    due: list[Row] = field(default_factory=list)
    late: list[Row] = field(default_factory=list)
    again_ms: int | None = None


def line_of(row: Mapping[str, object]) -> Line:
    """Whose order a trigger keeps."""
    priority, source, sender = row["priority"], row["source"], row["sender"]
    assert type(priority) is int
    return priority, str(source), str(sender)


def arrange(rows: Iterable[Row], now_ms: int) -> Turn:
    """Put waiting rows, sorted by priority and number, into the order in which they are dealt with.

    Each line keeps its own places in the queue and fills them in its own order. A trigger that waits for its next try
    holds back what follows it in its line, and nothing else.
    """
    turn = Turn()
    places: dict[Line, list[int]] = {}
    waiting: list[Row] = []
    for row in rows:
        if row["expires_at"] is not None and row["expires_at"] * 1000 <= now_ms:
            turn.late.append(row)
            continue
        places.setdefault(line_of(row), []).append(len(waiting))
        waiting.append(row)
    taken: dict[int, Row] = {}
    for line in places.values():
        ordered = sorted((waiting[place] for place in line), key=_written)
        for place, row in zip(line, ordered, strict=True):
            if row["next_at_ms"] > now_ms:
                ends = row["next_at_ms"] if row["expires_at"] is None else row["expires_at"] * 1000
                turn.again_ms = min(row["next_at_ms"], ends, turn.again_ms or ends)
                break
            taken[place] = row
    turn.due = [taken[place] for place in sorted(taken)]
    return turn


def _written(row: Row) -> tuple[int, int]:
    return (row["written_at"] if row["seq"] is None else row["seq"]), row["n"]


class Waiting:
    """What waits for agents, as the engine reads it."""

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    async def agents(self) -> set[str]:
        """The names of all agents for whom something waits. One question, of the rows that wait alone."""
        rows = await self._unit.select(TABLE, {"state": NEW}, columns=("agent",), distinct=True)
        return {row["agent"] for row in rows}

    async def due(self, agent: str, now_ms: int, limit: int = PAGE) -> tuple[list[Row], int | None]:
        """What an agent may deal with now, at most `limit`, and when to look again (Unix ms) for what waits for a try.

        One question, as long as the first `limit` rows are not all held back; order is kept among those. After a
        failure ask again: the rest of that line must wait. What has expired is never handed out, and is put away here.

        Raises:
            VendoError: the database failed.
        """
        where: dict[str, Condition] = {"agent": agent, "state": NEW}
        rows = await self._unit.select(TABLE, where, order=_ORDER, limit=limit)
        turn, seen, wide = arrange(rows, now_ms), len(rows), limit
        while not turn.due and seen == wide < _WIDEST:
            wide *= _WIDER
            lines = await self._unit.select(TABLE, where, order=_ORDER, limit=wide, columns=_LINE)
            turn, seen = arrange(lines, now_ms), len(lines)
            if turn.due:
                turn.due = await self._whole(turn.due[:limit])
        if turn.late:
            await self._put_away(agent, turn.late, now_ms // 1000)
        return turn.due, turn.again_ms

    async def _whole(self, lines: Sequence[Row]) -> list[Row]:
        numbers = tuple(row["n"] for row in lines)
        rows = {row["n"]: row for row in await self._unit.select(TABLE, {"n": Among(numbers), "state": NEW})}
        return [rows[n] for n in numbers if n in rows]

    async def _put_away(self, agent: str, late: Sequence[Row], at: int) -> None:
        where: dict[str, Condition] = {"n": Among(tuple(row["n"] for row in late)), "state": NEW}
        await self._unit.commit([Update(TABLE, where, set={"state": EXPIRED, "ended_at": at}, rows=None)])
        log.info("triggers came too late", extra={"action": "triggers_expired", "agent": agent, "count": len(late)})
