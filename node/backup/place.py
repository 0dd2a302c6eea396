"""Where an arriving agent's files go. What was put down can be taken back, and nothing that was there is touched."""

import os
import secrets
import shutil
from collections.abc import Callable, Collection
from hashlib import sha256
from pathlib import Path

from node.backup.archive import Part, Source
from node.backup.customs import Luggage
from node.backup.durable import sync_above, sync_tree
from node.backup.error import BackupDamaged, BackupTarget, BackupUnsafe
from node.backup.luggage import SHELF, WORK
from node.backup.manifest import MANIFEST, SIGNATURE, PartFacts
from node.backup.workbench import PROGRAMS

_SPARE = 256 << 20


class Places:
    """Of one agent.

    Args:
        home: the home directory.
        name: the agent's, here.
        luggage: its archive.
    """

    def __init__(self, home: Path, name: str, luggage: Luggage) -> None:
        self._home, self._name, self._luggage = home, name, luggage
        self._made: list[Path] = []
        self._draft: Path | None = None

    def put(self, wanted: Collection[str], program: str, source: bytes | None) -> None:
        """Put files down.

        Args:
            wanted: which folders of the archive.
            program: its program's name.
            source: the program's file, if it is to be installed.

        Raises:
            BackupDamaged, BackupUnsafe: the archive is not what was read before.
            BackupTarget: something is there.
            OSError: the disk does not take it.
        """
        work = self._home / WORK / self._name
        if WORK in wanted and self._luggage.has(WORK):
            if work.exists() and (not work.is_dir() or any(work.iterdir())):
                raise BackupTarget(f"{work} is there already.", remedy="Move it away, or take another name.")
            self._draft = self._home / WORK / f".{self._name}.{secrets.token_hex(6)}"
            self._draft.mkdir(mode=0o700, parents=True)
        if any(self._luggage.has(folder) for folder in wanted):
            self._unpack(wanted)
        if self._draft is not None:
            if work.exists():
                work.rmdir()
            self._draft.rename(work)
            self._draft = None
            self._made.append(work)
        if source is not None:
            path = self._home / PROGRAMS / f"{program}.py"
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(path, source)
        for path in self._made:
            if path.is_dir():
                sync_tree(path)
        sync_above([path for path in self._made if path.exists()], self._home)

    def take_back(self) -> None:
        """As if nothing had been put down."""
        for path in reversed(self._made):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        if self._draft is not None:
            shutil.rmtree(self._draft, ignore_errors=True)

    def _unpack(self, wanted: Collection[str]) -> None:
        listed = iter(self._luggage.manifest.parts)
        with self._luggage.path.open("rb") as file:
            for part in Source(file, self._luggage.bytes + _SPARE).parts():
                if part.name in (MANIFEST, SIGNATURE):
                    continue
                facts, digest = next(listed, None), sha256()
                path = self._place(part.name, wanted)
                if path is None:
                    continue
                self._fill(part, path, digest.update)
                if facts != PartFacts(name=part.name, size=part.size, sha256=digest.hexdigest()):
                    raise BackupDamaged("The archive was changed while it was read.")
                if part.name.startswith(f"{SHELF}/"):
                    path.rename(path.with_suffix(""))  # whole, by its own name

    def _fill(self, part: Part, path: Path, hashed: Callable[[bytes], None]) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            handle = os.open(path, flags, 0o700 if part.runs else 0o600)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise BackupUnsafe(f"{part.name} is both a file and a folder.") from error
        with os.fdopen(handle, "wb") as file:
            for piece in part.pieces():
                hashed(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

    def _place(self, part: str, wanted: Collection[str]) -> Path | None:
        """Where a part goes; None if nowhere."""
        folder, _, name = part.partition("/")
        if folder not in wanted:
            return None
        if folder == SHELF:
            path = self._home / SHELF / "in" / self._name / name
            if path.exists():
                return None
            half = path.with_name(f"{name}.part")
            half.unlink(missing_ok=True)
            self._made += [half, path]
            return half
        assert self._draft is not None, "there are files of that folder"
        return self._draft.joinpath(*name.split("/"))

    def _write(self, path: Path, body: bytes) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError as error:
            raise BackupTarget(f"{path} is there already.") from error
        self._made.append(path)
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
