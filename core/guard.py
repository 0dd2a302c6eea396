"""The one guard: where code may fail in ways that nobody has foreseen, and the node goes on.

Everything else catches what it knows. A fault that is caught here is the caller's to tell: it gets the exception.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from logging import DEBUG, Logger
from typing import Any, TypeVar

from core.error import VendoError

T = TypeVar("T")


async def attempted(work: Awaitable[T]) -> tuple[T, None] | tuple[None, Exception]:
    """What `work` gives, or what it raised; never both. Cancellation, and the end of the process, go through."""
    try:
        return await work, None
    except Exception as error:  # noqa: BLE001 - it is told by whoever asked
        return None, error


def caught(code: Callable[[], T]) -> tuple[T, None] | tuple[None, BaseException]:
    """The same for foreign code that cannot wait: whatever it raises is its own failure, also SystemExit."""
    try:
        return code(), None
    except BaseException as error:  # noqa: BLE001 - foreign code: its caller decides what is meant for itself
        return None, error


async def settled(code: Awaitable[T]) -> tuple[T, None] | tuple[None, BaseException]:
    """The same for foreign code that waits, a cancellation that it raises itself included."""
    try:
        return await code, None
    except BaseException as error:  # noqa: BLE001 - as in `caught`
        return None, error


class Crew:
    """Tasks of one driver: each is on its own, and what one of them breaks is told and ends no other.

    Args:
        log: where faults are told.
        action: the log's word for one.
    """

    def __init__(self, log: Logger, action: str) -> None:
        self._log, self._action = log, action
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Begin a task."""
        task = asyncio.get_running_loop().create_task(self._told(work, name), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _told(self, work: Coroutine[Any, Any, None], name: str) -> None:
        _, error = await attempted(work)
        if isinstance(error, VendoError):  # foreseen: its code says enough
            about = {"action": self._action, "code": error.code}
            self._log.warning(
                "%s: %s", name, error, extra=about, exc_info=error if self._log.isEnabledFor(DEBUG) else None
            )
        elif error is not None:
            about = {"action": self._action, "error": type(error).__name__}
            self._log.error("A task failed: %s", name, exc_info=error, extra=about)

    def __len__(self) -> int:
        return len(self._tasks)

    def dismiss(self) -> list[asyncio.Task[None]]:
        """Cancel them all; these are the ones."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    async def end(self) -> None:
        """Cancel them all, and wait until they have ended."""
        await asyncio.gather(*self.dismiss(), return_exceptions=True)
