"""`vendo status`, `pause`, `resume`, `send`: what an operator does with a running node."""

from typing import Annotated, Any

import typer

from cli.body import body_text
from cli.client import Client
from cli.completion import agent_names
from cli.option import HomeOption, JsonOption, KeyOption, NameArgument
from cli.output import Output


def status(home: HomeOption, json_mode: JsonOption = False) -> None:
    """How the node is doing."""
    Output(json_mode=json_mode).answer(Client.open(home).get("/agents/node/status"))


def pause(home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Begin no new effects, also after a restart; open money is finished."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    answer = client.call("/agents/node/ctl/pause", key=out.key(key))
    out.answer(answer, "Paused: no new effects are begun, open money is finished.")


def resume(home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Begin new effects again."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    answer = client.call("/agents/node/ctl/resume", key=out.key(key))
    out.answer(answer, "Resumed.")


def send(
    agent: Annotated[str, typer.Argument(help="The agent's name.", autocompletion=agent_names)],
    text: Annotated[str, typer.Argument(help="The message.")],
    home: HomeOption,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Leave a message in an agent's inbox."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(_left(client, agent, text, out.key(key)))


def agent_send(
    name: NameArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The message: text, @FILE, or - for standard input.")],
    home: HomeOption,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Leave a message in an agent's inbox."""
    out, client, body = Output(json_mode=json_mode), Client.open(home), body_text(text)
    out.answer(_left(client, name, body, out.key(key)))


def _left(client: Client, agent: str, text: str, key: str) -> Any:
    return client.call(f"/agents/{agent}/inbox", {"text": text}, key=key)
