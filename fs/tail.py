"""The end of a log, read once for everybody who watches it there.

A log stays where it is stored; a watcher has a cursor and nothing else. Those at its end share each read and its
records (`fs/batch.py`): of all that wait one reads, and hands on to the others what it found. Those that are behind
read by themselves until they have caught up. So a slow watcher costs nobody memory, and a thousand quick ones cost the
database what one does. If what a watcher has not read yet is not kept any more, it is told so with a `gap`.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import orjson

from fs.batch import Batch
from fs.feed import Feed
from fs.protocol import Record

GAP = "gap"
"""The type of a record that stands for others which are not kept any more: {"from": id, "to": id}, both included."""

PAUSE_S = 0.1
"""Records that come within this time of the last ones are handed over together."""

_LOOK_AGAIN_S = 15.0  # somebody else may have written without telling
_IDLE_S = 1.0  # nobody has been at the end for so long: where it was does not matter any more
_KEPT = 32  # batches for those that are a little behind
_KEPT_BYTES = 4 << 20


class Page(NamedTuple):
    """What was read of a log.

    Attributes:
        records: those past the cursor that was given, in their order; a source may leave some out.
        cursor: how far was read.
        more: whether there may be more at once.
    """

    records: Sequence[Record]
    cursor: int
    more: bool


class Source(Protocol):
    """A log with rising ids from 1."""

    async def span(self) -> tuple[int, int]:
        """The lowest id that is still kept, and the highest that was given; (1, 0) before the first."""

    async def page(self, after: int) -> Page:
        """The next records past a cursor, oldest first, a page at most."""


class Tail:
    """The end of one log. Keep one for all who watch it: `Feed.shared`.

    Args:
        feed: tells when the log has grown.
        topic: under this name.
        source: reads it.
        pause_s: records that come within so many seconds are handed over together.
    """

    def __init__(self, feed: Feed, topic: str, source: Source, pause_s: float = PAUSE_S) -> None:
        self.source = source
        self._feed, self._topic, self._pause_s = feed, topic, pause_s
        self._batches: deque[Batch] = deque()
        self._bytes = 0
        self._base = self._head = -1  # all records past the one and up to the other are at hand; -1: nobody was here
        self._found_at = self._left_at = 0.0  # on the loop's clock: of the last records, of the last read
        self._is_read = False  # somebody reads, for all
        self._has_more = False  # the last page was not the last
        self._waiting: set[asyncio.Future[None]] = set()

    def follow(self, after: int | None) -> "Following":
        """Watch from a cursor on; None is from now on, 0 from the oldest that is kept."""
        return Following(self, after)

    def covers(self, cursor: int) -> bool:
        """Whether all that came after this cursor is at hand, or will be."""
        return 0 <= self._base <= cursor and (cursor <= self._head or not self._is_idle)

    @property
    def _is_idle(self) -> bool:
        return not self._is_read and self._now() - self._left_at > _IDLE_S

    @property
    def head(self) -> int:
        """How far was read for all."""
        return self._head

    def find(self, cursor: int) -> Batch | None:
        """What comes after a cursor that is covered; None if nothing has come yet."""
        found = None
        for batch in reversed(self._batches):
            if batch.cursor <= cursor:
                break
            found = batch
        return None if found is None else found.past(cursor)

    def join(self, cursor: int) -> None:
        """A watcher has read up to this cursor by itself: the end, if nobody else was here of late."""
        if self._head < 0 or (cursor > self._head and self._is_idle):
            self._batches.clear()
            self._base = self._head = cursor
            self._bytes, self._left_at = 0, self._now()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def wait(self) -> None:
        """Return when there may be more. The first who waits reads for all.

        Raises:
            VendoError: the log could not be read; whoever waits next tries again.
        """
        if self._is_read:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
            return
        self._is_read = True
        try:
            await self._read()
        finally:  # also if this watcher leaves: another one reads then
            self._is_read, self._left_at = False, self._now()
            waiting, self._waiting = self._waiting, set()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def _read(self) -> None:
        rest = self._found_at + self._pause_s - self._now()
        if rest > 0 and not self._has_more:
            await asyncio.sleep(rest)
        while True:
            count, head = self._feed.count(self._topic), self._head
            page = await self.source.page(head)
            self._head, self._has_more = page.cursor, page.more
            if page.records:
                self._found_at = self._now()
                self._put(Batch(page.records, head, page.cursor))
                return
            if not page.more:
                await self._feed.wait(self._topic, count, _LOOK_AGAIN_S)

    def _put(self, batch: Batch) -> None:
        self._batches.append(batch)
        self._bytes += _size(batch)
        while len(self._batches) > 1 and (len(self._batches) > _KEPT or self._bytes > _KEPT_BYTES):
            gone = self._batches.popleft()
            self._base = gone.cursor
            self._bytes -= _size(gone)


def _size(batch: Batch) -> int:
    return sum(len(record.data) for record in batch.records)


class Following:
    """One watcher of a log: an iterator of records that does not end. `batch` gives all that are there at a time."""

    __slots__ = ("_after", "_at", "_batch", "_cursor", "_has_begun", "_tail")

    def __init__(self, tail: Tail, after: int | None) -> None:
        self._tail, self._after = tail, after
        self._cursor = 0
        self._has_begun = False
        self._batch: Batch | None = None  # handed over one by one
        self._at = 0

    def __aiter__(self) -> "Following":
        return self

    async def __anext__(self) -> Record:
        """The next record.

        Raises:
            VendoError: the log could not be read.
        """
        if self._batch is None or self._at >= len(self._batch.records):
            self._batch, self._at = await self._next(), 0
        self._at += 1
        return self._batch.records[self._at - 1]

    async def batch(self) -> Batch:
        """The next records, at least one.

        Raises:
            VendoError: the log could not be read.
        """
        batch, at, self._batch = self._batch, self._at, None
        if batch is not None and at < len(batch.records):
            return batch if at == 0 else Batch(batch.records[at:], batch.records[at - 1].id, batch.cursor)
        return await self._next()

    async def aclose(self) -> None:
        """Watch no longer."""
        self._batch = None

    async def _next(self) -> Batch:
        if not self._has_begun:
            _, newest = await self._tail.source.span()
            self._cursor = newest if self._after is None else min(self._after, newest)
            self._has_begun = True
            if self._cursor == newest:
                self._tail.join(newest)
        while True:
            if self._tail.covers(self._cursor):
                batch = self._tail.find(self._cursor)
            else:
                batch = await self._behind()
            if batch is None:
                await self._tail.wait()
                continue
            self._cursor = batch.cursor
            if batch.records:
                return batch

    async def _behind(self) -> Batch | None:
        """The next page, read for this watcher alone. None: it has caught up."""
        cursor, head = self._cursor, self._tail.head
        page = await self._tail.source.page(cursor)
        oldest, _ = await self._tail.source.span()  # after the page: what went meanwhile is told, too
        records, now_at = list(page.records), page.cursor
        lost = min(oldest, records[0].id if records else oldest) - 1
        if 0 < cursor < lost:
            records.insert(0, gap(cursor + 1, lost))
            now_at = max(now_at, lost)
        if not page.more:
            now_at = max(now_at, head if not page.records else 0)  # nothing is there up to where the others are
            self._tail.join(now_at)
        return Batch(records, cursor, now_at) if now_at > cursor else None


def gap(first: int, last: int) -> Record:
    """The record that stands for those which are not kept any more."""
    return Record(last, orjson.dumps({"from": first, "to": last}), GAP)
