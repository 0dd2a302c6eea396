"""The node's database on PostgreSQL. One connection writes, others are asked; no thread is needed for either."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from core.clock import Clock
from core.error import StoreUncertain
from core.unit import Condition, Row, Write
from node.storage.chain import Seal
from node.storage.fence import Fence
from node.storage.group import Grouped, Taken, Unit, Verdicts
from node.storage.migration import migrate_postgres
from node.storage.postgres_entry import Ready
from node.storage.postgres_plan import asked, compiled
from node.storage.postgres_question import count_question
from node.storage.postgres_reader import AT_ONCE, PostgresReader, unpacked
from node.storage.postgres_writer import PostgresWriter

_log = logging.getLogger(__name__)


class PostgresDatabase(Grouped):
    """`core.unit.UnitOfWork` on one PostgreSQL database, which others may share. Made by `open_postgres`."""

    def __init__(self, reader: PostgresReader, writer: PostgresWriter) -> None:
        super().__init__()
        self._reader, self._writer = reader, writer
        self._tasks: set[asyncio.Task[Verdicts]] = set()

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
        await self._committed(compiled(writes))

    @property
    def _largest(self) -> int:
        return self._writer.largest

    def _ready(self, unit: Unit) -> Ready:
        return self._writer.ready(unit)

    def _send(self, group: Taken) -> None:
        def ended(task: "asyncio.Task[Verdicts]") -> None:
            self._tasks.discard(task)
            group.landed(self._verdicts(task, len(group.units)), False)

        self._writer.take(group.units)  # here, since a task that is cancelled early does not even begin
        task = self._loop.create_task(self._writer.apply(group.units))
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _verdicts(self, task: "asyncio.Task[Verdicts]", units: int) -> Verdicts:
        if not task.cancelled() and task.exception() is None:
            return task.result()
        self._writer.drop()  # it stopped somewhere in the middle
        if not task.cancelled():
            _log.error("the writer failed", exc_info=task.exception(), extra={"action": "writer_failed"})
        return [StoreUncertain("The writer of the database failed.")] * units

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
        question = asked(table, where or {}, order, limit, columns, distinct)
        answer = await self._reader.ask(question)
        return question.ask.rows(answer) if len(answer) <= AT_ONCE else await unpacked(question.ask, answer)

    async def count(self, table: str, where: Mapping[str, Condition] | None = None, *, limit: int | None = None) -> int:
        """As `UnitOfWork.count`.

        Raises:
            BadWrite: the question does not fit the schema.
            Unavailable: the database failed or is closed.
        """
        return int((await self._reader.ask(count_question(table, where or {}, limit)))[0][0])

    async def aclose(self) -> None:
        """Refuse new units, wait until those under way are durable, end the sessions. May be called twice."""
        if self._closed:
            return
        await self._drained()
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
