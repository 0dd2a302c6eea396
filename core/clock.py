"""Time is passed in. `SystemClock` is the only caller of the system's clocks; tests pass clocks of their own."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What parts may ask of time."""

    def now(self) -> int:
        """Unix time in whole seconds."""

    def millis(self) -> int:
        """Unix time in milliseconds."""

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""

    async def sleep(self, seconds: float) -> None:
        """Wait. A negative time is no wait."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> int:
        """Unix time in whole seconds."""
        return int(time.time())

    def millis(self) -> int:
        """Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(max(0.0, seconds))
