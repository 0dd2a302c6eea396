"""A reading of a stream that can be asked what is there by now, and gives up nothing of what comes later."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from fs.batch import Batch, batches
from fs.protocol import Record
from node.http.stream import frame

DRY_S = 0.005
"""A source that gives nothing for so long has no more for now."""

PIECE = 64 << 10
"""Bytes on the wire that are gathered at most; one record may have more."""

OVER: Final = Batch((), 0, 0)
"""What comes after the last records."""


class Reading:
    """One reading.

    Args:
        records: what a service's `watch` gave; it is closed with this.
    """

    def __init__(self, records: AsyncIterator[Record]) -> None:
        self._records, self._batches = records, batches(records)
        self._pending: asyncio.Task[Batch] | None = None

    async def next(self, within: float | None = None) -> Batch | None:
        """The next records; None if none come in so many seconds, `OVER` after the last.

        Raises:
            VendoError: the stream cannot be read.
        """
        pulled = await self._pulled(within)
        if pulled is None:
            return None
        self._pending = None
        return pulled.result()

    async def gather(self, first: Batch, within: float) -> tuple[list[Batch], Batch | None]:
        """What is there after `first`, a piece at most, for so many seconds at most; and what comes next, as `next`.

        What fails now is told by the next call of `next`: first is sent what came before.
        """
        loop = asyncio.get_running_loop()
        gathered, size, until = [first], len(first.shown(frame)), loop.time() + within
        while True:
            pulled = await self._pulled(DRY_S)
            if pulled is None or pulled.cancelled() or pulled.exception() is not None:
                return gathered, None
            batch, self._pending = pulled.result(), None
            if batch is OVER:
                return gathered, batch
            size += len(batch.shown(frame))
            if size > PIECE or loop.time() > until:
                return gathered, batch
            gathered.append(batch)

    async def close(self) -> None:
        """Give it up."""
        if self._pending is not None:
            self._pending.cancel()
            await asyncio.gather(self._pending, return_exceptions=True)
        for one in (self._batches, self._records):
            if (close := getattr(one, "aclose", None)) is not None:
                with contextlib.suppress(RuntimeError):
                    await close()

    async def _pulled(self, within: float | None) -> asyncio.Task[Batch] | None:
        """The pull that is under way, once it is done; None if that takes longer."""
        if self._pending is None:
            self._pending = asyncio.create_task(self._pull())
        if not self._pending.done():
            await asyncio.wait({self._pending}, timeout=within)
        return self._pending if self._pending.done() else None

    async def _pull(self) -> Batch:
        return await anext(self._batches, OVER)
