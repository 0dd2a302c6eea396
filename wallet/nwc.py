"""Asks a Lightning wallet over its relays (NIP-47). Sends what it is given, hears what is answered, decides nothing.

The relays are those of the wallet's address, over a pool of their own: there the connection's key speaks, and none of
the node's. One answer to a request counts, the first; who else writes under its id is not heard.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from core.clock import Clock
from core.effect import Permit
from relays.error import MalformedEvent, NotForUs
from relays.event import Event
from relays.filter import Filter
from relays.nip47 import (
    INFO,
    NOTIFICATION,
    NOTIFICATION_LEGACY,
    RESPONSE,
    Address,
    Info,
    Method,
    Notification,
    Response,
    read_info,
    read_notification,
    read_response,
    request_event,
)
from relays.verdict import Verdict, VerdictState
from wallet.journal import LIGHTNING
from wallet.lightning_error import WalletLacks, WalletRejected, WalletSilent, WalletUnreachable

log = logging.getLogger(__name__)

UP_S = 8.0
ASK_S = 15.0
_LOOK_S = 0.05
_FETCH_S = 5.0
_FRESH_S = 600.0
_SKEW_S = 60
_MAX_WAITING = 256

Handler = Callable[[Event, str], Awaitable[None]]
Told = Callable[[Notification], None]


class Carrier(Protocol):
    """What carries events: `relays.pool.Pool`, over the wallet's relays."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Those relays."""

    def subscribe(self, name: str, filters: Sequence[Filter], handler: Handler, *, remember: bool = True) -> object:
        """Have the handler called for every verified event that matches."""

    async def fetch(self, filters: Sequence[Filter], timeout: float) -> list[Event]:
        """What the relays have stored, newest first."""

    def is_up(self, url: str) -> bool:
        """Whether a relay is connected."""

    async def send(self, url: str, event: Event, permit: Permit) -> Verdict:
        """Send an event, and wait for the relay's word."""


