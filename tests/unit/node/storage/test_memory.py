"""What only the database in memory can do; the rest is in the contract suite."""

import pytest

from core.error import Conflict
from core.unit import Append, Insert, Update
from node.storage.memory import MemoryDatabase


class Crash(Exception):
    """The process dies here."""


async def test_a_crash_after_a_unit_leaves_it_durable_and_its_owner_without_an_answer() -> None:
    def crash(number: int) -> None:
        if number == 2:
            raise Crash

    base = MemoryDatabase(crash_after=crash)
    await base.commit([Insert("seen", {"event_id": "a", "at": 0})])
    with pytest.raises(Crash):
        await base.commit([Insert("seen", {"event_id": "b", "at": 0}), Append("r", "begin", "e", "{}")])
    base.crash_after = None
    assert len(await base.select("seen")) == 2
    await base.commit([Append("r", "begin", "f", "{}")])
    assert [row["seq"] for row in await base.select("entry")] == [0, 1]


async def test_rows_are_found_by_index_after_they_were_changed_and_restored() -> None:
    base = MemoryDatabase()
    row = {"event_id": "e", "relay": "r", "raw": "", "effect_id": "x"}
    await base.commit([Insert("outbox", {**row, "event_id": f"e{k}"}) for k in range(3)])
    with pytest.raises(Conflict):
        await base.commit(
            [Update("outbox", {"event_id": "e1"}, set={"state": "sent"}), Insert("outbox", {**row, "event_id": "e2"})]
        )
    assert len(await base.select("outbox", {"state": "pending"})) == 3
    await base.commit([Update("outbox", {"event_id": "e1"}, set={"state": "sent"})])
    assert [found["event_id"] for found in await base.select("outbox", {"state": "sent"})] == ["e1"]
    with pytest.raises(Conflict):
        await base.commit([Update("outbox", {"event_id": "e1"}, set={"event_id": "e2"})])
    await base.commit(
        [Update("outbox", {"event_id": "e1"}, set={"event_id": "e9"}), Insert("outbox", {**row, "event_id": "e1"})]
    )
    assert len(await base.select("outbox")) == 4
