"""What follows from a tick that failed: another try, the dead letter, or the agent is set aside. Pure.

A trigger that fails too often goes to the dead letter, and others go on. An agent that fails too often in a row,
whatever the trigger, is quarantined: its triggers wait, so that none is spent on code that cannot deal with any.
"""

from dataclasses import dataclass, field, replace
from enum import Enum

from core.error import Conflict, Paused, StoreUncertain, VendoError
from core.unit import Row
from node.agent.error import (
    AgentAway,
    ConfigRefused,
    NoProgram,
    ProgramBroken,
    ProgramTaken,
    ProgramUnsafe,
    StateRefused,
    StorageFull,
)
from node.agent.replay.tape import Fault
from node.agent.tick.limit import TickLimits
from node.storage.error import StoreFailed, StoreFull

MAX_ERROR = 1_000
_MAX_BACK_OFF_MS = 3_600_000


class Kind(Enum):
    """Whose fault it is."""

    FAULT = "fault"  # the program's: it counts as a try
    CONFLICT = "conflict"  # others changed what it needs: again at once, a few times
    PAUSED = "paused"  # the node's, or its database's: it waits
    FULL = "full"  # the agent keeps too much: this trigger waits
    AGENT = "agent"  # no trigger could do better: the agent is set aside
    AWAY = "away"  # the agent lives outside and does not answer: it has more tries, and is not set aside


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a tick was not committed. `cause`: what was raised, for the agent's own `on_error`."""

    code: str
    message: str
    kind: Kind = Kind.FAULT
    cause: BaseException | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, error: VendoError) -> "Failure":
        """What an error means."""
        if isinstance(error, Paused | StoreUncertain | StoreFailed | StoreFull):
            kind = Kind.PAUSED
        elif isinstance(error, StorageFull):
            kind = Kind.FULL
        elif isinstance(error, NoProgram | ConfigRefused | StateRefused):
            kind = Kind.AGENT
        elif isinstance(error, AgentAway):
            kind = Kind.AWAY
        elif isinstance(error, Conflict):
            kind = Kind.CONFLICT
        else:
            kind = Kind.FAULT
        return cls(error.code, error.message, kind, error)

    def worded(self, message: str) -> "Failure":
        """The same in other words."""
        return self if message == self.message else replace(self, message=message)

    def error(self) -> VendoError:
        """The same as an error, for those who are told."""
        return self.cause if isinstance(self.cause, VendoError) else Fault(self.code, self.message).error()

    @property
    def text(self) -> str:
        """As it stands in rows."""
        return f"{self.code}: {self.message}"[:MAX_ERROR]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of the trigger, and of the agent.

    Attributes:
        tries: of the trigger.
        next_at_ms: when it may be tried again (Unix ms).
        dead: it goes to the dead letter.
        failures: of the agent, in a row.
        reason: why the agent is quarantined; empty if it is not.
    """

    tries: int
    next_at_ms: int
    dead: bool
    failures: int
    reason: str


def judge(failure: Failure, envelope: Row, agent: Row, limits: TickLimits, now_ms: int) -> Ruling:
    """What follows from a failure."""
    tries, failures = envelope["tries"], agent["failures"]
    match failure.kind:
        case Kind.PAUSED:
            return Ruling(tries, now_ms + limits.pause_ms, False, failures, "")
        case Kind.FULL:
            return Ruling(tries, now_ms + limits.full_ms, False, failures, "")
        case Kind.AGENT:
            return Ruling(tries, now_ms, False, failures, failure.text)
    tries, failures = tries + 1, failures + 1
    wait = min(limits.back_off_ms * 2 ** min(tries - 1, 30), _MAX_BACK_OFF_MS)
    if failure.kind is Kind.AWAY:
        return Ruling(tries, now_ms + wait, tries >= limits.away_tries, failures - 1, "")
    failing = failures >= limits.quarantine
    reason = f"agent.failing: {failures} ticks in a row failed, the last with {failure.text}" if failing else ""
    return Ruling(tries, now_ms + wait, tries >= limits.tries, failures, reason[:MAX_ERROR])


HEALS = frozenset(
    kind.code for kind in (NoProgram, ProgramTaken, ProgramUnsafe, ProgramBroken, ConfigRefused, StateRefused)
)
"""Reasons of a quarantine that may have gone when the node starts again."""


def reason_code(reason: str) -> str:
    """The code of a reason."""
    return reason.partition(":")[0]
