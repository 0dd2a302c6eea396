"""Running a recorded tick again: with the same state, settings, trigger, time and randomness, and the recorded answers.

Nothing is asked and nothing is committed: what the program does is only compared, step by step, with what it did then.
It is promised for programs that reach the world through their context, one step after another.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any

from core.error import VendoError
from core.guard import settled
from core.unit import Row
from fs.namespace import Namespace
from node.agent.context import Context, Files, Stage
from node.agent.error import StateTooLarge, TickTooSlow
from node.agent.farewell import TERMINATE
from node.agent.program import AnyProgram
from node.agent.replay.difference import Difference, in_step, in_text, shown
from node.agent.replay.recording import End, Recording
from node.agent.replay.redactor import Redactor, digest_of
from node.agent.replay.tape import Body, BodyMissing, BrokenOff, Diverged, ReplayTape, Stopped
from node.agent.state import configured, kept, loaded
from node.agent.tick.lap import trigger
from node.agent.tick.limit import TickLimits
from node.agent.tick.play import play

log = logging.getLogger(__name__)

SAME, DIFFERENT, UNCLEAR = "same", "different", "unclear"
_ANY_SIZE = 1 << 40
_OUT_OF_TIME = TickTooSlow.code
_CLEAN = Redactor()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a replay.

    Attributes:
        tick_id: of the recorded tick.
        result: same, different or unclear: then `note` says why nothing can be said.
        steps: how many steps were the same.
        code_changed: whether the program's code is another one than it was.
        difference: the first one.
        note: what is to be known beside it.
    """

    tick_id: str
    result: str
    steps: int
    code_changed: bool
    difference: Difference | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        found = self.difference
        return {
            "tick_id": self.tick_id,
            "result": self.result,
            "steps": self.steps,
            "code": "changed" if self.code_changed else "same",
            "where": found.where if found else "",
            "expected": found.expected if found else "",
            "found": found.found if found else "",
            "note": self.note,
        }


class TimeOver(Stopped):
    """Raised into a replay from outside, by whoever ends code that never awaits."""


class _NoRows:
    """Stands where a context would read its agent's rows; a tape that replays never asks it."""

    async def marked(self, mark: str) -> bool:
        raise RuntimeError("a replay reads no rows")

    async def item(self, key: str) -> str | None:
        raise RuntimeError("a replay reads no rows")

    async def items(self, prefix: str) -> list[str]:
        raise RuntimeError("a replay reads no rows")


def _no_files(agent: str) -> Namespace:
    return Namespace([])


async def replay(
    recording: Recording, program: AnyProgram, *, seconds: float = 30.0, redactor: Redactor = _CLEAN
) -> Comparison:
    """Run a recorded tick with a program, and compare.

    Args:
        recording: with its large bodies.
        program: the one that was recorded, or a changed one.
        seconds: how long it may take. Code that never awaits is not ended by this.
        redactor: knows secrets that the program has from elsewhere, and that were not recorded.
    """
    start, end = recording.start, recording.end
    changed = program.digest != start.code
    tape = ReplayTape(recording.steps, cut=recording.cut or end.code == _OUT_OF_TIME, redactor=redactor)
    gone = _gone(recording)
    if gone:
        return Comparison(start.tick_id, UNCLEAR, 0, changed, None, gone)
    found: End | None = None
    try:
        async with asyncio.timeout(seconds):
            found = await _run(recording, program, tape)
        tape.finish()
    except (TimeoutError, TimeOver):
        return Comparison(start.tick_id, UNCLEAR, tape.position, changed, None, f"It took longer than {seconds:g} s.")
    except Stopped as why:
        return _stopped(recording, why, found, tape.position, changed)
    return _ended(recording, found.cleaned(redactor.text), tape.position, changed)


def _gone(recording: Recording) -> str:
    start = recording.start
    for what, text in (("state", start.state), ("config", start.config), ("trigger", start.envelope["payload"])):
        if isinstance(text, Body):
            return f"The {what} that the tick began with is kept no more ({_named(text)})."
    return ""


def _named(body: Body) -> str:
    return f"{body.size} bytes, sha256 {body.digest}"


