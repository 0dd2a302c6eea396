"""Taking a backup of a home, also while its node runs: nothing is stopped, and nobody waits.

The database is read at one moment; agents' files and the relay's events come after it, so that what a row names is
there. A file that comes or goes meanwhile may be in it or not.
"""

import base64
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from node import config
from node.backup.archive import MAX_NAME, PIECE, Pack, fits
from node.backup.manifest import MANIFEST, SIGNATURE, NodeManifest, PartFacts, TableFacts
from node.home import KEYS, database_of
from node.hosting import FILE as RELAY_FILE
from node.identity.keystore import Locked, read_keys
from node.storage.dump import Dump, open_dump
from relays.embedded.archive import exported
from relays.key import parse_pubkey

FOLDERS = ("agents", "files")  # of agents: their programs, and what was sent to them
CHUNK = 4 << 20
CONFIG_PART, KEYS_PART, TABLES, EVENTS = config.FILE, KEYS, "db", "relay"
LEFT_OUT = (
    "the passphrase of the keys, wherever it is kept",
    "the token of the control plane: a restored node has a new one",
)

Sign = Callable[[bytes], bytes]  # the manifest → the signed event, as JSON
Tell = Callable[[str], None]


class _Parts:
    """What is written so far, and its digests."""

    def __init__(self, out: BinaryIO) -> None:
        self._pack = Pack(out)
        self.listed: list[PartFacts] = []
        self.left_out: list[str] = list(LEFT_OUT)

    def add(self, name: str, body: bytes) -> None:
        self._pack.add(name, len(body), (body,))
        self.listed.append(PartFacts(name=name, size=len(body), sha256=sha256(body).hexdigest()))

    def add_file(self, name: str, handle: int) -> None:
        facts, digest = os.fstat(handle), sha256()

        def pieces() -> Iterator[bytes]:
            left = facts.st_size
            while left and (piece := os.read(handle, min(PIECE, left))):
                left -= len(piece)
                digest.update(piece)
                yield piece

        self._pack.add(name, facts.st_size, pieces(), runs=bool(facts.st_mode & 0o100))
        self.listed.append(PartFacts(name=name, size=facts.st_size, sha256=digest.hexdigest()))

    def close(self, manifest: bytes, seal: bytes) -> None:
        for name, body in ((MANIFEST, manifest), (SIGNATURE, seal)):
            self._pack.add(name, len(body), (body,))
        self._pack.close()


async def take(
    home: Path, out: BinaryIO, sign: Sign, now: int, *, stopped: bool, tell: Tell = lambda _: None
) -> NodeManifest:
    """Write a backup of a home.

    Args:
        home: of the node.
        out: takes the bytes; whoever opened it sees to it that they last.
        sign: has the node sign.
        now: Unix seconds.
        stopped: nobody runs the node, and nobody will until this has returned. (Who uses a server, nobody knows.)
        tell: is told how far it is.

    Raises:
        HomeMissing, ConfigInvalid, KeysDamaged: the home is not whole.
        NotFound, NotOurDatabase, NewerSchema, Unavailable: its database cannot be read.
        BackupMoved: a file changed while it was read.
        OSError: a file cannot be read, or `out` takes no more.
    """
    settings, keys = config.load(home), read_keys(home / KEYS)
    node = parse_pubkey(keys.node) if isinstance(keys, Locked) else keys.ring().node.pubkey
    parts = _Parts(out)
    parts.add(CONFIG_PART, (home / config.FILE).read_bytes())
    parts.add(KEYS_PART, (home / KEYS).read_bytes())
    tables: dict[str, TableFacts] = {}
    engine, revision, where = "sqlite", "", database_of(home, settings.storage)
    if isinstance(where, str) or where.exists():
        async with open_dump(where) as dump:
            engine, revision = dump.engine, dump.revision
            for table in dump.tables:
                tables[table] = await _table(dump, table, parts, tell)
    events = _events(home, now, parts)
    if events:
        tell(f"relay: {events} events")
    _files(home, parts)
    manifest = NodeManifest(
        format=1, kind="node", vendo=version("vendo"), taken_at=now, id=secrets.token_hex(32), node=node,
        parts=tuple(parts.listed), left_out=tuple(parts.left_out), stopped=stopped and isinstance(where, Path),
        engine="postgresql" if engine == "postgresql" else "sqlite", schema_revision=revision, tables=tables,
        relay_events=events,
    )  # fmt: skip
    raw = manifest.to_json()
    parts.close(raw, sign(raw))
    return manifest


def row_line(row: Sequence[Any]) -> bytes:
    """A row as a line of JSON; bytes as base64."""
    plain = [base64.b64encode(value).decode() if isinstance(value, bytes) else value for value in row]
    return orjson.dumps(plain) + b"\n"


async def _table(dump: Dump, table: str, parts: _Parts, tell: Tell) -> TableFacts:
    rows = 0

    async def lines() -> AsyncIterator[bytes]:
        nonlocal rows
        async for page in dump.pages(table):
            rows += len(page)
            yield b"".join(map(row_line, page))

    number = 0
    async for number, body in _chunks(lines()):
        parts.add(f"{TABLES}/{table}/{number:06}", body)
    if number:
        tell(f"database: {table}, {rows} rows")
    return TableFacts(columns=dump.tables[table], rows=rows)


async def _chunks(lines: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Lines together, as parts of a few megabytes, counted from one."""
    held, size, number = [], 0, 0
    async for line in lines:
        held.append(line)
        size += len(line)
        if size >= CHUNK:
            number += 1
            yield number, b"".join(held)
            held, size = [], 0
    if held:
        yield number + 1, b"".join(held)


def _events(home: Path, now: int, parts: _Parts) -> int:
    """The events of the node's own relay; how many."""
    path = home / RELAY_FILE
    if not path.exists():
        return 0
    held: list[bytes] = []
    size = number = count = 0
    with closing(exported(path, now)) as events:  # type: ignore[type-var]  # it is a generator
        for raw in events:
            held.append(raw + b"\n")
            count, size = count + 1, size + len(raw) + 1
            if size >= CHUNK:
                number += 1
                parts.add(f"{EVENTS}/{number:06}", b"".join(held))
                held, size = [], 0
    if held:
        parts.add(f"{EVENTS}/{number + 1:06}", b"".join(held))
    return count


def _files(home: Path, parts: _Parts) -> None:
    for folder in FOLDERS:
        for path, name in _walk(home / folder, folder):
            _file(path, name, parts)


def _walk(folder: Path, name: str) -> Iterable[tuple[Path, str]]:
    if len(name) > MAX_NAME:
        return
    try:
        found = sorted(os.scandir(folder), key=lambda one: one.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for one in found:
        path, inner = folder / one.name, f"{name}/{one.name}"
        if one.is_dir(follow_symlinks=False):
            if one.name != "__pycache__":
                yield from _walk(path, inner)
        elif not one.name.endswith(".part"):
            yield path, inner


def _file(path: Path, name: str, parts: _Parts) -> None:
    """A regular file; anything else is left out, and so is one that is gone by now."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    except OSError as error:
        parts.left_out.append(f"{name}: {error.strerror}"[:500])
        return
    try:
        facts = os.fstat(handle)
        if stat.S_ISREG(facts.st_mode) and fits(name, facts.st_size):
            parts.add_file(name, handle)
        else:
            parts.left_out.append(f"{name}: no regular file, or its name is too long"[:500])
    finally:
        os.close(handle)
