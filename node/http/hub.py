"""All streams over HTTP: clients that watch the same one share one reading of it, and one copy of what they are sent.

A stream that one caller watches from now on is one `Channel`, however many watch it. A client with a cursor in the past
first has a reading of its own. As soon as that has come to where the shared one begins it goes on there, without a gap
and without a repetition; if there is none, its own becomes the shared one once it has caught up.

No client has a timer. One task looks after all of them: who has left, who takes nothing, whose stream has been silent.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias

from aiohttp import web

from core.error import VendoError
from fs.protocol import Record
from node.http.channel import NOTHING, Channel
from node.http.error import TooManyStreams
from node.http.stream import KEEP_ALIVE, End, Reason
from node.http.watcher import Watcher

MAX_STREAMS = 2_048
KEEP_ALIVE_S = 15.0
_LOOK_S = 1.0
_PACE_S = (0.02, 0.15)  # between two sendings of a stream, at least and at most
_PACE_EACH_S = 0.0001  # for each client: a second has room for 10,000 writes

Open: TypeAlias = Callable[[int | None], AsyncIterator[Record]]


class Share(NamedTuple):
    """How many streams may be open under one name at once, so that nobody takes those of all others."""

    name: str
    most: int


class Hub:
    """The streams of one listener.

    Args:
        most: so many clients at once.
        keep_alive_s: a stream that is silent for so long says that it is there.
        look_s: how often clients are looked after.
    """

    def __init__(self, most: int = MAX_STREAMS, keep_alive_s: float = KEEP_ALIVE_S, look_s: float = _LOOK_S) -> None:
        self._most, self._keep_alive_s, self._look_s = most, keep_alive_s, look_s
        self._shared: dict[Hashable, Channel] = {}
        self._watchers: set[Watcher] = set()
        self._taken: Counter[str] = Counter()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def watchers(self) -> int:
        """How many clients there are."""
        return len(self._watchers)

    async def serve(
        self,
        request: web.BaseRequest,
        key: Hashable,
        open: Open,
        after: int | None,
        stop: asyncio.Event,
        *,
        holds: Callable[[], bool] = lambda: True,
        shares: Sequence[Share] = (),
    ) -> web.StreamResponse:
        """Send records as they come until they end, the client leaves or stalls, or the node stops.

        Args:
            request: what is answered.
            key: what is watched, as whom: those with the same key see the same.
            open: begins a reading of it past a cursor; None is from now on.
            after: the client's cursor.
            stop: is set when the node stops; the same for all.
            holds: whether whoever asked may still see it.
            shares: of how many each it is one, beside all.

        Raises:
            TooManyStreams: so many are open already.
            VendoError: what the stream refuses at once.
        """
        if len(self._watchers) >= self._most or any(self._taken[one.name] >= one.most for one in shares):
            raise TooManyStreams
        watcher = Watcher(request, holds)
        self._watchers.add(watcher)
        self._taken.update(one.name for one in shares)
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._keep(stop), name="http-streams")
        try:
            await self._join(watcher, key, open, after)
            await watcher.leave(await watcher.ended)
        except ConnectionResetError:
            watcher.abort()
        finally:
            self._watchers.discard(watcher)
            self._give_back(shares)
            if not self._watchers and self._keeper is not None:
                self._keeper.cancel()
                self._keeper = None
            if watcher.channel is not None:
                await watcher.channel.leave(watcher)
        return watcher.response

    def _give_back(self, shares: Sequence[Share]) -> None:
        for one in shares:
            self._taken[one.name] -= 1
            if not self._taken[one.name]:
                del self._taken[one.name]

    # ---- finding the channel

    async def _join(self, watcher: Watcher, key: Hashable, begin: Open, after: int | None) -> None:
        channel = self._meet(key, after)
        if channel is not None and channel.has_begun:
            await watcher.open()
            channel = self._meet(key, after)  # again: others may have had their turn
        if channel is None:
            shared = self._shared.get(key)
            channel = Channel(self, key, begin(after), after, shared)
            if shared is None and after is None:
                self._shared[key] = channel
        channel.attach(watcher)
        if not channel.has_begun and after is None:
            after = NOTHING  # whoever is here from the start gets all of it
        try:
            await channel.begun()
        except VendoError as error:
            if not watcher.is_open:
                raise
            watcher.finish(End(Reason.ERROR, error.code))
        if not watcher.is_open:
            await watcher.open()
        channel.enter(watcher, after)

    def _meet(self, key: Hashable, after: int | None) -> Channel | None:
        """The channel in which a client with this cursor can begin at once."""
        channel = self._shared.get(key)
        if channel is None:
            return None
        if after is not None:
            return channel if channel.covers(after) else None
        return channel if channel.is_plain or (channel.is_new and not channel.has_begun) else None

    def pace(self) -> float:
        """See `Home`: the more clients there are, the fewer and the longer are the pieces that each is sent."""
        least, most = _PACE_S
        return min(most, max(least, len(self._watchers) * _PACE_EACH_S))

    def settle(self, channel: Channel, dry: bool) -> bool:
        """See `Home`: from here on it is the shared one, or its client goes on in the one that is."""
        shared = self._shared.get(channel.key)
        if shared is None and (dry or channel.is_new):
            shared = self._shared[channel.key] = channel
        elif shared is not None and shared.last is None and channel.last is not None and dry:
            # nobody can tell where that one is until something comes, and then its clients come here
            channel.is_plain = shared.is_plain
            shared = self._shared[channel.key] = channel
        if shared is channel:
            if channel.is_plain is None and channel.is_new:
                channel.is_plain = channel.last is None
            return False
        if shared is None:
            return False
        at = channel.last
        if at is not None:
            if not shared.covers(at):
                return False
            if channel.mark is not None and channel.is_new and channel.first is not None:
                shared.learn(silent=channel.mark[0] is shared and channel.first > channel.mark[1])
        else:  # it began with what is now, and nothing has come since
            if not dry or channel.mark is None or channel.mark[0] is not shared or not shared.keeps(channel.mark[1]):
                return False
            at = channel.mark[1]
            shared.is_plain = True
        channel.hand(shared, at)
        return True

    def forget(self, channel: Channel) -> None:
        """See `Home`."""
        if self._shared.get(channel.key) is channel:
            del self._shared[channel.key]

    # ---- looking after clients

    async def _keep(self, stop: asyncio.Event) -> None:
        """Until the node stops: see who has left or stalled, and break long silences."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(self._look_s):
                    await stop.wait()
            except TimeoutError:
                await self._look()
        for watcher in list(self._watchers):
            watcher.finish(End(Reason.SHUTDOWN))

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        for watcher in list(self._watchers):
            watcher.look(now)
        channels = {watcher.channel for watcher in self._watchers if watcher.channel is not None}
        for channel in channels:
            if now - channel.spoke_at >= self._keep_alive_s:
                await channel.say(KEEP_ALIVE, idle=True)
