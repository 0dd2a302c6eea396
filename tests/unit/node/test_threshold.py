"""A process acts when what follows from a restore is done: by itself if it leads, else by whoever does."""

import asyncio

from node.share.threshold import LOOK_S, Threshold
from tests.unit.node.member_part import TurnedClock


class Company:
    """One process, and whether it leads and the copy is adopted."""

    def __init__(self, *, leads: bool = False, adopted: bool = False) -> None:
        self.leads, self.adopted, self.adoptions = leads, adopted, 0
        self.clock, self.ready, self.stop = TurnedClock(), asyncio.Event(), asyncio.Event()
        self.threshold = Threshold(self.clock, leads=lambda: self.leads, is_adopted=self._is_adopted, adopt=self._adopt)

    async def _is_adopted(self) -> bool:
        return self.adopted

    async def _adopt(self) -> None:
        self.adoptions += 1
        self.adopted = True

    async def begin(self) -> "asyncio.Task[None]":
        running = asyncio.create_task(self.threshold.run(self.ready, self.stop))
        await self.clock.turn(LOOK_S * 3)
        return running

    async def end(self, running: "asyncio.Task[None]") -> None:
        self.stop.set()
        await asyncio.wait_for(running, 5)


async def test_where_nothing_was_restored_it_is_open_to_everybody() -> None:
    at = Company(adopted=True)
    running = await at.begin()
    assert at.ready.is_set()
    assert at.adoptions == 0
    await at.end(running)


async def test_the_leader_adopts_the_copy_first() -> None:
    at = Company(leads=True)
    running = await at.begin()
    assert (at.ready.is_set(), at.adoptions) == (True, 1)
    await at.end(running)


async def test_the_others_wait_for_the_leader() -> None:
    at = Company()
    running = await at.begin()
    assert not at.ready.is_set()
    at.adopted = True
    await at.clock.turn(LOOK_S * 2)
    assert (at.ready.is_set(), at.adoptions) == (True, 0)
    await at.end(running)


async def test_who_leads_after_the_leader_died_adopts_the_copy() -> None:
    at = Company()
    running = await at.begin()
    at.leads = True
    await at.clock.turn(LOOK_S * 2)
    assert (at.ready.is_set(), at.adoptions) == (True, 1)
    await at.end(running)


async def test_it_can_be_stopped_while_it_waits_and_was_never_ready() -> None:
    at = Company()
    running = await at.begin()
    await at.end(running)
    assert not at.ready.is_set()
