"""A copy of a database file that is being written, as it was at one moment.

One read transaction is held until all pages are copied, so that what is committed meanwhile neither shows in the copy
nor makes SQLite begin it anew. Writers are not held up; only the log beside the file grows until the copy is done.
"""

import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

from core.error import InvalidInput
from node.storage.writer import broken, connect

_PAGES = 1_024  # copied between two looks at whether somebody still wants the copy


class _GivenUp(Exception):
    """Nobody waits for the copy any more."""


def copy(source: Path, target: Path, given_up: threading.Event) -> None:
    """Copy `source` into a new file that only its owner can read, and put that on the disk. Blocks.

    If `given_up` is set meanwhile, the copy is removed.

    Raises:
        InvalidInput: `target` is there already, or its folder is not.
        StoreFull, StoreFailed: a disk does not take it; nothing is left of it.
    """
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise InvalidInput(f"A copy cannot be made at {target}: {error.strerror}.") from error
    done = False
    try:
        _pages(source, target, given_up)
        _sync(target.parent)
        done = True
    except _GivenUp:
        return
    except sqlite3.Error as error:
        raise broken(error) from error
    finally:
        if not done:
            for left in (target, target.with_name(f"{target.name}-journal")):
                with suppress(FileNotFoundError):
                    left.unlink()


def _pages(source: Path, target: Path, given_up: threading.Event) -> None:
    def look(_status: int, _left: int, _total: int) -> None:
        if given_up.is_set():
            raise _GivenUp

    with closing(connect(source)) as reader, closing(sqlite3.connect(target, isolation_level=None)) as writer:
        reader.execute("PRAGMA query_only=1")
        writer.execute("PRAGMA synchronous=FULL")
        reader.execute("BEGIN")
        reader.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # from here on it sees what is there now
        reader.backup(writer, pages=_PAGES, progress=look)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
