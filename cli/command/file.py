"""`vendo ls`, `cat`, `write`, `call`, `watch`: files of an agent's tree, e.g. `/compute/policy`."""

import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import ExitCode, Output, printable
from core.error import InvalidInput

PathArgument: TypeAlias = Annotated[str, typer.Argument(metavar="PATH", help="A path in the tree, e.g. /compute/jobs.")]
AgentOption: TypeAlias = Annotated[str, typer.Option("--agent", help="Whose tree; `node` is the operator's own.")]
BodyArgument: TypeAlias = Annotated[str, typer.Argument(metavar="BODY", help="Text, @FILE, or - for standard input.")]


def _full(agent: str, path: str) -> str:
    return f"/agents/{agent}/{path.strip('/')}".rstrip("/")


def body_bytes(text: str) -> bytes:
    """A body given as text, `@FILE` or `-`.

    Raises:
        InvalidInput: the file cannot be read.
    """
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        raise InvalidInput(f"{text[1:]} cannot be read: {error.strerror}.") from error


def ls(home: HomeOption, path: PathArgument = "/", agent: AgentOption = "node", json_mode: JsonOption = False) -> None:
    """What is in a directory."""
    answer = Client.open(home).list(_full(agent, path))
    Output(json_mode=json_mode).rows(
        answer,
        ("mode", "name", "about"),
        ((_mode(row), row["name"] + ("/" if row["is_dir"] else ""), row.get("about", "")) for row in answer),
        "Nothing is in it.",
    )


def _mode(row: dict[str, object]) -> str:
    marks = (("readable", "r"), ("writable", "w"), ("callable", "c"), ("watchable", "s"))
    return "d---" if row["is_dir"] else "".join(mark if row.get(name) else "-" for name, mark in marks)


def cat(path: PathArgument, home: HomeOption, agent: AgentOption = "node", json_mode: JsonOption = False) -> None:
    """Read a file."""
    client = Client.open(home)
    if json_mode:
        Output(json_mode=True).answer(client.get(_full(agent, path)))
        return
    raw = client.read(_full(agent, path))
    if sys.stdout.isatty():
        raw = printable(raw.decode("utf-8", "replace")).encode()
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()


def write(
    path: PathArgument,
    body: BodyArgument,
    home: HomeOption,
    agent: AgentOption = "node",
    json_mode: JsonOption = False,
) -> None:
    """Replace a file."""
    raw = body_bytes(body)
    Client.open(home).put(_full(agent, path), raw)
    Output(json_mode=json_mode).answer({"written": len(raw)})


def call(
    path: PathArgument,
    home: HomeOption,
    body: BodyArgument = "",
    agent: AgentOption = "node",
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Hand one record to a file and print its answer."""
    answer = Client.open(home).call(_full(agent, path), body_bytes(body), key=key)
    Output(json_mode=json_mode).answer(answer, None if isinstance(answer, dict) else str(answer))


def watch(path: PathArgument, home: HomeOption, agent: AgentOption = "node", json_mode: JsonOption = False) -> int:
    """Follow a file, one line per record, until it ends or you stop it."""
    out = Output(json_mode=json_mode)
    for record in Client.open(home).watch(_full(agent, path)):
        out.record({"id": record.id, "type": record.type, "data": record.data}, f"{record.type} {record.data}")
    return ExitCode.OK
