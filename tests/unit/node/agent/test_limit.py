from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.error import InvalidInput
from node.agent.tick.limit import COMPUTE, RATE, STORAGE, Bounds, Own, TickLimits, bounds, charged, full, reached, shown

MINUTE, DAY = 60_000_000, 86_400_000_000
NOON = 20_000 * DAY + DAY // 2
NONE = Bounds(30, 0, 0, 0)


def row(**changed: Any) -> dict[str, Any]:
    return {"day": 0, "day_us": 0, "rate_us": 0, "warned": 0, "stored": 0, **changed}


def tick(agent: dict[str, Any], own: Bounds, now: int, compute: int = 0, stored: int = 0) -> list[str]:
    """One tick is counted; of which limits the agent is told."""
    charge = charged(agent, own, now, compute, stored)
    agent |= {"day": charge.day, "day_us": charge.day_us, "rate_us": charge.rate_us, "warned": charge.warned}
    agent["stored"] = stored
    return [limit for limit, _ in charge.near]


def test_who_has_no_limits_reaches_none() -> None:
    agent = row()
    for _ in range(10_000):
        assert tick(agent, NONE, NOON, DAY, 1 << 60) == []
    assert reached(agent, NONE, NOON) is None
    assert not full(NONE, 0, 1 << 60)


def test_the_ticks_of_a_minute_may_come_at_once_and_then_one_by_one() -> None:
    agent, own = row(), NONE._replace(per_minute=60)
    for _ in range(60):
        assert reached(agent, own, NOON) is None
        tick(agent, own, NOON)
    found = reached(agent, own, NOON)
    assert found is not None
    assert (found.limit, found.until_ms) == (RATE, (NOON + 1_000_000) // 1_000)
    assert reached(agent, own, NOON + 999_999) is not None
    assert reached(agent, own, NOON + 1_000_000) is None
    tick(agent, own, NOON + 1_000_000)
    assert reached(agent, own, NOON + 1_000_000) is not None
    assert reached(agent, own, NOON + 3 * MINUTE) is None


@given(
    per_minute=st.integers(1, 100_000),
    steps=st.lists(st.integers(0, 10_000_000), min_size=1, max_size=300),
)
def test_in_no_minute_are_there_more_ticks_than_two_minutes_allow(per_minute: int, steps: list[int]) -> None:
    """A minute's ticks may come at once, after a rest; never more than that and what comes back meanwhile."""
    agent, own, now, done = row(), NONE._replace(per_minute=per_minute), NOON, []
    for step in steps:
        now += step
        found = reached(agent, own, now)
        if found is None:
            done.append(now)
            tick(agent, own, now)
        else:
            assert reached(agent, own, found.until_ms * 1_000) is None, "it is over when it says so"
    for begin in done:
        assert sum(1 for at in done if begin <= at < begin + MINUTE) <= 2 * per_minute + 1


def test_a_clock_that_was_set_back_holds_up_nobody() -> None:
    agent, own = row(), NONE._replace(per_minute=60, compute_us=1_000)
    tick(agent, own, NOON + 400 * DAY, 2_000)
    found = reached(agent, own, NOON)
    assert found is None or found.until_ms <= (NOON + MINUTE) // 1_000


def test_compute_is_counted_by_the_day_and_is_there_again_at_midnight() -> None:
    agent, own = row(), NONE._replace(compute_us=10_000)
    tick(agent, own, NOON, 9_999)
    assert reached(agent, own, NOON) is None
    tick(agent, own, NOON, 1)
    found = reached(agent, own, NOON)
    assert found is not None
    assert (found.limit, found.until_ms) == (COMPUTE, (20_001 * DAY) // 1_000)
    assert reached(agent, own, 20_001 * DAY - 1) is not None
    assert reached(agent, own, 20_001 * DAY) is None
    tick(agent, own, 20_001 * DAY, 5)
    assert agent["day_us"] == 5


def test_an_agent_is_told_once_that_a_limit_is_near() -> None:
    agent, own = row(), NONE._replace(compute_us=1_000, storage_bytes=1_000)
    told = [tick(agent, own, NOON, 100, stored) for stored in (100, 700, 799, 800, 900, 999, 1_000, 990, 980, 970)]
    assert told == [[], [], [], [STORAGE], [], [], [], [COMPUTE], [], []]
    assert tick(agent, own, NOON, 0, 100) == []
    assert tick(agent, own, NOON, 0, 900) == [STORAGE], "it had been far from it"
    assert tick(agent, own, NOON + DAY, 900, 100) == [COMPUTE], "another day"


def test_of_ticks_that_stay_near_their_limit_it_is_told_once() -> None:
    agent, own, told = row(), NONE._replace(per_minute=60), []
    now = NOON
    for count in range(600):
        now += 0 if count < 50 else 1_000_000
        told += tick(agent, own, now)
    assert told == [RATE]


def test_keeping_too_much_is_refused_and_keeping_less_is_not() -> None:
    own = NONE._replace(storage_bytes=100)
    assert not full(own, 0, 100)
    assert full(own, 0, 101)
    assert not full(own, 300, 299), "the limit was lowered: it may come down step by step"
    assert full(own, 300, 301)


def test_what_is_used_is_shown_with_the_limit_that_holds() -> None:
    own = Bounds(30, 60, 10_000_000, 1_000)
    agent = row(day=20_000, day_us=4_000_000, rate_us=NOON + MINUTE // 2, stored=300)
    found = shown(agent, own, NOON)
    assert found["limits"][RATE] == {"used": 30, "limit": 60}
    assert found["limits"][COMPUTE] == {"used": 4_000, "limit": 10_000, "unit": "ms"}
    assert found["limits"][STORAGE] == {"used": 300, "limit": 1_000, "unit": "bytes"}
    assert found["limited"] is None
    found = shown(agent | {"day_us": 10_000_000}, own, NOON)
    assert found["limited"] == {"limit": COMPUTE, "until_ms": 20_001 * DAY // 1_000}
    assert shown(agent | {"day": 19_999}, own, NOON)["limits"][COMPUTE]["used"] == 0, "yesterday's"
    assert shown(agent, NONE, NOON)["limits"][RATE] == {"used": None, "limit": None}


def test_an_agents_own_limits_stand_before_the_nodes() -> None:
    node = TickLimits(seconds=30, per_minute=600, compute_s=3_600, storage_bytes=1_000)
    assert bounds("{}", node) == Bounds(30, 600, 3_600_000_000, 1_000)
    assert bounds(Own(2.5, 0, 5, 0).to_json(), node) == Bounds(2.5, 0, 5_000_000, 0)
    assert Own().to_json() == "{}"
    for broken in ("[]", "x", '{"other": 1}', "null"):
        with pytest.raises(InvalidInput):
            bounds(broken, node)
