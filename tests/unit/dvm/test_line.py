import asyncio

import pytest

from core.clock import SystemClock
from dvm.line import Line
from dvm.schedule import LEAST_WEIGHT, Ticket


def ticket(job: str, customer: str = "a", deadline: int = 0) -> Ticket:
    return Ticket(job, customer, 1_000, LEAST_WEIGHT, deadline)


async def work(line: Line, one: Ticket, done: list[str], gate: asyncio.Event) -> None:
    async with line.turn(one):
        await gate.wait()
        done.append(one.job)


async def test_jobs_take_turns_and_a_cancelled_one_gives_its_worker_back() -> None:
    line, done, gate = Line(1, SystemClock()), [], asyncio.Event()
    first = asyncio.create_task(work(line, ticket("1"), done, gate))
    await asyncio.sleep(0)
    rest = [asyncio.create_task(work(line, ticket(name, "b"), done, gate)) for name in "23"]
    await asyncio.sleep(0)
    assert (line.running, line.waiting) == (1, 2)
    assert line.wait_s(ticket("4", "c")) == 2  # b's first, and what runs; b's second would come after it
    rest[0].cancel()
    first.cancel()
    await asyncio.gather(first, rest[0], return_exceptions=True)
    gate.set()
    await rest[1]
    assert done == ["3"]
    assert (line.running, line.waiting) == (0, 0)


async def test_more_workers_begin_at_once() -> None:
    line, done, gate = Line(1, SystemClock()), [], asyncio.Event()
    tasks = [asyncio.create_task(work(line, ticket(name), done, gate)) for name in "12"]
    await asyncio.sleep(0)
    assert line.running == 1
    line.resize(2)
    assert line.running == 2
    gate.set()
    await asyncio.gather(*tasks)
    assert sorted(done) == ["1", "2"]


async def test_work_that_fails_leaves_its_place() -> None:
    line = Line(1, SystemClock())
    with pytest.raises(ZeroDivisionError):
        async with line.turn(ticket("1")):
            _ = 1 // 0
    assert line.running == 0
