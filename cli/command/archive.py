"""`vendo relay export` and `vendo relay import`: the embedded relay's events as JSON lines."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from cli.option import HomeOption, JsonOption
from cli.output import ExitCode, Output

_STANDARD = Path("-")


def export_events(
    home: HomeOption,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; - writes standard output.")],
    json_mode: JsonOption = False,
) -> None:
    """Write every stored event as one line of JSON, oldest first, while a relay runs or not."""
    from cli.relay import settings_in
    from relays.embedded.archive import exported

    events = exported(settings_in(home).path, int(time.time()))
    output = Output(json_mode=json_mode)
    if file == _STANDARD:
        output.note(f"{_write(sys.stdout.buffer, events)} events")
        return
    partial = file.with_name(file.name + ".part")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:  # letters are in it
        number = _write(out, events)
    partial.replace(file)  # so that a file of this name is always whole
    output.answer({"events": number, "file": str(file)}, f"{number} events in {file}")


def _write(out: BinaryIO, events: Iterator[bytes]) -> int:
    number = 0
    for raw in events:
        out.write(raw + b"\n")
        number += 1
    out.flush()
    return number


def import_events(
    home: HomeOption,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines; - reads standard input.")],
    json_mode: JsonOption = False,
) -> None:
    """Verify the events of a file and store what is new; can be repeated. The relay must not be running."""
    from cli.relay import settings_in
    from relays.address import canonical
    from relays.embedded.archive import import_events as imported

    settings = settings_in(home)
    urls = (settings.description.public_url, f"ws://{settings.host}:{settings.port}")
    own = {canonical(url) for url in urls if url}
    with nullcontext(sys.stdin.buffer) if file == _STANDARD else file.open("rb") as lines:
        report = imported(settings.path, lines, settings.limits.store_bytes, own, int(time.time()))
    refused = sum(report.refused.values())
    output = Output(json_mode=json_mode)
    for line, reason in report.first:
        output.note(f"line {line}: {reason}")
    text = f"{report.read} lines: {report.stored} stored, {report.known} known already, {refused} refused"
    output.answer(report.to_dict(), text)
    if refused:
        raise typer.Exit(ExitCode.DATA)
