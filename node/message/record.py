"""Rows of table `message`: what was said, by whom, over which protocol, and what became of it."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from core.clock import Clock
from core.unit import Insert, Row, Update

TABLE = "message"
WRAPPED = 1059  # the kind of a row that holds a whole wrap, which nobody has opened yet
_SHOWN = ("id", "peer", "direction", "protocol", "kind", "text", "state", "reason", "created_at")


class Protocol(StrEnum):
    """How a message travels."""

    NIP17 = "nip17"
    NIP04 = "nip04"
    PUBLIC = "public"


class State(StrEnum):
    """What became of a message."""

    QUEUED = "queued"
    SENT = "sent"
    FAILED = "failed"
    SEEN = "seen"
    RECEIVED = "received"
    HELD = "held"
    DROPPED = "dropped"


class Stamp:
    """Milliseconds that rise with every call, so that they can be a cursor."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._last = clock, 0

    def next(self) -> int:
        """A number above all before it."""
        self._last = max(self._last + 1, self._clock.millis())
        return self._last


def message_row(
    stamp: Stamp,
    agent: str,
    message_id: str,
    peer: str,
    *,
    incoming: bool,
    protocol: Protocol,
    kind: int,
    text: str,
    state: State,
    created_at: int,
    effect_id: str = "",
    reason: str = "",
    first: bool = False,
) -> Insert:
    """The write that keeps a message; one that is known already stays as it is."""
    return Insert(
        TABLE,
        {
            "agent": agent,
            "id": message_id,
            "peer": peer,
            "direction": "in" if incoming else "out",
            "protocol": protocol.value,
            "kind": kind,
            "text": text,
            "effect_id": effect_id,
            "state": state.value,
            "reason": reason[:500],
            "first": int(first),
            "created_at": created_at,
            "changed_ms": stamp.next(),
        },
        or_ignore=True,
    )


def change(stamp: Stamp, where: dict[str, Any], state: State, reason: str = "", **more: str) -> Update:
    """The write that says what became of messages; any number of them."""
    values = {"state": state.value, "reason": reason[:500], "changed_ms": stamp.next(), **more}
    return Update(TABLE, where, values, rows=None)


def shown(row: Row) -> dict[str, Any]:
    """A message as files and the command show it."""
    return {name: row[name] for name in _SHOWN} | {"cursor": row["changed_ms"]}


def topic(agent: str) -> str:
    """The feed's name for an agent's messages."""
    return f"message:{agent}"


def topics(rows: Iterable[Row]) -> set[str]:
    """The feed's names for those whose messages these are."""
    return {topic(row["agent"]) for row in rows}
