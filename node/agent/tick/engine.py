"""The tick engine: wakes agents for whom something waits, one tick at a time each, many agents at once.

An idle agent has no task: it costs its row and nothing else. What wakes one is `notify` after a commit that queued
something, or the time at which a failed trigger is tried again, or a limit renews. Agents take turns: who has had
some ticks in a row goes behind all others that wait. A tick that waits for something outside gives its place to
another one, so that slow agents hold up nobody.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from core.clock import Clock
from core.error import VendoError
from core.identifier import PubKey
from core.unit import Row, UnitOfWork, Write
from fs.feed import Feed
from node.agent.error import AgentBusy
from node.agent.inbox.row import PAGE, Waiting
from node.agent.lifecycle import Lifecycle
from node.agent.program import AnyProgram, Namespaces, Programs
from node.agent.replay.redactor import Redactor
from node.agent.tick.guard import Guard
from node.agent.tick.lap import ACTIVE, DORMANT, Lap
from node.agent.tick.limit import Own, TickLimits
from node.agent.tick.means import Bury, Means, Outcome, room_enough
from node.agent.tick.order import PATIENT_S, Order, Work
from node.agent.tick.runner import TickRunner
from node.error import AgentTaken

log = logging.getLogger(__name__)

_STORE_BACK_OFF_MS = 5_000
_TAKEN_BACK_OFF_MS = 1_000
_LOOK_AGAIN_MS = (0, 25, 250, 2_500, 10_000)
_MOST_CLAIMED = 64
_BEGIN = 8


class Claims(Protocol):
    """Which agents this process may tick, where several share a database: `node.share.claim.SharedClaims`."""

    async def claim(self, agents: Collection[str]) -> Collection[str]:
        """Take what nobody else has; those of these that are ours now.

        Raises:
            VendoError: the database failed.
        """

    async def take(self, agent: str) -> bool:
        """As `claim`, for somebody who waits: whoever has the agent is asked to give it back.

        Raises:
            VendoError: the database failed.
        """

    async def release(self, agents: Collection[str]) -> None:
        """Nothing is to be done for these at the moment."""

    def lost(self, agent: str) -> None:
        """A commit found that somebody else has it."""


class Household(Protocol):
    """What is held ready for agents that do not hibernate, keys and ears: `node.agent.roster.Roster`."""

    async def rouse(self, name: str, row: Row | None = None) -> bool:
        """Bring all of it back; whether there is such an agent. `row`: its row, if that was read just now.

        Raises:
            VendoError: it cannot be done now.
        """

    def rest(self, name: str) -> None:
        """Keep nothing of it: it hibernates."""


class Engine:
    """Runs the ticks of all agents of one process. A service: `run` owns every task.

    `crowded` and `roused` are for `node.agent.tick.repose.Repose`, which makes room where too many are awake.

    Args:
        unit: the database.
        clock: time.
        programs: what there is to run, by name.
        namespaces: an agent's files.
        feed: is told that traces have grown.
        limits: bounds of ticks and agents.
        redactor: knows the node's own secrets.
        touch: is called when alarms have changed.
        bury: writes that make room in an agent's dead letter.
        claims: where several processes share the database.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        programs: Programs,
        namespaces: Namespaces,
        feed: Feed,
        limits: TickLimits | None = None,
        *,
        redactor: Redactor | None = None,
        touch: Callable[[], None] = lambda: None,
        bury: Bury = room_enough,
        claims: Claims | None = None,
    ) -> None:
        self._limits = limits or TickLimits()
        guard = Guard(self._limits.grace_s, self._limits.blocked_ms, self._is_ending)
        self._means = Means(
            unit, clock, programs, namespaces, feed, self._limits, guard, redactor or Redactor(), touch, bury
        )
        self._clock, self._claims = clock, claims
        self._runner, self._waiting = TickRunner(self._means), Waiting(unit)
        self._lives = Lifecycle(self._means, self.notify, self._rest_one)
        self._household: Household | None = None
        self.crowded = asyncio.Event()
        self.roused: dict[str, int] = {}
        self._order = Order(self._limits.parallel, self._limits.open)
        self._wake = asyncio.Event()
        self._patience: asyncio.TimerHandle | None = None
        self._owner: asyncio.Task[Any] | None = None
        self._stopping = False

    def attend(self, household: Household) -> None:
        """Have somebody told of agents that hibernate, and of those that are woken."""
        self._household = household

    # ---- agents

    def check(self, program: str, config: Mapping[str, Any] | None = None, own: Own | None = None) -> None:
        """As `Lifecycle.check`."""
        self._lives.check(program, config, own)

    async def create(
        self,
        name: str,
        program: str,
        pubkey: PubKey,
        config: Mapping[str, Any] | None = None,
        own: Own | None = None,
        row: Row | None = None,
    ) -> None:
        """As `Lifecycle.create`."""
        await self._lives.create(name, program, pubkey, config, own, row)

    async def set_aside(self, name: str, error: VendoError) -> None:
        """As `Lifecycle.set_aside`."""
        await self._lives.set_aside(name, error)

    async def leave_behind(self, name: str, writes: Sequence[Write]) -> None:
        """As `Lifecycle.leave_behind`."""
        await self._lives.leave_behind(name, writes)

    async def reclaim(self, name: str, writes: Sequence[Write]) -> None:
        """As `Lifecycle.reclaim`."""
        await self._lives.reclaim(name, writes)

    async def heal(self) -> None:
        """As `Lifecycle.heal`."""
        await self._lives.heal()

    async def hibernate(self, name: str) -> str:
        """As `Lifecycle.hibernate`, when its tick has ended.

        Raises:
            AgentBusy: another process has it.
        """
        async with self.hold(name):
            return await self._lives.hibernate(name)

    async def wake(self, name: str) -> str:
        """As `Lifecycle.wake`."""
        status = await self._lives.wake(name)
        await self._rouse(name)
        self.roused[name] = self._clock.now()
        return status

    async def stop(self, name: str) -> str:
        """As `Lifecycle.stop`. A tick that is under way is not committed."""
        return await self._lives.stop(name)

    async def start(self, name: str) -> str:
        """As `Lifecycle.start`."""
        return await self._lives.start(name)

    async def release(self, name: str) -> str:
        """As `Lifecycle.release`."""
        return await self._lives.release(name)

    def fits(self, code: AnyProgram, config: str, version: int, state: str) -> None:
        """As `Lifecycle.fits`."""
        self._lives.fits(code, config, version, state)

    async def freeze(self, name: str) -> str:
        """As `Lifecycle.freeze`, of an agent that is held."""
        return await self._lives.freeze(name)

    async def thaw(self, name: str, to: str = ACTIVE) -> str:
        """As `Lifecycle.thaw`."""
        status = await self._lives.thaw(name, to)
        if to != DORMANT:
            await self._rouse(name)
        self.notify(name)
        return status

    async def delete(self, name: str) -> None:
        """As `Lifecycle.delete`, when its tick has ended.

        Raises:
            AgentBusy: another process has it.
        """
        async with self.hold(name):
            await self._lives.delete(name)
        self.roused.pop(name, None)

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """No tick of this agent runs within: the one that runs is waited for, and others wait.

        Raises:
            AgentBusy: another process has it.
        """
        hold = self._order.hold(name)
        try:
            async with hold.lock:
                while (work := self._order.busy.get(name)) is not None:
                    await work.end()
                if self._claims is not None and not await self._claims.take(name):
                    raise AgentBusy
                try:
                    yield
                finally:
                    if self._claims is not None:
                        await self._claims.release([name])
        finally:
            if self._order.free(name):
                self.notify(name)

    # ---- what is to be done

    def notify(self, agent: str) -> None:
        """Something was committed to an agent's inbox."""
        if self._order.put(agent):
            self._fill()

    def notify_at(self, agent: str, at_ms: int) -> None:
        """Somebody else will commit something to an agent's inbox about then (Unix ms).

        A commit may take longer than was thought, so the engine looks a few times more; a look that finds nothing
        costs one question to the database, and a restart finds the envelope in any case.
        """
        for wait in _LOOK_AGAIN_MS:
            self._sooner(self._order.look_once_more(agent, at_ms + wait))

    def _look_at(self, agent: str, at_ms: int) -> None:
        self._sooner(self._order.look_at(agent, at_ms))

    def _sooner(self, sooner: bool) -> None:
        if sooner:
            self._wake.set()

    @property
    def busy(self) -> int:
        """How many agents tick now."""
        return len(self._order.busy)

    # ---- the service

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Start with what waited over a restart, then run until `stop`; ticks that began are finished."""
        self._stopping, self._owner = False, asyncio.current_task()
        await self._lives.heal()
        for agent in await self._waiting.agents():
            self.notify(agent)
        stopping = asyncio.create_task(stop.wait())
        ready.set()
        try:
            while not stop.is_set():
                self._wake.clear()
                self._order.promote(self._clock.millis())
                self._fill()
                if self._claims is not None:
                    await self._claim(self._claims)
                await self._rest(stopping)
        finally:
            self._stopping = True
            stopping.cancel()
            try:
                await self._finish()
            finally:
                self._owner = None

    def _is_ending(self) -> bool:
        """Whether a cancellation is meant for the engine, and not for an agent's code."""
        return self._owner is None or self._owner.done() or self._owner.cancelling() > 0

    async def _rest(self, stopping: asyncio.Task[bool]) -> None:
        """Until something is due, or the end."""
        woken = asyncio.create_task(self._wake.wait())
        waiting: set[asyncio.Task[bool] | asyncio.Task[None]] = {woken, stopping}
        alarm: asyncio.Task[None] | None = None
        if (next_ms := self._order.next_ms) is not None:
            seconds = max(0, next_ms - self._clock.millis()) / 1000
            alarm = asyncio.create_task(self._clock.sleep(seconds))
            waiting.add(alarm)
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
            if alarm is not None:
                alarm.cancel()

    async def _finish(self) -> None:
        tasks = [work.task for work in self._order.busy.values() if work.task is not None]
        try:
            if tasks and not self._is_ending():
                await asyncio.wait(tasks)
        finally:
            self._means.guard.hurry()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # ---- whose turn it is

    def _fill(self) -> None:
        """Begin what there is room for."""
        if self._owner is None or self._stopping:
            return
        if self._claims is not None:
            self._wake.set()
            return
        for _ in range(_BEGIN):
            if (work := self._order.take()) is None:
                break
            self._begin(work)
        else:  # others have their turn before more begin: what an agent needs is read at its beginning
            asyncio.get_running_loop().call_soon(self._fill)
        self._watch_for_room()

    def _watch_for_room(self) -> None:
        if self._order.waiting and self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(PATIENT_S, self._look_for_room)

    def _look_for_room(self) -> None:
        self._patience = None
        self._fill()

    async def _claim(self, claims: Claims) -> None:
        """The same where others may have an agent: all that are due are claimed in one question."""
        wanted: dict[str, Work] = {}
        while len(wanted) < _MOST_CLAIMED and (taken := self._order.take()) is not None:
            wanted[taken.lap.agent] = taken
        ours: Collection[str] = ()
        try:
            ours = await claims.claim(list(wanted)) if wanted else ()
        except VendoError as error:
            log.warning("no agents were claimed", extra={"action": "claim_failed", "code": error.code})
        finally:
            for agent, work in wanted.items():
                if agent in ours and not self._stopping:
                    self._begin(work)
                else:
                    self._order.drop(work)
                    self._look_at(agent, self._clock.millis() + _TAKEN_BACK_OFF_MS)
        self._watch_for_room()

    def _begin(self, work: Work) -> None:
        work.task = asyncio.create_task(self._turn(work.lap), name=f"agent {work.lap.agent}")
        work.task.add_done_callback(lambda task: self._ended(work, task))

    def _ended(self, work: Work, task: "asyncio.Task[None]") -> None:
        agent, error = work.lap.agent, None if task.cancelled() else task.exception()
        if error is None and work.lap.again and not task.cancelled():
            self._order.put_back(work)
        else:
            self._order.drop(work)
        if error is not None:
            log.error("an agent's task failed", exc_info=error, extra={"action": "agent_task_failed", "agent": agent})
        if error is not None or (task.cancelled() and not self._stopping):
            self._look_at(agent, self._clock.millis() + _STORE_BACK_OFF_MS)
        self._fill()

    # ---- one agent's turn

    async def _turn(self, lap: Lap) -> None:
        """Ticks of one agent, until nothing is due for it, or others wait and it has had its share."""
        try:
            await self._drain(lap)
            if self._claims is not None and not lap.again:
                await self._claims.release([lap.agent])
        except AgentTaken as error:
            log.warning("an agent waits until others sleep", extra=_about(lap, error))
            lap.again = False
            self._look_at(lap.agent, self._clock.millis() + _TAKEN_BACK_OFF_MS)
        except VendoError as error:
            log.error("an agent waits for the database", extra=_about(lap, error))
            lap.again = False  # whatever came meanwhile is found then
            self._look_at(lap.agent, self._clock.millis() + _STORE_BACK_OFF_MS)
        if lap.row is not None and lap.row["status"] == DORMANT and not lap.again:
            self._rest_one(lap.agent)

    async def _drain(self, lap: Lap) -> None:
        left = self._limits.in_a_row
        while True:
            if await self._means.load(lap) is None:
                return self._gone(lap)
            if not lap.page and not await self._read(lap):
                return None
            outcome = Outcome.DONE
            while lap.page and outcome is Outcome.DONE:
                if self._stopping or lap.leave or (left <= 0 and self._order.waiting):
                    lap.again = True
                    return None
                left = left - 1 if left > 0 else self._limits.in_a_row
                outcome = await self._tick(lap, lap.page.pop())
            if outcome is not Outcome.DONE:
                lap.page.clear()  # the rest of that line must wait
            if outcome is Outcome.LIMITED:
                return self._look_at(lap.agent, lap.until_ms)
            if outcome is Outcome.GONE:
                return self._gone(lap)

    async def _read(self, lap: Lap) -> bool:
        """Read what may be dealt with now; whether there is anything.

        While others wait no more is read than this turn is for: pages of a thousand agents would be kept for theirs.
        """
        most = min(PAGE, self._limits.in_a_row) if self._order.waiting else PAGE
        while True:
            lap.again = False
            rows, look_ms = await self._waiting.due(lap.agent, self._clock.millis(), most)
            if look_ms is not None:
                self._look_at(lap.agent, look_ms)
            if rows or not lap.again:
                lap.page = rows[::-1]
                return bool(rows)

    async def _tick(self, lap: Lap, envelope: Row) -> Outcome:
        if lap.row is not None and lap.row["status"] == DORMANT:
            await self._rouse(lap.agent, lap.row)
        lap.since = asyncio.get_running_loop().time()
        try:
            return await self._runner.run(lap, envelope)
        finally:
            lap.since = 0.0

    def _gone(self, lap: Lap) -> None:
        """It has no more ticks here: by its status, or because another process has it."""
        if lap.lost and self._claims is not None:
            self._claims.lost(lap.agent)
            self._look_at(lap.agent, self._clock.millis() + _TAKEN_BACK_OFF_MS)

    async def _rouse(self, name: str, row: Row | None = None) -> None:
        if self._household is None:
            return
        try:
            await self._household.rouse(name, row)
        except AgentTaken:
            self.crowded.set()
            raise

    def _rest_one(self, name: str) -> None:
        self.roused.pop(name, None)
        if self._household is not None:
            self._household.rest(name)


def _about(lap: Lap, error: VendoError) -> dict[str, str]:
    return {"action": "agent_waits", "agent": lap.agent, "code": error.code}
