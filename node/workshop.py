"""Where heavy work runs: a few processes beside the event loop, started when first needed.

They are spawned, not forked: a fork would copy the loop, its sockets and the database's locks. A worker ends when its
node is gone, however that went: the pool alone would leave it waiting for ever after a SIGKILL.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
_LOOK_S = 1.0


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


class Workshop(Executor):
    """Worker processes that are replaced when one of them was killed. Used from one thread alone."""

    def __init__(self, make: Callable[[], ProcessPoolExecutor]) -> None:
        self._make = make
        self._pool = make()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """As `Executor.submit`. A pool that lost a worker takes no work any more: a new one does."""
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            log.warning("a worker was killed: all are replaced", extra={"action": "workshop_broken"})
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = self._make()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`."""
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def workshop(workers: int | None = None) -> Workshop:
    """An executor for pure functions on plain values. The caller shuts it down."""
    count = workers or max(1, min(4, os.cpu_count() or 1))

    def make() -> ProcessPoolExecutor:
        context = get_context("spawn")
        return ProcessPoolExecutor(count, mp_context=context, initializer=_end_with, initargs=(os.getpid(),))

    return Workshop(make)
