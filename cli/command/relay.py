"""`vendo relay up`: the embedded relay as a process of its own."""

from typing import Annotated

import typer

from cli.option import HomeOption, JsonOption

app = typer.Typer(no_args_is_help=True, help="The embedded relay, alone.")


@app.callback()
def _group() -> None:
    """Keeps `up` a command of its own while it is the only one."""


@app.command()
def up(
    home: HomeOption,
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = 7777,
    json_mode: JsonOption = False,
) -> None:
    """Run a relay until SIGTERM; prints one JSON line when it is ready."""
    del json_mode  # the line is JSON either way
    from cli.relay import relay_up

    relay_up(home, host, port)
