"""A process among others that share its database: keeps its lease, knows who else is in, and says when it is put out.

`tenure.py` decides; here are the database and the clock. The loop that renews is the node's own: a process whose
loop stands still for longer than its lease is of no use to anybody, and is put out like one that died.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import orjson

from core.clock import Clock
from core.error import VendoError
from node.error import LeaseUnsure
from node.share.tenure import Effect, Event, Granted, Left, Looked, PutOut, State, Tenure, step
from node.storage.error import Fenced
from node.storage.fence import Fence
from node.storage.seat import ANSWER_S, Place, Roll

log = logging.getLogger(__name__)

_SOONEST_S = 0.2
_AFTER_END_S = 0.05


class Registry(Protocol):
    """Where leases are kept: `node.storage.lease.Leases`."""

    async def join(self, lock: str, about: str) -> Place:
        """Take a slot."""

    async def renew(self, place: Place, about: str, *, judge: bool = True) -> Roll:
        """Renew, put out who is late if we may judge, take a stewardship that is free.

        Raises:
            Fenced: this member was put out.
        """

    async def leave(self, place: Place) -> None:
        """Give everything back."""


class Membership:
    """One process's place. A service: `run` renews until `stop`, and then gives the place back.

    Args:
        registry: the leases.
        clock: time, of which only the monotonic one counts.
        lock: names the lock of this process's home.
        lease_s: how long a lease runs, in seconds.
        renew_s: how often it is renewed.
        about: what the others are told of this process.
        end: is called once when it was put out, with the reason; it ends the process.
    """

    def __init__(
        self,
        registry: Registry,
        clock: Clock,
        *,
        lock: str,
        lease_s: float,
        renew_s: float,
        about: Callable[[], Mapping[str, Any]],
        end: Callable[[Fenced], None],
    ) -> None:
        self._registry, self._clock, self._lock, self._about, self._end = registry, clock, lock, about, end
        self._renew_s = renew_s
        self._tenure = Tenure(lease_s)
        self._judges_at = 0.0
        self._place: Place | None = None
        self._fence: Fence | None = None
        self._leading = asyncio.Event()
        self._hurry = asyncio.Event()
        self._on_roll: list[Callable[[Roll], None]] = []
        self.roll = Roll((), "", 0)

    # ---- what others ask

    @property
    def place(self) -> Place:
        """The place; `join` first."""
        assert self._place is not None
        return self._place

    @property
    def fence(self) -> Fence:
        """What every transaction shows; `join` first."""
        assert self._fence is not None
        return self._fence

    @property
    def may_act(self) -> bool:
        """Whether the lease is certain at this moment."""
        self._apply(Looked(self._clock.monotonic()))
        return self._tenure.may_act

    @property
    def leads(self) -> bool:
        """Whether this member is the steward."""
        return self._tenure.leads

    @property
    def leading(self) -> asyncio.Event:
        """Set once this member is the steward; it stays that as long as it lives."""
        return self._leading

    def check(self) -> None:
        """Called before anything is done outside of the database.

        Raises:
            LeaseUnsure: the lease may be over.
        """
        if not self.may_act:
            raise LeaseUnsure

    def others(self) -> list[str]:
        """The ids of the other members."""
        return [seat.place.id for seat in self.roll.members if seat.place != self._place]

    def about(self, member: str) -> Mapping[str, Any]:
        """What a member says of itself; nothing if it is not in."""
        for seat in self.roll.members:
            if seat.place.id == member:
                told: Any = orjson.loads(seat.about)
                return told if isinstance(told, dict) else {}
        return {}

    def on_roll(self, watcher: Callable[[Roll], None]) -> None:
        """Have every look at who is in told."""
        self._on_roll.append(watcher)

    def hurry(self) -> None:
        """Renew now: there is something new to tell of this process."""
        self._hurry.set()

    def facts(self) -> dict[str, Any]:
        """Who is in and who leads, as the operator sees it."""
        members = [
            {"id": seat.place.id, "lease_ms": max(0, seat.left_ms), "steward": seat.place.id == self.roll.steward}
            | dict(self.about(seat.place.id))
            for seat in self.roll.members
        ]
        return {"me": self.place.id, "steward": self.roll.steward, "term": self.roll.term, "members": members}

    # ---- life

    async def join(self) -> None:
        """Take a place, and the stewardship if nobody has it.

        Raises:
            StoreFailed: the database does not answer.
        """
        self._place = await self._registry.join(self._lock, self._words())
        self._fence = self._place.fence()
        self._fence.on_broken(lambda: self._apply(PutOut()))
        await self._renew()
        told = {"action": "joined", "member": self.place.id, "steward": self.roll.steward}
        log.info("this process is member %s", self.place.id, extra=told)

    def _words(self) -> str:
        return orjson.dumps(dict(self._about())).decode()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Renew until `stop`; then leave, so that the others need not wait."""
        ready.set()
        failing = False
        watching = asyncio.create_task(self._watch(), name="lease watch")
        try:
            while not stop.is_set():
                await self._rest(stop)
                try:
                    await self._renew()
                    failing = False
                except VendoError as error:
                    if not failing:  # once, and not at each try
                        log.warning("the lease was not renewed", extra={"action": "lease_waits", "code": error.code})
                    failing = True
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        await self.leave()

    async def _renew(self) -> None:
        asked_at = self._clock.monotonic()
        if self._tenure.until and not self.may_act:
            # The database was away, and for the others too: whoever is alive renews before anybody is put out
            self._judges_at = asked_at + 2 * self._renew_s + ANSWER_S  # its last try may still wait for an answer
        try:
            self.roll = await self._registry.renew(self.place, self._words(), judge=asked_at >= self._judges_at)
        except Fenced:
            self._apply(PutOut())
            return
        self._apply(Granted(asked_at, self.roll.steward == self.place.id))
        for one in self.roll.put_out:
            log.warning("member %s was put out: its lease was over", one, extra={"action": "put_out", "member": one})
        for watcher in self._on_roll:
            watcher(self.roll)

    async def _rest(self, stop: asyncio.Event) -> None:
        """Until it is time to renew, or until another's lease ends: its work waits for nobody else."""
        ends = [seat.left_ms / 1000 + _AFTER_END_S for seat in self.roll.members if seat.place != self._place]
        wait = max(_SOONEST_S, min([self._renew_s, *ends]))
        waiting = [asyncio.create_task(one) for one in (self._clock.sleep(wait), stop.wait(), self._hurry.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
        self._hurry.clear()

    async def _watch(self) -> None:
        """Notice in time that the lease is over, also while the database does not answer."""
        while True:
            await self._clock.sleep(max(_SOONEST_S, self._tenure.until - self._clock.monotonic()))
            self._apply(Looked(self._clock.monotonic()))

    async def leave(self) -> None:
        """Give the place back, so that the others need not wait; nothing if it was given back, or taken, before."""
        if self._tenure.state in (State.OUT, State.ENDED):
            return
        try:
            await self._registry.leave(self.place)
        except VendoError as error:
            log.warning("the lease was not given back", extra={"action": "lease_kept", "code": error.code})
        self._apply(Left())

    # ---- what follows

    def _apply(self, event: Event) -> None:
        self._tenure, effects = step(self._tenure, event)
        for effect in effects:
            told = {"action": f"lease_{effect.value}", "member": self.place.id}
            if effect is Effect.ACT and isinstance(event, Granted):
                log.info("the lease holds", extra=told)
            elif effect is Effect.LEAD:
                log.info("this process is the steward now", extra=told)
                self._leading.set()
            elif effect is Effect.HOLD and not isinstance(event, Left):
                log.warning("the lease could not be renewed in time: nothing more is begun", extra=told)
            elif effect is Effect.END:
                error = Fenced()
                log.error("%s [%s]", error, error.code, extra={**told, "code": error.code})
                self._end(error)
