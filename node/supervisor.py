"""Telling whoever supervises this process how it is: ready, alive, stopping (sd_notify(3)).

One datagram per word, to the socket that `NOTIFY_SOCKET` names; without it nothing is said. What is said of life comes
from the event loop, so that a loop that stands still is noticed, while its process is there and looks well. The
variables are taken out of the environment: no agent's command can speak in the node's name.
"""

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path

from core.clock import Clock

log = logging.getLogger(__name__)

SOCKET, INTERVAL, WATCHED = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
_PATIENCE_S = 0.5  # the supervisor's queue is full, or it stands still itself
_STATUS_CHARS = 200
_SHORTEST_S = 0.05


class Supervisor:
    """Who supervises this process, if anybody does.

    Args:
        address: of a datagram socket: a path from the root, or `@name` (abstract, Linux). Anything else is nobody.
        interval_s: within which a sign of life is expected; 0: none is. It is given twice as often.
        clock: time.
    """

    def __init__(self, address: str, interval_s: float, clock: Clock) -> None:
        self._address = _socket_name(address)
        self._interval_s, self._clock = interval_s if self._address else 0.0, clock
        self._is_stopping = False

    @classmethod
    def adopt(cls, environ: MutableMapping[str, str], clock: Clock) -> "Supervisor":
        """The one that the environment names; afterwards it names nobody.

        `WATCHDOG_USEC` counts only where `WATCHDOG_PID` is this process or not there (sd_watchdog_enabled(3)).
        """
        address, interval = environ.pop(SOCKET, ""), environ.pop(INTERVAL, "")
        watched = environ.pop(WATCHED, "")
        ours = not watched or watched == str(os.getpid())
        return cls(address, _seconds(interval) if ours else 0.0, clock)

    def ready(self, status: str) -> None:
        """All services are ready. `status` is one line for people; nothing secret may be in it."""
        self._say("READY=1", f"STATUS={' '.join(status.split())[:_STATUS_CHARS]}")

    def stopping(self) -> None:
        """The end has begun. Said once."""
        if not self._is_stopping:
            self._is_stopping = True
            self._say("STOPPING=1", "STATUS=finishing what is open")

    @asynccontextmanager
    async def attending(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Give signs of life while the block runs, and say so when `stop` is set, or at the end of the block."""
        tasks = [asyncio.create_task(self._live()), asyncio.create_task(self._await_end(stop))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self.stopping()

    async def _live(self) -> None:
        while self._interval_s:
            self._say("WATCHDOG=1")
            await self._clock.sleep(max(_SHORTEST_S, self._interval_s / 2))

    async def _await_end(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self.stopping()

    def _say(self, *words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mouth:
                mouth.settimeout(_PATIENCE_S)
                mouth.connect(self._address)
                mouth.send("\n".join(words).encode())
        except OSError as error:  # who does not hear it acts on that: systemd ends a service that never became ready
            log.warning("the supervisor does not hear: %s", error, extra={"action": "supervisor_deaf"})


def _seconds(micros: str) -> float:
    """What the variable says; 0 if it says nothing, or never."""
    return int(micros) / 1e6 if micros.isascii() and micros.isdecimal() and len(micros) < 18 else 0.0


def _socket_name(address: str) -> str:
    if address.startswith("@"):
        return "\0" + address[1:]
    return address if address and Path(address).is_absolute() else ""
