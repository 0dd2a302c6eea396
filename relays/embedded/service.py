"""The embedded relay as a service of a node, or alone (`vendo relay up`)."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from core.clock import Clock
from relays.embedded.hub import Hub
from relays.embedded.limit import Limits
from relays.embedded.information import Description, Rules
from relays.embedded.policy import Policy, RelayPolicy
from relays.embedded.rate import Rates
from relays.embedded.server import Server
from relays.embedded.store import Store
from relays.embedded.store_write import Entry, Outcome

_log = logging.getLogger(__name__)

_TEND_S = 1.0
_PATIENCE_S = 0.5


class EmbeddedRelay:
    """A Nostr relay with a listener and an event file of its own.

    A process that serves many clients should lower `sys.setswitchinterval` to 0.5 ms: with the usual 5 ms a busy
    loop keeps the writer thread waiting.

    Args:
        path: the event file.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        clock: for dates and expiry.
        limits: what is accepted.
        description: what NIP-11 and the page say.
        policy: who may write and read; everybody by default.
        synchronous: `FULL` or `NORMAL`, see `Store`.
    """

    name = "relay"

    def __init__(
        self,
        path: Path,
        host: str,
        port: int,
        *,
        clock: Clock,
        limits: Limits | None = None,
        description: Description | None = None,
        policy: Policy | None = None,
        synchronous: str = "FULL",
    ) -> None:
        self._host, self._port, self._clock = host, port, clock
        self._limits = limits or Limits()
        self._policy = policy or RelayPolicy(self._limits)
        self._description = description or Description()
        self._store = Store(path, store_bytes=self._limits.store_bytes, synchronous=synchronous)
        self._hub: Hub | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """Where it listens (`ws://…`); empty until it is ready."""
        return self._url

    def health(self) -> dict[str, int]:
        """Counters for status pages; empty until it is ready."""
        if self._hub is None:
            return {}
        hub, store = self._hub.stats, self._store.stats
        return {
            "connections": len(self._hub.clients),
            "offered": hub.offered,
            "forged": hub.forged,
            "events": self._store.total,
            "stored": store.stored,
            "groups": store.groups,
            "failed": store.failed,
            "delivered": hub.delivered,
            "cut": hub.cut,
        }

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Serve until `stop`; then answer what is under way and close within about a second.

        Raises:
            RelayBusy: the address or the file is in use.
            NewerEventFile: a newer version wrote the file.
            EventFileFailed: SQLite cannot open it.
        """
        self._store.open(self._committed)
        try:
            self._hub = Hub(self._store, self._policy, self._limits, self._clock)
            server = Server(self._hub, self._store, Rules(self._limits, self._policy.access, Rates()), self._description)
            await server.start(self._host, self._port)
            self._url = server.url
            _log.info("the relay listens", extra={"action": "relay_ready", "url": self._url})
            ready.set()
            try:
                await self._tend_until(stop)
            finally:
                await server.refuse_new()
                await self._hub.close(_PATIENCE_S)
                await server.close()
        finally:
            await self._store.close()

    def _committed(self, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
        if self._hub is not None:
            self._hub.committed(entries, outcomes)

    async def _tend_until(self, stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            stopping = group.create_task(stop.wait())
            while not stopping.done():
                waiting = group.create_task(self._clock.sleep(_TEND_S))
                await asyncio.wait((stopping, waiting), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if not stopping.done():
                    await self._store.tend(self._clock.now())
