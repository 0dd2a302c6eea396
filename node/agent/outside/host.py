"""The turns of this process: who holds which, and what brings triggers to those who take them.

Of a token only its digest is kept, and that only in memory: after a restart no old token opens anything.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from core.clock import Clock
from core.error import VendoError
from node.agent.error import ProgramFailed
from node.agent.outside.act import Act
from node.agent.outside.error import NodeStopping, TurnLingers
from node.agent.outside.turn import Door, Turn
from node.http.token import bearer_of, digest, new_token

log = logging.getLogger(__name__)

PREFIX = "vendo_turn_"
KEPT_S, MAX_KEPT = 600, 4_096
LINGER_S = 2.0
STOP_S = 3.0
_START_S, _ENDED_S = 5.0, 15.0
Reach: TypeAlias = Callable[[Turn, Door], Awaitable[Act | None]]


class Turns:
    """All turns of this process, and what brings triggers to those who take them. A service.

    Args:
        clock: when ended turns are forgotten.
        url: where the control plane listens.
        state_bytes: how long a state may be.
        stop_s: how long, when the node stops, turns that are open may take to end.
    """

    def __init__(self, clock: Clock, url: Callable[[], str], state_bytes: int, stop_s: float = STOP_S) -> None:
        self._clock, self._url, self._state_bytes, self._stop_s = clock, url, state_bytes, stop_s
        self._turns: dict[str, Turn] = {}  # by their token's digest, which says nothing about the token
        self._ended: deque[tuple[float, str]] = deque()
        self._reaching: dict[str, asyncio.Task[None]] = {}
        self._ready, self._stopping = asyncio.Event(), False

    @property
    def open_turns(self) -> list[Turn]:
        """Those that take acts."""
        return [turn for turn in self._turns.values() if turn.is_open]

    def find(self, authorization: str | None) -> Turn | None:
        """The turn of which somebody shows the token."""
        token = bearer_of(authorization)
        self._forget()
        return self._turns.get(digest(token)) if token is not None and token.startswith(PREFIX) else None

    async def open(self, agent: str, tick_id: str, reach: Reach, patience_s: float = _START_S) -> Turn:
        """Begin a turn, and let its holder know.

        Args:
            agent: whose.
            tick_id: the tick's.
            reach: brings the trigger to the holder. What it answers ends the turn, as does what it raises. It is
                cancelled once the turn has ended, after a moment for it to end by itself.
            patience_s: how long to wait for the node to run, and for the agent's last turn to leave nothing running.

        Raises:
            NodeStopping: the node does not run yet, or not any more.
            TurnLingers: what was started for the agent's last turn has not ended.
        """
        await self._wait_for(agent, asyncio.get_running_loop().time() + patience_s)
        token = PREFIX + new_token()
        turn, known = Turn(agent, tick_id, self._state_bytes), digest(token)
        self._forget()
        self._turns[known] = turn
        door = Door(f"{self._url()}/agents/{agent}", token)
        task = asyncio.create_task(self._hold(turn, known, reach, door), name=f"turn of {agent}")
        self._reaching[agent] = task
        task.add_done_callback(lambda ended: self._reached(agent, ended))
        return turn

    async def _wait_for(self, agent: str, until: float) -> None:
        """Until the node runs, and the agent's turn before has left nothing running; to `until` on the loop's clock."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._ready.wait()
        if self._stopping or not self._ready.is_set():
            raise NodeStopping
        before = self._reaching.get(agent)
        if before is not None:
            await asyncio.wait([before], timeout=max(0.0, until - asyncio.get_running_loop().time()))
            if not before.done():
                raise TurnLingers

    def _reached(self, agent: str, task: asyncio.Task[None]) -> None:
        if self._reaching.get(agent) is task:
            del self._reaching[agent]
        if not task.cancelled():
            task.result()

    async def _hold(self, turn: Turn, known: str, reach: Reach, door: Door) -> None:
        """One turn from its beginning to when nothing of it is left."""
        reaching = asyncio.ensure_future(_ending(turn, reach, door))
        reaching.add_done_callback(lambda ended: _broke(turn, ended))
        try:
            await turn.over.wait()
            if not turn.failed:
                await asyncio.wait([reaching], timeout=LINGER_S)
        finally:
            reaching.cancel()
            await asyncio.wait([reaching], timeout=_ENDED_S)
            self._ended.append((self._clock.monotonic() + KEPT_S, known))

    def _forget(self) -> None:
        while self._ended and (len(self._ended) > MAX_KEPT or self._ended[0][0] < self._clock.monotonic()):
            self._turns.pop(self._ended.popleft()[1], None)

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Take turns until `stop`; those that are open then have a moment to end, and fail without using up a try."""
        self._stopping = False
        self._ready.set()
        ready.set()
        await stop.wait()
        self._stopping = True
        if over := [asyncio.ensure_future(turn.over.wait()) for turn in self.open_turns]:
            await asyncio.wait(over, timeout=self._stop_s)
        for turn in self.open_turns:
            turn.fail(NodeStopping())
        if self._reaching:
            await asyncio.wait(self._reaching.values(), timeout=STOP_S)


async def _ending(turn: Turn, reach: Reach, door: Door) -> None:
    try:
        act = await reach(turn, door)
    except VendoError as error:
        turn.fail(error)
    else:
        if act is not None:
            turn.put(act)


def _broke(turn: Turn, ended: "asyncio.Future[None]") -> None:
    if not ended.cancelled() and (error := ended.exception()) is not None:
        log.error("a turn's way out failed", exc_info=error, extra={"action": "turn_broke", "agent": turn.agent})
        turn.fail(ProgramFailed("What brings triggers to this agent failed."))
