"""`vendo tree`: a tree with all that is in it, to a depth, and what can be done with each."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.command.file import full, mode
from cli.option import AgentOption, HomeOption, JsonOption, PathArgument
from cli.output import NodeRefusal, Output

_MOST = 10_000
_COLUMNS = ("mode", "path", "about")

DepthOption = Annotated[int, typer.Option("--depth", min=1, max=32, help="How many levels.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=_MOST, help="How many entries of one directory.")]


def tree(
    home: HomeOption,
    path: PathArgument = "/",
    agent: AgentOption = "node",
    depth: DepthOption = 3,
    limit: LimitOption = 100,
    json_mode: JsonOption = False,
) -> None:
    """All that is in a directory and in those below it, marked as by `ls`. Files are not read, streams not followed."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    top = "/" + path.strip("/")
    found = _walk(client, agent, top.rstrip("/"), depth, limit)
    rows = islice(((row, _cells(row)) for row in found), _MOST)
    out.stream(_COLUMNS, rows, "Nothing is in it.")
    if next(found, None) is not None:
        out.note(f"There is more: only the first {_MOST} are shown. Begin further down, or with a smaller --depth.")


def _walk(client: Client, agent: str, above: str, depth: int, limit: int) -> Iterator[dict[str, Any]]:
    entries = list(islice(client.entries(full(agent, above)), limit + 1))
    for row in entries[:limit]:
        path = f"{above}/{row['name']}"
        yield {"path": path, **row}
        if row["is_dir"] and depth > 1:
            yield from _below(client, agent, path, depth - 1, limit)
    if len(entries) > limit:
        yield {"path": f"{above}/…", "is_dir": False, "more": True, "about": f"more than {limit}: --limit shows more"}


def _below(client: Client, agent: str, path: str, depth: int, limit: int) -> Iterator[dict[str, Any]]:
    """What is in a directory; one that cannot be listed says why, and the others follow."""
    try:
        yield from _walk(client, agent, path, depth, limit)
    except NodeRefusal as error:
        yield {"path": f"{path}/…", "is_dir": False, "error": error.problem.code, "about": error.problem.message}


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    marks = "??????" if "error" in row else "" if "more" in row else mode(row)
    return marks, row["path"] + ("/" if row["is_dir"] else ""), row.get("about", "")
