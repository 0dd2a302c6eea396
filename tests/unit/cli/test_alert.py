"""A command that waits ends by Ctrl-C, also where the signal comes just before it waits."""

import signal
import subprocess
import sys
import threading

from cli.alert import alert

WAITS = """
import ctypes, signal, time
from cli.alert import alert
poll = ctypes.CDLL(None).poll  # unlike Python's own, it does not go on waiting after a signal
with alert():
    with alert():
        began = time.monotonic()
        print(poll(None, 0, 20_000), time.monotonic() - began < 5)
    began = time.monotonic()
    print(poll(None, 0, 20_000), time.monotonic() - began < 5)
print(signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM) is signal.SIG_DFL)
"""


def test_within_the_block_no_system_call_waits_for_long_and_after_it_all_is_as_before():
    ran = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.splitlines() == ["-1 True", "-1 True", "(0.0, 0.0) True"]


def test_who_uses_alarms_or_another_thread_is_not_disturbed():
    mine, before = [], signal.getsignal(signal.SIGALRM)
    timer = signal.getitimer(signal.ITIMER_REAL)
    signal.signal(signal.SIGALRM, mine.append)
    try:
        with alert():
            assert signal.getsignal(signal.SIGALRM) == mine.append
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)

    def inside() -> None:
        with alert():
            done.set()

    done = threading.Event()
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join(10)
    assert done.is_set()
