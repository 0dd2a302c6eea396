"""`vendo backup` and `vendo restore`: a whole node as one file, taken while it runs, and made again from it.

The database is read here, in a process of its own, so that the running node is not slowed; only the signature is its.
"""

import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption
from cli.output import Output
from core.error import InvalidInput

if TYPE_CHECKING:
    from node.backup.manifest import NodeManifest

_STANDARD = Path("-")
_SEAL = "/agents/node/upkeep/seal"
_NICE = 10

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The backup; - is standard output.")]


def backup(file: FileArgument, home: HomeOption, json_mode: JsonOption = False) -> None:
    """Write a backup of the whole node, while it runs or not: settings, encrypted keys, database, files, relay."""
    out = Output(json_mode=json_mode)
    _check_target(file, home)
    os.nice(_NICE)  # a payment that needs the processor at this moment is worth more
    if file == _STANDARD:
        manifest = _take(home, sys.stdout.buffer, out)
        out.note(_text(manifest))
        _remember(home, manifest, "-", out)
        return
    with _whole(file) as target:
        manifest = _take(home, target, out)
        target.flush()
        size = os.fstat(target.fileno()).st_size
    _remember(home, manifest, str(file.absolute()), out)
    out.answer(_shown(manifest) | {"file": str(file), "bytes": size}, f"{_text(manifest)} in {file}")
    for line in manifest.left_out:
        out.note(f"Not in it: {line}")


def _remember(home: Path, manifest: "NodeManifest", file: str, out: Output) -> None:
    """So that `vendo doctor` knows how old the last backup is."""
    from node.backup.memo import Memo, note_backup

    try:
        note_backup(home, Memo(manifest.taken_at, manifest.id, file))
    except OSError as error:  # the backup is whole all the same
        out.note(f"The home keeps no note of it: {error.strerror}.")


def _check_target(file: Path, home: Path) -> None:
    if file == _STANDARD:
        if sys.stdout.isatty():
            raise InvalidInput("A backup is not text for a terminal.", remedy="Name a file, or send it through a pipe.")
        return
    inside = file.absolute().resolve()
    root = home.absolute().resolve()
    if inside.parent == root or any((root / folder) in inside.parents for folder in ("agents", "files", "work")):
        raise InvalidInput(f"{file} is among the node's own files.", remedy="Choose a place outside of the home.")


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    """A file that is there when it is whole and on the disk, and not before."""
    part = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)  # nothing is there under this name once it is whole
    folder = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _take(home: Path, target: BinaryIO, out: Output) -> "NodeManifest":
    """With the node's own signature: it signs if it runs, else its keys are opened here."""
    from node.error import AlreadyRunning
    from node.home import Lock, open_keyring

    if not home.is_dir():
        Client.open(home)  # says what is missing
    try:
        with Lock(home):
            ring = open_keyring(home)
            return _run(home, target, out, lambda raw: _signed_here(ring, raw), stopped=True)
    except AlreadyRunning:
        client = Client.open(home)
        return _run(home, target, out, lambda raw: _signed_by(client, raw), stopped=False)


def _run(home: Path, target: BinaryIO, out: Output, sign: Callable[[bytes], bytes], *, stopped: bool) -> "NodeManifest":
    import asyncio

    from node.backup.take import take

    def tell(text: str) -> None:
        if not out.json_mode:
            out.note(text)

    return asyncio.run(take(home, target, sign, int(time.time()), stopped=stopped, tell=tell))


def _signed_here(ring: Any, manifest: bytes) -> bytes:
    from node.backup.manifest import seal_draft

    raw: str = ring.node.sign(seal_draft(manifest, int(time.time()))).to_json()
    return raw.encode()


def _signed_by(client: Client, manifest: bytes) -> bytes:
    from hashlib import sha256

    answer = client.call(_SEAL, {"digest": sha256(manifest).hexdigest()})
    return str(answer["event"]).encode()


def _shown(manifest: "NodeManifest") -> dict[str, Any]:
    from relays.key import npub, parse_pubkey

    return {
        "npub": npub(parse_pubkey(manifest.node)),
        "id": manifest.id,
        "taken_at": manifest.taken_at,
        "vendo": manifest.vendo,
        "stopped": manifest.stopped,
        "engine": manifest.engine,
        "schema": manifest.schema_revision,
        "rows": sum(table.rows for table in manifest.tables.values()),
        "relay_events": manifest.relay_events,
        "left_out": list(manifest.left_out),
    }


def _text(manifest: "NodeManifest") -> str:
    rows = sum(table.rows for table in manifest.tables.values())
    return f"{rows} rows, {manifest.relay_events} relay events, {len(manifest.parts)} parts"


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup; - is standard input.")],
    home: HomeOption,
    replace: Annotated[bool, typer.Option("--replace", help="Put the home that is there aside, and keep it.")] = False,
    database: Annotated[
        str | None,
        typer.Option("--database", help="Put the rows into this empty database: postgresql://… or sqlite:///"),
    ] = None,
    node: Annotated[str | None, typer.Option("--node", help="Take a backup of this node only (npub or hex).")] = None,
    moved: Annotated[
        bool, typer.Option("--moved", help="The node was stopped for this backup, and has not run since.")
    ] = False,
    json_mode: JsonOption = False,
) -> None:
    """Make a home from a backup; the node that runs in it then asks the mints before it spends anything."""
    import asyncio

    from node.backup.restore import Wish
    from node.backup.restore import restore as restored
    from relays.key import parse_pubkey

    out = Output(json_mode=json_mode)

    def tell(text: str) -> None:
        if not json_mode:
            out.note(text)

    wish = Wish(home, replace, database, None if node is None else parse_pubkey(node), moved)
    with _readable(file, home) as path:
        made = asyncio.run(restored(path, wish, int(time.time()), tell))
    answer = _shown(made.manifest) | {
        "home": str(made.home),
        "before": None if made.before is None else str(made.before),
        "relay_refused": made.relay_refused,
    }
    out.answer(answer, f"{made.home}: {_text(made.manifest)}")
    if made.before is not None:
        out.note(f"What was there is in {made.before}.")
    for line in made.manifest.left_out:
        out.note(f"Was not in the backup: {line}")
    if not moved:
        out.note("Its first start asks every mint what happened since the backup, and repeats nothing that was open.")
    out.note("Never run the node that the backup is of beside this one.")


@contextmanager
def _readable(file: Path, home: Path) -> Iterator[Path]:
    """A file that can be read twice: standard input is kept beside the home for so long."""
    if file != _STANDARD:
        yield file
        return
    parent = home.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=parent, prefix=".vendo-restore-") as spool:  # readable by its owner alone
        while piece := sys.stdin.buffer.read(1 << 20):
            spool.write(piece)
        spool.flush()
        yield Path(spool.name)
