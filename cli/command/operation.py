"""`vendo status`, `pause`, `resume`, `send`: what an operator does with a running node."""

from typing import Annotated

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import Output


def status(home: HomeOption, json_mode: JsonOption = False) -> None:
    """How the node is doing."""
    Output(json_mode=json_mode).answer(Client.open(home).get("/agents/node/status"))


def pause(home: HomeOption, json_mode: JsonOption = False) -> None:
    """Begin no new effects, also after a restart; open money is finished."""
    answer = Client.open(home).call("/agents/node/ctl/pause")
    Output(json_mode=json_mode).answer(answer, "Paused: no new effects are begun, open money is finished.")


def resume(home: HomeOption, json_mode: JsonOption = False) -> None:
    """Begin new effects again."""
    answer = Client.open(home).call("/agents/node/ctl/resume")
    Output(json_mode=json_mode).answer(answer, "Resumed.")


def send(
    agent: Annotated[str, typer.Argument(help="The agent's name.")],
    text: Annotated[str, typer.Argument(help="The message.")],
    home: HomeOption,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Leave a message in an agent's inbox."""
    answer = Client.open(home).call(f"/agents/{agent}/inbox", {"text": text}, key=key)
    Output(json_mode=json_mode).answer(answer)
