"""`vendo inbox`: what waits for an agent, what it could not deal with, and handing that out again or giving it up."""

from typing import Annotated, Any

import typer

from cli.client import Client
from cli.completion import agent_names
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import Output
from core.error import InvalidInput

app = typer.Typer(help="What waits for an agent: list, dead, replay, discard.", no_args_is_help=True)

AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.", autocompletion=agent_names)]
EnvelopeArgument = Annotated[str | None, typer.Argument(metavar="ENVELOPE", help="Which one; else give --all.")]
AllOption = Annotated[bool, typer.Option("--all", help="All of them.")]
_COLUMNS = ("envelope", "cause", "source", "sender", "priority", "tries", "text")
_SHOWN = 60


def _inbox(agent: str) -> str:
    return f"/agents/{agent}/inbox"


def _cells(row: dict[str, Any], text: str) -> tuple[Any, ...]:
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return (*(row[name] for name in ("envelope_id", "cause", "source", "sender", "priority", "tries")), shown)


@app.command("list")
def show(agent: AgentArgument, home: HomeOption, json_mode: JsonOption = False) -> None:
    """What waits, the first 100 in their turn."""
    answer = Client.open(home).get(_inbox(agent))
    rows = (_cells(row, str(row["payload"])) for row in answer)
    Output(json_mode=json_mode).rows(answer, _COLUMNS, rows, "Nothing waits.")


@app.command()
def dead(agent: AgentArgument, home: HomeOption, json_mode: JsonOption = False) -> None:
    """What the agent failed at too often, or had no room for, with the error; the first 100."""
    answer = Client.open(home).get(f"{_inbox(agent)}/deadletter")
    rows = (_cells(row, str(row["error"])) for row in answer)
    Output(json_mode=json_mode).rows(answer, (*_COLUMNS[:-1], "error"), rows, "The dead letter is empty.")


@app.command()
def replay(
    agent: AgentArgument,
    home: HomeOption,
    envelope: EnvelopeArgument = None,
    everything: AllOption = False,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Hand a dead envelope out again, under its own id, with fresh tries."""
    target = _target(agent, envelope, everything, "replay")
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(target, key=out.key(key)))


@app.command()
def discard(
    agent: AgentArgument,
    home: HomeOption,
    envelope: EnvelopeArgument = None,
    everything: AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Give a dead envelope up for good."""
    target = _target(agent, envelope, everything, "discard")
    if everything and not (yes or json_mode):
        typer.confirm(f"Give up everything in the dead letter of {agent}?", abort=True, err=True)
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(target, key=out.key(key)))


def _target(agent: str, envelope: str | None, everything: bool, act: str) -> str:
    if (envelope is None) is not everything:
        raise InvalidInput("Name one envelope, or give --all.", remedy=f"See: vendo inbox dead {agent}")
    within = f"/{envelope}" if envelope is not None else ""
    return f"{_inbox(agent)}/deadletter{within}/{act}"
