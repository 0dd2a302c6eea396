"""Self-maintenance with fixed content (announcements, relay lists, heartbeats) runs under one entry a day (DESIGN §1).

The day's effect begins at start or at midnight (UTC) and ends when the next one begins, with how often each purpose
was asked for. Of several processes that share the database each has one, under its slot.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256

from core.clock import Clock
from core.effect import EffectClass, Intent, Outcome, OutcomeState, Permit
from core.error import Conflict, Unpermitted, VendoError
from core.identifier import EffectId, derived_id
from core.money import Msat
from core.unit import Row, UnitOfWork, Write
from node.gate import book
from node.gate.ledger import body
from node.gate.limits import Limits, day_of
from node.gate.state import NodeState

_log = logging.getLogger(__name__)

_DAY_S = 86_400
_DATE = len("2026-01-31")
_RETRY_S = 60
_LOOK_S = 600
_NOTHING = Limits("msat", Msat(0), Msat(0), Msat(0))


class Standing:
    """The effect of the day, and the permits under it."""

    PATH = "/standing"

    def __init__(self, unit: UnitOfWork, clock: Clock, state: NodeState) -> None:
        self._unit, self._clock, self._state = unit, clock, state
        self._day: EffectId | None = None
        self._counts: Counter[str] = Counter()
        self._permits: dict[str, Permit] = {}
        self._given: set[Permit] = set()  # by identity; today's and yesterday's
        self._older: set[Permit] = set()

    async def open(self) -> None:
        """Make sure that today's effect is begun, and that those of earlier days have ended."""
        now, slot = self._clock.now(), f"/{self._state.slot}" if self._state.slot else ""
        day, key = day_of(now), day_of(now) + slot
        effect = EffectId(derived_id("node", self.PATH, key))
        if effect == self._day:
            return
        rows = await self._unit.select("effect", {"path": self.PATH, "state": "begun"})
        earlier = [row for row in rows if row["id"] != effect and row["key"][:_DATE] + slot == row["key"]]
        writes = [write for row in earlier for write in self._end(row, now)]
        if not await self._unit.select("effect", {"id": effect}):
            intent = Intent("node", self.PATH, key, b"", EffectClass.EXTERNAL, day)
            entry = body({"caller": "node", "path": self.PATH, "key": key, "digest": sha256(b"").hexdigest()})
            writes += book.begin(intent, effect, self._state.run, entry, now)
        await self._unit.commit(writes)
        await self._tidy([row for row in rows if row not in earlier and row["key"] < day_of(now - _DAY_S)], now)
        self._day, self._older, self._given = effect, self._given, set()
        self._permits.clear()
        self._counts.clear()

    async def _tidy(self, rows: Sequence[Row], now: int) -> None:
        """End what processes have left behind that came no more."""
        for row in rows:
            with suppress(Conflict):  # another process does the same
                await self._unit.commit(self._end(row, now))

    def _end(self, row: Row, now: int) -> tuple[Write, ...]:
        counted = dict(self._counts) if row["id"] == self._day else {}
        outcome = Outcome(OutcomeState.COMMIT, detail=counted)
        return book.settle(row, (), outcome, self._state.run, now, "", _NOTHING)

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Begin each new day's effect until told to stop."""
        ready.set()
        wait = self._wait()
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                slept = asyncio.create_task(self._clock.sleep(wait))
                await asyncio.wait((slept, stopped), return_when=asyncio.FIRST_COMPLETED)
                slept.cancel()
                await asyncio.gather(slept, return_exceptions=True)
                wait = await self._turn()
        finally:
            stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)

    async def _turn(self) -> int:
        """Try to begin the day; how long to wait for the next time, in seconds."""
        try:
            await self.open()
        except VendoError as error:
            _log.warning("no standing entry", extra={"action": "standing_failed", "code": error.code})
            return _RETRY_S
        return self._wait()

    def _wait(self) -> int:
        """Until midnight, but not long at once: a machine that was suspended or set right may be in another day."""
        return min(_DAY_S - self._clock.now() % _DAY_S, _LOOK_S)

    def permit(self, purpose: str) -> Permit:
        """Leave to act for a purpose.

        Raises:
            Unpermitted: no day was begun.
        """
        if self._day is None:
            raise Unpermitted("The gate has not been loaded.")
        self._counts[purpose] += 1
        permit = self._permits.get(purpose)
        if permit is None:
            permit = self._permits[purpose] = Permit(self._day)
            self._given.add(permit)
        return permit

    def gave(self, permit: Permit) -> bool:
        """Whether it is a standing permit of today or of the day before."""
        return permit in self._given or permit in self._older
