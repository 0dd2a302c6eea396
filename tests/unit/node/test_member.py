"""A member keeps its lease, takes over from one that is gone, and ends when it was put out itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from node.error import LeaseUnsure
from node.share.member import Membership
from node.storage.error import Fenced
from node.storage.seat import Roll
from tests.unit.node.member_part import Table, TurnedClock

LEASE, RENEW = 15.0, 3.0


@dataclass
class Process:
    """A member and the task that renews it; `stopped` while its loop stands still."""

    member: Membership
    ends: list[Fenced]
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        self.task = asyncio.create_task(self.member.run(asyncio.Event(), self.stop))

    async def kill(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


def process(table: Table, clock: TurnedClock, lock: str) -> Process:
    ends: list[Fenced] = []
    member = Membership(
        table, clock, lock=lock, lease_s=LEASE, renew_s=RENEW, about=lambda: {"home": lock}, end=ends.append
    )
    return Process(member, ends)


@asynccontextmanager
async def two() -> AsyncIterator[tuple[Table, TurnedClock, Process, Process]]:
    clock = TurnedClock()
    table = Table(clock, LEASE)
    both = process(table, clock, "one"), process(table, clock, "two")
    for one in both:
        await one.member.join()
        one.start()
    try:
        yield table, clock, *both
    finally:
        for one in both:
            await one.kill()


async def test_the_first_leads_and_both_stay_in_as_long_as_they_renew() -> None:
    async with two() as (table, clock, one, other):
        await clock.turn(200, 0.5)
        assert (one.member.leads, other.member.leads) == (True, False)
        assert one.member.may_act
        assert other.member.may_act
        assert (table.term, one.ends, other.ends) == (1, [], [])
        assert other.member.about(one.member.place.id) == {"home": "one"}
        assert other.member.others() == [one.member.place.id]


async def test_one_that_dies_is_followed_as_soon_as_its_lease_is_over() -> None:
    async with two() as (table, clock, one, other):
        rolls: list[Roll] = []
        other.member.on_roll(rolls.append)
        await clock.turn(RENEW)
        dead, at = one.member.place.id, clock.at
        await one.kill()
        while not other.member.leads:
            await clock.turn(0.1)
        assert clock.at - at <= LEASE + 1.0
        assert [roll.put_out for roll in rolls if roll.put_out] == [(dead,)]
        assert other.member.leading.is_set()
        assert (table.steward, table.term) == (other.member.place.id, 2)


async def test_one_that_stops_in_order_is_followed_at_its_next_look() -> None:
    async with two() as (_, clock, one, other):
        one.stop.set()
        await clock.turn(RENEW + 0.1)
        assert other.member.leads
        assert not one.member.may_act


async def test_one_that_was_put_out_ends_at_its_next_word_with_the_database() -> None:
    async with two() as (table, clock, one, other):
        await one.kill()  # it stands still, and only looks alive
        await clock.turn(LEASE + 1)
        assert other.member.leads
        assert not one.member.may_act, "it knows by its own clock"
        one.start()
        await clock.turn(RENEW + 0.2)
        assert [error.code for error in one.ends] == ["store.fenced"]
        assert not one.member.may_act
        assert table.steward == other.member.place.id


async def test_a_transaction_that_was_refused_ends_it_too_and_once() -> None:
    async with two() as (_, _, one, _):
        one.member.fence.broken()
        one.member.fence.broken()
        assert len(one.ends) == 1
        with pytest.raises(LeaseUnsure):
            one.member.check()


async def test_a_database_that_is_away_stops_it_in_time_and_lets_it_go_on_after() -> None:
    async with two() as (table, clock, one, other):
        await clock.turn(RENEW + 0.2)
        table.is_down = True
        renewed = clock.at
        while one.member.may_act:
            await clock.turn(0.1)
        assert clock.at - renewed < LEASE, "before anybody else may have its place"
        await clock.turn(LEASE, 0.5)
        with pytest.raises(LeaseUnsure):
            one.member.check()
        table.is_down = False
        await clock.turn(LEASE, 0.5)
        assert one.member.may_act
        assert other.member.may_act
        assert (one.ends, other.ends, table.term) == ([], [], 1), "whoever comes back first puts nobody out for it"


async def test_the_operator_sees_who_is_in_and_who_leads() -> None:
    async with two() as (_, clock, one, other):
        await clock.turn(RENEW + 0.1)
        facts = other.member.facts()
        assert (facts["me"], facts["steward"], facts["term"]) == (other.member.place.id, one.member.place.id, 1)
        assert [(row["home"], row["steward"]) for row in facts["members"]] == [("one", True), ("two", False)]
        assert all(0 < row["lease_ms"] <= LEASE * 1_000 for row in facts["members"])
