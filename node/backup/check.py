"""Reading a backup for the first time: everything that can be wrong with it is found before anything is made."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from core.error import VendoError
from core.identifier import PubKey
from node import config
from node.backup.archive import Part
from node.backup.error import BackupDamaged, BackupForged, BackupUnsafe
from node.backup.manifest import (
    MANIFEST,
    SIGNATURE,
    NodeManifest,
    PartFacts,
    check_seal,
    read_manifest,
    unlisted,
)
from node.backup.part import TABLES
from node.backup.reader import read_through
from node.backup.take import CONFIG_PART, EVENTS, FOLDERS, KEYS_PART
from node.identity.keystore import Locked, Plain, parse_keys
from node.storage.error import NewerSchema
from node.storage.migration import revisions
from relays.key import npub, parse_pubkey

MAX_CHUNK = 64 << 20
MAX_CONFIG, _MAX_KEYS = 1 << 20, 1 << 16
TABLE_PART = re.compile(rf"{TABLES}/([a-z_]{{1,40}})/[0-9]{{6}}")
EVENT_PART = re.compile(rf"{EVENTS}/[0-9]{{6}}")


@dataclass(frozen=True, slots=True)
class Checked:
    """A backup that was read once and found whole."""

    manifest: NodeManifest
    settings: config.Config
    config_text: str = field(repr=False)
    keys: bytes = field(repr=False)
    bytes: int = 0


def check(path: Path, room: int, node: PubKey | None = None) -> Checked:
    """Read a backup through; nothing is written.

    Args:
        path: the archive.
        room: bytes that it may have unpacked.
        node: whose it must be; None for anybody's.

    Raises:
        BackupDamaged: it is none, or not whole.
        BackupUnsafe: it holds what no backup holds.
        BackupForged: its node did not sign it, or it is another node's than it must be.
        BackupNewer, NewerSchema: a newer vendo made it.
        BackupRoom: there is not enough room for it.
        ConfigInvalid: its configuration is not valid here.
    """
    limits = {CONFIG_PART: MAX_CONFIG, KEYS_PART: _MAX_KEYS}

    def place(part: Part) -> int | None:
        if part.name not in limits:
            check_name(part)
        return limits.get(part.name)

    found, held = read_through(path, room, place)
    if missing := [name for name in limits if name not in held]:
        raise BackupDamaged(f"It has no {missing[0]}.")
    return _judged(found, held, node)


def owner_of(keys: Locked | Plain) -> PubKey:
    """The node whose keys these are; of locked ones nobody knows more than they say."""
    return parse_pubkey(keys.node) if isinstance(keys, Locked) else keys.ring().node.pubkey


def check_name(part: Part) -> None:
    """Whether there is a place for a part with this name and size, other than those that are known by name.

    Raises:
        BackupUnsafe: there is none.
    """
    if TABLE_PART.fullmatch(part.name) or EVENT_PART.fullmatch(part.name):
        if part.size > MAX_CHUNK:
            raise BackupUnsafe(f"{part.name} is larger than any part of a table.")
    elif part.name.partition("/")[0] not in FOLDERS or "/" not in part.name:
        raise BackupUnsafe(f"{part.name} has no place in a backup.")


def _judged(found: list[PartFacts], held: dict[str, bytes], node: PubKey | None) -> Checked:
    manifest = read_manifest(held[MANIFEST], NodeManifest, "node")
    if difference := unlisted(manifest.parts, found):
        raise BackupDamaged(f"The archive is not what its list says: {difference}.")
    check_seal(held[SIGNATURE], held[MANIFEST], manifest.node)
    try:
        owner = owner_of(parse_keys(held[KEYS_PART], Path(KEYS_PART)))
    except VendoError as error:
        raise BackupDamaged(f"Its keys cannot be read: {error.message}") from error
    if owner != manifest.node:
        raise BackupForged("It is signed by another node than its keys are of.")
    if node is not None and owner != node:
        raise BackupForged(f"It is a backup of {npub(owner)}, another node.")
    if manifest.schema_revision not in ("", *revisions()):
        raise NewerSchema(
            f"It has schema {manifest.schema_revision}, and this vendo knows none after {revisions()[-1]}."
        )
    tables = {match[1] for part in found if (match := TABLE_PART.fullmatch(part.name))}
    if not tables <= set(manifest.tables) or bool(manifest.tables) != bool(manifest.schema_revision):
        raise BackupDamaged("Its list of tables is not that of its parts.")
    try:
        text = held[CONFIG_PART].decode()
    except UnicodeDecodeError as error:
        raise BackupDamaged("Its configuration is not text.") from error
    total = sum(part.size for part in found)
    return Checked(manifest, config.parse(text), text, held[KEYS_PART], total)
