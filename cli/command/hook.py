"""`vendo hook`: ways in for webhooks; a call becomes an event of an agent."""

from typing import Annotated

import typer

from cli.client import Client
from cli.completion import agent_names
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import Output

app = typer.Typer(help="Ways in for webhooks: new, list, secret, delete.", no_args_is_help=True)

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.", autocompletion=agent_names)]
HookArgument = Annotated[str, typer.Argument(metavar="HOOK", help="The hook's id.")]


def _hooks(agent: str) -> str:
    return f"/agents/{agent}/hooks"


@app.command()
def new(
    agent: AgentArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called: a-z, 0-9, - and _.")],
    home: HomeOption,
    event: Annotated[str, typer.Option("--event", help="What a call becomes; webhook.NAME if nothing is said.")] = "",
    scheme: Annotated[
        str, typer.Option("--scheme", help="How a caller shows that it knows the secret: hmac, hmac-timestamp, token.")
    ] = "hmac",
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Make a hook."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    body = {"name": name, "event": event, "scheme": scheme}
    answer = client.call(f"{_hooks(agent)}/new", body, key=out.key(key))
    out.answer(answer)
    if not json_mode:
        out.note(f"Its secret: vendo hook secret {agent} {answer['id']}")


@app.command("list")
def show(agent: AgentArgument, home: HomeOption, json_mode: JsonOption = False) -> None:
    """The hooks of an agent."""
    client = Client.open(home)
    names = [row["name"] for row in client.list(_hooks(agent)) if row["is_dir"]]
    hooks = [client.get(f"{_hooks(agent)}/{name}") for name in names]
    columns = ("id", "name", "event", "scheme", "path")
    rows = (tuple(hook[column] for column in columns) for hook in hooks)
    Output(json_mode=json_mode).rows(hooks, columns, rows, "There are no hooks.")


@app.command()
def secret(agent: AgentArgument, hook: HookArgument, home: HomeOption, json_mode: JsonOption = False) -> None:
    """Show the secret that callers must know."""
    answer = Client.open(home).call(f"{_hooks(agent)}/{hook}/secret")
    Output(json_mode=json_mode).answer(answer, answer["secret"])


@app.command()
def delete(
    agent: AgentArgument, hook: HookArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False
) -> None:
    """Close a hook: calls of it are not known from then on."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(f"{_hooks(agent)}/{hook}/delete", key=out.key(key)))
