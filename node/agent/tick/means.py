"""What ticks are made of, and the beginning of each: the agent's row, its program, its state, and a context for it."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

from core.clock import Clock
from core.unit import Row, UnitOfWork, Write
from fs.feed import Feed
from node.agent.context import Context
from node.agent.file import Files, Namespaces
from node.agent.program import AnyProgram, Programs, program_of
from node.agent.replay.recording import Start
from node.agent.replay.redactor import Redactor
from node.agent.replay.tape import LiveTape, Tape
from node.agent.state import configured, loaded
from node.agent.tick.guard import Guard
from node.agent.tick.lap import LIVING, Attempt, Lap, Rows
from node.agent.tick.limit import Bounds, TickLimits, bounds
from node.agent.tick.stage import Stage

Bury: TypeAlias = Callable[[str], Awaitable[Sequence[Write]]]


async def room_enough(agent: str) -> Sequence[Write]:
    """The dead letter holds any number."""
    return ()


class Outcome(Enum):
    """What became of a trigger, and what follows for its agent."""

    DONE = "done"  # committed: the next one
    AGAIN = "again"  # not now: the inbox says what comes next
    LIMITED = "limited"  # a limit is reached: `Lap.until_ms` says when it renews
    GONE = "gone"  # no more ticks for this agent, whatever waits


class TickIds:
    """Ids of ticks: 32 hex digits, for each try of a trigger another one. They rise, so that rows stand as they come.

    Args:
        salt: 14 hex digits that no other process has.
    """

    def __init__(self, salt: str) -> None:
        self._salt, self._count = salt, 0

    def __call__(self, now_ms: int) -> str:
        """The next one, at a time in Unix ms."""
        self._count = (self._count + 1) & 0xFFFFFF
        return f"{now_ms & 0xFFFFFFFFFFFF:012x}{self._count:06x}{self._salt}"


@dataclass(frozen=True, slots=True)
class Means:
    """What ticks are made of; one of each per engine.

    Attributes:
        unit: the database.
        clock: time.
        programs: what there is to run, by name.
        namespaces: an agent's files.
        feed: is told that a trace has grown.
        limits: bounds of ticks and agents.
        guard: runs agents' code.
        redactor: knows the node's own secrets.
        touch: is called when alarms have changed.
        bury: writes that make room in an agent's dead letter for one more.
        ids: gives each tick its id.
    """

    unit: UnitOfWork
    clock: Clock
    programs: Programs
    namespaces: Namespaces
    feed: Feed
    limits: TickLimits
    guard: Guard
    redactor: Redactor = field(default_factory=Redactor)
    touch: Callable[[], None] = lambda: None
    bury: Bury = room_enough
    ids: "TickIds" = field(default_factory=lambda: TickIds(secrets.token_hex(7)))

    async def load(self, lap: Lap) -> tuple[Row, Bounds] | None:
        """The agent's row and what it may use, if it may have ticks.

        Raises:
            VendoError: the database failed.
        """
        if lap.row is None or lap.bounds is None:
            rows = await self.unit.select("agent", {"name": lap.agent})
            lap.lost = bool(rows) and lap.epoch not in (None, rows[0]["epoch"])
            if not rows or lap.lost or rows[0]["status"] not in LIVING:
                return None
            lap.row, lap.epoch = rows[0], rows[0]["epoch"]
            lap.bounds = bounds(lap.row["limits"], self.limits)
        return lap.row, lap.bounds

    def begin(self, envelope: Row, own: Bounds, now_ms: int) -> Attempt:
        """A tick for a trigger."""
        until_ms = now_ms + round(own.seconds * 1_000)
        return Attempt(envelope, self.ids(now_ms), now_ms, until_ms, LiveTape(self.redactor))

    def enter(self, lap: Lap, row: Row, attempt: Attempt) -> tuple[AnyProgram, Context[Any, Any]]:
        """The program, and what it is given. Runs code of the agent's (its types' validators): behind the guard.

        Raises:
            NoProgram, ConfigRefused, StateRefused: the agent cannot have ticks as it is.
        """
        program = lap.program
        if program is None:
            program = lap.program = program_of(self.programs, row["program"])
        attempt.start = Start(
            lap.agent, attempt.tick_id, program.name, program.digest, row["state_version"], row["state"], row["config"],
            attempt.envelope, attempt.began_ms, attempt.until_ms, () if row["ticks"] else ("first",),
        )  # fmt: skip
        state, lap.state = lap.state, None  # whatever happens now, no other tick sees this object
        if state is None:
            state = loaded(program, row["state_version"], row["state"])
        config = lap.config
        if config is None:
            config = configured(program, row["config"])
            if not program.config_type.model_fields:  # nothing in it can be changed, so ticks may share it
                lap.config = config
        return program, self.context(lap.agent, attempt, attempt.stage, attempt.tape, state, config)

    def context(
        self, agent: str, attempt: Attempt, stage: Stage, tape: Tape, state: Any, config: Any
    ) -> Context[Any, Any]:
        """What a hook is given."""
        files = Files(self.namespaces, agent, attempt.envelope["envelope_id"], tape, stage)
        keep = Rows(agent, self.unit)
        return Context(
            agent, attempt.tick_id, attempt.began_ms, attempt.until_ms, state, config, tape, stage, keep, files
        )
