"""What is told of all agents: counts, and no more of them than people look at."""

from core.unit import Update
from node.agent.view import agent_counts, agents, every_agent
from tests.unit.node.agent.agent_part import Bench


async def test_the_status_of_a_node_counts_agents_and_shows_a_hundred_those_in_quarantine_first() -> None:
    bench = Bench()
    for number in range(120):
        await bench.engine.create(f"a{number:03}", "scripted", f"{number:064x}")
    gone = {"a000": "deleted", "a118": "stopped", "a119": "quarantined"}
    for name, status in gone.items():
        await bench.unit.commit([Update("agent", {"name": name}, {"status": status, "reason": "x: why"})])
    assert await agent_counts(bench.unit) == {"active": 117, "stopped": 1, "quarantined": 1, "deleted": 1}
    shown = await agents(bench.unit)
    assert [row["name"] for row in shown[:3]] == ["a119", "a118", "a001"]
    assert shown[0]["reason"] == "x: why"
    assert len(shown) == 100
    assert [row["name"] async for row in every_agent(bench.unit)][:2] == ["a001", "a002"]
