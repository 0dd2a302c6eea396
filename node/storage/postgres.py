"""The node's database on PostgreSQL: the loop's side, as `node.storage.database` is for SQLite.

Units are gathered and written in groups by one connection; questions are gathered and asked over others. There is no
timer: while one group is on its way to the server the next one fills.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from core.clock import Clock
from core.error import Conflict, StoreUncertain, Unavailable
from core.unit import Append, Condition, Row, Write
from node.storage.chain import Seal
from node.storage.error import StoreFull
from node.storage.fence import Fence
from node.storage.migration import migrate_postgres
from node.storage.postgres_plan import asked, compiled
from node.storage.postgres_question import count_question
from node.storage.postgres_reader import PostgresReader
from node.storage.postgres_statement import Unit
from node.storage.postgres_writer import PostgresWriter, Verdicts

_log = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    unit: Unit
    done: "asyncio.Future[None]"


class PostgresDatabase:
    """`core.unit.UnitOfWork` on one PostgreSQL database, which others may share. Made by `open_postgres`."""

    def __init__(self, reader: PostgresReader, writer: PostgresWriter) -> None:
        self._reader, self._writer = reader, writer
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Waiting] = []
        self._busy: asyncio.Task[Verdicts] | None = None
        self._armed = self._closed = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._watchers: list[Callable[[Append], None]] = []
        self._when_full: list[Callable[[], None]] = []
        self._groups = self._units = self._conflicts = 0

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        """Have every ledger entry of this process told once it is durable, before its `commit` returns."""
        self._watchers.append(watcher)

    def on_full(self, watcher: Callable[[], None]) -> None:
        """Have it called whenever a group was refused because the disk is full."""
        self._when_full.append(watcher)

    def use_fence(self, fence: Fence | None) -> None:
        """Show this in every transaction from now on."""
        self._writer.fence = fence

    async def commit(self, writes: Iterable[Write]) -> None:
        """As `UnitOfWork.commit`. A waiter that is cancelled does not undo its unit.

        Raises:
            Conflict: a write did not match; its context names the table and the write's position.
            Fenced: another process took this one's place; nothing was written.
            StoreUncertain: the server failed in COMMIT, or the connection was lost there.
            StoreFull: the server's disk is full; nothing was written.
            StoreFailed, Unreachable: the server failed before COMMIT; nothing was written.
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
        if self._waiting and self._busy is None and not self._armed:
            self._armed = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._armed = False
        if not self._waiting or self._busy is not None:
            return
        most = self._writer.largest
        group, self._waiting = self._waiting[:most], self._waiting[most:]
        self._busy = self._loop.create_task(self._writer.apply([waiting.unit for waiting in group]))
        self._busy.add_done_callback(lambda task: self._landed(group, task))

    def _landed(self, group: Sequence[_Waiting], task: "asyncio.Task[Verdicts]") -> None:
        self._busy = None
        verdicts = self._verdicts(group, task)
        self._flush()  # the server gets its next group first, then the owners of this one hear of it
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
        if isinstance(verdicts[0], StoreFull):  # the engine refuses a whole group
            for watcher in self._when_full:
                watcher()
        self._arm()
        if self._busy is None and not self._waiting:
            self._quiet.set()
        for (unit, _), verdict in zip(group, verdicts, strict=True):
            if verdict is None:
                self._tell(unit)  # still before any owner runs: they were only made ready

    def _verdicts(self, group: Sequence[_Waiting], task: "asyncio.Task[Verdicts]") -> Verdicts:
        if not task.cancelled() and task.exception() is None:
            return task.result()
        self._writer.drop()  # it stopped somewhere in the middle
        if not task.cancelled():
            _log.error("the writer failed", exc_info=task.exception(), extra={"action": "writer_failed"})
        return [StoreUncertain("The writer of the database failed.") for _ in group]

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
        """As `UnitOfWork.select`. Questions of one shape that wait together are asked as one.

        Raises:
            BadWrite: the question does not fit the schema.
            Unavailable: the database failed or is closed.
        """
        return await self._reader.rows(asked(table, where or {}, order, limit, columns, distinct))

    async def count(self, table: str, where: Mapping[str, Condition] | None = None, *, limit: int | None = None) -> int:
        """As `UnitOfWork.count`.

        Raises:
            BadWrite: the question does not fit the schema.
            Unavailable: the database failed or is closed.
        """
        return await self._reader.number(count_question(table, where or {}, limit))

    def stats(self) -> dict[str, int]:
        """Counts since it was opened: groups that reached the disk, units in them, units that conflicted."""
        return {"groups": self._groups, "units": self._units, "conflicts": self._conflicts}

    async def aclose(self) -> None:
        """Refuse new units, wait until those under way are durable, end the sessions. May be called twice."""
        if self._closed:
            return
        self._closed = True
        await self._quiet.wait()
        await self._writer.stop()
        await self._reader.stop()


async def open_postgres(
    url: str, *, seal: Seal, clock: Clock, fence: Fence | None = None, unsafe: bool = False
) -> PostgresDatabase:
    """Open a database and bring its schema up to date.

    Args:
        url: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. The password is in no error and no log.
        seal: signs ledger entries.
        clock: gives entries their time.
        fence: what this process shows in every transaction, where several share the database.
        unsafe: take a server that may lose what it acknowledged, for tests.

    Raises:
        NewerSchema: a newer vendo wrote it.
        NotOurDatabase: it holds something else.
        UnsafeServer: the server may lose what it acknowledged.
        Unreachable: there is no server, or it does not let us in.
        InvalidInput: the URL names no PostgreSQL database.
        StoreFull, StoreFailed: the server does not take it.
    """
    await migrate_postgres(url)
    writer = PostgresWriter(url, seal, clock, unsafe=unsafe)
    writer.fence = fence
    await writer.start()
    return PostgresDatabase(PostgresReader(url), writer)
