"""`vendo agent export`, `import` and `thaw`: an agent as one file, to another node or back, or as the model of another.

The node writes and reads the archive in a folder of its home; this command carries it between there and FILE.
"""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.command.backup import _whole
from cli.option import HomeOption, JsonOption, KeyOption, NameArgument
from cli.output import Output
from core.error import InvalidInput, NotFound

_AGENTS = "/agents/node/agents"
_STANDARD = Path("-")
# As node.transit names it, and a test holds them equal.
TRANSFER = "transfer"


def export(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive; - is standard output.")],
    home: HomeOption,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="It goes on here; only a clone can be made of the archive.")
    ] = False,
    history: Annotated[int, typer.Option("--history", min=0, help="How many messages, the newest, go with it.")] = 1000,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Write an agent into a file, between two ticks; it is frozen here, so that it does not go on in two places."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    if file == _STANDARD and sys.stdout.isatty():
        raise InvalidInput("An archive is not text for a terminal.", remedy="Name a file, or send it through a pipe.")
    body, used = {"keep_running": keep_running, "history": history}, out.key(key)
    with out.waiting(f"Waiting for {name}'s tick to end…"):
        answer = client.call(f"{_AGENTS}/{name}/export", body, key=used)
    path = home / TRANSFER / answer.pop("transfer")
    written: list[int] = []
    is_carried = False
    try:
        _carry(path, file, written)
        is_carried = True
    finally:
        try:
            if not is_carried and answer["frozen"] and answer["before"] != "frozen":
                if _is_there(file, written):  # whole, and nobody knows who has it by now
                    out.note(f"{name} stays frozen here: {file} is written, though maybe not safe on the disk.")
                else:
                    client.call(f"{_AGENTS}/{name}/thaw")
        finally:
            path.unlink(missing_ok=True)
    if file == _STANDARD:
        out.note(f"{name}: {sum(answer['rows'].values())} rows")
    else:
        out.answer(answer | {"file": str(file)}, f"{name}: {sum(answer['rows'].values())} rows in {file}")
    for line in answer["left_out"]:
        out.note(f"Not in it: {line}")
    if answer["open_jobs"]:
        out.note(f"It has {answer['open_jobs']} open jobs: this node finishes them, and what they bring waits here.")
    if answer["frozen"]:
        out.note(f"It is frozen here: vendo agent thaw {name} lets it go on, if it goes on nowhere else.")


def _carry(path: Path, file: Path, written: list[int]) -> None:
    """Bring the archive to its place; `written` learns the number of the file that gets its name when it is whole."""
    with path.open("rb") as source:
        if file == _STANDARD:
            shutil.copyfileobj(source, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        with _whole(file) as target:
            written.append(os.fstat(target.fileno()).st_ino)
            shutil.copyfileobj(source, target)


def _is_there(file: Path, written: list[int]) -> bool:
    try:
        return file.stat().st_ino in written
    except OSError:
        return False


def bring(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive; - is standard input.")],
    home: HomeOption,
    clone: Annotated[
        str | None,
        typer.Option("--clone", metavar="NEWNAME", help="Make another agent like it, with a new key."),
    ] = None,
    accept_code: Annotated[
        bool,
        typer.Option("--accept-code", help="What it runs here may differ from there, or come with it."),
    ] = False,
    node: Annotated[
        str | None,
        typer.Option("--node", help="Take what this node made only (npub or hex), and let it go on at once."),
    ] = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Make an agent of a file, or have one that is frozen here go on as it was then."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    body: dict[str, Any] = {"clone": clone, "accept_code": accept_code, "node": node}
    with _within(file, home) as transfer:
        used = out.key(key)
        with out.waiting("Reading the archive…"):
            answer = client.call(f"{_AGENTS}/import", body | {"transfer": transfer}, key=used)
    out.answer(answer, f"{answer['name']}: {answer['status']}, {answer['npub']}")
    if answer["reason"]:
        out.note(f"It is {answer['status']}. {answer['reason']}")
    if not answer["same_key"]:
        out.note("It has a new key. Who wrote to the other one does not reach it.")
    for hook in answer["hooks"]:
        out.note(f"Its hook {hook['name']} has a new address: /hooks/{hook['id']}")
    if answer["code"] != "same":
        out.note(f"Its program is {'the one that came with it' if answer['code'] == 'installed' else 'another one'}.")


@contextmanager
def _within(file: Path, home: Path) -> Iterator[str]:
    """The archive in the node's folder, by the name that it has there."""
    if not (file == _STANDARD or file.is_file()):
        raise NotFound(f"There is no file {file}.")
    size = 0 if file == _STANDARD else file.stat().st_size
    if size > shutil.disk_usage(home).free:
        from node.backup.error import BackupRoom

        raise BackupRoom(f"{file} has {size >> 20} MiB, and there is less room in {home}.")
    transfer, folder = secrets.token_hex(16), home / TRANSFER
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / transfer
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            if file == _STANDARD:
                shutil.copyfileobj(sys.stdin.buffer, target)
            else:
                with file.open("rb") as source:
                    shutil.copyfileobj(source, target)
        yield transfer
    finally:
        path.unlink(missing_ok=True)


def thaw(
    name: NameArgument,
    home: HomeOption,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Let an agent go on that was frozen by its export; never if it goes on elsewhere."""
    if not (yes or json_mode):
        typer.confirm(f"Does {name} go on nowhere else? Two with one memory do everything twice.", abort=True, err=True)
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(f"{_AGENTS}/{name}/thaw", key=out.key(key)))
