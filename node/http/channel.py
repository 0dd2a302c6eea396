"""One reading of a stream, for one client or for all that watch it: pulled once, encoded once, sent to all in a loop.

A channel pulls records as batches, gathers what is there, and hands one piece of bytes to every client. It then waits a
little (`Home.pace`), so that a busy stream costs each client a few writes a second and not one for each record; the
first record after a pause goes out at once. The last records are kept, so that a client which has read up to there by
itself can go on here.

Nobody is waited for as long as one client takes what it is sent: whoever falls behind the others is cut off. Only if
all are behind, the lone client of a long past for example, the stream is read no faster than they take it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Hashable, Sequence
from typing import Final, Protocol

from core.error import VendoError
from core.guard import attempted
from fs.batch import Batch
from fs.protocol import Record
from node.http.guard import Internal
from node.http.reading import DRY_S, OVER, PIECE, Reading
from node.http.stream import End, Reason, frame
from node.http.watcher import MOST_WAITING, Watcher, chunk

log = logging.getLogger(__name__)

SETTLE_S = 0.05
"""So long a stream may take to say that it cannot be read, before the answer begins."""

_GATHER = 0.25  # of the pace: the part in which records are gathered; the rest of it they gather at their source
_SLICE = 128  # clients that are sent to before others have their turn
_BREATH_S = 0.01
_SILENT = 3  # newcomers who show that a busy stream greets nobody; one alone may have come just before a change
_PATIENCE_S = 0.1  # after a long piece, for those who do not take it as quickly as others
_KEPT, _KEPT_BYTES = 512, 64 << 10  # batches for those who catch up

NOTHING: Final = -1
"""A cursor before all."""


class Home(Protocol):
    """What a channel asks its hub."""

    def pace(self) -> float:
        """Seconds between two sendings."""

    def settle(self, channel: "Channel", dry: bool) -> bool:
        """The channel has sent what it had; `dry`: there was no more. Whether its client goes on elsewhere."""

    def forget(self, channel: "Channel") -> None:
        """The channel has ended."""


class Channel:
    """One reading of a stream.

    Args:
        home: the hub.
        key: the stream, as its caller sees it.
        records: the reading; it is closed with the channel.
        after: the cursor with which it began.
        beside: the channel that others of this key share, if it began while there was one.

    Attributes:
        key: as above.
        is_new: whether it began without a cursor, so with what is now.
        is_plain: whether those who come to it have missed nothing; None if that is not known yet. Some streams greet
            with how things are, and others have nothing to say until something happens.
        first: the id of the first record that came; None before it.
        last: how far it was read; None if that is not known yet.
        mark: the shared channel beside which it began, and how far that one was then.
        spoke_at: when it last sent anything, on the loop's clock.
    """

    def __init__(
        self,
        home: Home,
        key: Hashable,
        records: AsyncIterator[Record],
        after: int | None,
        beside: "Channel | None" = None,
    ) -> None:
        self._home, self._reading = home, Reading(records)
        self.key, self.is_new, self.last = key, after is None, after
        self.is_plain: bool | None = None
        self.first: int | None = None
        self.mark = None if beside is None else (beside, NOTHING if beside.last is None else beside.last)
        self._base = after  # all that the stream has past it is kept here or will come
        self._dropped = NOTHING  # the last that came and is not kept
        self._kept: deque[Batch] = deque()
        self._kept_bytes = 0
        self._silent = 0  # newcomers in a row that were told nothing of the past
        self._watchers: set[Watcher] = set()
        self._live: dict[Watcher, None] = {}
        self._end: End | None = None
        self._fault: VendoError | None = None
        loop = asyncio.get_running_loop()
        self.spoke_at = loop.time()
        self._begun: asyncio.Future[None] = loop.create_future()
        self._peopled = asyncio.Event()
        self._pump = loop.create_task(self._run(), name="http-stream")

    # ---- clients

    @property
    def has_begun(self) -> bool:
        """Whether it is known that it can be read."""
        return self._begun.done()

    async def begun(self) -> None:
        """Wait until it is known that the stream can be read, or nothing speaks against it.

        Raises:
            VendoError: it cannot be read.
        """
        await asyncio.shield(self._begun)
        if self._fault is not None and not self._kept:
            raise self._fault

    def attach(self, watcher: Watcher) -> None:
        """Hold the channel open for a client."""
        self._watchers.add(watcher)
        watcher.channel = self

    def covers(self, after: int) -> bool:
        """Whether a client that has read up to `after` can go on here."""
        return self._base is not None and self.last is not None and self._base <= after <= self.last

    def learn(self, silent: bool) -> None:
        """A newcomer beside this channel was told how things are, or `silent`: only what came after it had begun."""
        self._silent = self._silent + 1 if silent else 0
        if self._silent >= _SILENT:
            self.is_plain = True

    def keeps(self, after: int) -> bool:
        """Whether all that came here past `after` is still at hand."""
        return self._dropped <= after

    def enter(self, watcher: Watcher, after: int | None) -> None:
        """Send to this client from now on, and first what came past `after`. It is attached."""
        if after is not None:
            missed = b"".join(one.past(after).shown(frame) for one in self._kept if one.cursor > after)
            if missed:
                watcher.push(chunk(missed))
        if self._end is not None:
            watcher.finish(self._end)
        if not watcher.ended.done():
            self._live[watcher] = None
        self._peopled.set()

    def drop(self, watcher: Watcher) -> None:
        """Send this client nothing more."""
        self._live.pop(watcher, None)

    async def leave(self, watcher: Watcher) -> None:
        """A client has left; with the last one the stream is closed."""
        self._watchers.discard(watcher)
        self.drop(watcher)
        if not self._watchers:
            self._home.forget(self)
            self._pump.cancel()
            await asyncio.wait({self._pump})

    def hand(self, other: "Channel", after: int | None) -> None:
        """Let the clients of this channel go on in another one."""
        for watcher in list(self._watchers):
            other.attach(watcher)
            if watcher in self._live:
                other.enter(watcher, after)
        self._watchers.clear()
        self._live.clear()

    async def say(self, data: bytes, *, idle: bool = False) -> None:
        """Send to all who are here now, or to those of them for whom nothing waits; who comes meanwhile is left out."""
        self.spoke_at = asyncio.get_running_loop().time()
        made, live = chunk(data), [watcher for watcher in self._live if not (idle and watcher.waiting)]
        for at in range(0, len(live), _SLICE):
            if at:
                await asyncio.sleep(0)
            for watcher in live[at : at + _SLICE]:
                watcher.push(made)

    # ---- the reading

    async def _run(self) -> None:
        """Read to the end, and tell all how it ended."""
        try:
            _, error = await attempted(self._read())
        finally:
            await self._reading.close()
            if not self._begun.done():
                self._begun.set_result(None)
        if isinstance(error, VendoError):
            self._fault = error
        elif error is not None:
            log.error("a stream failed", exc_info=error, extra={"action": "http_stream_failed"})
            self._fault = Internal()
        self._end = End(Reason.ERROR, self._fault.code) if self._fault is not None else End(Reason.COMPLETE)
        self._home.forget(self)
        for watcher in list(self._live):
            watcher.finish(self._end)

    async def _read(self) -> None:
        batch = await self._reading.next(SETTLE_S)
        self._begun.set_result(None)
        await self._peopled.wait()
        while batch is not OVER:
            if batch is None:
                if self._home.settle(self, dry=True):
                    return
                batch = await self._reading.next()
                continue
            gathered, batch = await self._reading.gather(batch, self._home.pace() * _GATHER)
            await self._send(gathered)
            if batch is not OVER and self._home.settle(self, dry=batch is None):
                return
            if batch is None:
                await asyncio.sleep(self._home.pace() * (1 - _GATHER))
                if self._home.settle(self, dry=True):  # the other one may have come as far meanwhile
                    return
                batch = await self._reading.next(DRY_S)

    async def _send(self, gathered: Sequence[Batch]) -> None:
        for batch in gathered:
            self._keep(batch)
        data = b"".join(batch.shown(frame) for batch in gathered)
        await self.say(data)
        now = asyncio.get_running_loop().time
        until = now() + (_PATIENCE_S if len(data) > PIECE // 2 else 0.0)
        # asyncio tells of each transport for itself when it has room, and of none when the first of many has
        while (behind := self._behind()) and (behind == len(self._live) or now() < until):  # noqa: ASYNC110
            await asyncio.sleep(_BREATH_S)

    def _behind(self) -> int:
        """How many would be cut off by what comes next."""
        return sum(watcher.waiting > MOST_WAITING for watcher in self._live)

    def _keep(self, batch: Batch) -> None:
        if self.first is None:
            self.first = batch.records[0].id
        if not self._kept:
            self._base = batch.after if self._base is None else min(self._base, batch.after)
        self.last = batch.cursor
        self._kept.append(batch)
        self._kept_bytes += len(batch.shown(frame))
        while len(self._kept) > 1 and (len(self._kept) > _KEPT or self._kept_bytes > _KEPT_BYTES):
            gone = self._kept.popleft()
            self._kept_bytes -= len(gone.shown(frame))
            self._base = self._dropped = gone.cursor
