"""What waits for an agent, as it is left and as it is shown. Pure."""

from typing import Annotated, Literal, TypeAlias

from pydantic import ConfigDict, Field

from fs.body import Body, Fact

MAX_REPLY_TO = 200
MOST_URGENT, LEAST_URGENT = -100, 100
MOST_DEPTH, MOST_DEAD = 100_000, 10_000

Whole: TypeAlias = Annotated[int, Field(ge=0, lt=1 << 53)]


class Note(Body):
    """A message for an agent; its text alone may be sent as it is."""

    model_config = ConfigDict(json_schema_extra={"x-vendo-text": True})

    text: str = Field(min_length=1)
    priority: int | None = Field(None, ge=MOST_URGENT, le=LEAST_URGENT, description="lower is sooner; 0 if left out")
    expires_at: Whole | None = Field(None, description="Unix seconds; from then on the agent does not get it any more")
    seq: Whole | None = Field(None, description="the sender's own number: the lower one goes first")
    reply_to: str = Field("", max_length=MAX_REPLY_TO, pattern=r"^[ -~]*$", description="the envelope it answers")


class Posted(Fact):
    """Where a message is then."""

    envelope_id: str
    status: str


class Envelope(Fact):
    """One envelope as it is stored; `payload` is JSON as text. Times are Unix seconds."""

    n: int
    agent: str
    envelope_id: str
    cause: str
    source: str
    sender: str
    payload: str
    state: str
    tries: int
    error: str
    at: int
    next_at_ms: int
    priority: int
    expires_at: int | None
    seq: int | None
    reply_to: str
    written_at: int
    ended_at: int | None


class EnvelopeState(Fact):
    """What became of an envelope."""

    envelope_id: str
    state: str


class Counts(Fact):
    """How many envelopes there are of each state, each counted to 1,000."""

    new: int
    dead: int
    dropped: int
    expired: int


class Bound(Fact):
    """How many may wait, and what becomes of the next one."""

    max_depth: int
    policy: Literal["reject_new", "drop_oldest", "dead_letter"]
    dead_letter_max: int


class BoundChange(Body):
    """What is to change of that. The node checks it."""

    max_depth: int = Field(1_000, ge=1, le=MOST_DEPTH)
    policy: Literal["reject_new", "drop_oldest", "dead_letter"] = "dead_letter"
    dead_letter_max: int = Field(100, ge=1, le=MOST_DEAD)


class Replayed(Fact):
    """How many are handed out again."""

    replayed: int


class Discarded(Fact):
    """How many were given up."""

    discarded: int
