"""Runs an agent's code so that whatever it does is its own failure: bounded in time, measured, and nobody else's.

Code that awaits can be ended at its time limit: it is cancelled, and if it goes on all the same it is dropped where it
stands. Code that never awaits holds the whole loop, and nothing can end it from there; what it took is seen afterwards,
and then it was too slow all the same. Such work belongs outside of the process, or in a thread.
"""

import asyncio
import logging
import re
import traceback
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from time import perf_counter_ns
from types import coroutine
from typing import Any, TypeVar

from core.error import VendoError
from core.guard import caught, settled
from node.agent.error import TickTooSlow
from node.agent.tick.supervision import MAX_ERROR, Failure
from node.line import plain

log = logging.getLogger(__name__)
T = TypeVar("T")

_FRAMES = 20
_MAX_LINES, _MAX_NAME = 16_384, 100
_CODE = re.compile(r"[a-z][a-z0-9_.]{0,60}")
_NUDGES = 4  # how often, within its grace, code that goes on is cancelled again


class _Dropped(BaseException):
    """The code went on after it was told to end, and was left where it stands."""


class Meter:
    """How long code held the loop: in all, and at most at a time (ns)."""

    __slots__ = ("longest_ns", "total_ns")

    def __init__(self) -> None:
        self.total_ns = self.longest_ns = 0

    def count(self, ns: int) -> None:
        """One step took so long."""
        self.total_ns += ns
        if ns > self.longest_ns:
            self.longest_ns = ns

    def add(self, other: "Meter") -> None:
        """Count what another has measured."""
        self.total_ns += other.total_ns
        self.longest_ns = max(self.longest_ns, other.longest_ns)


class _Turn:
    """One piece of code under watch. `struck`: how often it was told to end."""

    __slots__ = ("dropped", "ends", "struck", "task")

    def __init__(self, task: "asyncio.Task[Any]", ends: float) -> None:
        self.task, self.ends, self.struck, self.dropped = task, ends, 0, False


@coroutine
def _driven(code: Coroutine[Any, Any, T], waits_for: Any, meter: Meter, turn: _Turn) -> Generator[Any, None, T]:
    """Go on with `code`, which waits for something: each step is measured, and none begins once it was dropped."""
    while True:
        error: BaseException | None = None
        try:
            yield waits_for
        except BaseException as raised:  # noqa: BLE001 - it is for the code, unless that was dropped
            if turn.dropped:
                _close(code)
                raise _Dropped from None
            error = raised
        began = perf_counter_ns()
        try:
            waits_for = code.send(None) if error is None else code.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            meter.count(perf_counter_ns() - began)


def _close(code: Coroutine[Any, Any, Any]) -> None:
    _, error = caught(code.close)
    if error is not None:  # it goes on even now: nothing will call it again
        log.warning("an agent's code would not end", extra={"action": "agent_dropped"})


