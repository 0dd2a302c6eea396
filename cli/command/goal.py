"""`vendo agent goals`: what an agent is to reach; show one, set one, remove one."""

import json
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.command.agent import json_body
from cli.option import HomeOption, JsonOption, KeyOption, NameArgument
from cli.output import Output, plain
from core.error import InvalidInput

_COLUMNS = ("id", "priority", "status", "progress", "description")

GoalArgument = Annotated[str | None, typer.Argument(metavar="GOAL", help="Its id; without it all goals are listed.")]
SetOption = Annotated[
    str | None, typer.Option("--set", metavar="JSON", help="What it is to be: JSON, @FILE, or - for standard input.")
]
RemoveOption = Annotated[bool, typer.Option("--remove", help="Take it away.")]


def goals(
    name: NameArgument,
    home: HomeOption,
    goal: GoalArgument = None,
    value: SetOption = None,
    remove: RemoveOption = False,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """What an agent is to reach: all of it, or one goal; --set and --remove change one."""
    out, client, folder = Output(json_mode=json_mode), Client.open(home), f"/agents/{name}/goals"
    if goal is None:
        if remove or value is not None:
            raise InvalidInput("Which goal?", remedy=f"Name it: vendo agent goals {name} GOAL ...")
        found = client.get(f"{folder}/list")["goals"]
        out.rows(found, _COLUMNS, map(_cells, found), "It has no goals.")
        return
    if remove and value is not None:
        raise InvalidInput("--set goes not with --remove.")
    path = f"{folder}/{goal}"
    if remove:
        client.remove(path, key=out.key(key))
        out.answer({"removed": goal})
        return
    if value is not None:
        client.put(path, json.dumps(json_body("--set", value)).encode(), key=out.key(key))
    answer = client.get(path)
    out.answer(answer, None if isinstance(answer, dict) else plain(answer))


def _cells(row: dict[str, Any]) -> list[Any]:
    """One goal; one that was written before goals had a form says whatever it says."""
    said = row.get("description", row.get("free"))
    return [*(row.get(column) for column in _COLUMNS[:-1]), said]
