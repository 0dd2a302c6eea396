"""`vendo replay`: run a recorded tick again, here and with nothing to act on, and say where it first differs."""

import base64
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption
from cli.output import ExitCode, Output, Problem
from core.error import InvalidInput, NotFound

if TYPE_CHECKING:
    from node.agent.program import AnyProgram
    from node.agent.replay.recording import Recording
    from node.agent.replay.rerun import Comparison

_TOLD = 25
_MARK = {"same": "same", "different": "DIFFERENT", "unclear": "unclear"}

AgentArgument = Annotated[str | None, typer.Argument(metavar="AGENT", help="Whose tick.")]
TickOption = Annotated[str | None, typer.Option("--tick", help="Its id or number in /logs/ticks; else the last one.")]
AllOption = Annotated[bool, typer.Option("--all", help="Every recorded tick of the agent, oldest first.")]
ProgramOption = Annotated[
    Path | None,
    typer.Option("--program", exists=True, dir_okay=False, help="A file to replay with; else the agent's program."),
]
RecordingOption = Annotated[
    Path | None,
    typer.Option("--recording", exists=True, dir_okay=False, help="A saved recording instead of the node's."),
]
SecondsOption = Annotated[float, typer.Option("--timeout", min=0.1, max=3_600, help="Seconds that a tick may take.")]


@dataclass(frozen=True, slots=True)
class _Unread:
    """A recording that cannot be used."""

    tick_id: str
    message: str


def replay(
    home: HomeOption,
    agent: AgentArgument = None,
    tick: TickOption = None,
    every: AllOption = False,
    program: ProgramOption = None,
    recording: RecordingOption = None,
    seconds: SecondsOption = 30.0,
    json_mode: JsonOption = False,
) -> int:
    """Run a recorded tick again and compare; exit 65 if it differs. Nothing is sent, paid or written."""
    if (agent is None) is (recording is None):
        raise InvalidInput("Name an agent, or give --recording FILE.")
    if every and (tick is not None or recording is not None):
        raise InvalidInput("--all goes with neither --tick nor --recording.")
    out = Output(json_mode=json_mode)
    if recording is not None:
        found: Iterator[Recording | _Unread] = iter([_decoded(recording.read_bytes())])
    elif every:
        found = _all(Client.open(home), str(agent))
    else:
        found = iter([_one(Client.open(home), str(agent), tick)])
    bench = _Bench(home, program, seconds)
    return _each(out, bench, found) if every else _single(out, bench.compare(next(found)))


# -- where recordings come from


def _decoded(body: bytes) -> "Recording":
    from node.agent.replay.notation import decode

    return decode(body)


def _one(client: Client, agent: str, tick: str | None) -> "Recording":
    ticks = f"/agents/{agent}/logs/ticks"
    if tick is None:
        recorded = [row["id"] for row in client.get(ticks) if row["recorded"]]
        if not recorded:
            raise NotFound(f"No tick of {agent!r} is recorded.", remedy="Let it have one: vendo call /tick --agent ...")
        tick = str(recorded[0])
    return _decoded(client.read(f"{ticks}/{tick}/recording"))


def _all(client: Client, agent: str) -> "Iterator[Recording | _Unread]":
    for record in client.watch(f"/agents/{agent}/logs/recordings", 0):
        if record.type == "recording":
            yield _decoded(base64.b64decode(record.data))
        elif record.type == "error":
            about = json.loads(record.data)
            yield _Unread(about["tick_id"], about["message"])
        elif record.type == "end":
            if json.loads(record.data).get("reason") != "complete":
                raise NotFound(
                    "The node has ended before all recordings were there.", remedy="Start it, and try again."
                )
            return


# -- running them again


class _Bench:
    """Where ticks are run again: with one file, or with the programs of a home."""

    def __init__(self, home: Path, file: Path | None, seconds: float) -> None:
        self._home, self._file, self._seconds = home, file, seconds
        self._programs: dict[str, AnyProgram] = {}

    def compare(self, recording: "Recording | _Unread") -> "Comparison":
        """One tick again.

        Raises:
            NoProgram: there is none for it.
        """
        import asyncio

        from node.agent.replay.redactor import Redactor, secrets_in
        from node.agent.replay.rerun import UNCLEAR, Comparison, TimeOver, replay

        if isinstance(recording, _Unread):
            return Comparison(recording.tick_id, UNCLEAR, 0, False, None, recording.message)
        program = self._program(recording.start.program)
        try:
            with _limit(self._seconds + 1.0):  # for code that never awaits
                own = Redactor(secrets_in(os.environ))
                return asyncio.run(replay(recording, program, seconds=self._seconds, redactor=own))
        except TimeOver:
            note = f"It took longer than {self._seconds:g} s."
            changed = program.digest != recording.start.code
            return Comparison(recording.start.tick_id, UNCLEAR, 0, changed, None, note)

    def _program(self, name: str) -> "AnyProgram":
        from node.agent.load.source import load_source

        if name not in self._programs:
            if self._file is not None:
                self._programs[name] = load_source(self._file.read_bytes(), self._file, name)
            else:
                self._programs[name] = _installed(self._home, name)
        return self._programs[name]


def _installed(home: Path, name: str) -> "AnyProgram":
    """The program that agents of a home run under this name."""
    from node.agent.error import NoProgram
    from node.agent.load.library import for_replay

    found: AnyProgram | None = for_replay(home).get(name)
    if found is None:
        raise NoProgram(f"There is no program called {name!r} here.", remedy="Give its file: --program FILE")
    return found


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Ends even code that never awaits: it is told again and again, and in the end the command ends with it."""
    from node.agent.replay.rerun import TimeOver

    if threading.current_thread() is not threading.main_thread():  # only there can code be interrupted
        yield
        return
    told = 0

    def over(number: int, frame: Any) -> None:
        nonlocal told
        told += 1
        if told == _TOLD:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        raise TimeOver

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- what is said


def _lines(comparison: "Comparison") -> str:
    found = comparison.difference
    head = f"tick {comparison.tick_id}: {_MARK[comparison.result]}"
    lines = [f"{head}, {comparison.steps} steps" if found is None else f"{head} at {found.where}"]
    if found is not None:
        lines += [f"  recorded: {found.expected}", f"  replayed: {found.found}"]
    if comparison.note:
        lines.append(f"  {comparison.note}")
    if comparison.code_changed:
        lines.append("  The program's code is not what it was.")
    return "\n".join(lines)


def _single(out: Output, comparison: "Comparison") -> ExitCode:
    out.answer(comparison.to_dict(), _lines(comparison))
    return ExitCode.OK if comparison.result == "same" else ExitCode.DATA


def _each(out: Output, bench: _Bench, recordings: "Iterator[Recording | _Unread]") -> ExitCode:
    counts = {"same": 0, "different": 0, "unclear": 0}
    others: list[dict[str, Any]] = []
    for recording in recordings:
        comparison = bench.compare(recording)
        counts[comparison.result] += 1
        if comparison.result != "same":
            others.append(comparison.to_dict())
            if not out.json_mode:
                out.note(_lines(comparison))
    total = sum(counts.values())
    if not total:
        return out.fail(Problem("recording.none", "No tick of this agent is recorded.", "", "", 404))
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    out.answer({"ticks": total, **counts, "first": others[0] if others else None, "others": others}, f"{text}.")
    return ExitCode.OK if not others else ExitCode.DATA