class Guard:
    """Watches over the code that agents run now. One timer for all of them.

    Args:
        grace_s: how long code may go on after it was told to end.
        blocked_ms: code that holds the loop for longer at a time is reported.
        ending: whether the process is about to end, so that a cancellation is meant for us.
    """

    def __init__(self, grace_s: float, blocked_ms: int, ending: Callable[[], bool]) -> None:
        self._grace_s, self._blocked_ns, self._ending = grace_s, blocked_ms * 1_000_000, ending
        self._turns: set[_Turn] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    async def run(self, code: Coroutine[Any, Any, None], agent: str, seconds: float, meter: Meter) -> Failure | None:
        """Run code to its end, or to the end of its time. What it raised, as data.

        Raises:
            asyncio.CancelledError: the engine itself is told to end.
        """
        task = asyncio.current_task()
        assert task is not None
        began = perf_counter_ns()
        waits_for, raised = caught(partial(code.send, None))
        is_ended = raised is not None
        if isinstance(raised, StopIteration):
            raised = None  # most ticks end here: they have waited for nothing
        took = perf_counter_ns() - began
        meter.count(took)
        struck = False
        if not is_ended:
            turn = _Turn(task, asyncio.get_running_loop().time() + seconds - took / 1e9)
            raised = await self._wait(code, waits_for, meter, turn)
            struck, took = turn.struck > 0, perf_counter_ns() - began
        if meter.longest_ns > self._blocked_ns:
            about = {"action": "agent_blocked", "agent": agent, "ms": meter.longest_ns // 1_000_000}
            log.warning("an agent's code held up the whole node", extra=about)
        late = struck or took > seconds * 1e9
        if raised is None and not late and not task.cancelling():
            return None
        return await self._verdict(raised, agent, seconds, late=late, task=task)

    async def _verdict(
        self, raised: BaseException | None, agent: str, seconds: float, *, late: bool, task: "asyncio.Task[Any]"
    ) -> Failure:
        if isinstance(raised, GeneratorExit) and not _has_loop():
            raise raised  # the loop is gone, and this is being thrown away
        await self._uncancelled(task, raised)
        if isinstance(raised, _Dropped):
            return _slow(f"The tick took longer than {seconds:g} s, and went on after it was told to end.")
        if late:
            return _slow(f"The tick took longer than {seconds:g} s.")
        return _failure(raised or asyncio.CancelledError(), agent)

    async def _wait(
        self, code: Coroutine[Any, Any, None], waits_for: Any, meter: Meter, turn: _Turn
    ) -> BaseException | None:
        self._watch(turn, asyncio.get_running_loop())
        try:
            _, error = await settled(_driven(code, waits_for, meter, turn))
        finally:
            self._turns.discard(turn)
        return error

    async def _uncancelled(self, task: "asyncio.Task[Any]", raised: BaseException | None) -> None:
        """Cancellations by the watch, or by the code itself, end with the code; those that are meant for us do not."""
        cancelled = task.cancelling() or isinstance(raised, asyncio.CancelledError)
        if cancelled and self._ending():
            raise asyncio.CancelledError
        while task.cancelling():
            task.uncancel()
        if cancelled:
            try:
                await asyncio.sleep(0)  # one that the code has asked for and not waited for comes here
            except asyncio.CancelledError:
                if self._ending():
                    raise

    def hurry(self) -> None:
        """The time of all code that runs now is over."""
        loop = asyncio.get_running_loop()
        for turn in self._turns:
            turn.ends = min(turn.ends, loop.time())
        if self._turns:
            self._arm(loop.time(), loop)

    def _watch(self, turn: _Turn, loop: asyncio.AbstractEventLoop) -> None:
        self._turns.add(turn)
        if self._timer is None or turn.ends < self._at:
            self._arm(turn.ends, loop)

    def _arm(self, at: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at, self._timer = at, loop.call_at(at, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now, self._timer = loop.time(), None
        for turn in self._turns:
            if turn.ends <= now:
                turn.dropped = turn.struck >= _NUDGES
                turn.struck += 1
                turn.ends = now + self._grace_s / _NUDGES
                turn.task.cancel()
        if self._turns:
            self._arm(min(turn.ends for turn in self._turns), loop)


def _slow(message: str) -> Failure:
    error = TickTooSlow(message)
    return Failure(error.code, error.message, cause=error)


def attempted(code: Callable[[], None], whose: str) -> Failure | None:
    """Call code of an agent's that cannot wait, such as its types'. What it raised, as data."""
    _, error = caught(code)
    return None if error is None else _failure(error, whose)


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _failure(error: BaseException, agent: str) -> Failure:
    """What an agent's code raised. Its words stay in the node's log: they may be anything."""
    told, _ = caught(partial(_told, error))
    if isinstance(told, Failure):
        return told
    name, lines = told or ("an exception", "")  # even the name and the words of an exception are an agent's code
    log.error("an agent's program failed\n%s", lines, extra={"action": "agent_failed", "agent": agent})
    return _plainly(Failure("agent.failed", f"The program raised {name[:_MAX_NAME]}.", cause=error))


def _told(error: BaseException) -> Failure | tuple[str, str]:
    if isinstance(error, VendoError):
        return _plainly(Failure.of(error))
    return str(type(error).__name__), "".join(traceback.format_exception(error, limit=-_FRAMES))[-_MAX_LINES:]


def _plainly(failure: Failure) -> Failure:
    """With a code that is one, and a message that every database takes."""
    code = failure.code if isinstance(failure.code, str) and _CODE.fullmatch(failure.code) else "agent.failed"
    return Failure(code, plain(str(failure.message))[:MAX_ERROR], failure.kind, failure.cause)
