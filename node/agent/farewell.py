"""The last tick of an agent: `on_terminate`, and what goes with the agent. It is bounded in time, and keeps nobody."""

from collections.abc import Callable
from dataclasses import dataclass, field

from core.error import InvalidInput
from core.unit import Condition, Row, Update, Value, Write
from node.agent.log import record
from node.agent.program import Program
from node.agent.replay import reel
from node.agent.replay.recording import End
from node.agent.state import kept
from node.agent.tick.harvest import harvest
from node.agent.tick.lap import DELETED, Attempt, Lap, tick_row
from node.agent.tick.limit import bounds
from node.agent.tick.means import Means
from node.agent.tick.supervision import Failure
from node.agent.wake.estate import settle

TERMINATE = "terminate"


@dataclass(slots=True)
class Farewell:
    """The unit of an agent's end, and what follows its commit."""

    writes: list[Write] = field(default_factory=list)
    thens: list[Callable[[], None]] = field(default_factory=list)

    def conclude(self) -> None:
        """It is committed."""
        for then in self.thens:
            then()


async def say_farewell(means: Means, row: Row, *, silent: bool = False) -> Farewell:
    """Run an agent's `on_terminate`; what to commit then. What failed is only written down.

    Args:
        means: what ticks are made of.
        row: the agent's.
        silent: leave the hook out: what it asks for cannot be committed.

    Raises:
        VendoError: the database failed.
    """
    own, now_ms, name = bounds(row["limits"], means.limits), means.clock.millis(), row["name"]
    lap = Lap(name, row, bounds=own)
    attempt = means.begin(_envelope(name, now_ms), own, now_ms)
    failure: Failure | None = None
    if not silent:
        failure = await means.guard.run(_last_hook(means, lap, row, attempt), name, own.seconds, attempt.meter)
    attempt.stage.close()
    changed: dict[str, Value] = {"status": DELETED, "reason": ""}
    found = Farewell()
    if failure is None and lap.program is not None and attempt.text:
        try:
            found = await _asked(means, lap, attempt)
            changed |= {"state": attempt.text, "state_version": lap.program.version}
        except InvalidInput as error:
            failure = Failure.of(error)
    same: dict[str, Condition] = {"name": name, "version": row["version"], "epoch": row["epoch"]}
    return Farewell(
        [
            Update("agent", same, set=changed, add={"version": 1}),
            *found.writes,
            *settle(name, means.clock.millis() // 1_000),
            tick_row(attempt, row["version"], lap.code, means.clock.millis(), failure.text if failure else ""),
            *_recording(lap, attempt, failure),
        ],
        found.thens,
    )


def _envelope(agent: str, now_ms: int) -> Row:
    return {
        "agent": agent, "envelope_id": TERMINATE, "cause": TERMINATE, "source": "node", "sender": "operator",
        "payload": "{}", "at": now_ms // 1000, "seq": None, "reply_to": "", "tries": 0,
    }  # fmt: skip


async def _last_hook(means: Means, lap: Lap, row: Row, attempt: Attempt) -> None:
    program = means.programs.get(row["program"])
    if program is None or type(program).on_terminate is Program.on_terminate:
        return
    lap.program = program
    _, ctx = means.enter(lap, row, attempt)
    attempt.tape.tell("hook", "on_terminate")
    await program.on_terminate(ctx)
    attempt.text, attempt.fresh = kept(program, ctx.state, means.limits.state_bytes)


async def _asked(means: Means, lap: Lap, attempt: Attempt) -> Farewell:
    asked = await harvest(attempt, lap, means.unit)
    clean, now_ms = attempt.tape.redactor.text, means.clock.millis()
    said = [record(lap.agent, now_ms, kind, clean(data)) for kind, data in attempt.stage.records]
    return Farewell([*asked.writes, *said], attempt.stage.batch.thens if attempt.stage.batch is not None else [])


def _recording(lap: Lap, attempt: Attempt, failure: Failure | None) -> list[Write]:
    if attempt.start is None or lap.program is None:
        return []
    end = End.failed(failure.code, failure.message) if failure else End(lap.program.version, attempt.text)
    return reel.writes(attempt.start, attempt.tape, end, attempt.began_ms)
