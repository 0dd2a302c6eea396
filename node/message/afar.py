"""Wraps for agents whose key is far away (NIP-46): kept as rows until their signer answers, and opened beside the rest.

Opening one may take seconds, and must hold up nobody else's messages; a signer may be away for days, and nothing may
be lost meanwhile. So a wrap is a row before the relay pool counts it as handled; it goes once it was opened. What no
signer can be asked for goes at once, and one about which a signer that answers otherwise is silent goes after a few
tries: a stranger's junk must not make an agent deaf.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from core.clock import Clock
from core.error import InvalidInput, VendoError
from core.unit import Delete, UnitOfWork
from node.message.admission import work_of
from node.message.ear import Listener
from node.message.record import TABLE, WRAPPED, Protocol, Stamp, State, message_row
from relays.error import MalformedEvent
from relays.event import Event, parse_json

log = logging.getLogger(__name__)

MAX_HELD = 500  # of one agent
MAX_STRIKES = 5
_HELD = "held:"  # before the id of a row: an old DM's own row has the event's id
_BACK_OFF_S = (1.0, 5.0, 30.0, 120.0)

Open = Callable[[Listener, Event, int], Awaitable[None]]
Whose = Callable[[Event], list[Listener]]


@dataclass(slots=True)
class _Waiting:
    """A wrap in line. `opened`: how many others had been when it failed last; `strikes`: how often there were more."""

    listener: Listener
    event: Event
    bits: int
    opened: int = -1
    strikes: int = 0


class Afar:
    """One line of wraps for each such agent, and a task only while something waits in it.

    Args:
        unit: the database.
        clock: time.
        stamp: for the rows.
        handle: opens a wrap and takes what is in it.
        whose: the agents that an event names.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, stamp: Stamp, handle: Open, whose: Whose) -> None:
        self._unit, self._clock, self._stamp, self._handle, self._whose = unit, clock, stamp, handle, whose
        self._lines: dict[str, deque[_Waiting]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.counts: Counter[str] = Counter()

    async def resume(self) -> None:
        """What was held when the node stopped."""
        for row in await self._unit.select(TABLE, {"state": State.HELD.value, "kind": WRAPPED}):
            try:
                event = parse_json(row["text"])
            except MalformedEvent:
                continue
            for listener in self._whose(event):
                if listener.agent == row["agent"]:
                    self._queue(listener, event, work_of(event))

    async def offer(self, listener: Listener, event: Event, bits: int) -> None:
        """Keep a wrap and have it opened. One that comes again, or finds the line full, changes nothing.

        Raises:
            VendoError: the database did not take it.
        """
        agent, line = listener.agent, self._lines.get(listener.agent, ())
        if len(line) >= MAX_HELD:
            self.counts["shed"] += 1
            return
        if any(event.id == waiting.event.id for waiting in line):
            return
        row = message_row(
            self._stamp, agent, _HELD + event.id, "", incoming=True, protocol=Protocol.NIP17, kind=WRAPPED,
            text=event.to_json(), state=State.HELD, created_at=event.created_at,
        )  # fmt: skip
        await self._unit.commit([row])
        self._queue(listener, event, bits)

    def _queue(self, listener: Listener, event: Event, bits: int) -> None:
        agent = listener.agent
        self._lines.setdefault(agent, deque()).append(_Waiting(listener, event, bits))
        if agent not in self._tasks:
            self._tasks[agent] = asyncio.create_task(self._work(agent), name=f"wraps of {agent}")

    async def _work(self, agent: str) -> None:
        tries = opened = 0
        line = self._lines[agent]
        try:
            while line:
                first = line[0]
                try:
                    await self._open(first)
                    opened += 1
                except VendoError as error:
                    log.info("a message waits", extra={"action": "dm_waits", "agent": agent, "code": error.code})
                    first.strikes += -1 < first.opened < opened
                    first.opened = opened
                    line.rotate(-1)
                    await self._clock.sleep(_BACK_OFF_S[min(tries, len(_BACK_OFF_S) - 1)])
                    tries += 1
                    continue
                line.popleft()
                tries = 0
        finally:
            del self._tasks[agent], self._lines[agent]

    async def _open(self, waiting: _Waiting) -> None:
        """Open one, and forget its row.

        Raises:
            VendoError: not now.
        """
        if waiting.strikes >= MAX_STRIKES:
            self.counts["given_up"] += 1
        else:
            try:
                await self._handle(waiting.listener, waiting.event, waiting.bits)
            except InvalidInput as error:  # nobody can be asked for it, now or later
                self.counts["unfit"] += 1
                log.info("a message cannot be opened", extra={"action": "dm_unfit", "code": error.code})
        where = {"agent": waiting.listener.agent, "id": _HELD + waiting.event.id}
        await self._unit.commit([Delete(TABLE, where)])

    async def aclose(self) -> None:
        """Stop; what waits is opened after the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
