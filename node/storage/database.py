"""The node's database on SQLite: the loop's side. Units are gathered here and handed to the writer in groups.

There is no timer: a flush runs after every task that is ready now has had its turn, and while a group is on its
way to the disk the next one fills. So a lone unit waits for nobody, and groups grow by themselves under load.
"""

import asyncio
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from core.clock import Clock
from core.error import Conflict, InvalidInput, Unavailable
from core.unit import Append, Condition, Row, Write
from node.storage.chain import Seal
from node.storage.error import BadWrite, NotOurDatabase
from node.storage.migration import migrate
from node.storage.schema import facts
from node.storage.statement import Unit, compiled, question
from node.storage.writer import Group, Verdicts, Writer, broken, connect

_AT_ONCE = 500  # rows read before others get a turn


class _Waiting(NamedTuple):
    unit: Unit
    done: "asyncio.Future[None]"


class Database:
    """`core.unit.UnitOfWork` on one SQLite file. Made by `open_database`."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: Writer) -> None:
        self.path = path
        self._reader, self._writer = reader, writer
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._busy = self._armed = self._closed = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._watchers: list[Callable[[Append], None]] = []
        self._groups = self._units = self._conflicts = 0

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        """Have every ledger entry told once it is durable, before the `commit` that brought it returns."""
        self._watchers.append(watcher)

    async def commit(self, writes: Iterable[Write]) -> None:
        """As `UnitOfWork.commit`. A waiter that is cancelled does not undo its unit.

        Raises:
            Conflict: a write did not match; its context names the table and the write's position.
            StoreUncertain: the engine failed in COMMIT.
            StoreFull: the disk is full; nothing was written.
            StoreFailed: the engine failed before COMMIT; nothing was written.
            BadWrite: a write does not fit the schema.
            Unavailable: the database is closed.
        """
        if self._closed:
            raise Unavailable("The database is closed.")
        unit = compiled(writes)
        if not unit:
            return
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(_Waiting(unit, done))
        self._quiet.clear()
        self._arm()
        await done

    def _arm(self) -> None:
        if self._waiting and not self._busy and not self._armed:
            self._armed = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._armed = False
        if not self._waiting or self._busy:
            return
        most = self._writer.largest
        group, self._waiting = self._waiting[:most], self._waiting[most:]
        self._busy = True

        def landed(verdicts: Verdicts) -> None:  # in the writer's thread: one call for the group, not one for each unit
            self._loop.call_soon_threadsafe(self._landed, group, verdicts)

        self._writer.send(Group([waiting.unit for waiting in group], landed))

    def _landed(self, group: Sequence[_Waiting], verdicts: Verdicts) -> None:
        self._busy = False
        self._flush()  # the disk gets its next group first, then the owners of this one hear of it
        self._groups += any(verdict is None for verdict in verdicts)
        for (_, done), verdict in zip(group, verdicts, strict=True):
            self._units += verdict is None
            self._conflicts += isinstance(verdict, Conflict)
            if done.done():
                continue
            if verdict is None:
                done.set_result(None)
            else:
                done.set_exception(verdict)
        self._arm()
        if not self._busy and not self._waiting:
            self._quiet.set()
        for (unit, _), verdict in zip(group, verdicts, strict=True):
            if verdict is None:
                self._tell(unit)  # still before any owner runs: they were only made ready

    def _tell(self, unit: Unit) -> None:
        for step in unit:
            if isinstance(step, Append):
                for watcher in self._watchers:
                    watcher(step)

    async def select(
        self,
        table: str,
        where: Mapping[str, Condition] | None = None,
        *,
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[Row]:
        """As `UnitOfWork.select`. Runs on the loop, from the page cache; long answers give others their turn.

        Raises:
            BadWrite: the question does not fit the schema.
            Unavailable: the database failed or is closed.
        """
        if self._closed:
            raise Unavailable("The database is closed.")
        sql, params = question(table, where or {}, order, limit)
        columns = tuple(facts(table).kinds)
        try:
            cursor = self._reader.execute(sql, params)
            found = cursor.fetchmany(_AT_ONCE)
            rows = [dict(zip(columns, row, strict=True)) for row in found]
            while len(found) == _AT_ONCE:
                await asyncio.sleep(0)
                found = cursor.fetchmany(_AT_ONCE)
                rows += [dict(zip(columns, row, strict=True)) for row in found]
        except (OverflowError, UnicodeEncodeError) as error:
            raise BadWrite("This value cannot be looked up.") from error
        except sqlite3.Error as error:
            raise broken(error) from error
        return rows

    def stats(self) -> dict[str, int]:
        """Counts since it was opened: groups that reached the disk, units in them, units that conflicted."""
        return {"groups": self._groups, "units": self._units, "conflicts": self._conflicts}

    async def aclose(self) -> None:
        """Refuse new units, wait until those under way are durable, close the file. May be called twice."""
        if self._closed:
            return
        self._closed = True
        await self._quiet.wait()
        await asyncio.to_thread(self._writer.stop)
        self._reader.close()


def database_path(where: str | Path) -> Path:
    """The file behind a path or a `sqlite:///…` URL.

    Raises:
        InvalidInput: a URL of another kind.
    """
    text = str(where)
    if text.startswith("sqlite:///"):
        return Path(text.removeprefix("sqlite:///"))
    if "://" in text:
        raise InvalidInput(f"A database is a path or a sqlite:/// URL, not {text.split('://')[0]}://.")
    return Path(text)


def _prepare(path: Path) -> sqlite3.Connection:
    """The file with its newest schema, and a connection for reading."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # before SQLite would make it readable to others
    migrate(path)
    reader = connect(path)
    reader.execute("PRAGMA query_only=1")
    reader.execute("PRAGMA busy_timeout=1000")
    return reader


async def open_database(where: str | Path, *, seal: Seal, clock: Clock) -> Database:
    """Open a database, make it if it is not there, and bring its schema up to date.

    Raises:
        NewerSchema: a newer vendo wrote it.
        NotOurDatabase: the file is something else, or is damaged.
        InvalidInput: the URL names no SQLite file.
        StoreFull, StoreFailed: the disk does not take it.
    """
    path = database_path(where)
    writer = Writer(path, seal, clock)
    try:
        reader = await asyncio.to_thread(_prepare, path)
        writer.start()
    except sqlite3.OperationalError as error:
        raise broken(error) from error
    except sqlite3.DatabaseError as error:
        raise NotOurDatabase(f"{path} is not a database: {error}.") from error
    return Database(path, reader, writer)
