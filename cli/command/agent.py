"""`vendo agent`: which agents the node has, and what they are made of; add one, delete one, write one of your own."""

import json
from typing import Annotated, Any

import typer

from cli.body import body_bytes
from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption, NameArgument
from cli.output import Output
from core.error import InvalidInput

app = typer.Typer(
    help="Agents: list, add, delete, write one of your own; tick, write to, follow, stop.", no_args_is_help=True
)

_AGENTS, _PROGRAMS = "/agents/node/agents", "/agents/node/programs"
_COLUMNS = ("name", "program", "status", "strangers", "public", "ticks", "from", "npub", "reason")
_FULL = 1_000  # a page that is full may have another one behind it
_REASON = 100


@app.command("list")
def show(home: HomeOption, json_mode: JsonOption = False) -> None:
    """All agents that are not deleted; `reason` says why one is stopped or in quarantine."""
    client, out, answer = Client.open(home), Output(json_mode=json_mode), []
    page = client.get(f"{_AGENTS}/list")
    while page:
        if json_mode:
            answer += page
        else:
            out.rows(page, _COLUMNS, map(_cells, page), "")
        page = client.call(f"{_AGENTS}/list", {"after": page[-1]["name"]}) if len(page) >= _FULL else []
        if not page and not json_mode:
            return
    out.rows(answer, _COLUMNS, (), "There are no agents.")


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    public, reason = "yes" if row["public"] else "no", row["reason"]
    shown = reason if len(reason) <= _REASON else reason[: _REASON - 1] + "…"
    return (
        row["name"], row["program"], row["status"], row["strangers"], public, row["ticks"], row["origin"], row["npub"],
        shown,
    )  # fmt: skip


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
    config: Annotated[
        str,
        typer.Option("--config", metavar="JSON", help="Its program's settings: JSON, @FILE, or - for standard input."),
    ] = "{}",
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Make an agent: it has a key, hears and is announced at once, and is there after a restart."""
    body: dict[str, Any] = {"name": name, "program": program, "about": about, "contacts": contact or []}
    body |= {"strangers": strangers, "public": not private, "config": json_body("--config", config)}
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(f"{_AGENTS}/new", body, key=out.key(key)))


def json_body(option: str, text: str) -> dict[str, Any]:
    """A JSON object that was given as text, `@FILE` or `-`.

    Raises:
        InvalidInput: it is none, or the file cannot be read.
    """
    try:
        value = json.loads(body_bytes(text))
    except ValueError as error:
        raise InvalidInput(f"{option} is a JSON object.") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{option} is a JSON object.")
    return value


@app.command("set")
def change(
    name: NameArgument,
    home: HomeOption,
    settings: Annotated[
        str,
        typer.Option(
            "--settings",
            metavar="FILE|-",
            help="All settings, as in [[agent]], as JSON; what is left out is as in a new agent.",
        ),
    ],
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Give an agent other settings: they hold from its next tick on. Its name and program stay."""
    path, client, out = f"{_AGENTS}/{name}/settings", Client.open(home), Output(json_mode=json_mode)
    value = json_body("--settings", settings if settings == "-" else f"@{settings}")
    client.put(path, json.dumps(value).encode(), key=out.key(key))
    out.answer(client.get(path))


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The agent's name.")],
    home: HomeOption,
    kind: Annotated[
        str, typer.Option("--kind", help="python: a program of the node; webhook or command: it lives outside.")
    ] = "python",
    json_mode: JsonOption = False,
) -> None:
    """Write an agent of your own and its test into the home directory, and say what comes next."""
    from cli.template import make

    made = make(home, name, kind)
    value = {"name": name, "kind": kind, "files": list(map(str, made.files)), "next": list(made.next)}
    lines = [*map(str, made.files), "", "Next:", *(f"  {line}" for line in made.next)]
    Output(json_mode=json_mode).answer(value, "\n".join(lines))


@app.command()
def programs(home: HomeOption, json_mode: JsonOption = False) -> None:
    """What agents can be made of: built in, installed, or a file in the home; and what is wrong with it."""
    answer = Client.open(home).get(f"{_PROGRAMS}/list")
    Output(json_mode=json_mode).rows(
        answer,
        ("name", "source", "digest", "where", "problem"),
        ((row["name"], row["source"], row["digest"][:12], row["where"], row["problem"]) for row in answer),
        "There are no programs.",
    )


@app.command()
def reload(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="The program's name.")],
    home: HomeOption,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Take a program's changed file up without a restart; agents that were set aside for want of it go on."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(f"{_PROGRAMS}/reload", {"name": program}, key=out.key(key)))


@app.command()
def secret(name: NameArgument, home: HomeOption, json_mode: JsonOption = False) -> None:
    """Show what signs the triggers that are sent to an agent by webhook; its receiver needs it to check them."""
    answer = Client.open(home).call(f"{_PROGRAMS}/secret", {"agent": name})
    Output(json_mode=json_mode).answer(answer, answer["secret"])


@app.command()
def delete(
    name: NameArgument,
    home: HomeOption,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Delete an agent for good: it is heard no more, what it published is taken back, its key is given up."""
    if not (yes or json_mode):
        typer.confirm(f"Delete {name}? Its name and key are never used again.", abort=True, err=True)
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(f"{_AGENTS}/{name}/delete", key=out.key(key)))
