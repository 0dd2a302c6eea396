"""What a node and its agents tell of themselves. Pure. Times are Unix seconds unless their name ends in `_ms`."""

from typing import Any

from pydantic import Field

from fs.body import Body, Fact
from fs.service.model.wallet import Balance


class NodeStatus(Fact):
    """How the node is doing."""

    npub: str
    name: str
    pid: int
    paused: bool
    relays: list[dict[str, Any]]
    balance: list[Balance]
    agents: list[dict[str, Any]] = Field(description="the first 100; those that need somebody first")
    agent_counts: dict[str, int]
    programs: list["Program"]
    open_effects: int
    storage: dict[str, Any]
    messages: dict[str, int]
    own_relay: dict[str, Any] | None
    inboxes: dict[str, int]
    processes: Any
    disk: "Disk"
    restored: dict[str, Any] | None


class AgentStatus(Fact):
    """How an agent is doing."""

    name: str
    status: str
    reason: str
    program: str
    code: str
    pubkey: str
    ticks: int
    failures: int
    last_tick_at: int | None
    last_cause: str
    queue_depth: int
    dead_letters: int
    created_at: int
    limits: dict[str, dict[str, Any]]
    limited: dict[str, Any] | None


class Program(Fact):
    """What an agent can be made of, and what is wrong with it."""

    name: str
    source: str
    where: str
    digest: str
    problem: str


class ProgramName(Body):
    """Which program."""

    name: str


class AgentName(Body):
    """Which agent."""

    agent: str


class AgentSecret(Fact):
    """What signs the triggers that are sent to an agent."""

    agent: str
    secret: str


class LedgerHead(Fact):
    """The last entry; an empty object before the first."""

    run: str = ""
    seq: int = 0
    id: str = ""
    type: str = ""


class Effect(Fact):
    """An effect that has not ended."""

    id: str
    caller: str
    path: str
    subject: str
    state: str
    unit: str | None
    reserved: int
    begun_at: int


class Digest(Body):
    """The digest of a backup's manifest."""

    digest: str = Field(json_schema_extra={"pattern": "^[0-9a-f]{64}$"})


class Seal(Fact):
    """The event that seals a backup, as JSON text."""

    event: str


class Cleaning(Body):
    """Whether what is old goes, or is only counted."""

    dry_run: bool = False


class Cleaned(Fact):
    """Rows that went per table, or that are old; `more`: call again."""

    dry_run: bool
    removed: dict[str, int] = Field(default_factory=dict)
    old: dict[str, int] = Field(default_factory=dict)
    more: bool


class Keep(Fact):
    """What goes of a table, and when."""

    table: str


class Disk(Fact):
    """How full the disk is, and whether new work is refused."""

    low: bool
    min_free_bytes: int
    free_bytes: dict[str, int]
    refused_writes: int


class Restore(Fact):
    """What is known of the restore that this node comes from."""

    mints: dict[str, Any]
