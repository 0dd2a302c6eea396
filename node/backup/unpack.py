"""Reading a backup for the second time: every part to its place in a folder that nobody uses yet."""

import os
import secrets
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import tomlkit

from core.error import InvalidInput
from node import config
from node.backup.archive import Part, Source
from node.backup.check import EVENT_PART, MAX_CHUNK, MAX_CONFIG, TABLE_PART, Checked, check_name
from node.backup.error import BackupDamaged, BackupUnsafe
from node.backup.manifest import MANIFEST, MAX_MANIFEST, SIGNATURE, PartFacts
from node.backup.part import read_row
from node.backup.take import CONFIG_PART, KEYS_PART, Tell
from node.home import DATABASE, TOKEN
from node.hosting import FILE as RELAY_FILE
from node.hosting import settings_of
from node.identity.keystore import write_private
from node.storage.address import OWN_FILE
from node.storage.load import Load
from relays.address import canonical
from relays.embedded.archive import import_events

RESTORED = "restored"  # the key of table `meta` that tells the node's next start what it is
_MORE = 64 << 20


class Unpacking:
    """One backup on its way into a folder.

    Args:
        path: the archive.
        checked: what the first reading found.
        draft: the folder; empty.
        now: Unix seconds.
        tell: is told how far it is.
    """

    def __init__(self, path: Path, checked: Checked, draft: Path, now: int, tell: Tell) -> None:
        self._path, self._checked, self._draft = path, checked, draft
        self._now, self._tell = now, tell
        self._load: Load | None = None
        self._counts: dict[str, int] = {}
        self._events = draft / "relay.jsonl"

    async def run(self, database: str | None, url: str | None, *, moved: bool) -> int:
        """Unpack all of it; how many of the relay's events were refused.

        Args:
            database: what the configuration is to name as its database; None leaves it.
            url: where the rows go in the end; None for the file.
            moved: what is restored is no old copy.

        Raises:
            BackupDamaged, BackupUnsafe: a part has no place, or is not what was checked.
            VendoError: what the database or the relay's file raised.
        """
        revision = self._checked.manifest.schema_revision
        if revision:
            self._load = Load(self._draft / DATABASE, revision)
        try:
            if self._load is not None:
                self._check_columns(self._load)
            self._tell("unpacking")
            self._parts()
            if self._load is not None:
                self._finish(self._load, moved=moved)
        finally:
            if self._load is not None:
                self._load.close()
        if url is not None and self._load is not None:
            from node.storage.postgres_copy import to_postgres

            self._tell("filling the database")
            await to_postgres(self._draft / DATABASE, url)
            (self._draft / DATABASE).unlink()
        write_private(self._draft / config.FILE, _with_database(self._checked.config_text, database))
        write_private(self._draft / KEYS_PART, self._checked.keys.decode())
        write_private(self._draft / TOKEN, secrets.token_urlsafe(32) + "\n")
        return self._relay()

    def _check_columns(self, load: Load) -> None:
        made = {name: frozenset(columns) for name, columns in load.columns().items()}
        listed = {name: frozenset(table.columns) for name, table in self._checked.manifest.tables.items()}
        if made != listed:
            odd = sorted(name for name in made.keys() | listed.keys() if made.get(name) != listed.get(name))
            raise BackupDamaged(f"Its tables are not those of schema {self._checked.manifest.schema_revision}: {odd}.")

    def _parts(self) -> None:
        """Every part to its place, and each once more compared with the list."""
        with self._path.open("rb") as file:
            listed = iter(self._checked.manifest.parts)
            for part in Source(file, self._checked.bytes + MAX_MANIFEST + _MORE).parts():
                if part.name in (MANIFEST, SIGNATURE):
                    continue
                facts, digest = next(listed, None), sha256()
                self._put(part, digest.update)
                if facts != PartFacts(name=part.name, size=part.size, sha256=digest.hexdigest()):
                    raise BackupDamaged("The archive was changed while it was read.")

    def _put(self, part: Part, hashed: Callable[[bytes], None]) -> None:
        if match := TABLE_PART.fullmatch(part.name):
            body = part.read(MAX_CHUNK)
            hashed(body)
            self._rows(match[1], body)
        elif EVENT_PART.fullmatch(part.name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            with os.fdopen(os.open(self._events, flags, 0o600), "ab") as file:
                for piece in part.pieces():
                    hashed(piece)
                    file.write(piece)
        elif part.name in (CONFIG_PART, KEYS_PART):
            hashed(part.read(MAX_CONFIG))
        else:
            check_name(part)
            self._file(part, hashed)

    def _file(self, part: Part, hashed: Callable[[bytes], None]) -> None:
        path = self._draft.joinpath(*part.name.split("/"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, flags, 0o700 if part.runs else 0o600)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise BackupUnsafe(f"{part.name} is both a file and a folder.") from error
        with os.fdopen(handle, "wb") as file:
            for piece in part.pieces():
                hashed(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def _rows(self, table: str, body: bytes) -> None:
        assert self._load is not None, "the first reading saw that there are tables"
        columns = self._checked.manifest.tables[table].columns
        kinds = [kind for _, kind in columns]
        lines = body.splitlines()
        try:
            rows = (read_row(line, kinds) for line in lines)
            self._load.add(table, columns, (row for row in rows if not _is_past(table, row)))
        except (InvalidInput, ValueError) as error:
            raise BackupDamaged(f"A row of the table {table} cannot be read: {str(error)[:200]}.") from error
        self._counts[table] = self._counts.get(table, 0) + len(lines)

    def _finish(self, load: Load, *, moved: bool) -> None:
        for name, table in self._checked.manifest.tables.items():
            if self._counts.get(name, 0) != table.rows:
                raise BackupDamaged(f"The table {name} has {self._counts.get(name, 0)} rows, not {table.rows}.")
        manifest = self._checked.manifest
        mark: dict[str, Any] = {
            "id": manifest.id, "taken_at": manifest.taken_at, "restored_at": self._now, "moved": moved,
        }  # fmt: skip
        load.add("meta", (("key", "text"), ("value", "text")), [(RESTORED, orjson.dumps(mark).decode())])
        self._tell("checking the database")
        load.finish()

    def _relay(self) -> int:
        if not self._events.exists():
            return 0
        self._tell("relay: checking its events")
        settings = settings_of(self._checked.settings.relay, self._draft)
        urls = (settings.description.public_url, f"ws://{settings.host}:{settings.port}")
        own = {canonical(url) for url in urls if url}
        with self._events.open("rb") as lines:
            report = import_events(self._draft / RELAY_FILE, lines, settings.limits.store_bytes, own, self._now)
        self._events.unlink()
        return sum(report.refused.values())


def _is_past(table: str, row: Sequence[Any]) -> bool:
    """What a copy does not keep: that it was itself restored before, and which ledger runs its processes wrote."""
    return table == "meta" and (row[0] in (RESTORED, "run") or str(row[0]).startswith("run/"))


def _with_database(text: str, url: str | None) -> str:
    """The configuration, with another database if one was named."""
    if url is None:
        return text
    settings = tomlkit.parse(text)
    if "storage" not in settings:
        settings["storage"] = tomlkit.table()
    section: Any = settings["storage"]
    section["url"] = OWN_FILE if url.startswith("sqlite:///") else url
    changed = tomlkit.dumps(settings)
    config.parse(changed)
    return changed
