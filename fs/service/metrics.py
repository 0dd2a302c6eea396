"""/metrics: an agent's numbers, each a small JSON file that is computed when it is read. Nobody can write them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from fs.body import Fact
from fs.session import Session
from fs.tree import File, Folder, Tree, json_reader


class TickNumbers(Fact):
    """Ticks. `failed`, `p50_ms` and `p95_ms` are of the last `of` ticks; times are null before the first."""

    total: int
    failed: int
    of: int
    last_ms: int | None
    last_at_ms: int | None
    p50_ms: int | None
    p95_ms: int | None


class ActionNumbers(Fact):
    """How many files its ticks wrote or called per minute, over the last `window_secs` seconds."""

    value: float
    window_secs: int


class QueueNumbers(Fact):
    """How many envelopes wait, counted to 1,000, and since when the oldest does (Unix ms; null if none)."""

    depth: int
    oldest_at_ms: int | None


class SpendNumbers(Fact):
    """What was spent today (UTC) and is held for what goes on, in `unit`. The limit is that of the whole node."""

    unit: str
    today: int
    held: int
    limit: int
    scope: Literal["node"] = "node"


class StorageNumbers(Fact):
    """Bytes that it keeps: state, values and goals. Null is no limit."""

    bytes: int
    limit: int | None


class Metrics(Protocol):
    """An agent's numbers, as the models above say."""

    async def ticks(self) -> Mapping[str, Any]:
        """As `TickNumbers`."""

    async def apm(self) -> Mapping[str, Any]:
        """As `ActionNumbers`."""

    async def queue(self) -> Mapping[str, Any]:
        """As `QueueNumbers`."""

    async def spend(self) -> Mapping[str, Any]:
        """As `SpendNumbers`."""

    async def storage(self) -> Mapping[str, Any]:
        """As `StorageNumbers`."""


def metrics_service(metrics: Metrics) -> Tree:
    """The service at `/metrics` of an agent."""

    def file(about: str, make: Callable[[], Awaitable[Mapping[str, Any]]], model: type[BaseModel]) -> File:
        return File(about, read=json_reader(make), gives=model)

    return Tree(
        Folder(
            "The agent's numbers, computed when they are read.",
            {
                "ticks": file(
                    "how many ticks, how many failed of late, and how long they took", metrics.ticks, TickNumbers
                ),
                "apm": file("actions per minute: files that its ticks wrote or called", metrics.apm, ActionNumbers),
                "queue": file("how many envelopes wait, and since when", metrics.queue, QueueNumbers),
                "spend": file("what was spent today, of what the node may spend", metrics.spend, SpendNumbers),
                "storage": file("bytes that it keeps, of what it may", metrics.storage, StorageNumbers),
            },
        )
    )


def node_metrics_service(text: Callable[[], str]) -> Tree:
    """The service at `/metrics` of the operator: `text` is what Prometheus is given."""

    async def read(session: Session) -> bytes:
        return text().encode()

    return Tree(Folder("The node's numbers.", {"node": File("in Prometheus' text format, as GET /metrics", read=read)}))
