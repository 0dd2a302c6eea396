"""`vendo mount`: the tree as a file system, for any program on this machine."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption
from cli.output import Output

DirectoryArgument = Annotated[Path, typer.Argument(metavar="DIR", help="An empty directory.")]
AgentOption = Annotated[
    str | None,
    typer.Option("--agent", help="Only this agent's files, right in DIR; `node` is the operator's own tree."),
]


def mount(
    directory: DirectoryArgument, home: HomeOption, agent: AgentOption = None, json_mode: JsonOption = False
) -> None:
    """Serve the tree as files in a directory, until it is unmounted."""
    from cli.mount.kernel import serve

    out = Output(json_mode=json_mode)
    client = Client.open(home)
    if agent is not None:
        client.list(f"/agents/{agent}")
    place = directory.absolute()

    def ready() -> None:
        told = {"mounted": str(place), "agent": agent, "pid": os.getpid()}
        out.answer(told, f"The tree is in {place}. To end it: fusermount3 -u {place}")

    serve(home, place, agent, ready, out.note)
