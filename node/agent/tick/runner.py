"""One tick: load, run the program's hooks, and commit everything it did as one unit (DESIGN §4).

What fails leaves no trace but the failure itself (`aftermath.py`). Two ticks of one agent cannot both be committed:
the version of its row is compared, and its epoch, which rises when another process takes the agent over.
"""

import orjson

from core.error import Conflict, InvalidInput, StoreUncertain
from core.unit import Insert, Row, Update, Value, Write
from node.agent.error import StorageFull
from node.agent.inbox.row import DONE, NEW, TABLE, ended
from node.agent.log import record, topic
from node.agent.program import AnyProgram
from node.agent.replay import reel
from node.agent.replay.recording import End
from node.agent.state import kept
from node.agent.tick.aftermath import Aftermath
from node.agent.tick.harvest import harvest, text_size
from node.agent.tick.lap import ACTIVE, DORMANT, Attempt, Lap, tick_row, trigger
from node.agent.tick.limit import Bounds, Charge, charged, full, reached
from node.agent.tick.means import Means, Outcome
from node.agent.tick.play import play
from node.agent.tick.supervision import Failure, Kind
from node.storage.error import BadWrite

_CONFLICTS = 5
_AGAIN = Failure("store.conflict", "Others changed what this tick needs, again and again.")
_UNKNOWN = Failure("store.uncertain", "The tick was ended, or the database failed; what was not committed comes again.")


