"""Where heavy work runs: a few processes beside the event loop, started when first needed.

They are spawned, not forked: a fork would copy the loop, its sockets and the database's locks. A worker ends when its
node is gone, however that went: the pool alone would leave it waiting for ever after a SIGKILL.
"""

import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

_LOOK_S = 1.0


def _end_with(parent: int) -> None:
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def workshop(workers: int | None = None) -> ProcessPoolExecutor:
    """An executor for pure functions on plain values. The caller shuts it down."""
    count = workers or max(1, min(4, os.cpu_count() or 1))
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),))
