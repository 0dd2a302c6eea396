"""The inbox on every engine: order, expiry, the bound and its policies, the dead letter, and what all of it costs."""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from core.clock import SystemClock
from core.error import Conflict, InvalidInput, NotFound
from core.unit import Insert, Row, Update, Write
from node.agent.error import InboxFull
from node.agent.inbox.intake import Intake
from node.agent.inbox.overflow import Overflow, Policy
from node.agent.inbox.row import DEAD, DONE, Waiting, ended, envelope
from node.storage.chain import unsigned_seal
from node.storage.memory import MemoryDatabase
from tests.integration.agent.inbox_part import START, StillClock, agent_row, desk, letter
from tests.unit_part import ENGINES, EVERY, Base

NOW_MS = START * 1_000


@pytest.fixture(params=EVERY)
async def unit(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Base]:
    base = await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock())
    yield base
    await base.aclose()


async def due(unit: Base, agent: str = "a", now_ms: int = NOW_MS, limit: int = 64) -> list[str]:
    rows, _ = await Waiting(unit).due(agent, now_ms, limit)
    return [row["envelope_id"] for row in rows]


# --- what is due


async def test_what_is_due_comes_by_urgency_then_as_it_came(unit: Base) -> None:
    await unit.commit(
        [
            letter("a", "1", "eve"),
            letter("a", "2", "bob", priority=5),
            letter("a", "3", "bob"),
            letter("a", "4", "eve", priority=-1),
            letter("b", "5"),
        ]
    )
    assert await due(unit) == ["4", "1", "3", "2"]
    assert await due(unit, limit=2) == ["4", "1"]
    assert await Waiting(unit).agents() == {"a", "b"}


async def test_a_source_that_numbers_what_it_sends_is_heard_in_its_order(unit: Base) -> None:
    await unit.commit([letter("a", f"s{seq}", "feed", seq=seq) for seq in (3, 1, 2)])
    await unit.commit([letter("a", "other", "bob"), letter("a", "s0", "feed", seq=0)])
    assert await due(unit) == ["s0", "s1", "s2", "other", "s3"]


async def test_what_people_wrote_is_heard_as_they_wrote_it(unit: Base) -> None:
    for name, written in (("later", 20), ("first", 5), ("middle", 10)):
        await unit.commit([letter("a", name, "npub", "nostr", written_at=written)])
    assert await due(unit) == ["first", "middle", "later"]


async def test_a_retry_holds_back_its_own_line_and_nobody_else(unit: Base) -> None:
    await unit.commit([letter("a", name, "eve") for name in ("e1", "e2")])
    await unit.commit([letter("a", "urgent", "eve", priority=-1), letter("a", "b1", "bob")])
    await unit.commit([Update("inbox", {"envelope_id": "e1"}, set={"next_at_ms": NOW_MS + 700})])
    rows, again = await Waiting(unit).due("a", NOW_MS)
    assert [row["envelope_id"] for row in rows] == ["urgent", "b1"]
    assert again == NOW_MS + 700
    assert await due(unit, now_ms=NOW_MS + 700) == ["urgent", "e1", "e2", "b1"]


async def test_a_long_line_that_waits_starves_nobody(unit: Base) -> None:
    await unit.commit([letter("a", f"e{number}", "eve") for number in range(300)])
    await unit.commit([letter("a", "b1", "bob"), letter("a", "c1", "carol")])
    await unit.commit([Update("inbox", {"envelope_id": "e0"}, set={"next_at_ms": NOW_MS + 9_000})])
    rows, again = await Waiting(unit).due("a", NOW_MS, 16)
    assert [row["envelope_id"] for row in rows] == ["b1", "c1"]
    assert rows[0]["payload"] == '{"text":"b1"}'
    assert again == NOW_MS + 9_000


async def test_what_has_expired_is_never_handed_out_and_is_counted(unit: Base) -> None:
    await unit.commit([letter("a", "late", expires_at=START), letter("a", "in-time", expires_at=START + 1)])
    assert await due(unit) == ["in-time"]
    found = {row["envelope_id"]: row for row in await unit.select("inbox")}
    assert (found["late"]["state"], found["late"]["ended_at"]) == ("expired", START)
    assert await due(unit, now_ms=NOW_MS + 1_000) == []
    assert (await desk(unit).inbox().counts())["expired"] == 2
    assert await Waiting(unit).agents() == set()


