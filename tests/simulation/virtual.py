"""An event loop and a clock whose time is made up: a sleeping simulation costs nothing, and runs the same each time."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 3_000_000_000  # far ahead: gift wraps are dated by the real clock, and none may be from the future


class Deadlock(AssertionError):
    """Nothing is ready and nothing is scheduled, yet the simulation has not ended."""


class _Jump(selectors.SelectSelector):
    """Instead of waiting it moves the loop's time on."""

    loop: "VirtualLoop"

    def select(self, timeout=None):
        events = super().select(0) if self.loop.outside else ()
        if events:
            return events
        if timeout is None:
            raise Deadlock("the simulation waits for something that nobody will do")
        self.loop.moved += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time passes only when every task waits. `epoch` is the Unix time at which it begins.

    With `outside` false nothing outside (a thread, a socket) is ever looked at, which is faster.
    """

    def __init__(self, epoch: int = EPOCH, *, outside: bool = True) -> None:
        self.epoch, self.outside = epoch, outside
        jump = _Jump()
        super().__init__(jump)
        jump.loop = self
        self.moved = 0.0

    def time(self) -> float:
        return getattr(self, "moved", 0.0)


class VirtualClock:
    """A `Clock` that reads the virtual loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> int:
        return self._loop.epoch + int(self._loop.moved)

    def millis(self) -> int:
        return self._loop.epoch * 1000 + int(self._loop.moved * 1000)

    def monotonic(self) -> float:
        return self._loop.moved

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


def run(make: "Coroutine[Any, Any, T]", loop: VirtualLoop) -> T:
    """Run to the end on a virtual loop, and leave no task behind."""
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(make)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        asyncio.set_event_loop(None)
        loop.close()
