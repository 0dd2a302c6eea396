"""`vendo ls`, `tree`, `cat`, `write`, `call`, `watch`, `rm`, `mkdir`, `mv`: files of a tree, e.g. `/compute/policy`."""

import codecs
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from cli.alert import alert
from cli.body import body_bytes, body_pieces
from cli.client import Client
from cli.follow import follow
from cli.option import AgentOption, BodyArgument, HomeOption, JsonOption, KeyOption, PathArgument
from cli.output import ExitCode, Output, one_line, plain, printable

ToArgument = Annotated[str, typer.Argument(metavar="TO", help="The path that it is to have.")]
AfterOption = Annotated[
    int | None, typer.Option("--after", metavar="CURSOR", min=0, help="Begin after this id; 0: with the oldest.")
]
RetryOption = Annotated[
    float,
    typer.Option("--retry", metavar="SECONDS", min=0, help="So long is a node waited for that has gone; 0: not."),
]
_MARKS = (("readable", "r"), ("writable", "w"), ("callable", "c"), ("watchable", "f"), ("removable", "x"))


def full(agent: str, path: str) -> str:
    """A path of an agent's tree, as the control plane has it."""
    return f"/agents/{agent}/{path.strip('/')}".rstrip("/")


def mode(row: Mapping[str, Any]) -> str:
    """What an entry is (`d` directory, `s` stream, `-` file), and what can be done with it."""
    kind = "d" if row.get("is_dir") else "s" if row.get("stream") else "-"
    return kind + "".join(mark if row.get(name) else "-" for name, mark in _MARKS)


def ls(home: HomeOption, path: PathArgument = "/", agent: AgentOption = "node", json_mode: JsonOption = False) -> None:
    """What is in a directory, and what can be done with it: read, write, call, follow (f), remove (x)."""
    entries = Client.open(home).entries(full(agent, path))
    rows = ((row, (mode(row), row["name"] + ("/" if row["is_dir"] else ""), row.get("about", ""))) for row in entries)
    Output(json_mode=json_mode).stream(("mode", "name", "about"), rows, "Nothing is in it.")


def cat(path: PathArgument, home: HomeOption, agent: AgentOption = "node", json_mode: JsonOption = False) -> None:
    """Read a file; of a stream, what is there now."""
    client = Client.open(home)
    if json_mode:
        Output(json_mode=True).answer(client.get(full(agent, path)))
        return
    pieces = client.pieces(full(agent, path))
    for piece in _shown(pieces) if sys.stdout.isatty() else pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def _shown(pieces: Iterator[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        yield printable(decoder.decode(piece)).encode()
    yield printable(decoder.decode(b"", final=True)).encode()


def write(
    path: PathArgument,
    body: BodyArgument,
    home: HomeOption,
    agent: AgentOption = "node",
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Replace a file. What comes from a file or standard input is sent as it is read, and counts once it is whole."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    written = 0

    def counted() -> Iterator[bytes]:
        nonlocal written
        for piece in pieces:
            written += len(piece)
            yield piece

    if body == "-" or body.startswith("@"):
        pieces = body_pieces(body)
        client.put(full(agent, path), counted(), key=out.key(key))
    else:
        written = len(body.encode())
        client.put(full(agent, path), body.encode(), key=out.key(key))
    out.answer({"written": written})


def call(
    path: PathArgument,
    home: HomeOption,
    body: BodyArgument = "",
    agent: AgentOption = "node",
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Hand one record to a file and print its answer."""
    out, client, raw = Output(json_mode=json_mode), Client.open(home), body_bytes(body)
    answer = client.call(full(agent, path), raw, key=out.key(key))
    out.answer(answer, None if isinstance(answer, dict) else "" if answer is None else plain(answer))


def watch(
    path: PathArgument,
    home: HomeOption,
    agent: AgentOption = "node",
    after: AfterOption = None,
    retry: RetryOption = 60.0,
    json_mode: JsonOption = False,
) -> int:
    """Follow a file, one line per record, until it ends or you stop it; also over a restart of the node."""
    out = Output(json_mode=json_mode)
    with alert():
        for record in follow(home, full(agent, path), after, retry, out.note):
            value = {"id": record.id, "type": record.type, "data": record.data}
            out.record(value, f"{record.type} {one_line(record.data)}")
    return ExitCode.OK


def rm(
    path: PathArgument,
    home: HomeOption,
    agent: AgentOption = "node",
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Remove a file, or an empty directory, where that is possible: `ls` marks it with an x."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    client.remove(full(agent, path), key=out.key(key))
    out.answer({"removed": _own(path)})


def mkdir(
    path: PathArgument,
    home: HomeOption,
    agent: AgentOption = "node",
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Make a directory, where that is possible."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    client.mkdir(full(agent, path), key=out.key(key))
    out.answer({"made": _own(path)})


def mv(
    path: Annotated[str, typer.Argument(metavar="FROM", help="What is there.")],
    to: ToArgument,
    home: HomeOption,
    agent: AgentOption = "node",
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Give a file another path of the same service, where nothing is yet."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    client.rename(full(agent, path), full(agent, to), key=out.key(key))
    out.answer({"from": _own(path), "to": _own(to)})


def _own(path: str) -> str:
    return "/" + path.strip("/")