async def test_an_envelope_comes_once_however_long_ago_it_ended(unit: Base) -> None:
    await unit.commit([letter("a", "m")])
    ((row,), _) = await Waiting(unit).due("a", NOW_MS)
    await unit.commit([ended(row, DONE, START)])
    await unit.commit([Update("inbox", {"envelope_id": "m"}, set={"payload": ""})])  # what retention takes
    await unit.commit([letter("a", "m", or_ignore=True)])
    with pytest.raises(Conflict):
        await unit.commit([letter("a", "m")])
    with pytest.raises(Conflict):
        await unit.commit([ended(row, DONE, START)])
    assert await due(unit) == []


# --- the bound


async def test_overflow_goes_to_the_dead_letter_and_then_is_dropped_without_its_payload(unit: Base) -> None:
    one = desk(unit, max_depth=2, dead_letter_max=1)
    for name in ("1", "2", "3", "4"):
        await one.arrive(letter("a", name))
    assert await one.states() == {"1": "new", "2": "new", "3": "dead", "4": "dropped"}
    rows = {row["envelope_id"]: row for row in await unit.select("inbox")}
    assert rows["3"]["error"].startswith("agent.inbox_full")
    assert rows["3"]["ended_at"] is None, "it may be handed out again"
    assert (rows["4"]["payload"], rows["4"]["ended_at"]) == ("", START)
    assert await one.inbox().counts() == {"new": 2, "dead": 1, "dropped": 1, "expired": 0}


async def test_where_the_oldest_is_dropped_the_newcomer_waits(unit: Base) -> None:
    one = desk(unit, max_depth=2, policy=Policy.DROP_OLDEST)
    await one.arrive(letter("a", "urgent", priority=-5))
    await one.arrive(letter("a", "old"))
    await one.arrive(letter("a", "new"))
    await one.arrive(letter("a", "newer"))
    assert await one.states() == {"urgent": "new", "old": "dropped", "new": "dropped", "newer": "new"}


async def test_where_newcomers_are_rejected_their_sender_is_told_and_nothing_is_kept(unit: Base) -> None:
    one = desk(unit, max_depth=1, policy=Policy.REJECT_NEW)
    await one.arrive(letter("a", "1"))
    with pytest.raises(InboxFull):
        await one.arrive(letter("a", "2"))
    with pytest.raises(InboxFull):
        await one.leave("3")
    await one.arrive(letter("a", "1", or_ignore=True))
    assert await one.states() == {"1": "new"}
    assert one.intake.counts["rejected"] == 2


@pytest.mark.parametrize("policy", list(Policy))
async def test_what_must_not_be_lost_comes_in_and_is_never_dropped(unit: Base, policy: Policy) -> None:
    one = desk(unit, max_depth=1, policy=policy)
    for number, (cause, source) in enumerate(
        (
            ("initialize", "node"),
            ("alarm", "scheduler"),
            ("event", "market"),
            ("event", "wallet"),
            ("event", "identity"),
        )
    ):
        row = envelope("a", f"s{number}", cause=cause, source=source, sender="", payload="{}", at=START)
        await one.arrive(row)
    if policy is Policy.REJECT_NEW:
        with pytest.raises(InboxFull):
            await one.arrive(letter("a", "x"))
    else:
        await one.arrive(letter("a", "x"))
    states = await one.states()
    assert {states[f"s{number}"] for number in range(5)} == {"new"}
    assert states.get("x") == {"dead_letter": "dead", "drop_oldest": "dropped", "reject_new": None}[policy.value]


async def test_the_bound_holds_whatever_arrives_at_once(unit: Base) -> None:
    for policy, kept in ((Policy.DEAD_LETTER, "new"), (Policy.DROP_OLDEST, "new")):
        agent = policy.value
        one = desk(unit, max_depth=20, policy=policy, dead_letter_max=5)
        await asyncio.gather(*(one.arrive(letter(agent, f"m{number}", f"s{number % 7}")) for number in range(60)))
        found = list((await one.states(agent)).values())
        assert found.count(kept) == 20
        assert found.count("dead") == (5 if policy is Policy.DEAD_LETTER else 0)
        assert len(found) == 60, "nothing is lost in silence"


class Late(MemoryDatabase):
    """A database whose answers are old when they come: others commit between the reading and the answer."""

    def __init__(self) -> None:
        super().__init__()
        self._draw = Random(4)  # the same each time

    async def _wait(self, most: int = 6) -> None:
        for _ in range(self._draw.randrange(most)):
            await asyncio.sleep(0)

    async def commit(self, writes: Iterable[Write]) -> None:
        await self._wait(40)
        await super().commit(writes)

    async def select(self, *asked: Any, **more: Any) -> list[Row]:
        found = await super().select(*asked, **more)
        await self._wait()
        return found

    async def count(self, *asked: Any, **more: Any) -> int:
        found = await super().count(*asked, **more)
        await self._wait()
        return found


