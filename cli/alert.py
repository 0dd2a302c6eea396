"""Ctrl-C ends a command that waits, whenever it comes.

A signal that comes just before a system call that waits is not dealt with until that call returns: Python looks for
signals before it and after it. An alarm each second makes it return.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_EVERY_S = 1.0


@contextmanager
def alert() -> Iterator[None]:
    """Within this block a signal waits for a second at most. Does nothing beside other users of alarms or threads."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL
        or signal.getitimer(signal.ITIMER_REAL) != (0.0, 0.0)
    ):
        yield
        return
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
