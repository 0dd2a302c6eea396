"""Who becomes the steward begins like after a restart, finds what others commit, and ends what the dead have left."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.error import Unavailable
from node.share.bell import CHANGE, WORK
from node.share.steward import FOLLOW_S, LOOK_S, Steward
from node.storage.seat import Place, Roll, Seat
from tests.unit.node.member_part import TurnedClock


@dataclass
class Member:
    """A membership that the test decides on."""

    leading: asyncio.Event = field(default_factory=asyncio.Event)
    those: list[str] = field(default_factory=lambda: ["1.1"])
    watchers: list[Callable[[Roll], None]] = field(default_factory=list)

    def others(self) -> list[str]:
        return self.those

    def on_roll(self, watcher: Callable[[Roll], None]) -> None:
        self.watchers.append(watcher)

    def dies(self, one: str) -> None:
        self.those = [other for other in self.those if other != one]
        self.rolls(Roll((), "0.1", 1, (one,)))

    def rolls(self, roll: Roll) -> None:
        for watcher in self.watchers:
            watcher(roll)


@dataclass
class Company:
    member: Member = field(default_factory=Member)
    heard: dict[str, list[Callable[[Sequence[str]], None]]] = field(default_factory=lambda: {WORK: [], CHANGE: []})

    @property
    def bell(self) -> "Company":
        return self

    def on(self, word: str, heard: Callable[[Sequence[str]], None]) -> None:
        self.heard[word].append(heard)

    def rings(self, word: str) -> None:
        for heard in self.heard[word]:
            heard([])


class Part:
    def __init__(self, name: str, told: list[str]) -> None:
        self._name, self._told = name, told

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        self._told.append(f"{self._name} starts")
        ready.set()
        await stop.wait()
        self._told.append(f"{self._name} stops")


@dataclass
class Bench:
    company: Company
    clock: TurnedClock
    told: list[str]
    steward: Steward
    ready: asyncio.Event
    stop: asyncio.Event
    task: "asyncio.Task[None]"

    def count(self, word: str) -> int:
        return self.told.count(word)


@asynccontextmanager
async def bench(*, leads: bool = False, broken: str = "", error: type[Exception] = Unavailable) -> AsyncIterator[Bench]:
    company, clock, told = Company(), TurnedClock(), list[str]()

    def task(word: str) -> Callable[[], Any]:
        async def act() -> None:
            told.append(word)
            if word == broken:
                raise error

        return act

    if leads:
        company.member.leading.set()
    steward = Steward(
        company, clock, prepare=task("prepare"),  # as much of a company as is needed
        parts=lambda: [(name, Part(name, told)) for name in ("outbox", "wallet")],
        adopt=[task("adopt"), task("adopt too")], bury=[task("bury")], follow=task("follow"),
    )  # fmt: skip
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(steward.run(ready, stop))
    await clock.turn(0.1)
    try:
        yield Bench(company, clock, told, steward, ready, stop, running)
    finally:
        stop.set()
        await clock.turn(0.1)
        await asyncio.wait_for(running, 5)


async def test_the_first_one_is_ready_when_all_of_its_parts_are_and_stops_them_in_reverse() -> None:
    async with bench(leads=True) as made:
        assert made.told[:3] == ["prepare", "outbox starts", "wallet starts"]
        assert made.ready.is_set()
        assert made.steward.is_ready
    assert made.told[-2:] == ["wallet stops", "outbox stops"]
    assert not made.steward.is_ready


async def test_another_one_is_ready_at_once_and_begins_when_it_is_made_steward() -> None:
    async with bench() as made:
        assert made.ready.is_set()
        await made.clock.turn(3 * LOOK_S)
        assert not made.steward.is_ready
        assert "prepare" not in made.told
        made.company.member.leading.set()
        await made.clock.turn(0.4)
        assert made.told[:3] == ["prepare", "outbox starts", "wallet starts"]
        assert made.steward.is_ready


async def test_it_looks_once_a_second_and_at_once_when_the_bell_rings() -> None:
    async with bench(leads=True) as made:
        await made.clock.turn(10 * LOOK_S + 0.5, 0.1)
        assert 8 <= made.count("adopt") <= 12
        before = made.count("adopt too")
        made.company.rings(WORK)
        await made.clock.turn(0.25)
        assert made.count("adopt too") == before + 1


async def test_alone_it_does_not_look() -> None:
    async with bench(leads=True) as made:
        made.company.member.those = []
        await made.clock.turn(1.5 * LOOK_S)
        before = made.count("adopt")
        await made.clock.turn(5 * LOOK_S, 0.1)
        assert made.count("adopt") == before


async def test_what_one_left_that_was_put_out_is_ended_once() -> None:
    async with bench(leads=True) as made:
        made.company.member.dies("1.1")
        await made.clock.turn(0.4)
        assert made.count("bury") == 1
        await made.clock.turn(5 * LOOK_S, 0.1)
        assert made.count("bury") == 1


async def test_what_one_left_whom_another_member_put_out_is_ended_too() -> None:
    async with bench(leads=True) as made:
        both = [Seat(Place(slot, 1), 5_000, "{}") for slot in (0, 2)]
        made.company.member.rolls(Roll(tuple(both), "0.1", 1, ()))
        await made.clock.turn(0.4)
        assert made.count("bury") == 0
        made.company.member.rolls(Roll(tuple(both[:1]), "0.1", 1, ()))
        await made.clock.turn(2 * LOOK_S, 0.1)
        assert made.count("bury") == 1


async def test_a_fault_of_our_own_in_a_look_ends_the_steward_and_is_not_kept_quiet() -> None:
    seen = []

    async def look() -> None:
        async with bench(leads=True, broken="adopt", error=ZeroDivisionError) as made:
            await made.clock.turn(3 * LOOK_S, 0.1)
            seen.append(made.stop.is_set())

    with pytest.raises(ZeroDivisionError):
        await look()
    assert seen == [True]


@pytest.mark.parametrize("leads", [False, True])
async def test_changes_of_agents_are_followed_when_they_are_told_of_and_now_and_then(leads: bool) -> None:
    async with bench(leads=leads) as made:
        made.company.rings(CHANGE)
        await made.clock.turn(0.4)
        assert made.count("follow") == 1
        await made.clock.turn(FOLLOW_S + 2 * LOOK_S, 0.2)
        assert made.count("follow") == 2


async def test_a_look_that_fails_is_tried_again_and_ends_nothing() -> None:
    async with bench(leads=True, broken="adopt") as made:
        await made.clock.turn(5 * LOOK_S, 0.1)
        assert made.count("adopt") >= 3
        assert made.count("adopt too") == made.count("adopt")
        assert made.steward.is_ready


async def test_one_that_does_not_lead_rests_when_the_bell_has_rung_for_the_steward() -> None:
    async with bench() as made:
        made.company.rings(WORK)
        await made.clock.turn(2 * LOOK_S, 0.1)
        assert not made.steward._wake.is_set()
        assert made.told == []
