"""Homes with something in them, and archives that were made, changed and signed anew."""

import io
import sqlite3
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from core.clock import SystemClock
from core.unit import Insert
from node import home
from node.backup.archive import Pack, Source
from node.backup.manifest import MANIFEST, SIGNATURE, seal_draft
from node.backup.restore import Made, Wish, restore
from node.backup.take import take
from node.gate.ledger import ledger_seal
from node.storage.database import open_database
from node.storage.dump import open_dump
from relays.key import Key, Keyring

NOW = 1_800_000_000
WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
OTHER_WORDS = "letter advice cage absurd amount doctor acoustic avoid letter advice cage above"
ODD = "\0 \x01 ünïcode \U0001f600 'quoted' \"twice\" \u2028"


def make_home(path: Path, words: str = WORDS) -> Keyring:
    home.create(path, relays=["ws://127.0.0.1:9"], mints=["http://127.0.0.1:8"], port=0, words=words)
    return Keyring(words)


async def fill(path: Path, ring: Keyring, rows: int = 20) -> None:
    """Rows in many tables, with values of every kind."""
    database = await open_database(path / home.DATABASE, seal=ledger_seal(ring.node), clock=SystemClock())
    units: list[Any] = []
    for number in range(rows):
        units += [
            Insert("meta", {"key": f"key-{number}", "value": ODD}),
            Insert("log", {"agent": "agent", "at_ms": number, "type": "said", "data": f'{{"n":{number}}}'}),
            Insert(
                "proof",
                {
                    "y": f"{number:064}", "mint": "http://127.0.0.1:8", "unit": "sat", "keyset": "k", "amount": 1 << 40,
                    "state": "live", "operation": "o", "sealed": bytes(range(256)),
                },
            ),
            Insert("blob", {"digest": f"{number:064}", "body": b"\0\xff" * number, "at": number}),
            Insert("identity", {
                "name": f"name-{number}", "epoch": 0, "pubkey": f"{number:064}", "source": "derived", "sealed": b"",
                "state": "active", "created_at": 1, "retired_at": None if number % 2 else -(1 << 62),
            }),
        ]  # fmt: skip
    await database.commit(units)
    await database.aclose()
    files = path / "files" / "in" / "agent"
    files.mkdir(parents=True)
    (files / ("ab" * 32)).write_bytes(b"a file" * 1_000)
    (path / "agents").mkdir()
    (path / "agents" / "mine.py").write_text("print('hello')\n")
    (path / "agents" / "tool").write_text("#!/bin/sh\n")
    (path / "agents" / "tool").chmod(0o755)


def signer(key: Key) -> Callable[[bytes], bytes]:
    return lambda raw: key.sign(seal_draft(raw, NOW)).to_json().encode()


async def take_to(path: Path, ring: Keyring, file: Path, *, stopped: bool = True) -> Any:
    with file.open("wb") as out:
        return await take(path, out, signer(ring.node), NOW, stopped=stopped)


async def restored(file: Path, path: Path, **wish: Any) -> Made:
    return await restore(file, Wish(path, **wish), NOW + 100)


async def rows_of(where: str | Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of a database, table by table, in one order."""
    found = {}
    async with open_dump(where) as dump:
        for table in dump.tables:
            rows = [row async for page in dump.pages(table) for row in page]
            found[table] = sorted(rows, key=repr)
    return found


def parts_of(file: Path) -> dict[str, bytes]:
    with file.open("rb") as source:
        return {part.name: b"".join(part.pieces()) for part in Source(source, 1 << 30).parts()}


def write_parts(file: Path, parts: dict[str, bytes]) -> Path:
    out = io.BytesIO()
    pack = Pack(out)
    for name, body in parts.items():
        pack.add(name, len(body), (body,))
    pack.close()
    file.write_bytes(out.getvalue())
    return file


def remade(
    file: Path,
    target: Path,
    change: Callable[[dict[str, bytes], dict[str, Any]], None],
    key: Key | None = None,
    *,
    listed: bool = True,
) -> Path:
    """The archive after a change of its parts and of its manifest. `listed`: its list fits what is then in it.

    With a key it is signed anew; without one the old signature stays.
    """
    parts = parts_of(file)
    seal, manifest = parts.pop(SIGNATURE), orjson.loads(parts.pop(MANIFEST))
    if listed:
        change(parts, manifest)
    facts = [{"name": name, "size": len(body), "sha256": sha256(body).hexdigest()} for name, body in parts.items()]
    manifest["parts"] = manifest.get("parts_as_they_are") or facts
    manifest.pop("parts_as_they_are", None)
    if not listed:
        change(parts, manifest)
    raw = orjson.dumps(manifest)
    seal = seal if key is None else signer(key)(raw)
    return write_parts(target, {**parts, MANIFEST: raw, SIGNATURE: seal})


def old_database(path: Path, revision: str) -> None:
    """A file with the schema of an earlier version and a few rows."""
    from node.storage.migration import make_at

    path.touch(0o600)
    make_at(path, revision)
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO meta VALUES ('old', 'row')")
        db.execute("INSERT INTO goal VALUES ('agent', 'g', '{}', 1)")
    db.close()
