"""Reading an archive through once: every part counted and hashed, the small ones held, nothing written."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from node.backup.archive import Part, Source
from node.backup.error import BackupDamaged, BackupUnsafe
from node.backup.manifest import MANIFEST, MAX_MANIFEST, MAX_SIGNATURE, SIGNATURE, PartFacts

Place = Callable[[Part], int | None]


def read_through(
    path: Path, room: int, place: Place, most: int = MAX_MANIFEST
) -> tuple[list[PartFacts], dict[str, bytes]]:
    """What is in an archive, but for its manifest and signature; and those parts that are held, these two among them.

    Args:
        path: the archive.
        room: bytes that it may have unpacked.
        place: for each other part, how large it may be to be held; None if it is only looked at. Raises `BackupUnsafe`
            for one that has no place.
        most: bytes of its list of parts. Reading it takes many times as much memory, before anybody's signature counts.

    Raises:
        BackupDamaged: it is none, or not whole.
        BackupUnsafe: it holds what no archive holds.
        BackupRoom: there is not enough room for it.
    """
    found: list[PartFacts] = []
    held: dict[str, bytes] = {}
    own = {MANIFEST: most, SIGNATURE: MAX_SIGNATURE}
    with path.open("rb") as file:
        for part in Source(file, room).parts():
            if MANIFEST in held and part.name != SIGNATURE:
                raise BackupUnsafe(f"{part.name} comes behind the list of parts.")
            limit = own[part.name] if part.name in own else place(part)
            digest = sha256()
            if limit is not None:
                held[part.name] = part.read(limit)
                digest.update(held[part.name])
            else:
                for piece in part.pieces():
                    digest.update(piece)
            found.append(PartFacts(name=part.name, size=part.size, sha256=digest.hexdigest()))
    if [part.name for part in found[-2:]] != [MANIFEST, SIGNATURE]:
        missing = [name for name in own if name not in held]
        raise BackupDamaged(f"It has no {missing[0]}." if missing else "Its list of parts is not at its end.")
    return found[:-2], held
