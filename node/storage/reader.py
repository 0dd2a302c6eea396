"""Reading beside the writer. A short answer is read at once, on the loop; a long one keeps a connection of its own.

A connection that is in the middle of an answer sees the database as it was when that answer began. So nobody else
may ask over it until then: they would miss what was committed meanwhile.
"""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from core.error import Unavailable, VendoError
from node.storage.error import BadWrite
from node.storage.statement import Question
from node.storage.writer import broken, connect

_AT_ONCE = 500  # rows read before others get a turn
_COUNTED_AT_ONCE = 10_000  # rows counted on the loop; more are counted in a thread
_KEPT = 4  # idle connections
_BUSY_MS = 1_000
_CACHE_KIB = 2_048  # of each connection; the kernel has the same pages, and keeps them once for all
_FAILURES = (OverflowError, UnicodeEncodeError, sqlite3.Error)


class Readers:
    """Connections that only read; there are as many as there are long answers under way, and one more."""

    def __init__(self, path: Path) -> None:
        """Opens the first.

        Raises:
            sqlite3.Error: the file cannot be opened.
        """
        self._path = path
        self._closed = False
        self._idle = [self._open()]

    def _open(self) -> sqlite3.Connection:
        db = connect(self._path)
        db.execute("PRAGMA query_only=1")
        db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        db.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        return db

    def _take(self) -> sqlite3.Connection:
        if self._closed:
            raise Unavailable("The database is closed.")
        return self._idle.pop() if self._idle else self._open()

    def _give_back(self, db: sqlite3.Connection) -> None:
        if self._closed or len(self._idle) >= _KEPT:
            db.close()
        else:
            self._idle.append(db)

    async def rows(self, asked: Question) -> list[tuple[Any, ...]]:
        """The whole answer, as it was when the question was asked.

        Raises:
            BadWrite: a value cannot be bound.
            Unavailable: the engine failed, or this is closed.
        """
        db = None
        try:
            db = self._take()
            cursor = db.execute(asked.sql, asked.params)
            rows = found = cursor.fetchmany(_AT_ONCE)
            try:
                while len(found) == _AT_ONCE:
                    await asyncio.sleep(0)
                    found = cursor.fetchmany(_AT_ONCE)
                    rows += found
            finally:
                cursor.close()
        except _FAILURES as error:
            raise _meaning(error) from error
        finally:
            if db is not None:
                self._give_back(db)
        return rows

    async def number(self, asked: Question, most: int | None) -> int:
        """The one number that is asked for; `most` is how far is counted at the utmost.

        Raises:
            BadWrite: a value cannot be bound.
            Unavailable: the engine failed, or this is closed.
        """
        if self._closed:
            raise Unavailable("The database is closed.")
        try:
            if most is None or most > _COUNTED_AT_ONCE:
                return await asyncio.to_thread(self._counted, asked)
            db = self._take()
            try:
                return _number(db, asked)
            finally:
                self._give_back(db)
        except _FAILURES as error:
            raise _meaning(error) from error

    def _counted(self, asked: Question) -> int:
        with closing(self._open()) as db:  # of its own: whoever waits may give up long before the thread is done
            return _number(db, asked)

    def close(self) -> None:
        """Close what is idle; what is in use is closed by whoever uses it."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


def _meaning(error: Exception) -> VendoError:
    """What a failure means to who asked."""
    return broken(error) if isinstance(error, sqlite3.Error) else BadWrite("This value cannot be looked up.")


def _number(db: sqlite3.Connection, asked: Question) -> int:
    return int(db.execute(asked.sql, asked.params).fetchone()[0])
