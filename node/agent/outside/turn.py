"""A turn: one tick of an agent that lives outside, held by whoever has its token, from the trigger to the commit.

The tick's own task waits for acts and does them one after the other; the token's holder sends them over HTTP. There is
one place where a turn ends, so a commit that races the time limit is either taken or refused. What came of it is
known when the tick is committed or has failed, and stays known for a while: the same commit, sent again, is answered
the same. Another one, with other words, is not: nothing of it was done.
"""

import asyncio
import hashlib
import logging
from dataclasses import dataclass, field

from core.error import VendoError
from fs.error import BodyTooLarge
from fs.tree import json_bytes
from node.agent.outside.act import ABORT, COMMIT, STATE, Act, Reply
from node.agent.outside.error import TurnAborted, TurnBusy, TurnExpired, TurnFull, TurnOver

log = logging.getLogger(__name__)

MAX_ACTS = 1_000
MAX_BYTES = 8 << 20
MAX_WAITING = 16
_SPARE, _SPARE_BYTES = 100, 2 << 20  # so that a turn in which all was asked that may be can still be ended


def _ends(act: Act) -> bool:
    return act.asks_for(COMMIT) or act.asks_for(ABORT)


def _digest(act: Act) -> bytes:
    return hashlib.sha256(act.body.strip()).digest()


@dataclass(frozen=True, slots=True)
class Door:
    """Where a turn is to be reached, and with what. The token is here, in its holder's hands, and nowhere else."""

    url: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """An act that waits, and whoever waits for its answer."""

    act: Act
    answer: "asyncio.Future[Reply | None] | None" = None

    def reply(self, reply: Reply | None) -> None:
        """Answer; None: it depends on how the turn ends."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(reply)

    def refuse(self, error: VendoError) -> None:
        """Answer with an error."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)


class Turn:
    """One turn. `next`, `leave` and `settle` are for the tick; everything else is for those who hold it.

    Attributes:
        over: set when it takes no more acts.
        works_since: when something on this machine began to work for it (`Clock.monotonic`), if anything does.
        away: what has failed if the time passes and its holder has not been heard; None if that is the holder's fault.
    """

    def __init__(self, agent: str, tick_id: str, state_bytes: int = 1 << 20) -> None:
        self.agent, self.tick_id, self._state_bytes = agent, tick_id, state_bytes
        self._waiting: asyncio.Queue[Asked | VendoError] = asyncio.Queue()
        self._count = self._bytes = 0
        self._taken: Asked | None = None
        self._left: VendoError | None = None
        self._committed = b""  # the SHA-256 of what was committed
        self._open, self._expired = True, False
        self._outcome: asyncio.Future[VendoError | None] = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.works_since: float | None = None
        self.away: VendoError | None = None

    @property
    def is_open(self) -> bool:
        """Whether it takes acts."""
        return self._open

    @property
    def failed(self) -> bool:
        """Whether it has ended, and not by a commit."""
        return not self._open and self._left is not None

    # ---- its holder

    async def ask(self, act: Act) -> Reply:
        """Do something in this turn, after what was asked before. A commit answers when it is durable.

        Raises:
            VendoError: the act was refused, or the turn has ended: `TurnExpired`, `TurnOver`.
        """
        if not self._open:
            return await self._late(act)
        self._check(act)
        self._count += 1
        self._bytes += len(act.body)
        self.away = None
        asked = Asked(act, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(asked)
        assert asked.answer is not None
        reply = await asked.answer
        return reply if reply is not None else await self._late(act)

    def _check(self, act: Act) -> None:
        """Whether there is room for it. What is refused here takes up none."""
        spare, spare_bytes = (_SPARE, _SPARE_BYTES) if _ends(act) else (0, 0)
        if self._count >= MAX_ACTS + spare:
            raise TurnFull(f"A turn has at most {MAX_ACTS} requests.")
        if self._bytes + len(act.body) > MAX_BYTES + spare_bytes:
            raise TurnFull(f"What is sent in a turn has at most {MAX_BYTES >> 20} MiB together.")
        if act.path == STATE and len(act.body) > self._state_bytes:
            raise BodyTooLarge(f"A state has at most {self._state_bytes} bytes.")
        if self._waiting.qsize() >= MAX_WAITING:
            raise TurnBusy

    def put(self, act: Act) -> None:
        """Do something for which nobody waits."""
        if self._open:
            self._waiting.put_nowait(Asked(act))
        elif act.asks_for(COMMIT) and act.body and self._committed and _digest(act) != self._committed:
            log.warning(
                "an agent's answer came after its commit, and nothing of it was done",
                extra={"action": "turn_answered_late", "agent": self.agent},
            )

    def fail(self, error: VendoError) -> None:
        """End it without a commit."""
        if self._open:
            self._waiting.put_nowait(error)

    async def _late(self, act: Act) -> Reply:
        """The answer once it has ended: to a commit or an abort what came of it, to everything else that it is over."""
        if not _ends(act):
            raise TurnExpired if self._expired else TurnOver
        error = await asyncio.shield(self._outcome)
        if self._expired:
            raise TurnExpired
        if error is None and act.path == COMMIT:
            if _digest(act) != self._committed:
                raise TurnOver("The turn was committed, with other words than these.")
            return Reply(json_bytes({"status": "committed", "tick_id": self.tick_id}))
        if isinstance(error, TurnAborted) and act.path == ABORT:
            return Reply(json_bytes({"status": "aborted", "tick_id": self.tick_id}))
        raise error.with_traceback(None) if error is not None else TurnOver("The turn was committed.")

    # ---- the tick

    async def next(self, seconds: float) -> Asked:
        """What is to be done next.

        Raises:
            TurnExpired: nothing came within `seconds`.
            VendoError: the turn failed; `away`, if its holder was not heard in all that time.
        """
        try:
            async with asyncio.timeout(seconds):
                asked = await self._waiting.get()
        except TimeoutError as error:
            self._expired = True
            raise self.away or TurnExpired() from error
        if isinstance(asked, VendoError):
            raise asked
        self._taken = asked
        return asked

    def leave(self, error: VendoError | None) -> None:
        """From here on no act is taken. With an error there will be no commit."""
        if not self._open:
            return
        self._open, self._left = False, error
        left = [self._taken]
        if error is None and self._taken is not None:
            self._committed = _digest(self._taken.act)
        self._taken = None
        while not self._waiting.empty():
            asked = self._waiting.get_nowait()
            left.append(asked if isinstance(asked, Asked) else None)
        for one in left:
            if one is not None and _ends(one.act):
                one.reply(None)
            elif one is not None:
                one.refuse(TurnExpired() if self._expired else TurnOver())
        self.over.set()

    def settle(self, error: VendoError | None) -> None:
        """The tick was committed, or has failed."""
        self.leave(error)
        if error is not None:
            self._left = error
        if not self._outcome.done():
            self._outcome.set_result(error)
