"""Reading an agent's archive: everything that can be wrong with it is found before anything is made of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from core.identifier import PubKey, is_hex64
from core.unit import Row
from node.agent.load.source import MAX_SOURCE
from node.backup.archive import Part
from node.backup.check import MAX_CHUNK
from node.backup.error import BackupDamaged, BackupForged, BackupRoom, BackupUnsafe
from node.backup.luggage import AGENT_PART, PROGRAM, SHELF, TABLES, WORK, AgentPart, check_tables, read_agent, rows_of
from node.backup.manifest import (
    MANIFEST,
    MAX_AGENT_MANIFEST,
    SIGNATURE,
    AgentManifest,
    PartFacts,
    check_seal,
    read_manifest,
    unlisted,
)
from node.backup.part import TABLES as FOLDER
from node.backup.part import read_row
from node.backup.reader import read_through
from relays.key import npub

MAX_AGENT, MOST_HELD = 64 << 20, 256 << 20
_TABLE_PART = re.compile(rf"{FOLDER}/([a-z_]{{1,40}})/[0-9]{{6}}")
_PROGRAM_PART = re.compile(rf"{PROGRAM}/[a-z][a-z0-9_-]{{0,40}}\.py")


@dataclass(frozen=True, slots=True)
class Luggage:
    """An agent's archive that was read and found whole. `bytes` are those of all its parts."""

    path: Path
    manifest: AgentManifest
    agent: AgentPart = field(repr=False)
    rows: Mapping[str, list[Row]] = field(repr=False)
    program: bytes | None = field(repr=False)
    bytes: int = 0

    def has(self, folder: str) -> bool:
        """Whether there are files of this folder in it."""
        return any(part.name.startswith(f"{folder}/") for part in self.manifest.parts)


def examine(path: Path, room: int, node: PubKey | None = None) -> Luggage:
    """Read an agent's archive through; nothing is written.

    Args:
        path: the archive.
        room: bytes that it may have unpacked.
        node: whose signature it must have; None for anybody's.

    Raises:
        BackupDamaged: it is none, or not whole, or its rows cannot be an agent's.
        BackupUnsafe: it holds what no such archive holds.
        BackupForged: the node that it names did not sign it, or it is another one than it must be.
        BackupNewer: a newer vendo made it.
        BackupRoom: there is not enough room for it.
    """
    held_bytes = 0

    def place(part: Part) -> int | None:
        nonlocal held_bytes
        most = _place(part)
        held_bytes += part.size if most is not None else 0
        if held_bytes > MOST_HELD:
            raise BackupRoom(f"Its rows have more than {MOST_HELD >> 20} MiB.")
        return most

    found, held = read_through(path, room, place, MAX_AGENT_MANIFEST)
    manifest = read_manifest(held[MANIFEST], AgentManifest, "agent")
    if difference := unlisted(manifest.parts, found):
        raise BackupDamaged(f"The archive is not what its list says: {difference}.")
    check_seal(held[SIGNATURE], held[MANIFEST], manifest.node)
    if node is not None and manifest.node != node:
        raise BackupForged(f"It was made by {npub(PubKey(manifest.node))}, another node.")
    for part in found:
        folder, _, name = part.name.partition("/")
        if folder == SHELF and name != part.sha256:
            raise BackupDamaged(f"{part.name} is not the file that it is called after.")
    if AGENT_PART not in held:
        raise BackupDamaged(f"It has no {AGENT_PART}.")
    agent = read_agent(held[AGENT_PART])
    if (agent.section.name, agent.section.program) != (manifest.name, manifest.program):
        raise BackupDamaged("Its list and its settings are of two agents.")
    programs = [name for name in held if _PROGRAM_PART.fullmatch(name)]
    if programs not in ([], [f"{PROGRAM}/{manifest.program}.py"]):
        raise BackupUnsafe(f"{programs[0]} is not the agent's program.")
    rows = _rows(manifest, found, held)
    return Luggage(path, manifest, agent, rows, held[programs[0]] if programs else None, sum(one.size for one in found))


def _place(part: Part) -> int | None:
    folder, _, name = part.name.partition("/")
    if part.name == AGENT_PART:
        return MAX_AGENT
    if (match := _TABLE_PART.fullmatch(part.name)) and match[1] in TABLES:
        return MAX_CHUNK
    if _PROGRAM_PART.fullmatch(part.name):
        return MAX_SOURCE
    if (folder == SHELF and is_hex64(name)) or (folder == WORK and name):
        return None
    raise BackupUnsafe(f"{part.name} has no place in an agent's archive.")


def _rows(manifest: AgentManifest, found: list[PartFacts], held: Mapping[str, bytes]) -> dict[str, list[Row]]:
    check_tables(manifest.tables)
    rows: dict[str, list[Row]] = {table: [] for table in TABLES}
    for part in found:
        if match := _TABLE_PART.fullmatch(part.name):
            table = match[1]
            kinds = [kind for _, kind in TABLES[table].columns]
            if len(rows[table]) + _lines(held[part.name]) > TABLES[table].most:  # before they are made: a line is cheap
                raise BackupDamaged(f"The table {table} has too many rows.")
            try:
                lines = [read_row(line, kinds) for line in held[part.name].splitlines()]
            except (ValueError, orjson.JSONDecodeError) as error:
                raise BackupDamaged(f"A row of the table {table} cannot be read: {str(error)[:200]}.") from error
            if len(rows[table]) + len(lines) > TABLES[table].most:
                raise BackupDamaged(f"The table {table} has too many rows.")
            rows[table] += rows_of(table, lines)
    for table, facts in manifest.tables.items():
        if len(rows[table]) != facts.rows:
            raise BackupDamaged(f"The table {table} has {len(rows[table])} rows, not {facts.rows}.")
    return rows


def _lines(body: bytes) -> int:
    """How many lines `splitlines` makes of it, or one less; without making them."""
    return body.count(b"\n") + body.count(b"\r")
