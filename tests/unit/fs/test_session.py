import pytest

from core.error import Conflict
from core.unit import Insert
from fs.error import KeyRequired
from fs.session import Batch, Role, Session
from node.storage.memory import MemoryDatabase

ROW = Insert("meta", {"key": "a", "value": "b"})


async def test_outside_a_tick_writes_are_committed_before_what_follows() -> None:
    unit, seen = MemoryDatabase(), []
    session = Session("operator", Role.OPERATOR, "k", unit=unit)
    await session.apply([ROW], lambda: seen.append(unit.stats()["units"]))
    assert seen == [1]
    with pytest.raises(Conflict):
        await session.apply([ROW], lambda: seen.append(2))
    assert seen == [1]


async def test_in_a_tick_nothing_is_written_and_nothing_follows() -> None:
    batch = Batch()
    session = Session("agent:a", Role.AGENT, batch=batch)
    await session.with_key("k").apply([ROW], lambda: pytest.fail("too early"))
    assert batch.writes == [ROW]
    assert len(batch.thens) == 1
    assert session.staged


@pytest.mark.parametrize("key", [None, "", "x" * 201, "a\nb", "é"])
def test_an_effect_needs_a_plain_key(key: str | None) -> None:
    with pytest.raises(KeyRequired):
        Session("operator", Role.OPERATOR, key).effect_key()
