import orjson
import pytest

from core.error import InvalidInput
from core.unit import Delete, Insert, Row, Update, Write
from node.agent.wake.alarm import MAX_ALARMS, MOST_MISSED, SHORTEST_MS, afford, fire, no_alarm, row_of, set_alarm
from node.agent.wake.cron import LAST_MS
from node.storage.memory import MemoryDatabase

NOW = 1_767_225_600_000  # 2026-01-01T00:00Z
HOUR = 3_600_000


def alarm(**spec: object) -> Row:
    made = row_of(set_alarm("a", "x", NOW, **spec))
    return {"fired_ms": 0, "missed": 0, **made}


def told(writes: tuple[Write, ...]) -> dict[str, object]:
    (row,) = [write.row for write in writes if isinstance(write, Insert)]
    return {**orjson.loads(str(row["payload"])), "id": row["envelope_id"], "source": row["source"]}


@pytest.mark.parametrize(
    ("spec", "kind", "due"),
    [
        ({"at_ms": NOW + 5}, "once", NOW + 5),
        ({"at_ms": 0}, "once", 0),
        ({"every_ms": HOUR}, "every", NOW + HOUR),
        ({"every_ms": HOUR, "at_ms": NOW + 7}, "every", NOW + 7),
        ({"cron": "30 1 * * *"}, "cron", NOW + 5_400_000),
        ({"cron": "CRON_TZ=Europe/Zurich 30 1 * * *"}, "cron", NOW + 1_800_000),
    ],
)
def test_an_alarm_is_set_in_three_ways(spec: dict[str, object], kind: str, due: int) -> None:
    row = alarm(**spec)
    assert (row["kind"], row["due_ms"]) == (kind, due)


@pytest.mark.parametrize(
    "spec",
    [
        {}, {"at_ms": 1, "cron": "@daily"}, {"every_ms": HOUR, "cron": "@daily"}, {"every_ms": SHORTEST_MS - 1},
        {"every_ms": -HOUR}, {"at_ms": -1}, {"at_ms": LAST_MS}, {"every_ms": LAST_MS}, {"cron": "nonsense"},
        {"at_ms": NOW, "payload": '"' + "x" * 20_000 + '"'}, {"at_ms": NOW, "every_ms": 10**30},
    ],
)  # fmt: skip
def test_what_is_no_alarm_is_refused(spec: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        alarm(**spec)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", ".a", "-a", "x" * 65, "ä", "a\n", "a:b"])
def test_an_id_is_a_plain_word(name: str) -> None:
    with pytest.raises(InvalidInput):
        set_alarm("a", name, NOW, at_ms=NOW)


def test_one_that_comes_once_is_gone_when_it_has_fired() -> None:
    writes = fire(alarm(at_ms=NOW + 5, payload='{"k":1}'), NOW + 900_000, waits=False)
    assert writes[0] == Delete("alarm", {"agent": "a", "id": "x", "due_ms": NOW + 5}, rows=1)
    assert told(writes) == {
        "alarm_id": "x", "scheduled_at": NOW // 1000, "fired_at": (NOW + 900_000) // 1000, "due_ms": NOW + 5,
        "missed": 0, "payload": {"k": 1}, "id": f"alarm:x:{NOW + 5}", "source": "scheduler",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("late", "missed", "after"),
    [(0, 0, 2 * HOUR), (HOUR - 1, 0, 2 * HOUR), (HOUR, 1, 3 * HOUR), (10 * HOUR + 5, 10, 12 * HOUR)],
)
def test_times_that_were_missed_are_counted_and_the_next_one_lies_ahead(late: int, missed: int, after: int) -> None:
    writes = fire(alarm(every_ms=HOUR), NOW + HOUR + late, waits=False)
    assert isinstance(writes[0], Update)
    assert writes[0].set == {"due_ms": NOW + after, "fired_ms": NOW + HOUR, "missed": 0}
    assert told(writes)["missed"] == missed


def test_a_cron_alarm_counts_what_it_missed_by_its_rule() -> None:
    writes = fire(alarm(cron="0 8 * * MON-FRI"), NOW + 14 * 24 * HOUR, waits=False)
    assert told(writes)["missed"] == 9, "ten mornings in two weeks, of which one fires"


def test_while_the_last_one_waits_the_next_is_only_counted() -> None:
    row = alarm(every_ms=HOUR) | {"fired_ms": NOW, "missed": 3}
    (moved,) = fire(row, NOW + 3 * HOUR, waits=True)
    assert isinstance(moved, Update)
    assert moved.set == {"due_ms": NOW + 4 * HOUR, "missed": 6}
    later = fire({**row, **moved.set}, NOW + 4 * HOUR, waits=False)
    assert told(later)["missed"] == 6


def test_what_is_missed_has_a_bound() -> None:
    writes = fire(alarm(at_ms=0, every_ms=SHORTEST_MS), NOW, waits=False)
    assert told(writes)["missed"] == MOST_MISSED
    (moved,) = fire(alarm(every_ms=HOUR) | {"missed": MOST_MISSED}, NOW + HOUR, waits=True)
    assert isinstance(moved, Update)
    assert moved.set["missed"] == MOST_MISSED


def test_what_has_no_next_time_ends() -> None:
    row = alarm(at_ms=NOW, every_ms=HOUR)
    assert isinstance(fire(row, LAST_MS - 1, waits=False)[0], Delete)
    assert isinstance(fire(alarm(cron="0 0 1 1 *"), LAST_MS - 1, waits=False)[0], Delete)


async def test_an_agent_has_at_most_so_many_and_may_replace_each() -> None:
    unit = MemoryDatabase()
    for number in range(MAX_ALARMS):
        await unit.commit(set_alarm("a", f"x{number}", NOW, at_ms=NOW))
    await afford(unit, "alarm", "a", ["x1", "x2"])
    await afford(unit, "alarm", "b", ["x"])
    with pytest.raises(InvalidInput):
        await afford(unit, "alarm", "a", ["x1", "new"])
    await unit.commit(no_alarm("a", "x5"))
    await afford(unit, "alarm", "a", ["new"])


async def test_setting_one_again_replaces_it() -> None:
    unit = MemoryDatabase()
    await unit.commit(set_alarm("a", "x", NOW, every_ms=HOUR))
    await unit.commit(set_alarm("a", "x", NOW, at_ms=NOW + 1))
    (row,) = await unit.select("alarm")
    assert (row["kind"], row["due_ms"], row["every_ms"]) == ("once", NOW + 1, 0)
