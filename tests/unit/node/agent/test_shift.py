"""Ticks among members: one holder, whose turn is first, and nothing that stays unheard."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

import pytest

from node.share.claim import FOREIGN_S, IDLE_S, TAKE_S, SharedClaims
from node.share.shift import LOOK_S, OTHERS_TURN_MS, Shift
from node.storage.error import StoreFailed
from node.storage.seat import Place, Roll, Seat
from tests.unit.node.member_part import Table, TurnedClock


@dataclass
class Seated:
    place: Place
    may_act: bool = True


@dataclass
class Noted:
    now: list[str] = field(default_factory=list)
    later: list[tuple[str, int]] = field(default_factory=list)

    def notify(self, agent: str) -> None:
        self.now.append(agent)

    def notify_at(self, agent: str, at_ms: int) -> None:
        self.later.append((agent, at_ms))


class Member:
    """One process: its claims, its shift, and what it was told to do."""

    def __init__(
        self,
        table: Table,
        clock: TurnedClock,
        slot: int,
        unknown: Collection[str] = (),
        broken: Collection[str] = (),
    ) -> None:
        self.seat = Seated(Place(slot, 1))
        self.engine, self.told = Noted(), []

        async def ready(name: str) -> bool:
            if name in broken:
                raise StoreFailed
            return name not in unknown

        tell = lambda names: self.told.extend(names)  # noqa: E731
        self.asked: list[str] = []
        self.claims = SharedClaims(table, self.seat, clock, ready, tell, lambda names: self.asked.extend(names))
        self.shift = Shift(table, self.seat, self.claims, self.engine, clock, tell)


def members(count: int, **more: Collection[str]) -> tuple[Table, TurnedClock, list[Member]]:
    clock = TurnedClock()
    table = Table(clock, 15.0)
    made = [Member(table, clock, slot, **more) for slot in range(count)]
    roll = Roll(tuple(Seat(one.seat.place, 15_000, "{}") for one in made), "0.1", 1)
    for one in made:
        one.shift.called(roll)
    return table, clock, made


async def test_what_one_holds_the_other_does_not_get() -> None:
    _, _, (one, two) = members(2)
    assert await one.claims.claim(["anna", "bert"]) == {"anna", "bert"}
    assert await two.claims.claim(["anna", "carl"]) == {"carl"}
    assert two.told == ["anna"], "its holder is told that something waits"


async def test_an_agent_that_is_asked_for_again_costs_no_question() -> None:
    table, _, (one,) = members(1)
    for _ in range(3):
        assert await one.claims.claim(["anna"]) == {"anna"}
        await one.claims.release(["anna"])
    assert len(table.claims) == 1


async def test_what_is_idle_for_a_second_is_given_back_and_what_is_in_use_is_not() -> None:
    table, clock, (one, two) = members(2)
    stop = asyncio.Event()
    running = asyncio.create_task(one.claims.run(asyncio.Event(), stop))
    await one.claims.claim(["anna", "bert"])
    await one.claims.release(["anna"])
    await clock.turn(IDLE_S - 0.1)
    assert table.agents["anna"] == "0.1"
    await clock.turn(0.5)
    assert table.agents == {"anna": "", "bert": "0.1"}
    assert await two.claims.claim(["anna", "bert"]) == {"anna"}
    stop.set()
    await running


async def test_what_may_be_ours_after_a_lost_answer_is_given_back(caplog: pytest.LogCaptureFixture) -> None:
    """Else nobody would ever have it but us, though we know nothing of it and nothing is to be done for it."""
    table, clock, (one, two) = members(2)
    stop, lost = asyncio.Event(), [True]
    claim, release = table.claim, table.release

    async def unheard(place: Place, agents: Collection[str]) -> set[str]:
        found = await claim(place, agents)
        if lost[0]:
            raise StoreFailed
        return found

    async def unreleased(place: Place, agents: Collection[str]) -> None:
        if lost[0]:
            raise StoreFailed
        await release(place, agents)

    table.claim, table.release = unheard, unreleased
    running = asyncio.create_task(one.claims.run(asyncio.Event(), stop))
    with pytest.raises(StoreFailed):
        await one.claims.claim(["anna"])
    broken = asyncio.create_task(one.claims.claim(["bert"]))
    await asyncio.sleep(0)
    broken.cancel()
    await asyncio.gather(broken, return_exceptions=True)
    table.agents["bert"] = "0.1"  # as if the database had it done before its asker was cancelled
    await clock.turn(3)
    assert table.agents == {"anna": "0.1", "bert": "0.1"}
    lost[0] = False
    await clock.turn(1)
    assert table.agents == {"anna": "", "bert": ""}
    assert await two.claims.claim(["anna", "bert"]) == {"anna", "bert"}
    await clock.turn(3)
    assert table.agents == {"anna": "1.1", "bert": "1.1"}, "what is another's by now is not touched"
    stop.set()
    await running
    assert [line for line in caplog.records if line.__dict__.get("action") == "release_failed"] == []


async def test_a_claim_that_comes_while_it_is_given_back_is_a_new_one() -> None:
    table, clock, (one,) = members(1)
    stop = asyncio.Event()
    running = asyncio.create_task(one.claims.run(asyncio.Event(), stop))
    await one.claims.claim(["anna"])
    await one.claims.release(["anna"])
    await clock.turn(IDLE_S + 0.5)
    assert not one.claims.holds("anna")
    assert await one.claims.claim(["anna"]) == {"anna"}
    assert len(table.claims) == 2
    stop.set()
    await running


async def test_whoever_waits_for_an_agent_gets_it_as_soon_as_nothing_is_to_be_done_for_it() -> None:
    table, clock, (one, two) = members(2)
    stop = asyncio.Event()
    running = asyncio.create_task(one.claims.run(asyncio.Event(), stop))
    await one.claims.claim(["anna"])
    taking = asyncio.create_task(two.claims.take("anna"))
    await clock.turn(0.3)
    assert two.asked
    assert set(two.asked) == {"anna"}
    one.claims.wanted(["anna", "unknown"])
    await clock.turn(0.5)
    assert not taking.done(), "a tick runs"
    one.claims.wanted(["anna"])
    await one.claims.release(["anna"])
    assert await one.claims.claim(["anna"]) == set(), "and it does not begin another one"
    await clock.turn(0.5)
    assert await taking
    assert table.agents["anna"] == "1.1"
    stop.set()
    await running


async def test_an_agent_that_is_never_given_back_is_not_waited_for_for_ever() -> None:
    _, clock, (one, two) = members(2)
    await one.claims.claim(["anna"])
    taking = asyncio.create_task(two.claims.take("anna"))
    await clock.turn(TAKE_S + 0.5)
    assert not await taking


async def test_who_is_not_sure_of_its_lease_claims_nothing() -> None:
    table, _, (one,) = members(1)
    await one.claims.claim(["anna"])
    one.seat.may_act = False
    assert await one.claims.claim(["anna", "bert"]) == set()
    assert table.agents == {"anna": "0.1"}


async def test_agents_that_cannot_be_ticked_here_are_left_to_others() -> None:
    table, clock, (one,) = members(1, unknown=["anna"])
    assert await one.claims.claim(["anna", "bert"]) == {"bert"}
    assert (table.agents["anna"], one.told) == ("", ["anna"])
    assert await one.claims.claim(["anna"]) == set()
    assert len(table.claims) == 1, "it is not asked for again at once"
    table.due = ["anna", "carl"]
    one.shift.heard(["anna"])
    stop = asyncio.Event()
    running = asyncio.create_task(one.shift.run(asyncio.Event(), stop))
    await clock.turn(LOOK_S + 0.1)
    stop.set()
    await running
    assert one.engine.now == ["carl"]
    assert one.engine.later == []
    await clock.turn(FOREIGN_S, 1.0)
    assert one.claims.knows("anna"), "its program may be here by now"


async def test_an_agent_that_cannot_be_made_ready_now_is_given_back_and_the_others_are_not_held_up() -> None:
    table, _, (one,) = members(1, broken=["anna"])
    assert await one.claims.claim(["anna", "bert"]) == {"bert"}
    assert (table.agents, one.claims.held) == ({"anna": "", "bert": "0.1"}, 1)
    assert one.claims.knows("anna"), "it may be asked for again at once"


async def test_alone_everything_is_ones_own_turn() -> None:
    _, _, (one,) = members(1)
    for name in ("anna", "bert", "carl"):
        one.shift.notify(name)
    assert (one.engine.now, one.told) == (["anna", "bert", "carl"], [])


async def test_every_agent_is_the_turn_of_one_and_the_others_look_a_little_later() -> None:
    _, clock, made = members(3)
    names = [f"agent-{number}" for number in range(60)]
    for name in names:
        made[0].shift.notify(name)
        for other in made[1:]:
            other.shift.heard([name])
    assert sorted(name for one in made for name in one.engine.now) == sorted(names)
    assert all(one.engine.now for one in made), "each has a share"
    assert made[0].told == [name for name in names if name not in made[0].engine.now]
    assert {at for one in made for _, at in one.engine.later} == {clock.millis() + OTHERS_TURN_MS}


async def test_its_holder_looks_at_once_whoever_s_turn_it_would_be() -> None:
    _, _, made = members(2)
    foreign = next(name for name in map(str, range(100)) if not made[0].shift._take(name))
    made[0].engine.now.clear()
    await made[0].claims.claim([foreign])
    made[0].shift.heard([foreign])
    made[0].shift.notify(foreign)
    assert made[0].engine.now == [foreign, foreign]


async def test_what_a_member_left_undone_is_found_at_once_and_what_nobody_heard_of_within_a_second() -> None:
    table, clock, made = members(2)
    stop = asyncio.Event()
    running = asyncio.create_task(made[0].shift.run(asyncio.Event(), stop))
    table.due = ["anna"]
    await clock.turn(LOOK_S + 0.1)
    assert made[0].engine.now == ["anna"]
    table.due = ["bert"]
    made[0].shift.called(Roll((Seat(Place(0, 1), 15_000, "{}"),), "0.1", 1, ("1.1",)))
    await clock.turn(0.05)
    assert made[0].engine.now == ["anna", "bert"]
    stop.set()
    await running
