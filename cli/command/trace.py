"""`vendo agent logs`: what an agent did, as lines for people or records for programs."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.alert import alert
from cli.client import Client
from cli.command.file import RetryOption
from cli.follow import follow
from cli.option import HomeOption, JsonOption, NameArgument
from cli.output import ExitCode, Output, one_line, plain
from cli.wire import END, GAP

FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until you stop it.")]
AfterOption = Annotated[
    int | None, typer.Option("--after", metavar="ID", min=0, help="Only what came after the record of this id.")
]
LimitOption = Annotated[int, typer.Option("--limit", min=0, max=500, help="How many of the last records.")]


def logs(
    name: NameArgument,
    home: HomeOption,
    follows: FollowOption = False,
    after: AfterOption = None,
    limit: LimitOption = 50,
    retry: RetryOption = 60.0,
    json_mode: JsonOption = False,
) -> int:
    """What an agent did: when, what kind of record, what it says. With -f also what comes."""
    out = Output(json_mode=json_mode)
    if follows and after is not None:
        return _followed(out, home, name, after, retry)
    recent = Client.open(home).get(f"/agents/{name}/logs/recent")
    last = max((int(one["id"]) for one in recent), default=0)
    shown = [one for one in recent if after is None or int(one["id"]) > after]
    for record in shown if after is not None else shown[-limit:] if limit else []:
        out.record(record, line(record))
    return _followed(out, home, name, last, retry, has_answered=True) if follows else ExitCode.OK


def _followed(out: Output, home: Path, name: str, after: int, retry: float, *, has_answered: bool = False) -> int:
    with alert():
        for one in follow(home, f"/agents/{name}/logs/trace", after, retry, out.note, has_answered=has_answered):
            if one.type != END:
                _shown(out, one.type, json.loads(one.data))
    return ExitCode.OK


def _shown(out: Output, kind: str, record: dict[str, Any]) -> None:
    if kind == GAP:
        said = f"The records from {record['from']} to {record['to']} are not kept any more."
        out.record({"id": record["to"], "type": GAP, "data": record}, said)
    else:
        out.record(record, line(record))


def line(record: dict[str, Any]) -> str:
    """One record as one line, whatever is in it: time (UTC), type, and `name=value` for each field."""
    seconds, millis = divmod(int(record["at_ms"]), 1_000)
    at = datetime.fromtimestamp(seconds, UTC)
    data = record["data"]
    said = (
        " ".join(f"{name}={_value(value)}" for name, value in data.items()) if isinstance(data, dict) else plain(data)
    )
    return one_line(f"{at:%Y-%m-%dT%H:%M:%S}.{millis:03d}Z  {record['type']:<10}  {said}").rstrip()


def _value(value: Any) -> str:
    """Text as it is where that is clear, else as JSON."""
    if isinstance(value, str) and value and not any(char.isspace() or char in '"=' for char in value):
        return value
    return json.dumps(value, ensure_ascii=False)
