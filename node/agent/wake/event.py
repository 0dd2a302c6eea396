"""Events: what happens on a node, and who may know of it. Pure; `herald.py` finds whose inbox it goes to.

An event belongs to one agent (`owner`), or to the node itself. Its owner may be told of it, and so may *watchers*: the
agents that the operator lets see all events (`/interests/sees`). Nobody else ever is. Of those, an agent is told that
has an interest which matches (`interest.py`), or whose own thing it is in a way that needs none (`direct`).
What an agent has done itself (`by`) is no news to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from core.unit import Delete, Insert, Write

WATCHER = "watcher/"  # the agents that see all events, as names in table `meta`
WATCHER_END = "watcher0"  # the text right after all that begin so


def grant(agent: str, sees_all: bool) -> tuple[Write, ...]:
    """Writes by which the operator says whether an agent sees the events of the node and of all agents, or its own."""
    key = WATCHER + agent
    made = (Insert("meta", {"key": key, "value": "all"}),) if sees_all else ()
    return (Delete("meta", {"key": key}), *made)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        id: the envelope's id in every inbox that it goes to, so that it comes there once.
        type: e.g. `payment.received`.
        source: what it comes from: webhook, files, market, wallet.
        subject: what it is about: a path, an id, a name. What is about one thing keeps its order.
        data: what is known of it, without secrets.
        owner: the agent whose own thing it is; empty for the node's.
        direct: its owner is told without an interest.
        by: the agent that did it, or empty.
        body: the whole payload where its form is older than this layer.
        id_afar: the envelope's id for others than its owner, where the same thing may be several agents' own.
        written_at: when somebody wrote it (Unix seconds), where that is carried in any order.
    """

    id: str
    type: str
    source: str
    subject: str
    data: Mapping[str, Any]
    owner: str = ""
    direct: bool = False
    by: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    id_afar: str = ""
    written_at: int = 0

    @property
    def fields(self) -> dict[str, Any]:
        """What patterns are compared with."""
        return {"type": self.type, "source": self.source, "subject": self.subject, "data": self.data}

    def id_for(self, agent: str) -> str:
        """The envelope's id in this agent's inbox."""
        return self.id if agent == self.owner else self.id_afar or self.id

    def payload(self, interests: Sequence[str]) -> dict[str, Any]:
        """What an agent is told; `interests` are those of its own that matched."""
        told = dict(self.body) if self.body else self.fields
        return told | {"interests": list(interests)} if interests else told


class Told(NamedTuple):
    """What tells of an event: writes for the unit that causes it, and whom to wake once that is committed."""

    writes: tuple[Write, ...]
    agents: tuple[str, ...]
