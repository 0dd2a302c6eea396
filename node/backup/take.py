"""Taking a backup of a home, also while its node runs: nothing is stopped, and nobody waits.

The database is read at one moment; agents' files and the relay's events come after it, so that what a row names is
there. A file that comes or goes meanwhile may be in it or not.
"""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from node import config
from node.backup.manifest import NodeManifest, TableFacts
from node.backup.part import CHUNK, TABLES, Parts, chunks, row_line
from node.home import KEYS, database_of
from node.hosting import FILE as RELAY_FILE
from node.identity.keystore import Locked, read_keys
from node.storage.dump import Dump, open_dump
from relays.embedded.archive import exported
from relays.key import parse_pubkey

_SHELF = "files"
FOLDERS = ("agents", _SHELF, "work")  # of agents: their programs, what was sent to them, what their commands keep
CONFIG_PART, KEYS_PART, EVENTS = config.FILE, KEYS, "relay"
LEFT_OUT = (
    "the passphrase of the keys, wherever it is kept",
    "the token of the control plane: a restored node has a new one",
)

Sign = Callable[[bytes], bytes]  # the manifest → the signed event, as JSON
Tell = Callable[[str], None]


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
    parts = Parts(out, LEFT_OUT)
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
    for folder in FOLDERS:
        parts.add_folder(home / folder, folder, ".part" if folder == _SHELF else None)
    manifest = NodeManifest(
        format=1, kind="node", vendo=version("vendo"), taken_at=now, id=secrets.token_hex(32), node=node,
        parts=tuple(parts.listed), left_out=tuple(parts.left_out), stopped=stopped and isinstance(where, Path),
        engine="postgresql" if engine == "postgresql" else "sqlite", schema_revision=revision, tables=tables,
        relay_events=events,
    )  # fmt: skip
    raw = manifest.to_json()
    parts.close(raw, sign(raw))
    return manifest


async def _table(dump: Dump, table: str, parts: Parts, tell: Tell) -> TableFacts:
    rows = 0

    async def lines() -> AsyncIterator[bytes]:
        nonlocal rows
        async for page in dump.pages(table):
            rows += len(page)
            yield b"".join(map(row_line, page))

    number = 0
    async for number, body in chunks(lines()):
        parts.add(f"{TABLES}/{table}/{number:06}", body)
    if number:
        tell(f"database: {table}, {rows} rows")
    return TableFacts(columns=dump.tables[table], rows=rows)


def _events(home: Path, now: int, parts: Parts) -> int:
    """The events of the node's own relay; how many."""
    path = home / RELAY_FILE
    if not path.exists():
        return 0
    held: list[bytes] = []
    size = number = count = 0
    with closing(exported(path, now)) as events:
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
