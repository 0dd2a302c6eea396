"""The node's database on SQLite: the loop's side. Units are gathered here and handed to the writer in groups.

There is no timer: a flush runs after every task that is ready now has had its turn, and while a group is on its
way to the disk the next one fills. So a lone unit waits for nobody, and groups grow by themselves under load.
"""

import asyncio
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from core.clock import Clock
from core.error import Conflict, InvalidInput, StoreUncertain, Unavailable, VendoError
from core.unit import Append, Condition, Row, Write
from node.storage.address import is_postgres
from node.storage.chain import Seal
from node.storage.error import NotOurDatabase, StoreFull
from node.storage.migration import migrate
from node.storage.plan import asked, compiled
from node.storage.reader import Readers
from node.storage.snapshot import copy
from node.storage.statement import Unit, count_question
from node.storage.writer import Group, Verdicts, Writer, broken

if TYPE_CHECKING:
    from node.storage.postgres import PostgresDatabase

Store: TypeAlias = "Database | PostgresDatabase"
"""A node's database, of either kind."""

_AT_ONCE = 16  # units whose owners hear of them before others get a turn, however large their group was


class _Waiting(NamedTuple):
    unit: Unit
    done: "asyncio.Future[None]"


class Database:
    """`core.unit.UnitOfWork` on one SQLite file. Made by `open_database`."""

    def __init__(self, path: Path, readers: Readers, writer: Writer) -> None:
        self.path = path
        self._readers, self._writer = readers, writer
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._landing: deque[tuple[_Waiting, VendoError | None]] = deque()
        self._busy = self._armed = self._closed = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._watchers: list[Callable[[Append], None]] = []
        self._when_full: list[Callable[[], None]] = []
        self._groups = self._units = self._conflicts = 0

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        """Have every ledger entry told once it is durable, before the `commit` that brought it returns."""
        self._watchers.append(watcher)

    def on_full(self, watcher: Callable[[], None]) -> None:
        """Have it called whenever a group met a full disk, before its COMMIT or in it."""
        self._when_full.append(watcher)

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
        done = verdicts.count(None)
        self._units += done
        self._groups += bool(done)
        if done < len(group):
            self._conflicts += sum(isinstance(verdict, Conflict) for verdict in verdicts)
            if any(map(_is_full, verdicts)):
                for watcher in self._when_full:
                    watcher()
        settling = bool(self._landing)
        self._landing.extend(zip(group, verdicts, strict=True))
        if not settling:
            self._settle()

    def _settle(self) -> None:
        """Some owners hear of their units now, the others when these have had their turn."""
        for _ in range(min(_AT_ONCE, len(self._landing))):
            (unit, done), verdict = self._landing.popleft()
            if verdict is None:
                if self._watchers:
                    self._tell(unit)  # before its owner runs, which is only made ready here
                if not done.done():
                    done.set_result(None)
            elif not done.done():
                done.set_exception(verdict)
        if self._landing:
            self._loop.call_soon(self._settle)
            return
        self._arm()
        if not self._busy and not self._waiting:
            self._quiet.set()

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
        columns: Sequence[str] = (),
        distinct: bool = False,
    ) -> list[Row]:
        """As `UnitOfWork.select`. Runs on the loop, from the page cache; long answers give others their turn.

        Raises:
            BadWrite: the question does not fit the schema.
            Unavailable: the database failed or is closed.
        """
        question = asked(table, where or {}, order, limit, columns, distinct)
        return [dict(zip(question.columns, row, strict=True)) for row in await self._readers.rows(question)]

    async def count(self, table: str, where: Mapping[str, Condition] | None = None, *, limit: int | None = None) -> int:
        """As `UnitOfWork.count`.

        Raises:
            BadWrite: the question does not fit the schema.
            Unavailable: the database failed or is closed.
        """
        return await self._readers.number(count_question(table, where or {}, limit), limit)

    async def snapshot(self, path: str | Path) -> None:
        """Copy the file, as it is now, into a new one; commits go on meanwhile. Whoever is cancelled leaves nothing.

        Raises:
            InvalidInput: there is something at `path`, or its folder is missing.
            StoreFull, StoreFailed: a disk does not take it.
            Unavailable: the database is closed.
        """
        if self._closed:
            raise Unavailable("The database is closed.")
        given_up = threading.Event()
        try:
            await asyncio.to_thread(copy, self.path, Path(path), given_up)
        finally:
            given_up.set()

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
        self._readers.close()


def _is_full(verdict: VendoError | None) -> bool:
    return isinstance(verdict, StoreFull) or (isinstance(verdict, StoreUncertain) and "full" in verdict.context)


def database_path(where: str | Path) -> Path:
    """The file behind a path or a `sqlite:///…` URL.

    Raises:
        InvalidInput: a URL of another kind.
    """
    text = str(where)
    if text.startswith("sqlite:///"):
        return Path(text.removeprefix("sqlite:///"))
    if "://" in text:
        raise InvalidInput(f"A file's URL begins with sqlite:///, not {text.split('://')[0]}://.")
    return Path(text)


def _prepare(path: Path) -> Readers:
    """The file with its newest schema, and what reads it."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # before SQLite would make it readable to others
    migrate(path)
    return Readers(path)


async def open_database(where: str | Path, *, seal: Seal, clock: Clock, unsafe: bool = False) -> "Store":
    """Open a database and bring its schema up to date. A file is made if it is not there.

    Args:
        where: a path, or a URL `sqlite:///…` or `postgresql://…`.
        seal: makes ledger entries.
        clock: gives entries their time.
        unsafe: take a PostgreSQL that may lose what it acknowledged, for tests.

    Raises:
        NewerSchema: a newer vendo wrote it.
        NotOurDatabase: it is something else, or is damaged.
        InvalidInput: the URL names no database.
        StoreFull, StoreFailed: the disk or the server does not take it.
        UnsafeServer, Unreachable: as `node.storage.postgres.open_postgres`.
    """
    if is_postgres(where):
        from node.storage.postgres import open_postgres  # a node on a file does without the driver

        return await open_postgres(str(where), seal=seal, clock=clock, unsafe=unsafe)
    path = database_path(where)
    writer = Writer(path, seal, clock)
    try:
        readers = await asyncio.to_thread(_prepare, path)
        writer.start()
    except sqlite3.OperationalError as error:
        raise broken(error) from error
    except sqlite3.DatabaseError as error:
        raise NotOurDatabase(f"{path} is not a database: {error}.") from error
    return Database(path, readers, writer)
