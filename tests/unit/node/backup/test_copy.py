"""What a restored node does at its first start, before anything acts, and until every mint has answered."""

import asyncio
from typing import Any

import orjson
import pytest

from core.unit import Insert
from node.agent.inbox.row import envelope
from node.agent.wake.alarm import set_alarm
from node.backup.copy import WAITED, Homecoming
from node.backup.unpack import RESTORED
from node.storage.error import StoreFull
from node.storage.memory import MemoryDatabase
from tests.wallet_part import HandClock

TAKEN = 1_700_000_000


class World:
    """What a homecoming acts on, written down in the order in which it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.mints: dict[str, str] = {}
        self.fails = ""

    def _say(self, what: str) -> None:
        if self.fails == what:
            raise StoreFull
        self.asked.append(what)

    async def new_run(self, reason: str) -> None:
        assert "2023-11-14" in reason
        self._say("run")

    async def mark_copied(self) -> None:
        self._say("mark")
        self.mints = {"m1": "pending", "m2": "pending"}

    async def copied(self) -> dict[str, str]:
        return self.mints

    async def forget_copied(self) -> None:
        self._say("forget")

    async def adopt_copy(self) -> int:
        self._say("jobs")
        return 3

    async def nothing_was_paid(self) -> int:
        self._say("nothing paid")
        return 0


async def made(moved: bool = False) -> tuple[MemoryDatabase, HandClock, World]:
    unit, clock = MemoryDatabase(), HandClock()
    mark = {"id": "ab", "taken_at": TAKEN, "restored_at": TAKEN + 100, "moved": moved}
    await unit.commit([Insert("meta", {"key": RESTORED, "value": orjson.dumps(mark).decode()})])
    return unit, clock, World()


def homecoming(unit: MemoryDatabase, clock: HandClock, world: World) -> Homecoming:
    return Homecoming(unit, clock, world, world, world)


def waiting(agent: str, name: str, cause: str = "message") -> Insert:
    return envelope(agent, name, cause=cause, source="s", sender="x", payload='{"text":"hi"}', at=TAKEN)


async def test_a_node_that_was_not_restored_does_nothing():
    unit, clock, world = MemoryDatabase(), HandClock(), World()
    home = homecoming(unit, clock, world)
    await home.adopt()
    assert (world.asked, await home.facts(), home.heard_since) == ([], None, 0)


async def test_what_waited_goes_to_the_dead_letter_whole_and_a_first_trigger_stays():
    unit, clock, world = await made()
    await unit.commit(
        [waiting(f"a{n % 7}", f"m{n}") for n in range(1_203)] + [waiting("a0", "initialize", "initialize")]
    )
    home = homecoming(unit, clock, world)
    await home.adopt()
    dead = await unit.select("inbox", {"state": "dead"})
    assert len(dead) == 1_203
    assert {(row["error"], row["payload"], row["ended_at"]) for row in dead} == {(WAITED, '{"text":"hi"}', None)}
    assert {row["next_at_ms"] for row in dead} == {clock.millis()}, "it died now, whenever it came"
    assert [row["envelope_id"] for row in await unit.select("inbox", {"state": "new"})] == ["initialize"]
    facts = await home.facts()
    assert facts is not None
    assert (facts["waited"], facts["jobs"]) == (1_203, 3)
    assert home.heard_since == clock.now()


async def test_alarms_that_were_due_are_counted_as_missed_and_those_that_come_once_are_told_in_the_dead_letter():
    unit, clock, world = await made()
    now = clock.millis()
    for alarm, wish in {
        "hourly": {"every_ms": 3_600_000, "at_ms": now - 3 * 3_600_000}, "passed": {"at_ms": now - 1},
        "coming": {"at_ms": now + 60_000}, "cron": {"cron": "* * * * *"},
    }.items():  # fmt: skip
        await unit.commit(set_alarm("a", alarm, now, **wish))  # as the wishes are
    await homecoming(unit, clock, world).adopt()
    rows = {row["id"]: row for row in await unit.select("alarm")}
    assert set(rows) == {"hourly", "coming", "cron"}
    assert (rows["hourly"]["missed"], rows["hourly"]["due_ms"] > now) == (4, True)
    assert rows["coming"]["due_ms"] == now + 60_000
    (told,) = await unit.select("inbox")
    assert (told["envelope_id"], told["state"]) == (f"alarm:passed:{now - 1}", "dead")


async def test_a_node_that_was_moved_goes_on_with_what_waited():
    unit, clock, world = await made(moved=True)
    await unit.commit([waiting("a", "m"), *set_alarm("a", "passed", clock.millis(), at_ms=clock.millis() - 1)])
    home = homecoming(unit, clock, world)
    await home.adopt()
    assert world.asked == ["run", "mark"]
    assert (await unit.select("inbox"))[0]["state"] == "new"
    assert await unit.count("alarm") == 1
    assert home.heard_since == 0


@pytest.mark.parametrize("at", ["run", "mark", "jobs"])
async def test_what_a_failure_interrupts_is_done_at_the_next_start_and_only_until_it_was_done(at):
    unit, clock, world = await made()
    await unit.commit([waiting("a", "m")])
    world.fails = at
    with pytest.raises(StoreFull):
        await homecoming(unit, clock, world).adopt()
    mark = orjson.loads((await unit.select("meta", {"key": RESTORED}))[0]["value"])
    assert "adopted_at" not in mark
    world.fails, world.asked = "", []
    await homecoming(unit, clock, world).adopt()
    assert world.asked == ["run", "mark", "jobs"]
    world.asked = []
    await unit.commit([waiting("a", "later")])
    home = homecoming(unit, clock, world)
    await home.adopt()
    assert world.asked == [], "once is enough"
    assert (await unit.select("inbox", {"envelope_id": "later"}))[0]["state"] == "new"
    assert home.heard_since > 0, "what was written before is still not acted upon"


async def _until_settled(unit: MemoryDatabase, home: Homecoming, clock: HandClock, steps: list[Any]) -> dict[str, Any]:
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(home.run(ready, stop))
    await ready.wait()
    for step in steps:
        await asyncio.sleep(0.01)
        step()
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    stop.set()
    await asyncio.wait_for(task, 5)
    found: dict[str, Any] = orjson.loads((await unit.select("meta", {"key": RESTORED}))[0]["value"])
    return found


@pytest.mark.parametrize(("last", "moved"), [("same", False), ("moved", True)])
async def test_it_waits_for_every_mint_and_jobs_cost_nothing_only_if_no_money_moved(last, moved):
    unit, clock, world = await made()
    home = homecoming(unit, clock, world)
    await home.adopt()
    world.asked = []
    answers = [
        lambda: world.mints.update(m1="same"),
        lambda: world.mints.update(m2="pending, moved"),
        lambda: world.mints.update(m2=last),
    ]
    mark = await _until_settled(unit, home, clock, answers)
    assert mark["money_moved"] is moved
    assert "settled_at" in mark
    assert world.asked == (["forget"] if moved else ["nothing paid", "forget"])
    world.asked = []
    again = homecoming(unit, clock, world)
    await again.adopt()
    await _until_settled(unit, again, clock, [lambda: None])
    assert world.asked == [], "after that nobody is asked any more"


async def test_nothing_is_concluded_while_a_mint_is_away_or_the_database_fails():
    unit, clock, world = await made()
    home = homecoming(unit, clock, world)
    await home.adopt()
    mark = await _until_settled(unit, home, clock, [lambda: world.mints.update(m1="same"), lambda: None])
    assert "settled_at" not in mark
    world.mints.update(m2="same")
    world.fails = "nothing paid"
    mark = await _until_settled(unit, home, clock, [lambda: None])
    assert "settled_at" not in mark
    world.fails = ""
    mark = await _until_settled(unit, home, clock, [lambda: None])
    assert mark["money_moved"] is False


async def test_what_ended_jobs_have_told_before_a_crash_is_not_taken_for_what_waited():
    unit, clock, world = await made()
    await unit.commit([waiting("a", "m")])

    async def told_and_died() -> int:
        await unit.commit([waiting("a", "job.finished")])
        raise StoreFull

    world.adopt_copy = told_and_died
    with pytest.raises(StoreFull):
        await homecoming(unit, clock, world).adopt()
    await homecoming(unit, clock, World()).adopt()
    states = {row["envelope_id"]: row["state"] for row in await unit.select("inbox")}
    assert states == {"m": "dead", "job.finished": "new"}


async def test_others_may_act_when_it_was_adopted_and_know_of_the_restore_then():
    unit, clock, world = await made()
    other = homecoming(unit, clock, world)
    assert not await other.is_adopted()
    assert other.heard_since == 0
    await homecoming(unit, clock, world).adopt()
    assert await other.is_adopted()
    assert other.heard_since > 0
    assert await homecoming(MemoryDatabase(), clock, world).is_adopted(), "nothing was restored there"


async def test_whatever_spends_is_asked_what_it_had_begun():
    unit, clock, world = await made()
    other = World()
    await Homecoming(unit, clock, world, world, world, other).adopt()
    assert other.asked == ["jobs"]
