"""`vendo completion`: the lines that make a shell complete words of `vendo`."""

from enum import StrEnum
from typing import Annotated

import typer

from cli.completion import script
from cli.option import JsonOption
from cli.output import Output


class Shell(StrEnum):
    """Shells that can be told."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    context: typer.Context,
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
    json_mode: JsonOption = False,
) -> None:
    """Print what makes a shell complete commands, options, agents and paths: source it from the shell's own file."""
    text = script(context.find_root().command, shell.value)
    Output(json_mode=json_mode).answer({"shell": shell.value, "script": text}, text)
