"""Tells watchers that a log has grown, so that nobody polls: the log itself stays where it is stored."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class Feed:
    """Topics with a count that only rises; whoever waits on one wakes when it has risen."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._shared: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def shared(self, name: str, make: Callable[[], T]) -> T:
        """What all who watch one thing have together, e.g. its `fs.tail.Tail`; gone when nobody holds it any more."""
        found: T | None = self._shared.get(name)
        if found is None:
            found = self._shared[name] = make()
        return found

    def count(self, topic: str) -> int:
        """How often a topic has grown. Take it before reading the log, then wait on it."""
        return self._counts.get(topic, 0)

    def grew(self, topic: str) -> None:
        """Wake those who wait on a topic."""
        self._counts[topic] = self._counts.get(topic, 0) + 1
        for waiter in self._waiting.pop(topic, ()):
            if not waiter.done():
                waiter.set_result(None)

    def pulse(self) -> None:
        """Wake everybody: another process may have added to any of the logs."""
        for topic in list(self._waiting):
            self.grew(topic)

    async def wait(self, topic: str, count: int, timeout: float) -> bool:
        """Wait until a topic has grown past a count, at most `timeout` seconds. Whether it has."""
        if self.count(topic) != count:
            return True
        waiter = asyncio.get_running_loop().create_future()
        waiters = self._waiting.setdefault(topic, set())
        waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, timeout)
        except TimeoutError:
            return False
        finally:
            waiters.discard(waiter)
            if not waiters and self._waiting.get(topic) is waiters:
                del self._waiting[topic]
        return True
