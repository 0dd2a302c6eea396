"""`vendo demo`: the whole market on this machine, for real, checked from outside."""

from pathlib import Path
from typing import Annotated

import typer

from cli.option import JsonOption


def demo(
    crash: Annotated[bool, typer.Option("--crash", help="Kill the buyer once its payment is on the relay.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the homes and logs of all processes.")] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="Keep the screen as an SVG picture.")] = None,
    json_mode: JsonOption = False,
) -> int:
    """An agent buys real work from two sellers with real ecash; non-zero if any fact is false."""
    from cli.demo.run import run

    return run(json_mode, crash, keep, picture)
