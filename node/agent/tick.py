"""One tick: load, run the program, and commit everything it did as one unit (DESIGN §4).

What fails leaves no trace but the failure itself: its message, and when the trigger is tried again. A trigger that
fails too often goes to the dead letter. Two ticks of one agent cannot both commit: the agent's row version is compared.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from core.clock import Clock
from core.error import Conflict, InvalidInput, Paused, StoreUncertain, VendoError
from core.identifier import derived_id
from core.unit import Insert, Row, UnitOfWork, Update, Write
from fs.feed import Feed
from fs.session import Batch, Role, Session
from node.agent.log import record, topic
from node.agent.program import Context, Files, Namespaces, Program, Programs, State, Trigger

log = logging.getLogger(__name__)

_CONFLICTS = 5


@dataclass(frozen=True, slots=True)
class TickLimits:
    """Bounds of every tick.

    Attributes:
        seconds: how long a program may take.
        tries: how often a trigger is tried before it is dead.
        parallel: how many agents tick at once.
        state_bytes: how long an agent's state may be, as JSON.
        back_off_ms: the wait after the first failure; doubled after each more.
        pause_ms: the wait while the node is paused; this is no failure.
    """

    seconds: float = 30.0
    tries: int = 5
    parallel: int = 64
    state_bytes: int = 262_144
    back_off_ms: int = 500
    pause_ms: int = 2_000


@dataclass(frozen=True, slots=True)
class _Failure:
    code: str
    message: str
    paused: bool = False
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class _Done:
    state: State
    records: Sequence[tuple[str, str]]
    batch: Batch


class TickRunner:
    """Runs single ticks. Whoever calls it sees to it that one agent has one at a time."""

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        programs: Programs,
        namespaces: Namespaces,
        feed: Feed,
        limits: TickLimits,
    ) -> None:
        self._unit, self._clock, self._programs = unit, clock, programs
        self._namespaces, self._feed, self._limits = namespaces, feed, limits

    async def run(self, envelope: Row) -> bool:
        """One tick for one envelope. Whether it was committed; if not, the envelope says when to try again.

        Raises:
            VendoError: the database failed; nothing is known to have changed.
        """
        last = _Failure("store.conflict", "Others changed what this tick needs, again and again.")
        for _ in range(_CONFLICTS):
            started = self._clock.millis()
            agent = await self._agent(envelope["agent"])
            if agent is None:
                return False
            tick_id = derived_id("tick", agent["name"], envelope["envelope_id"], str(envelope["tries"]), str(started))
            done = await self._attempt(agent, envelope)
            failure = (
                done if isinstance(done, _Failure) else await self._commit(agent, envelope, tick_id, started, done)
            )
            if failure is None:
                return True
            last = failure
            if not failure.conflict:
                break
        await self._fail(envelope, tick_id, started, last)
        return False

    async def _agent(self, name: str) -> Row | None:
        rows = await self._unit.select("agent", {"name": name, "status": "active"})
        return rows[0] if rows else None

    async def _attempt(self, agent: Row, envelope: Row) -> _Done | _Failure:
        name = agent["name"]
        program = self._programs.get(agent["program"])
        if program is None:
            return _Failure("agent.no_program", f"This node has no program called {agent['program']!r}.")
        batch = Batch()
        session = Session(f"agent:{name}", Role.AGENT, batch=batch)
        try:
            files = Files(self._namespaces(name), session, name, envelope["envelope_id"])
            ctx = Context(name, self._clock.now(), {}, files)
            failure = await self._guarded(program, ctx, agent, _trigger(envelope))
            if failure is None and len(orjson.dumps(ctx.state)) > self._limits.state_bytes:
                failure = _Failure("agent.state_too_large", f"The state is over {self._limits.state_bytes} bytes.")
        except VendoError as error:
            failure = _Failure(error.code, error.message)
        return failure if failure is not None else _Done(ctx.state, ctx.records, batch)

    async def _guarded(self, program: Program, ctx: Context, agent: Row, trigger: Trigger) -> _Failure | None:
        """Run an agent's code; whatever it raises is its own failure and no one else's."""
        try:
            async with asyncio.timeout(self._limits.seconds):
                ctx.state = _state(program, agent)
                await program.on_trigger(ctx, trigger)
                orjson.dumps(ctx.state)
        except TimeoutError:
            return _Failure("agent.too_slow", f"The tick took longer than {self._limits.seconds:g} s.")
        except VendoError as error:
            return _Failure(error.code, error.message, isinstance(error, Paused), isinstance(error, Conflict))
        except (
            Exception
        ) as error:  # the edge of an agent's own code: its fault is recorded, and no one else's tick ends
            log.exception("an agent's program failed", extra={"action": "agent_failed", "agent": ctx.agent})
            return _Failure("agent.failed", f"The program raised {type(error).__name__}.")
        return None

    async def _commit(self, agent: Row, envelope: Row, tick_id: str, started: int, done: _Done) -> _Failure | None:
        """The one unit of a tick, and what follows it. None if it was committed."""
        now = self._clock.millis()
        name, cause = agent["name"], envelope["cause"]
        summary = orjson.dumps({"tick_id": tick_id, "cause": cause, "duration_ms": now - started}).decode()
        writes: list[Write] = [
            Update(
                "agent",
                {"name": name, "version": agent["version"]},
                set={
                    "state": orjson.dumps(done.state).decode(),
                    "state_version": self._programs[agent["program"]].version,
                    "last_tick_at": now // 1000,
                    "last_cause": cause,
                },
                add={"version": 1, "ticks": 1},
            ),
            Update("inbox", {"n": envelope["n"], "state": "new"}, set={"state": "done", "error": ""}),
            _tick_row(tick_id, envelope, started, now - started, ""),
            *(record(name, now, kind, data) for kind, data in done.records),
            record(name, now, "tick", summary),
            *done.batch.writes,
        ]
        try:
            await self._unit.commit(writes)
        except Conflict as error:
            return _Failure(error.code, error.message, conflict=True)
        except StoreUncertain:
            if not await self._unit.select("tick", {"id": tick_id}):
                raise
        for then in done.batch.thens:
            then()
        self._feed.grew(topic(name))
        return None

    async def _fail(self, envelope: Row, tick_id: str, started: int, failure: _Failure) -> None:
        now, name = self._clock.millis(), envelope["agent"]
        where = {"n": envelope["n"], "state": "new"}
        if failure.paused:
            await self._unit.commit(
                [Update("inbox", where, set={"next_at_ms": now + self._limits.pause_ms}, rows=None)]
            )
            return
        tries = envelope["tries"] + 1
        dead = tries >= self._limits.tries
        error = f"{failure.code}: {failure.message}"[:1_000]
        data = {"tick_id": tick_id, "code": failure.code, "message": failure.message, "tries": tries, "dead": dead}
        changed = {
            "tries": tries,
            "error": error,
            "state": "dead" if dead else "new",
            "next_at_ms": now + self._limits.back_off_ms * 2 ** (tries - 1),
        }
        await self._unit.commit(
            [
                Update("inbox", where, set=changed, rows=None),
                _tick_row(tick_id, envelope, started, now - started, error),
                record(name, now, "error", orjson.dumps(data).decode()),
            ]
        )
        log.warning("a tick failed", extra={"action": "tick_failed", "agent": name, "code": failure.code, "dead": dead})
        self._feed.grew(topic(name))


def _state(program: Program, agent: Row) -> State:
    state: State = orjson.loads(agent["state"])
    if agent["state_version"] == program.version:
        return state
    if agent["state_version"] > program.version:
        raise InvalidInput("The agent's state was written by a newer version of its program.")
    return program.migrate(agent["state_version"], state)


def _trigger(envelope: Row) -> Trigger:
    payload = orjson.loads(envelope["payload"])
    return Trigger(
        envelope["envelope_id"],
        envelope["cause"],
        envelope["source"],
        envelope["sender"],
        payload,
        envelope["at"],
    )


def _tick_row(tick_id: str, envelope: Row, at_ms: int, duration_ms: int, error: str) -> Insert:
    return Insert(
        "tick",
        {
            "id": tick_id,
            "agent": envelope["agent"],
            "envelope_id": envelope["envelope_id"],
            "cause": envelope["cause"],
            "at_ms": at_ms,
            "duration_ms": duration_ms,
            "error": error,
        },
    )
