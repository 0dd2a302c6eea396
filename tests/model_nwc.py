"""A Lightning wallet without relays: a `Client` over the ledger of `nwc_part`, whose wire does what a script says."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from core.identifier import EventId, PubKey
from relays.event import Event
from relays.key import Key
from relays.nip47 import Address, Encryption, Info, Method, Notification, Refusal, Response, request_event
from tests.nwc_part import METHODS, Ledger, WalletError
from tests.wallet_part import HandClock
from wallet.lightning_error import WalletRejected, WalletSilent, WalletUnreachable


class Crash(BaseException):
    """The process dies here; what was committed stays."""


class Fault(StrEnum):
    """What becomes of one call to the wallet."""

    NONE = "none"
    UNREACHABLE = "unreachable"
    REQUEST_LOST = "request_lost"
    REQUEST_DELAYED = "request_delayed"
    ANSWER_LOST = "answer_lost"
    ANSWER_ODD = "answer_odd"
    TURNED_AWAY = "turned_away"
    RATE_LIMITED = "rate_limited"
    CRASH_BEFORE = "crash_before"
    CRASH_AFTER = "crash_after"


class ModelClient:
    """A `Client` over a ledger, whose wire does what the script says. The same request is taken once, as wallets do."""

    def __init__(self, ledger: Ledger, clock: HandClock) -> None:
        self.ledger, self.clock = ledger, clock
        self.wallet_key = Key(b"\x21" * 32)
        self.address = Address(self.wallet_key.pubkey, ("ws://x",), Key(b"\x22" * 32))
        self.script: list[Fault] = []
        self.delayed: list[Event] = []
        self.seen: dict[str, Response] = {}
        self.told = lambda _: None
        self.late = lambda _: None
        ledger.settled = lambda payment_hash, entry: self.told(Notification("payment_sent", payment_hash))

    name = "nwc:model"
    relays = 1
    is_up = True

    async def ready(self, *methods: Method) -> Info:
        return Info(frozenset(METHODS.split()), Encryption.NIP44, frozenset(), 0)

    async def request(self, method: Method, params: Mapping[str, Any], until: int) -> Event:
        return request_event(self.address, Encryption.NIP44, method, params, self.clock.now(), until)

    def _fault(self) -> Fault:
        return self.script.pop(0) if self.script else Fault.NONE

    async def call(self, method: Method, params: Mapping[str, Any], permit: Any) -> Mapping[str, Any]:
        response = await self._through(method, dict(params), None)
        if response.error is not None:
            raise WalletRejected(response.error.code)
        return response.result

    async def send(self, event: Event, method: Method, permit: Any, timeout: float) -> Response:
        body = json.loads(self.wallet_key.decrypt(PubKey(event.pubkey), event.content))
        assert body["method"] == method
        return await self._through(method, body["params"], event)

    async def _through(self, method: Method, params: dict[str, Any], event: Event | None) -> Response:
        fault = self._fault()
        await asyncio.sleep(0)
        match fault:
            case Fault.UNREACHABLE:
                raise WalletUnreachable
            case Fault.REQUEST_LOST:
                raise WalletSilent
            case Fault.REQUEST_DELAYED:
                if event is not None:
                    self.delayed.append(event)
                raise WalletSilent
            case Fault.CRASH_BEFORE:
                raise Crash
        codes = {Fault.TURNED_AWAY: "INSUFFICIENT_BALANCE", Fault.RATE_LIMITED: "RATE_LIMITED"}
        done = self._done(method, params, event, codes.get(fault, ""))
        match fault:
            case Fault.ANSWER_LOST:
                raise WalletSilent
            case Fault.ANSWER_ODD if done.error is None:
                return replace(done, result={"preimage": "00" * 32, "payment_hash": "00" * 32, "state": "settled"})
            case Fault.CRASH_AFTER:
                raise Crash
        return done

    def _done(self, method: str, params: dict[str, Any], event: Event | None, refuse: str = "") -> Response:
        request = EventId(event.id if event is not None else "")
        if event is not None and event.id in self.seen:
            raise WalletSilent  # wallets do not answer a request twice
        knobs = self.ledger.knobs
        paying = method == Method.PAY_INVOICE
        before, knobs.refuse = knobs.refuse, refuse if paying else knobs.refuse
        try:
            response = Response(request, method, self.ledger.handle(method, params, request))
        except WalletError as error:
            response = Response(request, method, {}, Refusal(error.code, ""))
        finally:
            knobs.refuse = before
        if event is not None and refuse != "RATE_LIMITED":
            self.seen[event.id] = response
        return response

    def deliver(self) -> None:
        """What was held back arrives, unless it has expired meanwhile."""
        events, self.delayed = self.delayed, []
        for event in events:
            if event.id not in self.seen and self.clock.now() <= int(event.value("expiration") or 0):
                body = json.loads(self.wallet_key.decrypt(PubKey(event.pubkey), event.content))
                self.late(self._done(body["method"], body["params"], event))
