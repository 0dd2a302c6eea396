"""The one guard: what it catches, what it lets through, and tasks that end no other."""

import asyncio
import logging

import pytest

from core.error import InvalidInput
from core.guard import Crew, attempted, caught, settled

log = logging.getLogger("crew")


async def _breaks(error: BaseException) -> int:
    raise error


async def _works() -> int:
    return 7


async def test_what_works_gives_its_result_and_no_error() -> None:
    assert await attempted(_works()) == (7, None)
    assert await settled(_works()) == (7, None)
    assert caught(lambda: 7) == (7, None)


async def test_what_breaks_gives_its_error_and_no_result() -> None:
    error = ValueError("no")
    assert await attempted(_breaks(error)) == (None, error)
    assert await settled(_breaks(error)) == (None, error)


async def test_a_cancellation_goes_through_an_attempt_and_is_the_failure_of_foreign_code() -> None:
    with pytest.raises(asyncio.CancelledError):
        await attempted(_breaks(asyncio.CancelledError()))
    _, error = await settled(_breaks(asyncio.CancelledError()))
    assert isinstance(error, asyncio.CancelledError)


def test_foreign_code_that_would_end_the_process_is_caught() -> None:
    def leave() -> None:
        raise SystemExit(3)

    _, error = caught(leave)
    assert isinstance(error, SystemExit)


async def test_a_task_that_breaks_is_told_and_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    crew = Crew(log, "crew_task_failed")
    going = asyncio.Event()

    async def goes_on() -> None:
        await going.wait()

    async def known() -> None:
        raise InvalidInput("That is not a number.")

    async def unknown() -> None:
        raise KeyError("x")

    lasting = crew.spawn(goes_on(), "going on")
    with caplog.at_level(logging.WARNING, "crew"):
        await asyncio.gather(crew.spawn(known(), "known"), crew.spawn(unknown(), "unknown"))
    assert len(crew) == 1
    told = {record.getMessage().split(". ")[0]: record for record in caplog.records}
    assert told["known: That is not a number"].exc_info is None
    assert told["A task failed: unknown"].exc_info is not None
    assert {record.__dict__["action"] for record in caplog.records} == {"crew_task_failed"}
    going.set()
    await lasting
    assert len(crew) == 0


async def test_a_crew_that_is_ended_has_ended_when_it_says_so() -> None:
    crew = Crew(log, "crew_task_failed")
    ended: list[str] = []

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append("slow")

    crew.spawn(slow(), "slow")
    await asyncio.sleep(0)
    await crew.end()
    assert ended == ["slow"]
    assert len(crew) == 0
