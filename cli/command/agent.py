"""`vendo agent`: which agents the node has; add one, delete one, while it runs."""

from typing import Annotated, Any

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption
from cli.output import Output

app = typer.Typer(help="Agents: list, add, delete.", no_args_is_help=True)

_AGENTS = "/agents/node/agents"
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")]


@app.command("list")
def show(home: HomeOption, json_mode: JsonOption = False) -> None:
    """All agents."""
    answer = Client.open(home).get(f"{_AGENTS}/list")
    Output(json_mode=json_mode).rows(
        answer,
        ("name", "program", "strangers", "public", "ticks", "from", "npub"),
        (
            (
                row["name"],
                row["program"],
                row["strangers"],
                "yes" if row["public"] else "no",
                row["ticks"],
                "config.toml" if row["configured"] else "added",
                row["npub"],
            )
            for row in answer
        ),
        "There are no agents.",
    )


@app.command()
def add(
    name: NameArgument,
    home: HomeOption,
    program: Annotated[str, typer.Option("--program", help="What it runs.")] = "buyer",
    about: Annotated[str, typer.Option("--about", help="Shown to others in its profile.")] = "",
    contact: Annotated[
        list[str] | None, typer.Option("--contact", help="Who may write to it besides the owner; again for more.")
    ] = None,
    strangers: Annotated[str, typer.Option("--strangers", help="Whom else it hears: none, pow, pay or all.")] = "none",
    private: Annotated[bool, typer.Option("--private", help="Publish nothing about it.")] = False,
    json_mode: JsonOption = False,
) -> None:
    """Make an agent: it has a key, hears and is announced at once, and is there after a restart."""
    body: dict[str, Any] = {"name": name, "program": program, "about": about, "contacts": contact or []}
    body |= {"strangers": strangers, "public": not private}
    Output(json_mode=json_mode).answer(Client.open(home).call(f"{_AGENTS}/new", body))


@app.command()
def delete(
    name: NameArgument,
    home: HomeOption,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    json_mode: JsonOption = False,
) -> None:
    """Delete an agent for good: it is heard no more, what it published is taken back, its key is given up."""
    if not (yes or json_mode):
        typer.confirm(f"Delete {name}? Its name and key are never used again.", abort=True, err=True)
    Output(json_mode=json_mode).answer(Client.open(home).call(f"{_AGENTS}/{name}/delete"))
