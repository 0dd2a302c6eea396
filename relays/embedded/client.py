"""One connection as the relay sees it: what waits to be sent, what is unanswered, which subscriptions are served.

Sending never waits and makes no task: frames are gathered and every socket gets one write in each turn of the
loop. A reader that lags too far behind is told so and cut off, so that nobody silently misses an event.
"""

import asyncio
from collections.abc import Callable, Sequence

from relays.embedded import frame
from relays.embedded.limit import Limits
from relays.embedded.session import Session

TOO_SLOW = "error: you read too slowly; reconnect and ask again"
_FAREWELL_S = 5.0
_EARLY_BYTES = 262_144  # so much in one turn of the loop is written before its end
_TRY_AGAIN_LATER = 1013  # RFC 6455's registry of close codes


class Outbox:
    """Sockets with something to send. One for the whole relay."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._dirty: list[Client] = []

    def mark(self, client: "Client") -> None:
        """Flush this client at the end of the turn."""
        if not self._dirty:
            self._loop.call_soon(self._flush)
        self._dirty.append(client)

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for client in dirty:
            client.flush()


class Subscription:
    """A REQ that is being served.

    Attributes:
        head: what stands before each event.
        floor: events up to this number were in the stored answer.
        held: live events that wait for EOSE; None after it. All that one client's subscriptions hold is bounded.
    """

    __slots__ = ("client", "floor", "head", "held", "sub_id")

    def __init__(self, client: "Client", sub_id: str) -> None:
        self.client = client
        self.sub_id = sub_id
        self.head = frame.event_head(sub_id)
        self.floor = 0
        self.held: list[tuple[int | None, bytes]] | None = []

    def deliver(self, seq: int | None, ready: bytes) -> None:
        """A live event, framed for this subscription; `seq` is None for ephemeral ones."""
        if self.held is not None:
            self.held.append((seq, ready))
            self.client.hold(len(ready))
        elif seq is None or seq > self.floor:
            self.client.send(ready)

    def ended_stored(self, top: int) -> None:
        """EOSE is out: send what was held and was not in the answer, and go live."""
        held, self.held, self.floor = self.held or (), None, top
        self.client.hold(-sum(len(ready) for _, ready in held))
        for seq, ready in held:
            self.deliver(seq, ready)

    def drop(self) -> None:
        """It has ended before its EOSE, or after: nothing of it waits any more."""
        held, self.held = self.held or (), None
        self.client.hold(-sum(len(ready) for _, ready in held))


class Client:
    """One websocket.

    Args:
        transport: the socket, shared with aiohttp, which reads from it.
        on_cut: called once if the client is cut off.
    """

    __slots__ = (
        "_ending", "_freed", "_held", "_on_cut", "_out", "_out_bytes", "_outbox", "_transport", "_unanswered",
        "_unanswered_bytes", "gone", "group", "limits", "replays", "session", "subscriptions",
    )  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        session: Session,
        outbox: Outbox,
        limits: Limits,
        group: asyncio.TaskGroup,
        on_cut: Callable[[], None],
    ) -> None:
        self._transport, self._outbox, self._on_cut = transport, outbox, on_cut
        self.session, self.limits, self.group = session, limits, group
        self.subscriptions: dict[str, Subscription] = {}
        self.replays: set[asyncio.Task[None]] = set()
        self.gone = False
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._held = 0
        self._unanswered = 0
        self._unanswered_bytes = 0
        self._freed = asyncio.Event()
        self._ending: asyncio.TimerHandle | None = None

    # -- out ------------------------------------------------------------------------------------------------------

    @property
    def lag(self) -> int:
        """Bytes that wait to be sent."""
        return self._out_bytes + self._transport.get_write_buffer_size()

    def send(self, ready: bytes) -> None:
        """Queue one frame."""
        if self.gone:
            return
        if not self._out:
            self._outbox.mark(self)
        self._out.append(ready)
        self._out_bytes += len(ready)
        if self._out_bytes > _EARLY_BYTES:
            self.flush()

    def hold(self, size: int) -> None:
        """So many bytes more wait for the end of stored answers, or fewer."""
        self._held += size
        if self._held > self.limits.send_bytes:
            self.cut(TOO_SLOW)

    def flush(self) -> None:
        """Give the socket all that is queued, in one write. What it does not take is lag, and lag has an end."""
        out, self._out, self._out_bytes = self._out, [], 0
        if out and not self.gone and not self._transport.is_closing():
            self._transport.write(b"".join(out))
            if self.lag > self.limits.send_bytes:
                self.cut(TOO_SLOW)

    def cut(self, reason: str) -> None:
        """End the connection: queued frames are dropped, the reason is sent if the client still reads."""
        if self.gone:
            return
        self._out, self._out_bytes = [], 0
        self._farewell(_TRY_AGAIN_LATER, reason, frame.notice(reason))
        self._on_cut()

    def say_goodbye(self) -> None:
        """The relay stops: send what is queued, then close."""
        if not self.gone:
            self.flush()
            self._farewell(1001, "the relay is going away", b"")

    def _farewell(self, code: int, reason: str, before: bytes) -> None:
        self.gone = True
        self._freed.set()
        if not self._transport.is_closing():
            self._transport.write(before + frame.closing(code, reason))
            self._transport.close()  # waits for the buffer to drain, which a stuck reader would never do
            self._ending = asyncio.get_running_loop().call_later(_FAREWELL_S, self._transport.abort)

    # -- in -------------------------------------------------------------------------------------------------------

    def took(self, size: int) -> None:
        """An EVENT message of so many bytes is being worked on."""
        self._unanswered += 1
        self._unanswered_bytes += size

    def answered(self, size: int) -> None:
        """One of them has got its OK."""
        self._unanswered -= 1
        self._unanswered_bytes -= size
        if not self._is_full(half=True):
            self._freed.set()

    def _is_full(self, *, half: bool = False) -> bool:
        part = 2 if half else 1
        limits = self.limits
        return self._unanswered * part >= limits.unanswered or self._unanswered_bytes * part >= limits.unanswered_bytes

    async def room(self) -> None:
        """Wait while the client has too much under way; until then it is not read, and TCP holds it back."""
        while self._is_full() and not self.gone:
            self._freed.clear()
            await self._freed.wait()
        while len(self.replays) >= self.limits.replays and not self.gone:
            await asyncio.wait(self.replays, return_when=asyncio.FIRST_COMPLETED)

    def leave(self) -> Sequence[Subscription]:
        """The socket is closed: nothing is sent any more. Returns the subscriptions that were open."""
        self.gone = True
        self._out = []
        self._freed.set()
        if self._ending is not None:
            self._ending.cancel()
        for task in self.replays:
            task.cancel()
        open_ones = list(self.subscriptions.values())
        self.subscriptions.clear()
        return open_ones
