"""Deletes what is old, a few hundred rows at a time: a service, and what `vendo gc` asks for.

`rule.py` says what is old, `step.py` takes a page of it away. Each piece is a small unit of its own with
a pause after it, so that no payment waits for it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from core.clock import Clock
from core.error import VendoError
from core.unit import UnitOfWork
from node.retention.rule import RULES, Family, shown
from node.retention.step import Pieces

log = logging.getLogger(__name__)

PAUSE_S = 0.02
PIECE_S = 2.0  # what one call from outside may take
_RETRY_S = 60.0
_UNPAID = [rule for rule in RULES if isinstance(rule, Family) and not rule.money]


class Retention:
    """A service: `run` looks for what is old every few minutes.

    Args:
        unit: the database.
        clock: time.
        settings: `[retention]`, by name; 0 days is for ever.
        own: how long replaced keys still decrypt, in days.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, settings: Mapping[str, int], own: int = 0) -> None:
        self._clock, self._settings = clock, settings
        self._pieces = Pieces(unit, clock, settings, own)
        self._busy = asyncio.Lock()
        self._hurry = asyncio.Event()

    @property
    def removed(self) -> Counter[str]:
        """Rows that went since the start, per table."""
        return self._pieces.removed

    def rules(self) -> list[dict[str, Any]]:
        """Every table, and what goes of it when."""
        return shown(self._settings)

    def hurry(self) -> None:
        """Look now: the disk is nearly full."""
        self._hurry.set()

    # ---- life

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Delete what is old, until `stop`."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        wait = 60.0 * self._settings["every_minutes"]
        try:
            while not stop.is_set():
                await self._rest(wait or None, stopping)
                if stop.is_set():
                    return
                try:
                    await self.sweep(stop)
                except VendoError as error:
                    log.warning("what is old was not deleted", extra={"action": "gc_failed", "code": error.code})
                    await self._rest(_RETRY_S, stopping)
        finally:
            stopping.cancel()

    async def _rest(self, seconds: float | None, stopping: asyncio.Task[bool]) -> None:
        waits: set[asyncio.Task[Any]] = {asyncio.create_task(self._hurry.wait())}
        if seconds is not None:
            waits.add(asyncio.create_task(self._clock.sleep(seconds)))
        try:
            await asyncio.wait({*waits, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hurry.clear()
            for one in waits:
                one.cancel()

    async def sweep(self, stop: asyncio.Event) -> None:
        """Everything that is old now.

        Raises:
            VendoError: the database failed.
        """
        async with self._busy:
            before = self.removed.total()
            for rule in RULES:
                while not stop.is_set() and await self._pieces.take(rule):
                    await self._clock.sleep(PAUSE_S)
            self._pieces.restart(keep=_UNPAID)  # where money keeps most rows for long
            if count := self.removed.total() - before:
                log.info("deleted what was old", extra={"action": "gc", "rows": count})

    async def run_once(self, *, dry: bool) -> dict[str, Any]:
        """A piece of a few seconds, or with `dry` only a count of what is old now.

        Raises:
            VendoError: the database failed.
        """
        if dry:
            return {"dry_run": True, "old": await self._pieces.count(RULES), "more": False}
        before, more = Counter(self.removed), False
        end = self._clock.monotonic() + PIECE_S
        async with self._busy:
            for rule in RULES:
                while more_of_it := await self._pieces.take(rule):
                    await self._clock.sleep(PAUSE_S)
                    if self._clock.monotonic() > end:
                        break
                more = more or more_of_it
                if more:
                    break
            if not more:
                self._pieces.restart(keep=_UNPAID)  # where money keeps most rows for long
        gone = {table: count for table, count in (self.removed - before).items() if count}
        return {"dry_run": False, "removed": gone, "more": more}
