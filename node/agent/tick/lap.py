"""What is kept of one agent while it has ticks, from one commit to the next; and of one tick while it runs.

The agent's row is read once and then changed as the commits change it: a commit that somebody else was quicker than
conflicts, and it is read again. When nothing waits for the agent any more, all of this is dropped.
"""

from dataclasses import dataclass, field

import orjson
from pydantic import BaseModel

from core.unit import Condition, Insert, Row, UnitOfWork, Within
from node.agent.program import AnyProgram, Trigger
from node.agent.replay.recording import Start
from node.agent.replay.tape import LiveTape
from node.agent.tick.guard import Meter
from node.agent.tick.limit import Bounds
from node.agent.tick.stage import Stage

ACTIVE, DORMANT, STOPPED = "active", "dormant", "stopped"
QUARANTINED, FROZEN, DELETED = "quarantined", "frozen", "deleted"
LIVING = (ACTIVE, DORMANT)
"""Who has ticks."""


@dataclass(slots=True)
class Lap:
    """One agent at work.

    Attributes:
        agent: its name.
        row: its row as it was last committed or read; None if it must be read.
        program: its code, once that is known to be there.
        bounds: what it may use.
        state: its state as the last commit left it, untouched by any code; None if it must be read from the row.
        config: its settings, if there is nothing in them that code could change.
        marks: how many ids it has marked; None if nobody has counted.
        page: triggers that may be dealt with next, in their order, the last one first.
        again: something was committed to its inbox since that was last read.
        leave: it is to end after this tick.
        since: when the tick began that runs now (the loop's clock); 0 between two.
        until_ms: when the limit renews that the agent has reached (Unix ms).
        epoch: the fencing token that it began with; None before that was read.
        lost: another process has taken the agent over.
    """

    agent: str
    row: Row | None = None
    program: AnyProgram | None = None
    bounds: Bounds | None = None
    state: BaseModel | None = None
    config: BaseModel | None = None
    marks: int | None = None
    page: list[Row] = field(default_factory=list)
    again: bool = False
    leave: bool = False
    since: float = 0.0
    until_ms: int = 0
    epoch: int | None = None
    lost: bool = False

    @property
    def code(self) -> str:
        """The digest of its program's code; empty if there is none."""
        return self.program.digest if self.program is not None else ""

    def forget(self) -> None:
        """Somebody else has changed the row."""
        self.row = self.program = self.bounds = self.state = self.config = self.marks = None


@dataclass(slots=True)
class Attempt:
    """One tick, from its beginning to its commit or its failure.

    Attributes:
        envelope: the row of its trigger.
        tick_id: its id; each try has another one.
        began_ms: Unix ms.
        until_ms: when its time is over.
        stage: what it has asked for.
        tape: what it has read and done.
        meter: what it has computed.
        start: what a recording of it begins with; None before its program and state were found.
        text: the state that it leaves, as JSON; `fresh` is the same, read back.
    """

    envelope: Row
    tick_id: str
    began_ms: int
    until_ms: int
    tape: LiveTape
    stage: Stage = field(default_factory=Stage)
    meter: Meter = field(default_factory=Meter)
    start: Start | None = None
    text: str = ""
    fresh: BaseModel | None = None

    @property
    def compute_us(self) -> int:
        """How long it computed, here and elsewhere, in µs."""
        return self.meter.total_ns // 1_000 + self.stage.elsewhere_us


def trigger(envelope: Row) -> Trigger:
    """A trigger as programs see it."""
    return Trigger(
        envelope["envelope_id"],
        envelope["cause"],
        envelope["source"],
        envelope["sender"],
        orjson.loads(envelope["payload"]),
        envelope["at"],
        envelope["seq"],
        envelope["reply_to"],
    )


def tick_row(attempt: Attempt, version: int, code: str, now_ms: int, error: str) -> Insert:
    """The record of a tick that has ended. `version` is that of the agent's row when it began."""
    envelope, stage = attempt.envelope, attempt.stage
    usage = (
        f'{{"compute_us":{attempt.compute_us},"longest_us":{attempt.meter.longest_ns // 1_000},"reads":{stage.reads},'
        f'"calls":{stage.calls},"records":{len(stage.records)},"state_bytes":{len(attempt.text)}}}'
    )
    row: Row = {
        "id": attempt.tick_id,
        "agent": envelope["agent"],
        "envelope_id": envelope["envelope_id"],
        "cause": envelope["cause"],
        "at_ms": attempt.began_ms,
        "duration_ms": now_ms - attempt.began_ms,
        "error": error,
        "tries": envelope["tries"],
        "version": version,
        "code": code,
        "usage": usage,
    }
    return Insert("tick", row)


class Rows:
    """An agent's own rows, as `node.agent.context.Keep` reads them."""

    __slots__ = ("_agent", "_unit")

    def __init__(self, agent: str, unit: UnitOfWork) -> None:
        self._agent, self._unit = agent, unit

    async def marked(self, mark: str) -> bool:
        """See `Keep`."""
        return bool(await self._unit.count("mark", {"agent": self._agent, "id": mark}, limit=1))

    async def item(self, key: str) -> str | None:
        """See `Keep`."""
        rows = await self._unit.select("item", {"agent": self._agent, "key": key}, columns=("value",))
        return str(rows[0]["value"]) if rows else None

    async def items(self, prefix: str) -> list[str]:
        """See `Keep`."""
        where: dict[str, Condition] = {"agent": self._agent}
        if prefix:
            where["key"] = Within(prefix, _after(prefix))
        return [row["key"] for row in await self._unit.select("item", where, order=("key",), columns=("key",))]


def _after(prefix: str) -> str | None:
    """The first text behind all that begin with `prefix`, by their UTF-8 bytes; None if there is none."""
    while prefix and prefix[-1] == "\U0010ffff":
        prefix = prefix[:-1]
    if not prefix:
        return None
    last = ord(prefix[-1]) + 1
    return prefix[:-1] + chr(0xE000 if 0xD800 <= last <= 0xDFFF else last)