@pytest.mark.parametrize("policy", list(Policy))
async def test_the_bound_holds_also_where_answers_are_old_when_they_come(policy: Policy) -> None:
    unit = Late()
    for round_ in range(20):
        one = desk(unit, max_depth=10, policy=policy, dead_letter_max=3)
        rows = [letter(f"a{round_}", f"m{number}", f"s{number % 3}") for number in range(60)]
        await asyncio.gather(*(one.arrive(row) for row in rows), return_exceptions=True)
        found = list((await one.states(f"a{round_}")).values())
        assert found.count("new") == 10, f"round {round_}: {Counter(found)}"
        assert found.count("dead") == (3 if policy is Policy.DEAD_LETTER else 0)
        assert len(found) == (10 if policy is Policy.REJECT_NEW else 60)


async def test_two_processes_pass_the_bound_by_a_share_at_most(unit: Base) -> None:
    ours, theirs = (desk(unit, max_depth=64, policy=Policy.REJECT_NEW) for _ in range(2))

    async def push(one: object, name: str) -> int:
        try:
            await one.arrive(letter("a", name))
        except InboxFull:
            return 0
        return 1

    taken = 0
    for number in range(100):
        taken += await push(theirs, f"t{number}") if number == 0 else await push(ours, f"o{number}")
    for number in range(100):
        taken += await push(theirs, f"u{number}")
    assert 64 <= taken <= 64 + 64 // 8


async def test_room_comes_back_when_the_agent_has_worked(unit: Base) -> None:
    one = desk(unit, max_depth=2, policy=Policy.REJECT_NEW)
    await one.arrive(letter("a", "1"))
    await one.arrive(letter("a", "2"))
    with pytest.raises(InboxFull):
        await one.arrive(letter("a", "3"))
    (rows, _) = await Waiting(unit).due("a", NOW_MS)
    await unit.commit([ended(rows[0], DONE, START)])
    await one.arrive(letter("a", "3"))
    assert await due(unit) == ["2", "3"]


async def test_room_is_made_of_what_has_expired(unit: Base) -> None:
    one = desk(unit, max_depth=1)
    await one.arrive(letter("a", "1", expires_at=START + 5))
    one.clock.ms += 5_000
    await one.arrive(letter("a", "2"))
    assert await one.states() == {"1": "expired", "2": "new"}
    assert one.intake.counts["expired"] == 1


async def test_a_commit_that_fails_gives_its_room_back(unit: Base) -> None:
    one = desk(unit, max_depth=1, policy=Policy.REJECT_NEW)
    await unit.commit([Insert("seen", {"event_id": "x", "at": 1})])
    for _ in range(5):
        async with one.intake.room(letter("a", "1")) as writes:
            with pytest.raises(Conflict):
                await unit.commit([*writes, Insert("seen", {"event_id": "x", "at": 1})])
    await one.arrive(letter("a", "1"))
    assert await one.states() == {"1": "new"}


async def test_an_agents_own_policy_holds_from_the_moment_it_is_written(unit: Base) -> None:
    one = desk(unit)
    await unit.commit([agent_row("a")])
    assert await one.inbox().overflow() == Overflow().to_dict()
    await one.arrive(letter("a", "1"))
    await one.inbox().set_overflow(one.operator(), {"max_depth": 1, "policy": "reject_new"})
    assert await one.inbox().overflow() == {"max_depth": 1, "policy": "reject_new", "dead_letter_max": 100}
    with pytest.raises(InboxFull):
        await one.arrive(letter("a", "2"))
    await one.inbox().set_overflow(one.operator(), {"max_depth": 2})
    await one.arrive(letter("a", "2"))
    fresh = Intake(unit, StillClock())
    assert (await fresh.policy("a")).policy is Policy.REJECT_NEW, "it lasts over a restart"
    for wrong in ({"max_depth": 0}, {"policy": "flood"}, {"depth": 1}, {"max_depth": True}, {"dead_letter_max": -1}):
        with pytest.raises(InvalidInput):
            await one.inbox().set_overflow(one.operator(), wrong)


# --- the dead letter


