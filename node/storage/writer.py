"""The one thread that writes: groups of units, applied in the order in which they came, one COMMIT for the group.

A unit that conflicts is left out and the rest of its group is kept: such a group is applied once more, with a
savepoint for each unit. An error before COMMIT is certain: the whole
group was rolled back. An error from COMMIT is not: its units may or may not come back after a crash.
"""

import logging
import operator
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from core.clock import Clock
from core.error import StoreUncertain, VendoError
from core.guard import caught
from core.unit import Append, Row, Value
from node.storage.chain import Chain, Seal
from node.storage.error import BadWrite, StoreFailed, StoreFull, clash, missed
from node.storage.group import Verdicts
from node.storage.statement import ENTRY_COLUMNS, ENTRY_SQL, Step, Unit, batches, is_unique_clash

_log = logging.getLogger(__name__)

_IDLE_S = 2.0  # of the thread's own waiting: after it the write-ahead log is emptied into the file
_BUSY_MS = 5_000
_LEAST_GROUP, _MOST_GROUP = 64, 512
_DISK_SHARE = 1 / 3  # of the time for a group's rows: while COMMIT takes longer than that, groups grow
_CAREFUL_GROUPS = 16  # after one in which a unit did not fit
_NEWEST = "SELECT seq, id, raw FROM entry WHERE run = ? ORDER BY seq DESC LIMIT 1"

_MISFITS = (OverflowError, UnicodeEncodeError, sqlite3.InterfaceError, sqlite3.ProgrammingError)  # of values
_ENTRY: Callable[[Row], tuple[Value, ...]] = operator.itemgetter(*ENTRY_COLUMNS)


@dataclass(frozen=True, slots=True)
class Group:
    """Units that share a COMMIT, whom to tell, and where the next group is. Both are called in the writer's thread."""

    units: Sequence[Unit]
    landed: Callable[[Verdicts, bool], None]
    following: "Callable[[], Group | None]"


