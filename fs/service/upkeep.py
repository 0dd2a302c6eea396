"""/upkeep, for the operator: what the node does to keep itself in order. Backups, what goes after a while, the disk."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from pydantic import RootModel

from core.error import InvalidInput, NotFound
from core.identifier import is_hex64
from fs.body import parsed
from fs.service.model.node import Cleaned, Cleaning, Digest, Disk, Keep, Restore, Seal
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_reader


class Keeping(Protocol):
    """Retention: `node.retention.service.Retention`."""

    async def run_once(self, *, dry: bool) -> Mapping[str, Any]:
        """A bounded piece of it: per table how many rows went, and whether more is left."""

    def rules(self) -> Any:
        """What goes when, per table."""


class Space(Protocol):
    """The disk: `node.disk.Disk`."""

    def facts(self) -> Mapping[str, Any]:
        """How full it is."""


Facts = Callable[[], Awaitable[Mapping[str, Any] | None]]


def upkeep_service(seal: Callable[[str], str], keeping: Keeping, space: Space, restored: Facts) -> Tree:
    """The service at `/upkeep`; `seal` signs a backup's digest, `restored` tells what is known of a restore."""

    async def sealed(body: bytes, session: Session) -> bytes:
        digest = parsed(Digest, body).digest
        if not is_hex64(digest):
            raise InvalidInput('A digest is 64 hex digits: {"digest": "..."}.')
        return json_bytes({"event": seal(digest)})

    async def gc(body: bytes, session: Session) -> bytes:
        return json_bytes(await keeping.run_once(dry=parsed(Cleaning, body).dry_run))

    async def disk() -> Any:
        return dict(space.facts())

    async def since() -> Any:
        found = await restored()
        if found is None:
            raise NotFound("This node was not restored from a backup.")
        return dict(found)

    async def rules() -> Any:
        return keeping.rules()

    cleans = 'delete what is old, a bounded piece at a time: {"dry_run": false}'
    full, came = "how full the disk is, and whether new work is refused", "what is known of the restore"
    files: dict[str, File | Folder] = {
        "seal": File('sign the manifest of a backup: {"digest": "<sha256>"}', call=sealed, takes=Digest, gives=Seal),
        "gc": File(cleans, call=gc, takes=Cleaning, gives=Cleaned),
        "retention": File("what is deleted when, per table", read=json_reader(rules), gives=RootModel[list[Keep]]),
        "disk": File(full, read=json_reader(disk), gives=Disk),
        "restored": File(f"{came} that this node comes from", read=json_reader(since), gives=Restore),
    }
    return Tree(Folder("The node's own upkeep.", files))
