"""The embedded relay as a service: alone (`vendo relay up`), in a child process of a node, or in a test."""

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from core.clock import Clock
from core.identifier import PubKey
from relays.address import canonical
from relays.embedded.access import Access
from relays.embedded.hub import Hub
from relays.embedded.information import Description, Rules
from relays.embedded.limit import Limits
from relays.embedded.policy import Policy, RelayPolicy
from relays.embedded.rate import Rates
from relays.embedded.retention import retention
from relays.embedded.server import Server
from relays.embedded.setting import RelaySettings
from relays.embedded.store import STORE_NIPS, Store
from relays.embedded.store_write import Entry, Outcome
from relays.embedded.toll import Toll

_log = logging.getLogger(__name__)

_TEND_S = 1.0
_PATIENCE_S = 0.5
_NO_NAMES: Mapping[str, PubKey] = {}


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
        access: who may write, read and connect; by default everybody, with private messages for their parties only.
        rates: how often.
        description: what NIP-11 and the page say.
        policy: rules in place of those of `limits` and `access`.
        names: NIP-05 names, a live view: local part → public key.
        toll: takes payments for writing.
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
        access: Access | None = None,
        rates: Rates | None = None,
        description: Description | None = None,
        policy: Policy | None = None,
        names: Mapping[str, PubKey] = _NO_NAMES,
        toll: Toll | None = None,
        synchronous: str = "FULL",
    ) -> None:
        self._host, self._port, self._clock = host, port, clock
        limits = limits or Limits()
        self._policy = policy or RelayPolicy(limits, access, toll.paid if toll is not None else {}, searches=True)
        self._rules = Rules(limits, self._policy.access, rates or Rates())
        description = description or Description()
        self._description = replace(description, nips=(*description.nips, *STORE_NIPS))
        self._names, self._toll = names, toll
        kept = retention(description.retention, limits.trim)
        self._store = Store(path, store_bytes=limits.store_bytes, synchronous=synchronous, retention=kept)
        self._hub: Hub | None = None
        self._url = ""

    @classmethod
    def of(
        cls,
        settings: RelaySettings,
        clock: Clock,
        *,
        names: Mapping[str, PubKey] | None = None,
        toll: Toll | None = None,
    ) -> "EmbeddedRelay":
        """From settings; `names` in place of theirs if they may change while it runs."""
        return cls(
            settings.path,
            settings.host,
            settings.port,
            clock=clock,
            limits=settings.limits,
            access=settings.access,
            rates=settings.rates,
            description=settings.description,
            names=settings.names if names is None else names,
            toll=toll,
            synchronous=settings.synchronous,
        )

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
            self._hub = Hub(self._store, self._policy, self._rules, self._clock, lambda: secrets.token_hex(16))
            server = Server(self._hub, self._store, self._rules, self._description, self._names, self._toll)
            await server.start(self._host, self._port)
            self._url = server.url
            self._store.answers_to(_addresses(self._description.public_url, server.url))
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


def _addresses(public_url: str, url: str) -> set[str]:
    """Under which addresses a request to vanish (NIP-62) means this relay."""
    own = {url, *(url.replace(host, "localhost") for host in ("127.0.0.1", "[::1]") if host in url)}
    return {canonical(one) for one in own | ({public_url} if public_url else set())}
