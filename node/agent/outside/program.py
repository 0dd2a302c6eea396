"""A program whose agent lives outside: each trigger opens a turn, and the tick does what the turn's holder asks.

The tick reads acts one by one, as it would read anything from outside, so they are in its recording. A replay opens no
turn: it does the recorded acts again.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from core.clock import Clock
from core.error import Paused, VendoError
from core.identifier import derived_id
from node.agent.context import Context
from node.agent.outside.act import ABORT, COMMIT, Act, Closing, Reply, reason_of
from node.agent.outside.clerk import Anything, perform, shown
from node.agent.outside.error import TurnAborted, TurnOver
from node.agent.outside.host import Turns
from node.agent.outside.turn import Asked, Door, Turn
from node.agent.program import Program, Trigger

C = TypeVar("C", bound=BaseModel)
_MARGIN_MS, _MARGIN_PART = 250, 10  # the turn ends before its tick does, so that it ends as a turn
_WAIT_S, _WAIT_PART = 20.0, 4


def delivery_id(agent: str, envelope_id: str) -> str:
    """The id of a trigger for those outside: the same however often it is tried."""
    return derived_id("delivery", agent, envelope_id)


def patience(left_ms: int, most_s: float) -> float:
    """How many seconds of a tick may pass before its agent is reached: what ends such a wait must cost no try.

    Args:
        left_ms: what is left of the tick.
        most_s: and no longer than this.
    """
    return max(0.0, min(most_s, left_ms / 1_000 / _WAIT_PART))


class Outside(Program[Anything, C]):
    """What all such programs share.

    Args:
        turns: where turns are opened.
        clock: for the time that is left.
    """

    state_type = Anything

    def __init__(self, turns: Turns, clock: Clock) -> None:
        self.turns, self.clock = turns, clock

    @abstractmethod
    async def reach(self, brief: Mapping[str, Any], config: C, turn: Turn, door: Door) -> Act | None:
        """Bring a trigger to the agent. Cancelled when the turn has ended, soon after.

        Args:
            brief: what the turn is about, as JSON; without the token.
            config: the agent's.
            turn: for what is to be done in its name.
            door: what the agent needs to act over HTTP.

        Returns:
            The act that ends the turn; None if its holder will.

        Raises:
            VendoError: it could not be brought; the turn has failed.
        """

    async def on_trigger(self, ctx: Context[Anything, C], trigger: Trigger) -> None:
        """One turn, from the first act to the last."""
        sitting = _Sitting(self, ctx, trigger)
        error: VendoError | None = TurnOver("The tick was ended.")
        try:
            await sitting.run()
            error = None
        except VendoError as raised:
            error = raised
            raise
        finally:
            sitting.leave(error)


class _Sitting:
    """One tick of such a program. It has a turn unless it is a replay."""

    def __init__(self, program: Outside[Any], ctx: Context[Anything, Any], trigger: Trigger) -> None:
        self._program, self._ctx, self._trigger = program, ctx, trigger
        self._turn: Turn | None = None
        self._asked: Asked | None = None
        self._paused: Paused | None = None

    async def run(self) -> None:
        """Do what is asked, until a commit.

        Raises:
            VendoError: the turn has failed.
        """
        count = 0
        try:
            while True:
                count += 1
                raw = await self._ctx.outside("turn", (str(count),), self._next)
                if await self._do(Act.from_bytes(raw)):
                    return
        except VendoError as error:
            if self._paused is not None:  # whoever gives up because the node is paused has not failed
                raise self._paused from error
            raise

    def leave(self, error: VendoError | None) -> None:
        """The turn takes no more acts."""
        if self._turn is None:
            return
        self._turn.leave(error)
        if self._turn.works_since is not None:
            self._ctx.add_compute(round((self._program.clock.monotonic() - self._turn.works_since) * 1_000))

    async def _next(self) -> bytes:
        """The next act, from whoever has the turn."""
        if self._turn is None:
            self._turn = await self._open()
        margin_ms = min(_MARGIN_MS, (self._ctx.until_ms - self._ctx.now_ms) // _MARGIN_PART)
        left_ms = self._ctx.until_ms - margin_ms - self._program.clock.millis()
        self._asked = await self._turn.next(max(0, left_ms) / 1_000)
        return self._asked.act.to_bytes()

    async def _open(self) -> Turn:
        program, ctx = self._program, self._ctx
        brief = {**shown(ctx, self._trigger), "delivery": delivery_id(ctx.agent, self._trigger.envelope_id)}

        async def reach(turn: Turn, door: Door) -> Act | None:
            return await program.reach(brief, ctx.config, turn, door)

        wait_s = patience(ctx.until_ms - program.clock.millis(), _WAIT_S)
        turn = await program.turns.open(ctx.agent, ctx.tick_id, reach, wait_s)
        ctx.when_over(turn.settle)
        return turn

    async def _do(self, act: Act) -> bool:
        """One act; whether it was the last."""
        try:
            if act.asks_for(ABORT):
                reason = reason_of(act.body)
            elif act.asks_for(COMMIT):
                closing = Closing.parse(act.body)
            else:
                self._reply(await self._perform(act))
                return False
        except VendoError as error:
            if act.strict:
                raise
            self._refuse(error)
            return False
        if act.asks_for(ABORT):
            raise TurnAborted(f"The agent gave its turn up: {reason}" if reason else None)
        for one in closing.acts:
            await self._perform(one)
        return True

    async def _perform(self, act: Act) -> Reply:
        try:
            return await perform(self._ctx, self._trigger, act)
        except Paused as error:
            self._paused = error
            raise

    def _reply(self, reply: Reply) -> None:
        if self._asked is not None:
            self._asked.reply(reply)

    def _refuse(self, error: VendoError) -> None:
        if self._asked is not None:
            self._asked.refuse(error)
