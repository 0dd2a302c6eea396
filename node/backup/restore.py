"""Making a home from a backup. The whole archive is checked before anything is made, and the home appears at once.

The archive is read twice. The first time nothing is written: every part is counted and hashed, the list of parts, its
signature, the keys, the configuration and the versions are checked (`check`). The second time it is unpacked into a
folder beside the home, and each part is compared with the list once more (`unpack`). That folder becomes the home by
its name. The database says what it is, and the node's first start acts on that (`copy`).
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from core.error import InvalidInput, VendoError
from core.identifier import PubKey
from node.backup.check import check, owner_of
from node.backup.durable import sync_folder, sync_tree
from node.backup.error import BackupRoom, BackupTarget
from node.backup.manifest import NodeManifest
from node.backup.take import KEYS_PART, Tell
from node.backup.unpack import Unpacking
from node.config import StorageSection
from node.home import DATABASE, LOCK, PASSWORD_VARIABLE, Lock, database_of
from node.identity.keystore import read_keys
from node.storage.address import OWN_FILE, check_database, file_of, has_password, is_postgres, shown

_SPARE = 64 << 20


@dataclass(frozen=True, slots=True)
class Wish:
    """How it is to be restored.

    Attributes:
        home: where.
        replace: what is there is put aside.
        database: another database than the one that the configuration names; it must be empty.
        node: only a backup of this node is taken; None for any.
        moved: the node did not run after the backup was taken, and what it is restored from is no old copy.
    """

    home: Path
    replace: bool = False
    database: str | None = None
    node: PubKey | None = None
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """What came of it. `before` is where the old home is now, if there was one."""

    manifest: NodeManifest
    home: Path
    before: Path | None
    relay_refused: int


async def restore(path: Path, wish: Wish, now: int, tell: Tell = lambda _: None) -> Made:
    """Make a home from a backup.

    Raises:
        AlreadyRunning: a node runs in that home.
        BackupTarget: there is a home already, or its database is not empty.
        InvalidInput: the node ran when the backup was taken, so it is an old copy whatever is said.
        VendoError: as `check`; nothing was made.
    """
    home = wish.home.absolute()
    with ExitStack() as held:
        if (home / LOCK).exists():
            held.enter_context(Lock(home))
        before = _before(home, wish, now)
        home.parent.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(home.parent).free
        tell("reading the backup")
        checked = check(path, room, wish.node or _owner(home))
        if checked.bytes + _SPARE > room:
            raise BackupRoom(f"It needs {checked.bytes >> 20} MiB, and {room >> 20} MiB are free.")
        if wish.moved and not checked.manifest.stopped:
            raise InvalidInput(
                "The node ran while this backup was taken, so it is an old copy.",
                remedy="Leave --moved out, or stop the node and take a backup then.",
            )
        url = await _empty_database(checked.settings.storage, wish)
        draft = held.enter_context(_drafted(home))
        refused = await Unpacking(path, checked, draft, now, tell).run(wish.database, url, moved=wish.moved)
        sync_tree(draft)
        _swap(draft, home, before)
    return Made(checked.manifest, home, before, refused)


@contextmanager
def _drafted(home: Path) -> Iterator[Path]:
    """A folder beside the home, gone at the end if it is not the home by then. What killed restores left goes first."""
    name = f".{home.name}.restoring-"
    for left in home.parent.iterdir():
        if left.name.startswith(name) and left.is_dir() and not left.is_symlink():
            with suppress(OSError), _held(left):
                shutil.rmtree(left, ignore_errors=True)
    draft = home.parent / f"{name}{secrets.token_hex(6)}"
    draft.mkdir(mode=0o700)
    with _held(draft):
        try:
            yield draft
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Nobody else takes it for left behind; the lock ends with the process.

    Raises:
        OSError: another process is at it.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _before(home: Path, wish: Wish, now: int) -> Path | None:
    """Where what is there goes; None if nothing is.

    Raises:
        BackupTarget: something is there, and it is not to be replaced.
    """
    if not home.exists() or (home.is_dir() and not any(home.iterdir())):
        return None
    if not wish.replace or not home.is_dir():
        raise BackupTarget(f"{home} is there already.")
    aside = home.with_name(f"{home.name}.before-{now}")
    if aside.exists():
        raise BackupTarget(f"{aside} is there already.", remedy="Try again in a second.")
    return aside


def _swap(draft: Path, home: Path, before: Path | None) -> None:
    """The new home in the old one's place. After a crash in between, the old one is at `before`, whole."""
    if before is not None:
        home.rename(before)
    try:
        draft.rename(home)
    except OSError:
        if before is not None:
            before.rename(home)
        raise
    sync_folder(home.parent)
    if home.parent != home.parent.parent:
        sync_folder(home.parent.parent)  # that may be a new one


def _owner(home: Path) -> PubKey | None:
    """Whose home is there; a backup of another node does not take its place. None if nobody can tell."""
    try:
        return owner_of(read_keys(home / KEYS_PART))
    except VendoError:
        return None


async def _empty_database(section: StorageSection, wish: Wish) -> str | None:
    """The URL of the database where the rows go; None for the file in the home.

    Raises:
        BackupTarget: something is there.
        InvalidInput: it cannot be there.
    """
    if wish.database is not None:
        check_database(wish.database)
        if has_password(wish.database):
            raise InvalidInput(f"The password belongs into {PASSWORD_VARIABLE}, not into the address.")
        section = section.model_copy(update={"url": wish.database})
    home = wish.home.absolute()
    if not is_postgres(section.url):
        if file_of(section.url, home) != home / DATABASE:
            raise InvalidInput(
                f"Its configuration names a database elsewhere: {section.url}.",
                remedy=f"Say where it is to be: --database {OWN_FILE}",
            )
        return None
    from node.storage.postgres_copy import is_empty  # without PostgreSQL nobody needs the driver

    url = str(database_of(home, section))
    if not await is_empty(url, unsafe=section.unsafe):
        raise BackupTarget(
            f"The database {shown(url)} is not empty.", remedy="Make an empty one and name it: --database URL."
        )
    return url