async def bury(one: Base, agent: str, *names: str) -> None:
    for name in names:
        failed = {"state": DEAD, "error": "agent.failed: no", "tries": 5, "next_at_ms": 99, "expires_at": START}
        await one.commit([letter(agent, name), Update("inbox", {"agent": agent, "envelope_id": name}, set=failed)])


async def test_a_dead_letter_is_replayed_with_fresh_tries_under_its_own_id(unit: Base) -> None:
    one = desk(unit)
    await bury(unit, "a", "m1", "m2")
    for _ in range(2):  # it may be asked for again
        assert await one.inbox().replay(one.operator(), "m1") == {"envelope_id": "m1", "state": "new"}
    ((row,), _) = await Waiting(unit).due("a", NOW_MS)
    assert (row["envelope_id"], row["tries"], row["error"], row["expires_at"]) == ("m1", 0, "", None)
    assert one.woken == ["a"]
    await unit.commit([ended(row, DONE, START)])
    assert await one.inbox().replay(one.operator(), "m1") == {"envelope_id": "m1", "state": "done"}
    assert await due(unit) == []


async def test_a_dead_letter_is_discarded_for_good(unit: Base) -> None:
    one = desk(unit)
    await bury(unit, "a", "m1")
    for _ in range(2):
        assert await one.inbox().discard(one.operator(), "m1") == {"envelope_id": "m1", "state": "discarded"}
    assert await one.inbox().replay(one.operator(), "m1") == {"envelope_id": "m1", "state": "discarded"}
    assert await due(unit) == []
    with pytest.raises(NotFound):
        await one.inbox().discard(one.operator(), "nobody")


async def test_all_dead_letters_of_one_agent_go_at_once(unit: Base) -> None:
    one = desk(unit)
    await bury(unit, "a", "m1", "m2", "m3")
    await bury(unit, "b", "n1")
    assert await one.inbox().replay_all(one.operator()) == 3
    assert await one.inbox().replay_all(one.operator()) == 0
    assert await due(unit) == ["m1", "m2", "m3"]
    assert await one.inbox("b").discard_all(one.operator()) == 1
    assert await one.states("b") == {"n1": "discarded"}


async def test_one_that_the_agent_failed_at_pushes_the_oldest_out_of_a_full_dead_letter(unit: Base) -> None:
    one = desk(unit, dead_letter_max=2)
    await bury(unit, "a", "m1", "m2")
    await unit.commit([letter("a", "m3")])
    dead = Update("inbox", {"envelope_id": "m3"}, set={"state": DEAD})
    await unit.commit([*await one.intake.bury("a"), dead])
    assert await one.states() == {"m1": "dropped", "m2": "dead", "m3": "dead"}
    assert await one.intake.bury("b") == ()


# --- what it costs


@pytest.mark.timeout(60)
async def test_what_is_done_does_not_make_looking_dearer(tmp_path: Path) -> None:
    async def looks(unit: Base) -> float:
        await unit.commit([letter("a", f"w{time.perf_counter_ns()}-{number}") for number in range(20)])
        waiting, intake, best = Waiting(unit), Intake(unit, StillClock()), float("inf")
        for _ in range(30):
            begun = time.perf_counter()
            rows, _ = await waiting.due("a", NOW_MS)
            await waiting.agents()
            await unit.count("inbox", {"agent": "a", "state": "new"})
            await intake.bury("a")
            best = min(best, time.perf_counter() - begun)
            assert rows
        await unit.commit([ended(row, DONE, START) for row in rows])
        return best

    unit = await ENGINES["sqlite"](tmp_path, unsigned_seal, SystemClock())
    few = await looks(unit)
    (done,) = await unit.select("inbox", {"state": "done"}, limit=1)
    del done["n"]
    names, marks = ", ".join(f'"{name}"' for name in done), ", ".join("?" * len(done))
    history = ((*({**done, "envelope_id": f"d{number}"}.values()),) for number in range(200_000))
    with closing(sqlite3.connect(tmp_path / "node.db", timeout=30)) as db, db:
        db.executemany(f"INSERT INTO inbox ({names}) VALUES ({marks})", history)
    assert await unit.count("inbox") > 200_000
    many = await looks(unit)
    await unit.aclose()
    assert many < 3 * few + 0.001, f"{few * 1e6:.0f} µs with nothing done, {many * 1e6:.0f} µs with 200,000"


async def test_what_is_known_of_inboxes_is_bounded() -> None:
    one = desk(MemoryDatabase())
    for number in range(5_000):
        await one.arrive(letter(f"a{number}", "m"))
    assert len(one.intake._rooms) <= 4_096
