"""What follows a tick that was not committed: its failure is written down, and what was decided of it is done."""

import logging
from typing import Any

import orjson

from core.error import Conflict
from core.unit import Condition, Row, Update, Value, Write
from node.agent.inbox.row import DEAD, NEW, TABLE
from node.agent.log import record, topic
from node.agent.program import Program
from node.agent.replay import reel
from node.agent.replay.recording import End
from node.agent.replay.tape import LiveTape
from node.agent.state import configured, loaded
from node.agent.tick.guard import Meter
from node.agent.tick.lap import QUARANTINED, Attempt, Lap, tick_row
from node.agent.tick.limit import STORAGE, STORAGE_REACHED, Bounds, Reached, charged
from node.agent.tick.means import Means, Outcome
from node.agent.tick.stage import Stage
from node.agent.tick.supervision import Failure, Kind, Ruling, judge

log = logging.getLogger(__name__)

_CONFLICTS = 5
_LAST_WORDS_S = 5.0


class Aftermath:
    """Ends ticks that failed, and those that were not to begin."""

    def __init__(self, means: Means) -> None:
        self._means, self._unit, self._clock = means, means.unit, means.clock

    async def limited(self, lap: Lap, row: Row, limit: Reached) -> None:
        """A limit is reached: the agent is told, once until it has renewed.

        Raises:
            VendoError: the database failed.
        """
        lap.until_ms = limit.until_ms
        if row["warned"] & limit.told:
            return
        about = {"limit": limit.limit, "until_ms": limit.until_ms}
        warned = row["warned"] | limit.told
        writes: list[Write] = [
            Update("agent", _same(row), set={"warned": warned}, add={"version": 1}),
            record(lap.agent, self._clock.millis(), "limit_reached", orjson.dumps(about).decode()),
        ]
        try:
            await self._unit.commit(writes)
        except Conflict:
            lap.forget()
            return
        row |= {"warned": warned, "version": row["version"] + 1}
        log.info("an agent waits", extra={"action": "agent_limited", "agent": lap.agent, "limit": limit.limit})
        self._means.feed.grew(topic(lap.agent))

    async def failed(self, lap: Lap, attempt: Attempt, failure: Failure) -> Outcome:
        """A tick has failed.

        Raises:
            VendoError: the database failed; the trigger is as it was.
        """
        failure = failure.worded(attempt.tape.redactor.text(failure.message))
        if failure.kind is Kind.PAUSED:
            await self._unit.commit([self._later(attempt, failure)])
            return Outcome.AGAIN
        said = [] if failure.kind in (Kind.AGENT, Kind.FULL) else await self._last_words(lap, attempt, failure)
        for _ in range(_CONFLICTS):
            known = await self._means.load(lap)
            if known is None:
                return Outcome.GONE
            row, own = known
            if failure.kind is Kind.FULL:
                try:
                    await self._full(lap, row, attempt, failure)
                except Conflict:
                    lap.forget()
                    continue
                return Outcome.AGAIN
            ruling = judge(failure, attempt.envelope, row, self._means.limits, self._clock.millis())
            try:
                await self._write(lap, row, own, attempt, failure, ruling, said)
            except Conflict:
                lap.forget()
                continue
            return Outcome.GONE if ruling.reason else Outcome.AGAIN
        raise Conflict("Others change this agent's row again and again.")

    def _later(self, attempt: Attempt, failure: Failure) -> Write:
        """It is nobody's fault, or the trigger's turn comes when there is room; no try is counted."""
        row = attempt.envelope
        ruling = judge(failure, row, {"failures": 0}, self._means.limits, self._clock.millis())
        where: dict[str, Condition] = {"n": row["n"], "state": NEW}
        changed: dict[str, Value] = {"next_at_ms": ruling.next_at_ms, "error": failure.text}
        return Update(TABLE, where, set=changed, rows=None)

    async def _full(self, lap: Lap, row: Row, attempt: Attempt, failure: Failure) -> None:
        """The agent would keep too much: its row says so from now on, and its trace once for each such trigger."""
        writes, before = [self._later(attempt, failure)], attempt.envelope["error"]
        if before != failure.text:
            writes.append(self._record(lap.agent, "waits", attempt, failure))
        if not before.startswith(failure.code):
            about = orjson.dumps({"limit": STORAGE, "until_ms": None}).decode()
            writes.append(record(lap.agent, self._clock.millis(), "limit_reached", about))
        warned = row["warned"] | STORAGE_REACHED
        if warned == row["warned"]:
            await self._unit.commit(writes)
            return
        await self._unit.commit([Update("agent", _same(row), set={"warned": warned}, add={"version": 1}), *writes])
        row |= {"warned": warned, "version": row["version"] + 1}
        self._means.feed.grew(topic(lap.agent))

    async def _write(
        self,
        lap: Lap,
        row: Row,
        own: Bounds,
        attempt: Attempt,
        failure: Failure,
        ruling: Ruling,
        said: list[tuple[str, str]],
    ) -> None:
        now_ms, agent = self._clock.millis(), lap.agent
        changed: dict[str, Value] = {"failures": ruling.failures}
        writes: list[Write] = []
        if ruling.reason:
            changed |= {"status": QUARANTINED, "reason": ruling.reason}
        if failure.kind is not Kind.AGENT:
            charge = charged(row, own, now_ms * 1_000, attempt.compute_us, row["stored"], failed=True)
            changed |= {"day": charge.day, "day_us": charge.day_us, "rate_us": charge.rate_us, "warned": charge.warned}
            writes += await self._trigger(attempt, failure, ruling)
            writes.append(tick_row(attempt, row["version"], lap.code, now_ms, failure.text))
            writes += [record(agent, now_ms, kind, data) for kind, data in said]
            writes.append(self._record(agent, "error", attempt, failure, tries=ruling.tries, dead=ruling.dead))
            if attempt.start is not None:
                end = End.failed(failure.code, failure.message, late=bool(attempt.text))
                writes += reel.writes(attempt.start, attempt.tape, end, attempt.began_ms)
        if ruling.reason:
            writes.append(record(agent, now_ms, "quarantined", orjson.dumps({"reason": ruling.reason}).decode()))
        await self._unit.commit([Update("agent", _same(row), set=changed, add={"version": 1}), *writes])
        row |= changed
        row["version"] += 1
        self._report(agent, failure, ruling)

    async def _trigger(self, attempt: Attempt, failure: Failure, ruling: Ruling) -> list[Write]:
        row = attempt.envelope
        changed: dict[str, Value] = {
            "tries": ruling.tries,
            "error": failure.text,
            "state": DEAD if ruling.dead else NEW,
            "next_at_ms": ruling.next_at_ms,
        }
        room = await self._means.bury(row["agent"]) if ruling.dead else ()
        return [*room, Update(TABLE, {"n": row["n"], "state": NEW}, set=changed, rows=None)]

    def _record(self, agent: str, kind: str, attempt: Attempt, failure: Failure, **more: Any) -> Write:
        about = {"tick_id": attempt.tick_id, "code": failure.code, "message": failure.message, **more}
        return record(agent, self._clock.millis(), kind, orjson.dumps(about).decode())

    def _report(self, agent: str, failure: Failure, ruling: Ruling) -> None:
        about = {"agent": agent, "code": failure.code, "dead": ruling.dead}
        log.warning("a tick failed", extra={"action": "tick_failed", **about})
        if ruling.reason:
            log.error("an agent is quarantined", extra={"action": "agent_quarantined", **about})
        self._means.feed.grew(topic(agent))

    async def _last_words(self, lap: Lap, attempt: Attempt, failure: Failure) -> list[tuple[str, str]]:
        """Run `on_error`; what it logs. It is given the state as it was before the tick."""
        program, row, own, cause = lap.program, lap.row, lap.bounds, failure.cause
        if program is None or row is None or own is None or cause is None:
            return []
        if type(program).on_error is Program.on_error:
            return []
        stage, tape = Stage(), LiveTape(attempt.tape.redactor)
        stage.fail()

        async def say() -> None:
            state = loaded(program, row["state_version"], row["state"])
            ctx = self._means.context(lap.agent, attempt, stage, tape, state, configured(program, row["config"]))
            await program.on_error(ctx, cause)

        meter = Meter()
        await self._means.guard.run(say(), lap.agent, min(own.seconds, _LAST_WORDS_S), meter)
        stage.close()
        attempt.meter.add(meter)
        return [(kind, tape.redactor.text(data)) for kind, data in stage.records]


def _same(row: Row) -> dict[str, Condition]:
    """The row as it was read: a commit that somebody was quicker than conflicts."""
    return {"name": row["name"], "version": row["version"], "epoch": row["epoch"]}