class TickRunner:
    """Runs single ticks. Whoever calls it sees to it that one agent has one at a time."""

    def __init__(self, means: Means) -> None:
        self._means, self._unit, self._clock = means, means.unit, means.clock
        self._after = Aftermath(means)

    async def run(self, lap: Lap, envelope: Row) -> Outcome:
        """One tick for one trigger.

        Raises:
            VendoError: the database failed; nothing is known to have changed.
        """
        failed = _AGAIN
        for _ in range(_CONFLICTS):
            known = await self._means.load(lap)
            if known is None:
                return Outcome.GONE
            row, own = known
            now_ms = self._clock.millis()
            if (limit := reached(row, own, now_ms * 1_000)) is not None:
                await self._after.limited(lap, row, limit)
                return Outcome.LIMITED
            attempt = self._means.begin(envelope, own, now_ms)
            found: Failure | None = _UNKNOWN
            try:
                found = await self._try(lap, row, own, attempt)
                if found is None:
                    return Outcome.DONE
                if found.kind is not Kind.CONFLICT:
                    return await self._after.failed(lap, attempt, found)
            finally:
                attempt.stage.tell(None if found is None else found.error())
            lap.forget()
            if not await self._unit.count(TABLE, {"n": envelope["n"], "state": NEW}, limit=1):
                return Outcome.AGAIN  # somebody has taken the trigger away
        return await self._after.failed(lap, attempt, failed)

    async def _try(self, lap: Lap, row: Row, own: Bounds, attempt: Attempt) -> Failure | None:
        """The hooks and the commit. None if it was committed."""
        try:
            code = self._live(lap, row, attempt)
            failed = await self._means.guard.run(code, lap.agent, own.seconds, attempt.meter)
        finally:
            attempt.stage.close()
        return failed if failed is not None else await self._commit(lap, attempt)

    async def _live(self, lap: Lap, row: Row, attempt: Attempt) -> None:
        """The tick itself: all of the agent's code that runs in it."""
        program, ctx = self._means.enter(lap, row, attempt)
        await play(program, ctx, trigger(attempt.envelope), attempt.tape, first=row["ticks"] == 0)
        attempt.text, attempt.fresh = kept(program, ctx.state, self._means.limits.state_bytes)

    async def _commit(self, lap: Lap, attempt: Attempt) -> Failure | None:
        """The one unit of a tick, and what follows it. None if it was committed."""
        row, own, program = lap.row, lap.bounds, lap.program
        assert row is not None and own is not None and program is not None  # noqa: PT018 - for the types
        assert attempt.start is not None
        now_ms = self._clock.millis()
        try:
            found = await harvest(attempt, lap, self._unit)
        except InvalidInput as error:
            return Failure.of(error)
        more = found.stored + text_size(attempt.text) - text_size(row["state"])
        after = row["stored"] + more + found.elsewhere
        if full(own, row["stored"], after):
            lap.marks = None
            return Failure.of(StorageFull(f"The agent would keep {after} bytes, of {own.storage_bytes}."))
        charge = charged(row, own, now_ms * 1_000, attempt.compute_us, after)
        changed = _changed(row, program, attempt, charge, now_ms // 1_000)
        writes = [
            Update(
                "agent",
                {"name": lap.agent, "version": row["version"], "epoch": row["epoch"]},
                set=changed,
                add={"version": 1, "ticks": 1, "stored": more},
            ),
            ended(attempt.envelope, DONE, now_ms // 1_000),
            tick_row(attempt, row["version"], program.digest, now_ms, ""),
            *self._records(lap.agent, attempt, charge, now_ms),
            *reel.writes(attempt.start, attempt.tape, End(program.version, attempt.text), attempt.began_ms),
            *found.writes,
        ]
        if (failed := await self._commit_or_find(lap, attempt, writes)) is not None:
            return failed
        row |= changed
        row["version"] += 1
        row["ticks"] += 1
        row["stored"] = after
        lap.state = attempt.fresh
        self._tell(lap, attempt)
        return None

    async def _commit_or_find(self, lap: Lap, attempt: Attempt, writes: list[Write]) -> Failure | None:
        done = False
        try:
            await self._unit.commit(writes)
            done = True
        except Conflict as error:
            return Failure(error.code, error.message, Kind.CONFLICT)
        except BadWrite as error:
            return Failure.of(error)  # it would be refused again and again
        except StoreUncertain:
            if not await self._unit.count("tick", {"id": attempt.tick_id}, limit=1):
                raise
            done = True
        finally:
            if not done:
                lap.forget()
        return None

    def _records(self, agent: str, attempt: Attempt, charge: Charge, now_ms: int) -> list[Insert]:
        """What the tick says in the agent's trace, and that it was."""
        clean = attempt.tape.redactor.text
        said = [record(agent, now_ms, kind, clean(data)) for kind, data in attempt.stage.records]
        for limit, part in charge.near:
            near = {"limit": limit, "used": round(part, 2)}
            said.append(record(agent, now_ms, "limit_near", orjson.dumps(near).decode()))
        about = {
            "tick_id": attempt.tick_id,
            "cause": attempt.envelope["cause"],
            "duration_ms": now_ms - attempt.began_ms,
        }
        return [*said, record(agent, now_ms, "tick", orjson.dumps(about).decode())]

    def _tell(self, lap: Lap, attempt: Attempt) -> None:
        stage = attempt.stage
        if stage.batch is not None:
            for then in stage.batch.thens:
                then()
        if stage.alarms:
            self._means.touch()
        self._means.feed.grew(topic(lap.agent))


def _changed(row: Row, program: AnyProgram, attempt: Attempt, charge: Charge, now: int) -> dict[str, Value]:
    """What a committed tick changes in its agent's row; what nearly never changes is left out where it does not."""
    changed: dict[str, Value] = {
        "state": attempt.text,
        "last_tick_at": now,
        "last_cause": attempt.envelope["cause"],
        "day_us": charge.day_us,
        "rate_us": charge.rate_us,
    }
    status = DORMANT if attempt.stage.dormant else ACTIVE
    if row["state_version"] != program.version or row["code"] != program.digest:
        changed |= {"state_version": program.version, "code": program.digest}
    if row["failures"] or row["status"] != status:
        changed |= {"failures": 0, "status": status}
    if row["day"] != charge.day or row["warned"] != charge.warned:
        changed |= {"day": charge.day, "warned": charge.warned}
    return changed
