"""What a tick has asked for and said, gathered until its one commit, and what may be asked for. Pure."""

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from core.error import InvalidInput, VendoError
from core.unit import Write
from fs.session import Batch
from node.agent.error import TickOver
from node.agent.wake.alarm import set_alarm
from node.agent.wake.interest import watch

MAX_RECORDS = 200
MAX_RECORD_BYTES = 16_384
MAX_NAME = 200
MAX_ITEM_BYTES = 65_536
MAX_ASKED = 1_000
"""Marks, items, alarms and interests: how many of each one tick may change."""

_OPEN, _FAILED, _OVER = "open", "failed", "over"


class AlarmWish(NamedTuple):
    """An alarm that was asked for, as `node.agent.wake.alarm.set_alarm` takes it; it was found to be in order."""

    at_ms: int | None
    every_ms: int
    cron: str
    payload: str

    def writes(self, agent: str, alarm: str, now_ms: int) -> tuple[Write, ...]:
        """What sets it."""
        return set_alarm(
            agent, alarm, now_ms, at_ms=self.at_ms, every_ms=self.every_ms, cron=self.cron, payload=self.payload
        )


class InterestWish(NamedTuple):
    """An interest that was asked for, as `node.agent.wake.interest.watch` takes it; it was found to be in order."""

    event: str
    pattern: str

    def writes(self, agent: str, interest: str, now_ms: int) -> tuple[Write, ...]:
        """What sets it."""
        return watch(agent, interest, now_ms // 1000, self.event, self.pattern)


class Stage:
    """What a tick has asked for so far.

    Attributes:
        records: for the trace: (type, JSON).
        marks: ids to be marked as seen.
        items: kept values, JSON; None takes one away.
        known: kept values that it has read, as they were before it; what it changes of them must be so still.
        alarms, interests: by id; None takes one away.
        dormant: whether it hibernates after this tick.
        elsewhere_us: what it computed outside of this process.
        reads, calls: files read, files written or called.
        watchers: are told what became of the tick.
    """

    __slots__ = (
        "alarms", "batch", "calls", "dormant", "elsewhere_us", "interests", "items", "known", "marks", "phase", "reads",
        "records", "watchers",
    )  # fmt: skip

    def __init__(self) -> None:
        self.phase = _OPEN
        self.records: list[tuple[str, str]] = []
        self.marks: dict[str, None] = {}
        self.items: dict[str, str | None] = {}
        self.known: dict[str, str | None] = {}
        self.alarms: dict[str, AlarmWish | None] = {}
        self.interests: dict[str, InterestWish | None] = {}
        self.dormant = False
        self.elsewhere_us = self.reads = self.calls = 0
        self.batch: Batch | None = None
        self.watchers: list[Callable[[VendoError | None], None]] = []

    def tell(self, error: VendoError | None) -> None:
        """The tick was committed, or why it was not."""
        for watcher in self.watchers:
            watcher(error)
        self.watchers.clear()

    def open(self) -> None:
        """To be called before anything is looked at or said.

        Raises:
            TickOver: the tick has ended.
        """
        if self.phase is _OVER:
            raise TickOver

    def change(self) -> None:
        """To be called before anything is asked for.

        Raises:
            TickOver: the tick has ended, or has failed: then only what it says is kept.
        """
        if self.phase is not _OPEN:
            raise TickOver(None if self.phase is _OVER else "This tick has failed: only what it logs is kept.")

    def fail(self) -> None:
        """From now on it may only say why."""
        self.phase = _FAILED

    def close(self) -> None:
        """The tick has ended, whatever still holds its context."""
        self.phase = _OVER
        if self.batch is not None:
            self.batch.closed = True


def ask(table: dict[str, Any], name: str, value: Any) -> None:
    """Put something into one of a stage's tables.

    Raises:
        InvalidInput: there is too much in it.
    """
    if len(table) >= MAX_ASKED and name not in table:
        raise InvalidInput(f"A tick changes at most {MAX_ASKED} of these.")
    table[name] = value


def named(text: str, what: str) -> str:
    """A name that every database takes.

    Raises:
        InvalidInput: it is none.
    """
    if not isinstance(text, str) or not 0 < len(text) <= MAX_NAME or not text.isprintable():
        raise InvalidInput(f"A {what} is 1 to {MAX_NAME} printable characters.")
    return text


def json_text(value: Any, most: int, what: str) -> str:
    """A value as JSON.

    Raises:
        InvalidInput: it is none, or has more than `most` bytes.
    """
    try:
        body = orjson.dumps(value)
    except (TypeError, RecursionError) as error:
        raise InvalidInput(f"{what} is JSON.") from error
    if len(body) > most:
        raise InvalidInput(f"{what} has at most {most} bytes.")
    return body.decode()
