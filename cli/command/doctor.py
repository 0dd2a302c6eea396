"""`vendo doctor`: what is wrong with this node, and how to put it right. Works with and without a running node."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.option import HomeOption, JsonOption
from cli.output import ExitCode, Output

if TYPE_CHECKING:
    from cli.diagnosis import Check

_MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def doctor(home: HomeOption, json_mode: JsonOption = False) -> int:
    """Check versions, home, secrets, settings, process, ports, disk, database, clock, relays, mints; name the fixes."""
    from cli.checkup.finding import Loop
    from cli.diagnosis import State, diagnose

    out = Output(json_mode=json_mode)
    with out.waiting("Looking…"), asyncio.Runner(loop_factory=Loop) as runner:
        checks = runner.run(diagnose(home))
    failed = [check for check in checks if check.state is State.FAIL]
    lines = [line for check in checks for line in _lines(check)]
    out.answer({"ok": not failed, "checks": [check.to_dict() for check in checks]}, "\n".join(lines))
    return _exit(failed)


def _lines(check: "Check") -> list[str]:
    fix = [f"        {check.fix}"] if check.fix else []
    return [f"{_MARKS[check.state]}  {check.name}: {check.detail}", *fix]


def _exit(failed: Sequence["Check"]) -> ExitCode:
    if not failed:
        return ExitCode.OK
    return ExitCode.UNAVAILABLE if all(check.outside for check in failed) else ExitCode.CONFIG
