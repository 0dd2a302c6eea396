"""What a backup says of itself: its last part but one, which names every other part with its digest. Pure.

The last part is the manifest's digest, signed by the node as an event that is never published. The key is that of the
node whose `keys.json` is in the archive, and the passphrase opens those keys only if they are that node's; so whoever
can write to where backups lie can take them away, but cannot change one unseen.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from core.error import VendoError
from core.identifier import PubKey
from node.backup.archive import MAX_PARTS, is_plain
from node.backup.error import BackupDamaged, BackupForged, BackupNewer
from relays.event import Draft, Event, parse_json, verify
from relays.kind import BACKUP

FORMAT = 1
MANIFEST, SIGNATURE = "manifest.json", "signature.json"
MAX_MANIFEST, MAX_SIGNATURE = 128 << 20, 8_192
MAX_AGENT_MANIFEST = 8 << 20
MARK = "vendo-backup"
Kind = Literal["text", "int", "bytes"]

_Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
_Count = Annotated[int, Field(ge=0, lt=1 << 53)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PartFacts(_Model):
    """One part: its name, size and digest."""

    name: Annotated[str, Field(max_length=250)]
    size: _Count
    sha256: _Hex64


class TableFacts(_Model):
    """One table: its columns in the order in which rows give them, and how many rows there are."""

    columns: tuple[tuple[_Name, Kind], ...]
    rows: _Count


_M = TypeVar("_M", bound="Manifest")


class Manifest(_Model):
    """What both kinds of archive say.

    Attributes:
        format: of the archive.
        vendo: the version that made it.
        taken_at: Unix seconds.
        id: of this archive.
        node: the public key of the node that made it.
        parts: all parts but the manifest and its signature, in their order.
        left_out: what its reader might miss, in words.
    """

    format: Literal[1]
    vendo: Annotated[str, Field(max_length=64)]
    taken_at: _Count
    id: _Hex64
    node: _Hex64
    parts: Annotated[tuple[PartFacts, ...], Field(max_length=MAX_PARTS)]
    left_out: tuple[Annotated[str, Field(max_length=500)], ...] = ()

    @model_validator(mode="after")
    def _check(self: _M) -> _M:
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names) or not all(map(is_plain, names)):
            raise ValueError("the names of its parts are not plain, or one is there twice")
        return self

    def to_json(self) -> bytes:
        """As it stands in the archive."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


class NodeManifest(Manifest):
    """Of a whole node.

    Attributes:
        stopped: the node did not run while it was taken.
        engine: what the database was on.
        schema_revision: the database's; empty if there was none yet.
        tables: by name.
        relay_events: how many events of the node's own relay are in it.
    """

    kind: Literal["node"]
    stopped: bool
    engine: Literal["sqlite", "postgresql"]
    schema_revision: Annotated[str, Field(pattern=r"^([0-9]{4})?$")]
    tables: Mapping[_Name, TableFacts]
    relay_events: _Count


class AgentManifest(Manifest):
    """Of one agent.

    Attributes:
        name: of the agent, where it came from.
        pubkey: its key there; the archive holds no key.
        frozen: it does not go on there.
        program: what it runs; `code` is the digest of that, empty if it was not there, `code_version` its own.
        state_version: of its state.
        mounts: the services that it had.
        tables: by name.
    """

    kind: Literal["agent"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
    pubkey: _Hex64
    frozen: bool
    program: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")]
    code: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    code_version: _Count
    state_version: _Count
    mounts: Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(max_length=100)]
    tables: Mapping[_Name, TableFacts]


def read_manifest(raw: bytes, model: type[_M], kind: str) -> _M:
    """A manifest, checked.

    Raises:
        BackupNewer: a newer version wrote it.
        BackupDamaged: it is none, or of another kind.
    """
    try:
        value: Any = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BackupDamaged("Its manifest is not JSON.") from error
    if not isinstance(value, dict) or value.get("kind") != kind:
        raise BackupDamaged(f"This is not an archive of the kind {kind!r}.")
    if isinstance(value.get("format"), int) and value["format"] > FORMAT:
        raise BackupNewer(f"The archive has format {value['format']}, and this vendo knows {FORMAT}.")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        raise BackupDamaged(f"Its manifest is not valid: {where}: {first['msg']}.") from error


def seal_draft(manifest: bytes, now: int) -> Draft:
    """What the node signs."""
    return seal_draft_of(sha256(manifest).hexdigest(), now)


def seal_draft_of(digest: str, now: int) -> Draft:
    """The same, of a manifest's digest."""
    return Draft(BACKUP, digest, (("t", MARK),), now)


def check_seal(raw: bytes, manifest: bytes, node: str) -> Event:
    """Whether a manifest was signed by this node.

    Raises:
        BackupForged: it was not.
    """
    try:
        event = parse_json(raw)
        verify(event)
    except VendoError as error:
        raise BackupForged("The signature is none.") from error
    if event.kind != BACKUP or event.tags != (("t", MARK),) or event.content != sha256(manifest).hexdigest():
        raise BackupForged("The signature is for something else.")
    if event.pubkey != PubKey(node):
        raise BackupForged("The signature is another node's.")
    return event


def unlisted(parts: Sequence[PartFacts], found: Sequence[PartFacts]) -> str | None:
    """How what was found differs from what is listed; None if it does not."""
    if len(parts) != len(found):
        return f"{len(found)} parts are in it, and {len(parts)} are listed"
    for listed, one in zip(parts, found, strict=True):
        if listed != one:
            return f"{one.name} is not as it is listed"
    return None
