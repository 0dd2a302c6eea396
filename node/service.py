"""Services start in order, each ready before the next, and stop in reverse order.

A bare TaskGroup cannot do that: at the first failure it cancels every sibling at once, storage included. Here a
failing service stops the others in order, and its error is raised when all are down.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

log = logging.getLogger(__name__)


class Service(Protocol):
    """A part that runs as long as the node does."""

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Set `ready` when others may rely on it; finish what is open and return when `stop` is set."""


@dataclass(frozen=True, slots=True)
class Part:
    """A service that is one method of something larger."""

    run: Callable[[asyncio.Event, asyncio.Event], Coroutine[Any, Any, None]]


async def serve(
    services: Sequence[tuple[str, Service]],
    stop: asyncio.Event,
    *,
    started: asyncio.Event | None = None,
    grace: float = 10.0,
) -> None:
    """Run all services until `stop` is set or one of them ends.

    Raises:
        ExceptionGroup: one or more services failed.
    """
    running: list[tuple[str, asyncio.Task[None], asyncio.Event]] = []
    stopping = asyncio.create_task(stop.wait())
    try:
        for name, service in services:
            ready, own_stop = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(service.run(ready, own_stop), name=name)
            running.append((name, task, own_stop))
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait([waiting, task, stopping], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if task.done() or stop.is_set():
                break
            log.info("%s is ready", name, extra={"action": "service_ready", "service": name})
        else:
            if started is not None:
                started.set()
            await asyncio.wait([stopping, *(task for _, task, _ in running)], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        failures = await _stop_all(running, grace)
    if failures:
        raise ExceptionGroup("a part of the node failed", failures)


async def _stop_all(running: list[tuple[str, asyncio.Task[None], asyncio.Event]], grace: float) -> list[Exception]:
    failures: list[Exception] = []
    for name, task, own_stop in reversed(running):
        own_stop.set()
        done, _ = await asyncio.wait([task], timeout=grace)
        if not done:
            log.warning("%s did not stop in time", name, extra={"action": "service_cut", "service": name})
            task.cancel()
            await asyncio.wait([task], timeout=grace)
        if task.done() and not task.cancelled():
            error = task.exception()
            if isinstance(error, Exception):
                failures.append(error)
            elif error is not None:
                raise error
    return failures