class NwcClient:
    """One wallet. Made once per node; `listen` before its pool runs.

    Args:
        address: the wallet, and our key in this connection.
        carrier: a pool over the wallet's relays.
        clock: time.
    """

    def __init__(self, address: Address, carrier: Carrier, clock: Clock) -> None:
        self._address, self._carrier, self._clock = address, carrier, clock
        self._info: Info | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()
        self._waiting: dict[str, asyncio.Future[Response]] = {}
        self.told: Told = lambda _: None
        self.late: Callable[[Response], None] = lambda _: None

    def __repr__(self) -> str:
        return f"NwcClient({self.name})"

    @property
    def name(self) -> str:
        """How rows and journal call this wallet: `nwc:` and eight digits, of its key and ours together.

        One service serves many accounts with one key: a connection is told by both.
        """
        both = f"{self._address.wallet}{self._address.key.pubkey}"
        return LIGHTNING + hashlib.sha256(both.encode()).hexdigest()[:8]

    @property
    def relays(self) -> int:
        """To how many relays each request goes."""
        return len(self._carrier.urls)

    @property
    def is_up(self) -> bool:
        """Whether a relay of the wallet is connected."""
        return any(self._carrier.is_up(url) for url in self._carrier.urls)

    @property
    def info(self) -> Info | None:
        """What the wallet says it can, if that has come."""
        return self._info

    # ---- hearing

    def listen(self) -> None:
        """Subscribe to what the wallet says."""
        ours, theirs = frozenset((self._address.key.pubkey,)), frozenset((self._address.wallet,))
        kinds = frozenset((RESPONSE, NOTIFICATION, NOTIFICATION_LEGACY))
        # What went by unheard is looked up; what was said before is of no use.
        said = Filter(authors=theirs, kinds=kinds, tags={"p": ours}, since=self._clock.now() - _SKEW_S)
        self._carrier.subscribe(f"nwc/{self._address.key.pubkey}", [said], self._heard, remember=False)

    async def _ask_info(self) -> None:
        """What the wallet's relays have stored of it. An older event than the one that is known counts for nothing."""
        about = Filter(authors=frozenset((self._address.wallet,)), kinds=frozenset((INFO,)), limit=1)
        for event in await self._carrier.fetch([about], _FETCH_S):
            try:
                info = read_info(self._address, event)
            except (NotForUs, MalformedEvent) as error:
                log.warning("a wallet's info is of no use: %s", error, extra={"action": "nwc_info", "code": error.code})
                continue
            self._asked_at = self._clock.monotonic()
            if self._info is None or info.created_at >= self._info.created_at:
                self._info = info

    async def _heard(self, event: Event, _: str) -> None:
        try:
            if event.kind == RESPONSE:
                self._answered(read_response(self._address, event))
            else:
                self.told(read_notification(self._address, event))
        except (NotForUs, MalformedEvent) as error:
            log.warning("a wallet's message is of no use: %s", error, extra={"action": "nwc_junk", "code": error.code})

    def _answered(self, response: Response) -> None:
        waiting = self._waiting.get(response.request)
        if waiting is None:
            self.late(response)
        elif not waiting.done():
            waiting.set_result(response)

    # ---- asking

    async def ready(self, *methods: Method) -> Info:
        """What the wallet can, once a relay is connected; it must offer these.

        Raises:
            WalletUnreachable: no relay is connected in time, or none has the wallet's info event.
            WalletLacks: the wallet does not offer one of them.
        """
        end = self._clock.monotonic() + UP_S
        while not self.is_up:
            if self._clock.monotonic() >= end:
                raise WalletUnreachable
            await self._clock.sleep(_LOOK_S)
        async with self._asking:
            if self._info is None or self._clock.monotonic() - self._asked_at > _FRESH_S:
                await self._ask_info()
        if self._info is None:
            raise WalletUnreachable("No relay of the Lightning wallet has its info event (kind 13194).")
        missing = [method.value for method in methods if method not in self._info.methods]
        if missing:
            raise WalletLacks(f"The Lightning wallet does not offer {', '.join(missing)}.")
        return self._info

    async def request(self, method: Method, params: Mapping[str, Any], until: int) -> Event:
        """A signed request that has not left. `until` in Unix seconds: the wallet ignores it after that.

        Raises:
            WalletUnreachable, WalletLacks: as `ready`.
            InvalidInput: it is too long.
        """
        info = await self.ready(method)
        return request_event(self._address, info.encryption, method, params, self._clock.now(), until)

    async def call(self, method: Method, params: Mapping[str, Any], permit: Permit) -> Mapping[str, Any]:
        """A request that may be asked any number of times; its result.

        Raises:
            WalletUnreachable, WalletLacks: as `ready`.
            WalletSilent: no usable answer in time.
            WalletRejected: the wallet's own error.
        """
        until = self._clock.now() + int(ASK_S) + 1
        response = await self.send(await self.request(method, params, until), method, permit, ASK_S)
        if response.error is not None:
            raise WalletRejected(response.error.code, response.error.message)
        return response.result

    async def send(self, event: Event, method: Method, permit: Permit, timeout: float) -> Response:
        """Send these very bytes to every relay of the wallet, and wait for the answer to them.

        Raises:
            WalletUnreachable: no relay is connected; nothing was sent.
            WalletSilent: no answer in time, no relay took it, or the answer is to something else.
            Unpermitted: the gate did not give the permit.
        """
        urls = [url for url in self._carrier.urls if self._carrier.is_up(url)]
        if not urls or len(self._waiting) >= _MAX_WAITING:
            raise WalletUnreachable
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        answer = self._waiting.setdefault(event.id, answer)
        sending = [asyncio.ensure_future(self._carrier.send(url, event, permit)) for url in urls]
        try:
            response = await self._first(answer, sending, timeout)
        finally:
            self._waiting.pop(event.id, None)
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
        if response.method != method:
            raise WalletSilent(f"The Lightning wallet answered {method.value} with something else.")
        return response

    async def _first(
        self, answer: asyncio.Future[Response], sending: Sequence[asyncio.Future[Verdict]], timeout: float
    ) -> Response:
        """The answer; or an error once the time is up, or every relay has refused the request."""
        clocked = asyncio.ensure_future(self._clock.sleep(timeout))
        pending: set[asyncio.Future[Any]] = {answer, clocked, *sending}
        try:
            while not answer.done():
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    break
                if clocked.done():
                    raise WalletSilent("The Lightning wallet did not answer in time.")
                done = [task for task in sending if task.done()]
                said = [task.result() for task in done]  # Unpermitted goes to the caller
                if len(said) == len(sending) and all(one.state is VerdictState.REFUSED for one in said):
                    raise WalletSilent("The relays of the Lightning wallet refused the request.")
        finally:
            clocked.cancel()
            await asyncio.gather(clocked, return_exceptions=True)
        return answer.result()
