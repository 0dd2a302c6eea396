"""How full the disk is. When it is nearly full nothing new is begun, so that what is open can still be written down.

Looked at every few seconds, and at once when the database was refused a write. What is begun is finished: payments are
followed, refunds come, ticks end. New effects, jobs, uploads and messages from outside are refused (`node.disk_low`)
until there is a quarter more room than the limit, so that a node at the limit does not flicker.
"""

import asyncio
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.clock import Clock
from node.error import DiskLow

log = logging.getLogger(__name__)

LOOK_S = 5.0
REFUSED_S = 30.0  # after the database was refused a write although there seems to be room: a quota, or another machine
_MEGABYTE = 1 << 20

Look = Callable[[Path], int]


def free_bytes(place: Path) -> int:
    """What this user may still write there.

    Raises:
        OSError: nobody can tell.
    """
    return shutil.disk_usage(place).free


class Disk:
    """Watches the file systems that a node writes to. A service.

    Args:
        places: folders or files on them; those that cannot be asked are passed over.
        clock: time.
        min_free: bytes; 0: only a refused write counts.
        look: asks one place.

    Attributes:
        refused: how often the database was refused a write since the start.
    """

    def __init__(self, places: Sequence[Path], clock: Clock, min_free: int, look: Look = free_bytes) -> None:
        self._places, self._clock, self._min, self._look = tuple(dict.fromkeys(places)), clock, min_free, look
        self._enough = min_free + min_free // 4
        self._free: dict[Path, int] = {}
        self._held_until = 0.0
        self._wake = asyncio.Event()
        self._watchers: list[Callable[[], None]] = []
        self.low = False
        self.refused = 0

    def on_low(self, watcher: Callable[[], None]) -> None:
        """Have it called whenever there has come to be too little room."""
        self._watchers.append(watcher)

    # ---- for those who ask

    def check(self) -> None:
        """Whether something new may be begun.

        Raises:
            DiskLow: it may not.
        """
        if self.low:
            raise DiskLow(self._reason())

    async def ready(self) -> str | None:
        """As `/readyz` asks."""
        return self._reason() if self.low else None

    def facts(self) -> Mapping[str, Any]:
        """For `/status`: bytes free per place, the limit, and whether new work is refused."""
        return {
            "low": self.low,
            "min_free_bytes": self._min,
            "free_bytes": {str(place): free for place, free in self._free.items()},
            "refused_writes": self.refused,
        }

    def _reason(self) -> str:
        least = min(self._free.items(), key=lambda one: one[1], default=None)
        if least is None or least[1] >= self._enough:
            return "The database's disk is full."
        return f"The disk is nearly full: {least[1] // _MEGABYTE} MiB are free at {least[0]}."

    # ---- watching

    def full(self) -> None:
        """A write was refused for want of room: at once, without waiting for the next look."""
        self.refused += 1
        self._held_until = self._clock.monotonic() + REFUSED_S
        self._turn(low=True)
        self._wake.set()

    async def look(self) -> None:
        """Ask every place now."""
        found = await asyncio.to_thread(self._ask)
        self._free = found
        held = self._clock.monotonic() < self._held_until
        wanted = self._enough if self.low else self._min
        self._turn(low=held or any(free < wanted for free in found.values()))

    def _ask(self) -> dict[Path, int]:
        found = {}
        for place in self._places:
            try:
                found[place] = self._look(place)
            except OSError as error:
                log.debug("a place cannot be asked: %s", error, extra={"action": "disk_unasked"})
        return found

    def _turn(self, *, low: bool) -> None:
        if low is self.low:
            return
        self.low = low
        if low:
            log.error("the disk is low", extra={"action": "disk_low", "reason": self._reason()})
            for watcher in self._watchers:
                watcher()
        else:
            log.warning("there is room on the disk again", extra={"action": "disk_enough"})

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Look every few seconds until `stop`."""
        await self.look()
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await self._rest(stopping)
                await self.look()
        finally:
            stopping.cancel()

    async def _rest(self, stopping: asyncio.Task[bool]) -> None:
        self._wake.clear()
        waits: set[asyncio.Task[Any]] = {
            asyncio.create_task(self._clock.sleep(LOOK_S)),
            asyncio.create_task(self._wake.wait()),
        }
        try:
            await asyncio.wait({*waits, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()


def writers_of(home: Path | None, database: str | Path) -> list[Path]:
    """The places on whose file systems a node writes, as far as they are on this machine."""
    places = [] if home is None else [home.absolute()]
    if isinstance(database, Path):
        places.append(database.absolute().parent)
    return places
