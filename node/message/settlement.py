"""What became of messages that were sent: their effect ends when a relay of the receiver's has taken each wrap."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from core.clock import Clock
from core.effect import Gate, Outcome, OutcomeState
from core.error import Conflict, VendoError
from core.identifier import EffectId
from core.unit import Among, UnitOfWork
from node.message.record import Stamp, State, change
from relays.error import MalformedEvent
from relays.event import parse_json

log = logging.getLogger(__name__)

_LOOK_MS = (20, 50, 100, 250, 500, 1_000, 2_000, 5_000)
_OWN_COPY_MS = 30_000


@dataclass(slots=True)
class Sent:
    """A message on its way: the wraps of one effect, and when to look at them next.

    `copies` are the sender's own: the message has arrived without them, so they are not waited for very long.
    """

    effect_id: EffectId
    agent: str
    wraps: tuple[str, ...]
    copies: tuple[str, ...] = ()
    since_ms: int = 0
    looks: int = 0
    next_ms: int = field(default=0)


class Settlement:
    """Watches what the outbox does with wraps, ends their effects, and says so in table `message`.

    Args:
        unit: the database.
        gate: ends effects.
        clock: time.
        stamp: for the rows.
        changed: is told whose messages have changed.
    """

    def __init__(
        self, unit: UnitOfWork, gate: Gate, clock: Clock, stamp: Stamp, changed: Callable[[str], None]
    ) -> None:
        self._unit, self._gate, self._clock, self._stamp, self._changed = unit, gate, clock, stamp, changed
        self._sent: list[Sent] = []
        self._followed: set[EffectId] = set()
        self.woken = asyncio.Event()
        self.watches = False

    def is_followed(self, effect_id: EffectId) -> bool:
        """Whether this one is watched."""
        return effect_id in self._followed

    def follow(self, sent: Sent) -> None:
        """Watch this one from now on; where nobody watches, `resume` finds it."""
        if not self.watches or sent.effect_id in self._followed:
            return
        self._followed.add(sent.effect_id)
        sent.since_ms = self._clock.millis()
        sent.next_ms = sent.since_ms + _LOOK_MS[0]
        self._sent.append(sent)
        self.woken.set()

    async def resume(self, effect_id: EffectId, agent: str, to: str) -> bool:
        """Go on with an effect that was open when the node stopped. False: nothing of it is in the outbox."""
        rows = await self._unit.select("outbox", {"effect_id": effect_id})
        wraps: dict[str, bool] = {}
        for row in rows:
            wraps[row["event_id"]] = _is_for(row["raw"], to)
        if not wraps:
            return False
        theirs = tuple(name for name, good in wraps.items() if good) or tuple(wraps)
        self.follow(Sent(effect_id, agent, theirs, tuple(name for name in wraps if name not in theirs)))
        return True

    @property
    def next_ms(self) -> int | None:
        """When to call `look` again, or None while nothing is watched."""
        return min((one.next_ms for one in self._sent), default=None)

    async def look(self) -> None:
        """End what has ended."""
        now = self._clock.millis()
        for sent in [one for one in self._sent if one.next_ms <= now]:
            try:
                ended = await self._settle(sent)
            except VendoError as error:
                log.warning("a message waits", extra={"action": "dm_settle_waits", "code": error.code})
                ended = False
            if ended:
                self._sent.remove(sent)
                self._followed.discard(sent.effect_id)
            else:
                sent.looks += 1
                sent.next_ms = now + _LOOK_MS[min(sent.looks, len(_LOOK_MS) - 1)]

    async def _settle(self, sent: Sent) -> bool:
        rows = await self._unit.select("outbox", {"event_id": Among((*sent.wraps, *sent.copies))})
        states: dict[str, set[str]] = {one: set() for one in (*sent.wraps, *sent.copies)}
        for row in rows:
            states[row["event_id"]].add(row["state"])
        theirs = [states[one] for one in sent.wraps]
        waited = self._clock.millis() - sent.since_ms > _OWN_COPY_MS
        copied = waited or all(states[one] != {"pending"} for one in sent.copies)
        if all("sent" in found or not found for found in theirs):  # rows are cleared only after their end
            if not copied:
                return False
            return await self.end(
                sent.effect_id, sent.agent, Outcome(OutcomeState.COMMIT, detail={"wraps": len(states)})
            )
        if any(found == {"refused"} for found in theirs):
            reason = next((row["reason"] for row in rows if row["event_id"] in sent.wraps and row["reason"]), "")
            detail = {"reason": "every relay refused it"}
            return await self.end(sent.effect_id, sent.agent, Outcome(OutcomeState.FAIL, detail=detail), reason)
        return False

    async def end(self, effect_id: EffectId, agent: str, outcome: Outcome, reason: str = "") -> bool:
        """End an effect and say so in its messages. Whether it has ended, now or before."""
        good = outcome.state is OutcomeState.COMMIT
        told = change(
            self._stamp,
            {"effect_id": effect_id, "state": State.QUEUED.value},
            State.SENT if good else State.FAILED,
            "" if good else reason or str(outcome.detail.get("reason", "")),
        )
        try:
            await self._unit.commit([*await self._gate.settle(effect_id, outcome), told])
        except Conflict:
            open_still = await self._unit.select("effect", {"id": effect_id, "state": Among(("begun", "unknown"))})
            return not open_still
        self._changed(agent)
        return True


def _is_for(raw: str, pubkey: str) -> bool:
    try:
        return pubkey in parse_json(raw).values("p")
    except MalformedEvent:
        return False