async def _run(recording: Recording, program: AnyProgram, tape: ReplayTape) -> End:
    """The tick once more. How it ended.

    Raises:
        Stopped: it went another way than the recording.
    """
    end, error = await settled(_played(recording, program, tape))
    if end is not None:
        return end
    assert error is not None
    task = asyncio.current_task()
    if isinstance(error, Stopped):
        raise error
    if isinstance(error, VendoError):
        return End.failed(error.code, error.message)
    if isinstance(error, KeyboardInterrupt) or (task is not None and task.cancelling()):
        raise error
    log.debug("a program failed in a replay", exc_info=error)
    return End.failed("agent.failed", f"The program raised {type(error).__name__}.")


async def _played(recording: Recording, program: AnyProgram, tape: ReplayTape) -> End:
    """The same; what its own code raises goes up."""
    start, stage = recording.start, Stage()
    envelope: Row = dict(start.envelope)
    state = loaded(program, start.state_version, str(start.state))
    config = configured(program, str(start.config))
    files = Files(_no_files, start.agent, envelope["envelope_id"], tape, stage)
    ctx = Context(
        start.agent, start.tick_id, start.now_ms, start.until_ms, state, config, tape, stage, _NoRows(), files
    )  # fmt: skip
    if envelope["cause"] == TERMINATE:
        tape.tell("hook", "on_terminate")
        await program.on_terminate(ctx)
    else:
        await play(program, ctx, trigger(envelope), tape, first="first" in start.flags)
    most = TickLimits().state_bytes if recording.end.code == StateTooLarge.code else _ANY_SIZE
    return End(program.version, kept(program, ctx.state, most)[0])


def _stopped(recording: Recording, why: Stopped, found: End | None, steps: int, changed: bool) -> Comparison:
    """A replay that did not come to the program's end, or came to it too soon."""
    tick_id, end = recording.start.tick_id, recording.end
    if isinstance(why, Diverged):
        difference = in_step(why.position, why.expected, why.found)
        if why.found is None and found is not None and found.code:
            difference = replace(difference, found=_told(found))
        return _different(recording, difference, steps, changed)
    if isinstance(why, BodyMissing):
        note = f"The answer of step {why.position + 1} is kept no more ({_named(why.body)})."
        return Comparison(tick_id, UNCLEAR, steps, changed, None, note)
    assert isinstance(why, BrokenOff)
    note = f"Compared up to step {why.position}: "
    if end.code:
        note += f"there the recorded tick broke off ({end.code}: {end.message})."
    else:
        note += "no more steps were kept."
    return Comparison(tick_id, SAME, steps, changed, None, note)


def _different(recording: Recording, difference: Difference, steps: int, changed: bool) -> Comparison:
    """A difference; but where the program did not get a secret that it had then, it may come of that."""
    start, tick_id = recording.start, recording.start.tick_id
    before = (start.state, start.config, start.envelope["payload"], *(one.answer for one in recording.steps[:steps]))
    if any(
        "[redacted " in (part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)) for part in before
    ):
        note = "A secret that the tick had was not recorded; the difference may come of that."
        return Comparison(tick_id, UNCLEAR, steps, changed, difference, note)
    return Comparison(tick_id, DIFFERENT, steps, changed, difference)


def _ended(recording: Recording, found: End, steps: int, changed: bool) -> Comparison:
    """All steps are the same: how both ended."""
    expected, tick_id = recording.end, recording.start.tick_id
    if expected.late and not found.code:
        note = f"The tick was not committed ({expected.code}: {expected.message}); until then all is the same."
        return Comparison(tick_id, SAME, steps, changed, None, note)
    difference: Difference | None = None
    note = ""
    if expected.code == _OUT_OF_TIME:
        note = f"The recorded tick ran out of time after step {steps}; until then all is the same."
    elif expected.code or found.code:
        if (expected.code, expected.message) != (found.code, found.message):
            difference = Difference("end", _told(expected), _told(found))
    elif expected.state_version != found.state_version:
        difference = Difference("state's version", str(expected.state_version), str(found.state_version))
    else:
        difference, note = _states(expected, found)
    if difference is not None:
        return _different(recording, difference, steps, changed)
    return Comparison(tick_id, SAME, steps, changed, None, note)


def _told(end: End) -> str:
    return f"error {end.code}: {shown(end.message)}" if end.code else "a state"


def _states(expected: End, found: End) -> tuple[Difference | None, str]:
    after = str(found.state)
    if not isinstance(expected.state, Body):
        return in_text("state", expected.state, after), ""
    if expected.state.digest == digest_of(after.encode()):
        return None, ""
    note = f"{_named(expected.state)}, kept no more"
    return Difference("state", f"({note})", shown(after)), ""
