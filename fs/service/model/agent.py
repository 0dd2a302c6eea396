"""Agents as their operator sees them, and how they leave and come. Pure."""

from pydantic import Field

from fs.body import Body, Fact


class After(Body):
    """Where a list goes on: after this name."""

    after: str = ""


class Agent(Fact):
    """What the operator is told of one agent."""

    name: str
    npub: str
    program: str
    about: str
    public: bool
    strangers: str
    configured: bool
    origin: str = Field(description="where its settings are from: config.toml, added, left or elsewhere")
    status: str
    reason: str
    ticks: int


class AgentState(Fact):
    """What became of an agent."""

    name: str
    status: str


class Export(Body):
    """How an agent is written into an archive. The node checks it."""

    keep_running: bool = Field(False, description="it goes on here, and only clones can be made of the archive")
    history: int = Field(1_000, description="how many of its last records go with it, at most 100,000")


class Exported(Fact):
    """An archive in HOME/transfer."""

    name: str
    npub: str
    id: str
    taken_at: int
    frozen: bool
    program: str
    code: str
    state_version: int
    rows: dict[str, int]
    left_out: list[str]
    transfer: str
    before: str
    open_jobs: int


class Import(Body):
    """Which archive an agent is made of. The node checks it."""

    transfer: str = Field(json_schema_extra={"pattern": "^[0-9a-f]{32}$"})
    clone: str | None = Field(None, description="another name: then it is another agent, with a key of its own")
    accept_code: bool = Field(False, description="also if its program here is not the one that it had")
    node: str | None = Field(None, description="the public key of the node that it must be from")


class Imported(Fact):
    """What came out of an archive."""

    name: str
    npub: str
    was: str
    same_key: bool
    taken_at: int
    status: str
    reason: str
    program: str
    code: str
    waiting: int
    hooks: list[dict[str, str]]
    left_out: list[str]
