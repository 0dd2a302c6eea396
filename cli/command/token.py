"""`vendo token`: who else may ask the node over HTTP; tokens are made, listed and revoked."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.completion import agent_names
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import Output
from core.error import InvalidInput

app = typer.Typer(help="Tokens for the control plane: new, list, revoke.", no_args_is_help=True)

_DAY_S = 86_400
_PATH = "/agents/node/tokens"
_COLUMNS = ("id", "role", "agent", "label", "created", "expires")

TokenArgument = Annotated[str, typer.Argument(metavar="TOKEN", help="The token's id, as in the list.")]


@app.command()
def new(
    home: HomeOption,
    agent: Annotated[
        str, typer.Option("--agent", help="It opens the files of this agent.", autocompletion=agent_names)
    ] = "",
    operator: Annotated[bool, typer.Option("--operator", help="It opens everything.")] = False,
    label: Annotated[str, typer.Option("--label", help="What it is for; shown in the list.")] = "",
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=3_650, help="For how long it holds; else until it is revoked.")
    ] = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Make a token, and show it this once."""
    if operator is bool(agent):
        raise InvalidInput("A token is for one agent, or for the operator.", remedy="Say --agent NAME, or --operator.")
    body: dict[str, Any] = {"role": "operator" if operator else "agent", "agent": agent, "label": label}
    if days is not None:
        body["expires_in_s"] = days * _DAY_S
    out, client = Output(json_mode=json_mode), Client.open(home)
    answer = client.call(f"{_PATH}/new", body, key=out.key(key))
    out.answer(answer, answer["token"])
    if not json_mode:
        out.note(f"It is shown this once. To take it back: vendo token revoke {answer['id']}")


@app.command("list")
def show(home: HomeOption, json_mode: JsonOption = False) -> None:
    """The tokens that were made, without the tokens themselves."""
    tokens = Client.open(home).get(_PATH)
    rows = (
        (one["id"], one["role"], one["agent"], one["label"], _date(one["created_at"]), _date(one["expires_at"]))
        for one in tokens
    )
    Output(json_mode=json_mode).rows(tokens, _COLUMNS, rows, "There are no tokens but the operator's own.")


@app.command()
def revoke(token: TokenArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Take a token back: it opens nothing from then on."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    client.remove(f"{_PATH}/{token}", key=out.key(key))
    out.answer({"id": token, "status": "revoked"})


def _date(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
