import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from core.error import InvalidInput, Paused, VendoError
from node.agent.tick.guard import Guard, Meter
from node.agent.tick.supervision import Failure, Kind

Code = Callable[[], Coroutine[Any, Any, None]]


def guard(*, ending: bool = False, grace: float = 0.05, blocked_ms: int = 10_000) -> Guard:
    return Guard(grace, blocked_ms, lambda: ending)


async def outcome(code: Code, seconds: float = 0.05, **more: Any) -> Failure | None:
    """What is said of some code; and whoever ran it can go on as if nothing had been."""
    task = asyncio.current_task()
    assert task is not None
    found = await guard(**more).run(code(), "a", seconds, Meter())
    assert task.cancelling() == 0
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    return found


async def test_code_that_ends_well_is_no_failure() -> None:
    async def at_once() -> None:
        return

    async def later() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    assert await outcome(at_once) is None
    assert await outcome(later, 5) is None


async def test_its_own_timeouts_and_tasks_are_its_own() -> None:
    async def code() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(5)
        task = asyncio.create_task(asyncio.sleep(5))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    assert await outcome(code, 5) is None


class Odd(BaseException):
    """Nobody expects this one."""


@pytest.mark.parametrize(
    "error",
    [ValueError("nsec1x"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Odd(), RecursionError(), MemoryError(),
     StopIteration(1), StopAsyncIteration(), asyncio.CancelledError(), TimeoutError(),
     ExceptionGroup("g", [ValueError()])],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
@pytest.mark.parametrize("waits", [False, True])
async def test_whatever_it_raises_is_its_own_failure(error: BaseException, waits: bool) -> None:
    async def code() -> None:
        if waits:
            await asyncio.sleep(0)
        raise error

    found = await outcome(code, 5)
    assert found is not None
    assert found.code == "agent.failed"
    assert "nsec1x" not in found.message
    assert found.kind is Kind.FAULT


async def test_our_own_errors_keep_their_code() -> None:
    async def refuses() -> None:
        raise InvalidInput("not so")

    async def pauses() -> None:
        await asyncio.sleep(0)
        raise Paused

    found = await outcome(refuses)
    assert (found and found.text) == "input.invalid: not so"
    found = await outcome(pauses)
    assert (found and found.kind) is Kind.PAUSED


async def test_code_that_waits_too_long_is_ended() -> None:
    closed = []

    async def code() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            closed.append(True)

    began = time.monotonic()
    found = await outcome(code)
    assert (found and found.code) == "agent.too_slow"
    assert closed
    assert time.monotonic() - began < 5


async def test_an_endless_loop_that_awaits_is_ended_while_others_go_on() -> None:
    async def code() -> None:
        while True:
            await asyncio.sleep(0)

    beats = 0

    async def others() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    beating = asyncio.create_task(others())
    found = await outcome(code, 2)
    beating.cancel()
    assert (found and found.code) == "agent.too_slow"
    assert beats > 10


@pytest.mark.parametrize("deaf", [False, True])
async def test_code_that_goes_on_after_it_was_told_to_end_is_dropped_where_it_stands(deaf: bool) -> None:
    alive, told = [], []

    async def code() -> None:
        while len(told) < 2 or not deaf:
            try:
                await asyncio.sleep(0.005)
            except asyncio.CancelledError:
                pass
            except GeneratorExit:
                if not deaf:
                    raise
                told.append(True)
            alive.append(time.monotonic())

    found = await outcome(code)
    assert (found and found.code) == "agent.too_slow"
    assert "went on after it was told to end" in (found.message if found else "")
    last = alive[-1]
    await asyncio.sleep(0.05)
    assert alive[-1] - last < 0.02, "at most its own cleaning up"


async def test_code_that_says_it_ended_well_after_its_time_has_not() -> None:
    async def code() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)

    found = await outcome(code)
    assert (found and found.code) == "agent.too_slow"


async def test_code_that_holds_the_loop_is_too_slow_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def code() -> None:
        time.sleep(0.1)

    meter = Meter()
    with caplog.at_level(logging.WARNING):
        found = await guard(blocked_ms=50).run(code(), "greedy", 0.05, meter)
    assert (found and found.code) == "agent.too_slow"
    assert meter.longest_ns >= 100_000_000
    (line,) = [record for record in caplog.records if record.__dict__.get("action") == "agent_blocked"]
    assert line.__dict__["agent"] == "greedy"


async def test_only_what_holds_the_loop_counts_as_compute() -> None:
    held = 0

    async def code() -> None:
        nonlocal held
        await asyncio.sleep(0.1)
        began = time.perf_counter_ns()
        time.sleep(0.02)
        held = time.perf_counter_ns() - began
        await asyncio.sleep(0.1)

    meter = Meter()
    assert await guard().run(code(), "a", 5, meter) is None
    assert 20_000_000 <= held <= meter.total_ns < held + 150_000_000
    assert meter.longest_ns <= meter.total_ns


async def test_code_that_cancels_its_own_task_has_failed_and_nobody_else_is_cancelled() -> None:
    async def at_once() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def and_waits() -> None:
        await at_once()
        await asyncio.sleep(0)

    for code in (at_once, and_waits):
        found = await outcome(code, 5)
        assert (found and found.code) == "agent.failed"


async def test_when_the_engine_is_told_to_end_that_is_not_swallowed() -> None:
    begun = asyncio.Event()

    async def code() -> None:
        begun.set()
        await asyncio.sleep(30)

    async def stubborn() -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)

    for one in (code, stubborn):
        begun.clear()
        task = asyncio.create_task(guard(ending=True).run(one(), "a", 30, Meter()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_one_timer_watches_over_many() -> None:
    watch, took = guard(), {}

    async def run(name: str, seconds: float, needs: float) -> None:
        began = time.monotonic()
        found = await watch.run(asyncio.sleep(needs), name, seconds, Meter())
        took[name] = (time.monotonic() - began, found.code if found else "")

    await asyncio.gather(run("quick", 5, 0.01), run("slow", 0.1, 30), run("slower", 1.5, 30), run("long", 5, 0.3))
    assert {name: code for name, (_, code) in took.items()} == {
        "quick": "", "slow": "agent.too_slow", "slower": "agent.too_slow", "long": "",
    }  # fmt: skip
    assert took["slow"][0] < took["slower"][0]
    assert not watch._turns


class Liar(VendoError):
    """Its words are code."""

    code = "\x00bad code"

    def __init__(self) -> None:
        super().__init__("x")
        self.message = self

    def __str__(self) -> str:
        raise SystemExit


def evil() -> BaseException:
    class Nameless(type):
        @property
        def __name__(cls) -> str:
            raise SystemExit

    class Evil(Exception, metaclass=Nameless):
        def __str__(self) -> str:
            raise SystemExit

    return Evil()


@pytest.mark.parametrize("error", [Liar, evil])
async def test_even_the_words_of_an_error_do_no_harm(error: Callable[[], BaseException]) -> None:
    async def code() -> None:
        raise error()

    found = await outcome(code)
    assert found is not None
    assert found.code == "agent.failed"
    assert found.text.isprintable()


async def test_words_that_no_database_takes_are_written_out() -> None:
    async def code() -> None:
        raise InvalidInput("a\0b\ud800c\n" + "x" * 5_000)

    found = await outcome(code)
    assert found is not None
    assert found.message.isprintable()
    assert len(found.text) <= 1_000