def connect(path: Path) -> sqlite3.Connection:
    """A connection with the settings that durability and speed need; FULL: a commit is on the disk when it returns.

    The file must be there: a file that somebody removed is an error, not a reason for an empty one.
    """
    where = f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(
        where, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512, timeout=_BUSY_MS / 1000
    )
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "cache_size=-16384",
        "temp_store=MEMORY",
    ):
        db.execute(f"PRAGMA {pragma}")
    return db


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk is full."""
    return bool(getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL)


def broken(error: sqlite3.Error) -> VendoError:
    """What an error of the engine before COMMIT means to those who wait: nothing was written."""
    if is_full(error):
        return StoreFull()
    return StoreFailed(f"The database failed: {error}.")


class Writer:
    """Owns the writing connection. `send` and `stop` are for the loop's thread, the rest runs in its own.

    `largest` is the number of units to put into a group: it grows while the disk costs much beside the rows, so that
    a slow disk gets large groups, and on a fast one nobody waits for many others.
    """

    def __init__(self, path: Path, seal: Seal, clock: Clock) -> None:
        self.largest = _LEAST_GROUP
        self._careful = 0  # groups
        self._path = path
        self._chain = Chain(seal, clock, self._newest)
        self._queue: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._db: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._run, name="vendo-writer", daemon=True)

    def start(self) -> None:
        """Open the connection and start the thread.

        Raises:
            sqlite3.Error: the file cannot be opened for writing.
        """
        self._db = connect(self._path)
        self._thread.start()

    def send(self, group: Group) -> None:
        """Take a group; at most one is on its way at a time."""
        self._queue.put(group)

    def stop(self) -> None:
        """Finish what was sent and close. Blocks."""
        self._queue.put(None)
        self._thread.join()

    def _newest(self, run: str) -> Row | None:
        assert self._db is not None
        found = self._db.execute(_NEWEST, (run,)).fetchone()
        return None if found is None else {"seq": found[0], "id": found[1], "raw": found[2]}

    def _run(self) -> None:
        written = False
        while True:
            try:
                group = self._queue.get(timeout=_IDLE_S if written else None)
            except queue.Empty:
                written = False
                self._truncate()
                continue
            if group is None:
                break
            written = True
            if not self._work(group):
                break
        if self._db is not None:
            self._db.close()

    def _work(self, first: Group) -> bool:
        """Apply groups until nobody waits; false if the loop is gone."""
        group: Group | None = first
        while group is not None:
            verdicts = self._outcome(group.units)
            try:
                following = group.following()
            except MemoryError:  # this group is told all the same; the loop hands over the next one
                following = None
            try:
                group.landed(verdicts, following is not None)
            except RuntimeError:  # the loop was closed without aclose: nobody waits any more
                return False
            group = following
        return True

    def _outcome(self, units: Sequence[Unit]) -> Verdicts:
        verdicts, error = caught(partial(self._apply, units))  # whoever waits must hear of it, and the thread must live
        self._settle()
        if verdicts is not None:
            return verdicts
        if isinstance(error, sqlite3.Error):
            _log.error("the database failed", extra={"action": "store_failed", "reason": str(error)})
            return [broken(error) for _ in units]
        _log.error("the writer failed", exc_info=error, extra={"action": "writer_failed"})
        return [StoreFailed("The writer of the database failed.") for _ in units]

    def _settle(self) -> None:
        """Leave no transaction open behind a failure, and believe nothing that was remembered of it."""
        db = self._db
        if db is None or not db.in_transaction:
            return
        self._chain.forget()
        try:
            db.execute("ROLLBACK")
        except (sqlite3.Error, MemoryError):
            self._reopen()

    def _reopen(self) -> None:
        self._chain.forget()
        db, self._db = self._db, None
        if db is not None:
            with suppress(sqlite3.Error, MemoryError):
                db.close()

    def _apply(self, units: Sequence[Unit]) -> Verdicts:
        if self._db is None:
            self._db = connect(self._path)
        db = self._db
        began = time.perf_counter()
        verdicts: Verdicts | None = None
        try:
            db.execute("BEGIN IMMEDIATE")
            if len(units) == 1:
                verdicts = self._alone(db, units[0])
            else:
                verdicts = self._swiftly(db, units) or self._carefully(db, units)
        finally:
            if verdicts is None:  # also where SQLite lacks memory: it rolls back by itself, and raises no sqlite3.Error
                self._chain.forget()
        applied = time.perf_counter()
        try:
            db.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            _log.error("COMMIT failed", extra={"action": "commit_failed", "reason": str(error)})
            self._settle()
            self._reopen()  # pages that a failed fsync left behind are not trusted
            words = f"The database failed while committing: {error or type(error).__name__}."
            full = isinstance(error, sqlite3.Error) and is_full(error)
            return [v or (StoreUncertain(words, full=1) if full else StoreUncertain(words)) for v in verdicts]
        self._fit(applied - began, time.perf_counter() - applied)
        return verdicts

    def _fit(self, rows_s: float, disk_s: float) -> None:
        if disk_s > rows_s * _DISK_SHARE:
            self.largest = min(self.largest * 2, _MOST_GROUP)
        else:
            self.largest = max(self.largest // 2, _LEAST_GROUP)

    def _swiftly(self, db: sqlite3.Connection, units: Sequence[Unit]) -> Verdicts | None:
        """All units without savepoints, which cost as much as half of the rows; None if one of them did not fit.

        Then the transaction begins anew, and for some groups to come nobody tries this.
        """
        if self._careful:
            self._careful -= 1
            return None
        if not self._together(db, units):
            self._careful = _CAREFUL_GROUPS
            db.execute("ROLLBACK")
            self._chain.give_back()
            db.execute("BEGIN IMMEDIATE")
            return None
        self._chain.keep()
        return [None] * len(units)

    def _alone(self, db: sqlite3.Connection, unit: Unit) -> Verdicts:
        """Apply a unit that shares its COMMIT with no other: a savepoint, or a batch of one, would only cost."""
        verdict = self._verdict(db, unit)
        if verdict is None:
            self._chain.keep()
        else:
            db.execute("ROLLBACK")
            self._chain.give_back()
            db.execute("BEGIN")
        return [verdict]

    def _together(self, db: sqlite3.Connection, units: Sequence[Unit]) -> bool:
        """Apply them table by table, many rows at a call; false if something did not fit."""
        try:
            steps = [self._sealed(step) if isinstance(step, Append) else step for unit in units for step in unit]
            for batch in batches(steps):
                touched = db.executemany(batch.sql, batch.params).rowcount
                if batch.rows is not None and touched != batch.rows:
                    return False
        except (*_MISFITS, sqlite3.IntegrityError, VendoError):
            return False
        return True

    def _sealed(self, entry: Append, position: int = 0) -> Step:
        return Step(ENTRY_SQL, _ENTRY(self._chain.append(entry)), 1, "entry", position, True)

    def _carefully(self, db: sqlite3.Connection, units: Sequence[Unit]) -> Verdicts:
        """Each unit behind a savepoint of its own; those that do not fit are left out. Engine errors go up."""
        verdicts: Verdicts = []
        for unit in units:
            db.execute("SAVEPOINT unit")
            verdict = self._verdict(db, unit)
            if verdict is None:
                self._chain.keep()
            else:
                db.execute("ROLLBACK TO unit")
                self._chain.give_back()
            db.execute("RELEASE unit")
            verdicts.append(verdict)
        return verdicts

    def _verdict(self, db: sqlite3.Connection, unit: Unit) -> VendoError | None:
        """Apply a unit; None if it fits. Errors of the engine itself go up: they end the group."""
        try:
            return self._steps(db, unit)
        except _MISFITS as error:
            return BadWrite(f"A value cannot be stored: {type(error).__name__}.")
        except VendoError as error:  # from the seal
            return error

    def _steps(self, db: sqlite3.Connection, unit: Unit) -> VendoError | None:
        execute = db.execute
        for position, step in enumerate(unit):
            sql, params, rows, table, *_ = self._sealed(step, position) if isinstance(step, Append) else step
            try:
                touched = execute(sql, params).rowcount
            except sqlite3.IntegrityError as error:
                if is_unique_clash(error):
                    return clash(table, position)
                return BadWrite(f"A row does not fit {table}: {error}.")
            if touched != rows and rows is not None:
                return missed(table, position, touched, rows)
        return None

    def _truncate(self) -> None:
        if self._db is None:
            return
        try:
            self._db.execute("PRAGMA busy_timeout=0")  # a reader that is in the way is not worth holding up a commit
            try:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._db.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        except (sqlite3.Error, MemoryError) as error:  # the log only stays longer; the next commit says what is wrong
            _log.warning("no checkpoint", extra={"action": "checkpoint_failed", "reason": str(error)})
