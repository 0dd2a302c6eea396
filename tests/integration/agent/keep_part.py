"""An agent's goals, memory and secrets on one database, mounted as in a node."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from core.clock import SystemClock
from core.unit import Insert, Row
from fs.namespace import Access, Mount, Namespace
from fs.service.goals import goals_service
from fs.service.memory import memory_service
from fs.service.secrets import secrets_service
from fs.session import Batch, Role, Session
from node.agent.goal import AgentGoals
from node.agent.item import AgentItems
from node.agent.tick.limit import TickLimits
from node.secret.safe import Safe
from relays.key import Keyring
from tests.unit.node.agent.agent_part import PUBKEY
from tests.unit_part import Base

WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
OTHER_WORDS = "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"
STORED = 1_000


@dataclass
class Keep:
    """What one agent keeps, and who asks for it."""

    unit: Base
    words: str = WORDS
    agent: str = "a"
    limits: TickLimits = field(default_factory=TickLimits)
    seen: list[str] = field(default_factory=list)
    tell: Callable[[Iterable[str]], None] | None = None

    def __post_init__(self) -> None:
        clock = SystemClock()
        self.goals = AgentGoals(self.agent, self.unit, clock, self.limits)
        self.items = AgentItems(self.agent, self.unit, self.limits)
        self.safe = Safe(self.unit, clock, Keyring(self.words), self.tell or self.seen.extend)
        self.space = Namespace(
            [
                Mount("/goals", goals_service(self.goals), Access.WRITE),
                Mount("/memory", memory_service(self.items), Access.WRITE),
                Mount("/secrets", secrets_service(self.safe.of(self.agent)), Access.READ),
                Mount("/node", secrets_service(self.safe.of("node")), Access.ADMIN),
            ]
        )
        self.operator = Session("operator", Role.OPERATOR, unit=self.unit)
        self.own = Session(f"agent:{self.agent}", Role.AGENT, unit=self.unit)

    def tick(self) -> Session:
        """A session within a tick; what it gathers is committed by nobody."""
        return Session(f"agent:{self.agent}", Role.AGENT, "tick-1", batch=Batch())

    async def settle(self) -> None:
        """The agent's row."""
        row: Row = {
            "name": self.agent, "program": "none", "pubkey": PUBKEY, "status": "active", "state_version": 0,
            "state": "{}", "created_at": 1, "stored": STORED,
        }  # fmt: skip
        await self.unit.commit([Insert("agent", row)])

    async def stored(self) -> int:
        """What is counted for it, besides its state."""
        (row,) = await self.unit.select("agent", {"name": self.agent})
        return int(row["stored"]) - STORED

    async def names(self, path: str, session: Session | None = None) -> list[str]:
        """What is in a directory, README left out; directories end in a slash."""
        found = await self.space.list(path, session or self.operator)
        return [stat.name + "/" * stat.is_dir for stat in found if stat.name != "README"]

    async def write(self, path: str, body: bytes | str, session: Session | None = None) -> None:
        await self.space.write(path, body if isinstance(body, bytes) else body.encode(), session or self.operator)

    async def read(self, path: str, session: Session | None = None) -> Any:
        return await self.space.read(path, session or self.operator)

    async def rows(self) -> list[Any]:
        """Everything that is kept of it, to compare."""
        tables = ("agent", "goal", "item", "secret")
        return [sorted(map(repr, await self.unit.select(table))) for table in tables]
