"""Wraps for agents whose key is far away (NIP-46): kept as rows until their signer answers, and opened beside the rest.

Opening one may take seconds, and must hold up nobody else's messages; a signer may be away for days, and nothing may
be lost meanwhile. So a wrap is a row before the relay pool counts it as handled; it goes once it was opened.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable

from core.clock import Clock
from core.error import VendoError
from core.unit import Delete, UnitOfWork
from node.message.ear import Listener
from node.message.record import TABLE, WRAPPED, Protocol, Stamp, State, message_row
from relays.error import MalformedEvent
from relays.event import Event, parse_json

log = logging.getLogger(__name__)

MAX_HELD = 500  # of one agent
_HELD = "held:"  # before the id of a row: an old DM's own row has the event's id
_BACK_OFF_S = (1.0, 5.0, 30.0, 120.0)

Open = Callable[[Listener, Event, int], Awaitable[None]]
Whose = Callable[[Event], list[Listener]]


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
        self._lines: dict[str, deque[tuple[Listener, Event, int]]] = {}
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
                    self._queue(listener, event, 0)

    async def offer(self, listener: Listener, event: Event, bits: int) -> None:
        """Keep a wrap and have it opened. One that comes again, or finds the line full, changes nothing.

        Raises:
            VendoError: the database did not take it.
        """
        agent, line = listener.agent, self._lines.get(listener.agent, ())
        if len(line) >= MAX_HELD:
            self.counts["shed"] += 1
            return
        if any(event.id == waiting.id for _, waiting, _ in line):
            return
        row = message_row(
            self._stamp, agent, _HELD + event.id, "", incoming=True, protocol=Protocol.NIP17, kind=WRAPPED,
            text=event.to_json(), state=State.HELD, created_at=event.created_at,
        )  # fmt: skip
        await self._unit.commit([row])
        self._queue(listener, event, bits)

    def _queue(self, listener: Listener, event: Event, bits: int) -> None:
        agent = listener.agent
        self._lines.setdefault(agent, deque()).append((listener, event, bits))
        if agent not in self._tasks:
            self._tasks[agent] = asyncio.create_task(self._work(agent), name=f"wraps of {agent}")

    async def _work(self, agent: str) -> None:
        tries, line = 0, self._lines[agent]
        try:
            while line:
                listener, event, bits = line[0]
                try:
                    await self._handle(listener, event, bits)
                    await self._unit.commit([Delete(TABLE, {"agent": agent, "id": _HELD + event.id})])
                except VendoError as error:
                    log.info("a message waits", extra={"action": "dm_waits", "agent": agent, "code": error.code})
                    await self._clock.sleep(_BACK_OFF_S[min(tries, len(_BACK_OFF_S) - 1)])
                    tries += 1
                    continue
                line.popleft()
                tries = 0
        finally:
            del self._tasks[agent], self._lines[agent]

    async def aclose(self) -> None:
        """Stop; what waits is opened after the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
