"""What the public may be shown of an agent, as models: the settings, and what it sees then. Pure."""

from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator

from fs.body import Body, Fact

Shows: TypeAlias = Literal["status", "goals", "metrics", "stream"]
_ALL: tuple[Shows, ...] = ("status", "goals", "metrics", "stream")


class HudSettings(Body):
    """What the public may see. What is left out of a PUT stays as it is.

    Attributes:
        public: whether callers without a token see anything.
        show: at which of the files they may look.
        show_text: whether they see texts, as descriptions of goals and answers, after detectors of secrets.
    """

    public: bool = False
    show: list[Shows] = Field(default_factory=lambda: list(_ALL), max_length=len(_ALL))
    show_text: bool = False

    @field_validator("show")
    @classmethod
    def _each_once(cls, value: list[Shows]) -> list[Shows]:
        if len(set(value)) != len(value):
            raise ValueError("named twice")
        return value

    def shows(self, name: str) -> bool:
        """Whether the public may look at this file."""
        return self.public and name in self.show


class HudEvent(Fact):
    """One event as the public sees it. `timestamp` is Unix ms, `session_id` the agent's name."""

    id: int
    timestamp: int
    session_id: str
    tick_id: str | None
    event_type: Literal["tick_end", "state_change", "usage", "error", "tool_start", "chunk", "gap"]
    payload: dict[str, Any]


class PublicStatus(Fact):
    """How an agent is doing, as the public sees it; what it does not see is left out."""

    name: str | None = None
    status: str | None = None
    reason: str | None = None
    program: str | None = None
    pubkey: str | None = None
    ticks: int | None = None
    failures: int | None = None
    last_tick_at: int | None = None
    last_cause: str | None = None
    queue_depth: int | None = None
    created_at: int | None = None


class PublicGoal(Fact):
    """A goal as the public sees it; what it does not see is left out."""

    id: str | None = None
    description: str | None = None
    status: str | None = None
    priority: float | None = None
    progress: float | None = None
    parent: str | None = None
    due_at_ms: int | None = None
    updated_at_ms: int | None = None


class PublicMetrics(Fact):
    """An agent's numbers as the public sees them, as in `/metrics`."""

    ticks: dict[str, int | None]
    apm: dict[str, float | None]
    queue: dict[str, int | None]
