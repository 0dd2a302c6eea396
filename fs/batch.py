"""Records of a stream handed over together: what a thousand watchers are sent is made once. Pure.

Whoever watches a file takes one record after the other, or with `batches` all that are there at a time. A batch is
immutable and shared: watchers that are at the same place of a log hold the same one, and what it looks like on the wire
(`Batch.shown`) is computed by the first of them.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, runtime_checkable

from fs.protocol import Record, let_go


class Batch:
    """Records in the order of their ids, at least one.

    Attributes:
        records: the records themselves.
        after: the cursor before the first of them.
        cursor: how far a watcher has come with them: the id of the last one, or a number past it.
    """

    __slots__ = ("_shown", "after", "cursor", "records")

    def __init__(self, records: Sequence[Record], after: int, cursor: int) -> None:
        self.records, self.after, self.cursor = tuple(records), after, cursor
        self._shown: tuple[Callable[[Record], bytes], bytes] | None = None

    def shown(self, form: Callable[[Record], bytes]) -> bytes:
        """All of them in one form, e.g. as server-sent events. Computed once for everybody who holds this batch.

        Args:
            form: one record's bytes; the same function each time, not a new one.
        """
        if self._shown is None or self._shown[0] is not form:
            self._shown = form, b"".join(map(form, self.records))
        return self._shown[1]

    def past(self, cursor: int) -> "Batch":
        """What of it is past a cursor; itself, if that is all. May be without records."""
        if cursor <= self.after:
            return self
        return Batch([record for record in self.records if record.id > cursor], cursor, self.cursor)


@runtime_checkable
class Batched(Protocol):
    """An iterator of records that can hand over all that are there at once."""

    async def batch(self) -> Batch:
        """The next records; waits for one.

        Raises:
            StopAsyncIteration: the stream has ended.
        """


async def batches(records: AsyncIterator[Record]) -> AsyncIterator[Batch]:
    """What a watch gives, as many records at a time as are there; one by one where it cannot do better."""
    if isinstance(records, Batched):
        with contextlib.suppress(StopAsyncIteration):
            while True:
                yield await records.batch()
        return
    async for record in records:
        yield Batch((record,), record.id - 1, record.id)


class Later:
    """Records of a watch that begins when the first is asked for: looking a path up takes time, asking for it none.

    Args:
        begin: finds the file and watches it.
    """

    __slots__ = ("_begin", "_records")

    def __init__(self, begin: Callable[[], Awaitable[AsyncIterator[Record]]]) -> None:
        self._begin = begin
        self._records: AsyncIterator[Record] | None = None

    def __aiter__(self) -> "Later":
        return self

    async def _begun(self) -> AsyncIterator[Record]:
        if self._records is None:
            self._records = await self._begin()
        return self._records

    async def __anext__(self) -> Record:
        return await anext(await self._begun())

    async def batch(self) -> Batch:
        """See `Batched`."""
        records = await self._begun()
        if isinstance(records, Batched):
            return await records.batch()
        record = await anext(records)
        return Batch((record,), record.id - 1, record.id)

    async def aclose(self) -> None:
        """Give the watch up."""
        records, self._records = self._records, None
        if records is not None:
            await let_go(records)
