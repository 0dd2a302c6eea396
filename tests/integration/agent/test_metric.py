"""An agent's numbers, from its rows."""

from typing import Any

import orjson
import pytest

from core.clock import SystemClock
from core.error import NotFound
from core.unit import Insert
from fs.namespace import Access, Mount, Namespace
from fs.service import metrics as models
from fs.service.metrics import metrics_service, node_metrics_service
from fs.session import Role, Session
from node.agent.metric import AgentMetrics, quantile
from node.agent.tick.limit import TickLimits
from node.agent.view import BudgetView
from node.storage.memory import MemoryDatabase

ME = Session("agent:a", Role.AGENT)
MODELS = {
    "ticks": models.TickNumbers,
    "apm": models.ActionNumbers,
    "queue": models.QueueNumbers,
    "spend": models.SpendNumbers,
    "storage": models.StorageNumbers,
}


async def numbers(unit: MemoryDatabase, agent: str = "a") -> dict[str, Any]:
    clock = SystemClock()
    usage = BudgetView(unit, clock, 5_000, "msat").usage
    tree = metrics_service(AgentMetrics(agent, unit, clock, TickLimits(storage_bytes=1_000), usage))
    files = Namespace([Mount("/metrics", tree, Access.READ)])
    found = {name: orjson.loads(await files.read(f"/metrics/{name}", ME)) for name in MODELS}
    for name, model in MODELS.items():
        model.model_validate(found[name], strict=True)
    return found


async def agent(unit: MemoryDatabase) -> None:
    row = {
        "name": "a", "program": "p", "pubkey": "k", "status": "active", "state_version": 1, "state": "{}",
        "created_at": 1, "ticks": 7, "stored": 42,
    }  # fmt: skip
    await unit.commit([Insert("agent", row)])


async def test_a_new_agent_has_numbers_too() -> None:
    unit = MemoryDatabase()
    await agent(unit)
    found = await numbers(unit)
    assert found["ticks"] == {
        "total": 7, "failed": 0, "of": 0, "last_ms": None, "last_at_ms": None, "p50_ms": None, "p95_ms": None,
    }  # fmt: skip
    assert found["apm"] == {"value": 0.0, "window_secs": 60}
    assert found["queue"] == {"depth": 0, "oldest_at_ms": None}
    assert found["spend"] == {"unit": "msat", "today": 0, "held": 0, "limit": 5_000, "scope": "node"}
    assert found["storage"] == {"bytes": 42, "limit": 1_000}
    with pytest.raises(NotFound):
        await numbers(unit, "nobody")


async def test_ticks_actions_and_the_queue_are_counted() -> None:
    unit, now_ms = MemoryDatabase(), SystemClock().millis()
    await agent(unit)
    for number in range(300):
        at_ms = now_ms - (1_000 if number >= 295 else 3_600_000)
        row = {
            "id": str(number), "agent": "a", "envelope_id": "e", "cause": "message", "at_ms": at_ms,
            "duration_ms": number, "error": "x" if number % 2 else "", "usage": '{"calls":3}',
        }  # fmt: skip
        await unit.commit([Insert("tick", row)])
    for number in (5, 6):
        row = {
            "agent": "a", "envelope_id": str(number), "cause": "message", "source": "", "sender": "", "payload": "{}",
            "at": number,
        }  # fmt: skip
        await unit.commit([Insert("inbox", row)])
    found = await numbers(unit)
    assert found["ticks"] == {
        "total": 7, "failed": 100, "of": 200, "last_ms": 299, "last_at_ms": now_ms - 1_000, "p50_ms": 199,
        "p95_ms": 289,
    }  # fmt: skip
    assert found["apm"]["value"] == 15.0
    assert found["queue"] == {"depth": 2, "oldest_at_ms": 5_000}


def test_a_quantile_is_the_nearest_rank() -> None:
    assert quantile([], 0.5) is None
    assert [quantile([1], share) for share in (0.0, 0.5, 1.0)] == [1, 1, 1]
    assert [quantile([1, 2, 3, 4], share) for share in (0.25, 0.5, 0.51, 0.95)] == [1, 2, 3, 4]


async def test_the_node_shows_what_prometheus_is_given() -> None:
    files = Namespace([Mount("/metrics", node_metrics_service(lambda: "vendo_up 1\n"), Access.ADMIN)])
    operator = Session("operator", Role.OPERATOR)
    assert await files.read("/metrics/node", operator) == b"vendo_up 1\n"
    assert {stat.name for stat in await files.list("/metrics", operator)} == {"README", "node"}
