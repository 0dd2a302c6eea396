"""Drives one Lightning operation through its saga: asks the wallet, looks up what is in doubt, books what is sure.

What leaves was written down before, with its own bytes; what came is booked in the commit that ends the operation.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Protocol

from core.clock import Clock
from core.effect import Permit
from core.unit import UnitOfWork, Write
from relays.error import MalformedEvent
from relays.event import Event as Signed
from relays.event import parse_json
from relays.nip47 import (
    Code,
    Info,
    Method,
    Notification,
    Response,
    Transaction,
    read_balance,
    read_fee,
    read_transaction,
    read_transactions,
)
from wallet.lightning import (
    Direction,
    Effect,
    Event,
    Found,
    LookedUp,
    LookUpFailed,
    NeverSent,
    Proven,
    Rejected,
    Silent,
    Stage,
    paid_in,
    paid_out,
    proves,
    step,
)
from wallet.lightning_error import WalletLacks, WalletRejected, WalletSilent, WalletUnreachable
from wallet.lightning_record import LightningBook, Order
from wallet.waiver import booking

log = logging.getLogger(__name__)

PAY_S = 40.0
LISTED = 50
_UNTOLD = -1


class Client(Protocol):
    """What asks the wallet: `wallet.nwc.NwcClient`."""

    told: Callable[[Notification], None]
    late: Callable[[Response], None]

    @property
    def name(self) -> str:
        """The journal's name for the wallet."""

    @property
    def relays(self) -> int:
        """To how many relays each request goes."""

    @property
    def is_up(self) -> bool:
        """Whether it can be asked now."""

    async def ready(self, *methods: Method) -> Info:
        """What it can."""

    async def request(self, method: Method, params: Mapping[str, Any], until: int) -> Signed:
        """A signed request that has not left."""

    async def call(self, method: Method, params: Mapping[str, Any], permit: Permit) -> Mapping[str, Any]:
        """The result of a request that may be asked any number of times."""

    async def send(self, event: Signed, method: Method, permit: Permit, timeout: float) -> Response:
        """The answer to these bytes."""


class LightningEngine:
    """One per connected wallet.

    Args:
        unit: the database.
        book: its rows.
        clock: stamps postings, and times of what was heard.
        client: asks the wallet.
        standing: the gate's leave for look-ups that belong to no open effect.
    """

    def __init__(
        self, unit: UnitOfWork, book: LightningBook, clock: Clock, client: Client, standing: Callable[[], Permit]
    ) -> None:
        self._unit, self._book, self._clock, self.client, self.standing = unit, book, clock, client, standing
        self._driven: dict[str, tuple[asyncio.Lock, list[None]]] = {}
        self._shows = False

    # ------------------------------------------------------------------ who drives what

    @property
    def name(self) -> str:
        """How rows and journal call the wallet."""
        return self.client.name

    @asynccontextmanager
    async def driving(self, id_: str) -> AsyncIterator[None]:
        """Only one task at a time drives an operation."""
        lock, users = self._driven.setdefault(id_, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._driven[id_]

    def is_driven(self, id_: str) -> bool:
        """Whether a task is at it."""
        return id_ in self._driven

    # ------------------------------------------------------------------ the loop

    async def drive(self, order: Order, event: Event, permit: Permit) -> Order:
        """Go on until it ends or must wait. A request leaves once at most in one drive."""
        was_sent = False
        order, effect = await self.move(order, event, permit)
        proven = isinstance(event, Proven)
        while effect in (Effect.SEND, Effect.LOOK_UP):
            if effect is Effect.SEND and was_sent:
                break
            if effect is Effect.SEND:
                was_sent = True
                order, event = await self._send(order, permit)
            else:
                order, event = await self.look_up(order, permit)
            proven = isinstance(event, Proven)
            order, effect = await self.move(order, event, permit)
        if proven and not await self._shows_payments():
            await self.look_up(order, self.standing())  # it knows of this one: does it say so?
        return order

    async def move(self, order: Order, event: Event, permit: Permit) -> tuple[Order, Effect | None]:
        """One step, durable when it returns.

        Raises:
            Conflict: somebody else has moved it meanwhile.
            StoreUncertain: the database failed; what is durable counts.
        """
        payment, effect, name = step(order.payment, event)
        if effect is None:
            return order, None
        reason = name if payment.stage is Stage.FAILED else payment.rejected
        if name == "failed" or name == "turned_away":
            reason = payment.rejected or name
        if name in ("unproven", "paid_after_all"):
            reason = name
        new = replace(order, payment=payment, reason=reason)
        writes: Sequence[Write] = ()
        if effect is Effect.BOOK:
            new = await self._with_fee(new, permit)
            writes = booking(new, self._clock.now())
        if new == order:
            return order, effect
        update, new = self._book.change(order, new)
        await self._unit.commit([update, *writes])
        if payment.stage is not order.payment.stage:
            told = {"action": "lightning_saga", "operation": order.id, "transition": name}
            log.log(logging.ERROR if name == "paid_after_all" else logging.INFO, "lightning moved", extra=told)
        return new, effect

    # ------------------------------------------------------------------ asking the wallet

    async def _send(self, order: Order, permit: Permit) -> tuple[Order, Event]:
        try:
            response = await self.client.send(parse_json(order.request), Method.PAY_INVOICE, permit, PAY_S)
        except WalletUnreachable:
            return order, NeverSent()
        except WalletSilent:
            return order, Silent()
        return self.heard(order, response)

    def heard(self, order: Order, response: Response) -> tuple[Order, Event]:
        """What an answer to a request for payment means. A preimage that does not fit is no answer."""
        if response.error is not None:
            return order, Rejected(response.error.code, self._clock.now())
        preimage = str(response.result.get("preimage", "")).lower()
        if not proves(preimage, order.payment_hash):
            told = {"action": "lightning_lie", "operation": order.id}
            log.warning("a Lightning wallet says paid and shows no preimage that fits", extra=told)
            return order, Silent()
        fee = read_fee(response.result)
        return replace(order, preimage=preimage, fee=_UNTOLD if fee is None else fee), Proven()

    async def _with_fee(self, order: Order, permit: Permit) -> Order:
        """The fee, where the answer did not tell it: asked for once, else none is booked."""
        if order.fee != _UNTOLD:
            return order
        order = replace(order, fee=0)
        found, _ = await self.look_up(order, permit)
        return replace(order, fee=found.fee)

    async def look_up(self, order: Order, permit: Permit) -> tuple[Order, Event]:
        """What the wallet knows of the payment hash; the order has the proof if there is one."""
        try:
            found = await self.transaction(order.payment_hash, permit)
        except (WalletUnreachable, WalletLacks, WalletSilent, WalletRejected):
            return order, LookUpFailed()
        now = self._clock.now()
        if order.payment.direction is Direction.INVOICE:
            said = Found.ABSENT if found is None else paid_in(found, order.payment_hash)
            return order, LookedUp(said, now)
        if found is None and not await self._shows_payments():
            found = await self._listed(order.payment_hash, permit)
            if found is None:
                return order, LookedUp(Found.UNSURE, now)
        elif found is not None and paid_out(found, order.payment_hash) is Found.SETTLED:
            await self._showed()
        said = Found.ABSENT if found is None else paid_out(found, order.payment_hash)
        if found is not None and said is Found.SETTLED:
            order = replace(order, preimage=found.preimage, fee=found.fees_paid or max(order.fee, 0))
        return order, LookedUp(said, now)

    async def _shows_payments(self) -> bool:
        """Whether this wallet's look-ups find what it paid: only then does finding nothing say something."""
        self._shows = self._shows or await self._book.shows_payments(self.name)
        return self._shows

    async def _showed(self) -> None:
        if not await self._shows_payments():
            await self._unit.commit([self._book.showed(self.name)])

    async def _listed(self, payment_hash: str, permit: Permit) -> Transaction | None:
        """A payment among the wallet's newest; None if it is not there, or the wallet gives no list."""
        params = {"type": "outgoing", "limit": LISTED, "unpaid": True}
        try:
            found = read_transactions(await self.client.call(Method.LIST_TRANSACTIONS, params, permit))
        except (WalletUnreachable, WalletLacks, WalletSilent, WalletRejected, MalformedEvent):
            return None
        return next((one for one in found if one.payment_hash == payment_hash), None)

    async def transactions(self, offset: int, limit: int) -> list[Transaction]:
        """A page of what the wallet has, newest first.

        Raises:
            WalletUnreachable, WalletLacks, WalletSilent, WalletRejected: it gives none.
        """
        params = {"offset": offset, "limit": limit, "unpaid": True}
        result = await self.client.call(Method.LIST_TRANSACTIONS, params, self.standing())
        try:
            return read_transactions(result)
        except MalformedEvent as error:
            raise WalletSilent(error.message) from error

    async def transaction(self, payment_hash: str, permit: Permit | None = None) -> Transaction | None:
        """What the wallet says of a payment hash; None if it knows of none.

        Raises:
            WalletUnreachable, WalletLacks, WalletSilent, WalletRejected: it does not say.
        """
        try:
            params = {"payment_hash": payment_hash}
            return read_transaction(await self.client.call(Method.LOOKUP_INVOICE, params, permit or self.standing()))
        except MalformedEvent as error:
            raise WalletSilent(error.message) from error
        except WalletRejected as error:
            if error.wallet_code == Code.NOT_FOUND:
                return None
            raise

    async def balance(self) -> int:
        """What the wallet says it has, in msat. It may be shared with others, and hold money that is not for us.

        Raises:
            WalletUnreachable, WalletLacks, WalletSilent, WalletRejected: it does not say.
        """
        result = await self.client.call(Method.GET_BALANCE, {}, self.standing())
        try:
            return read_balance(result)
        except MalformedEvent as error:
            raise WalletSilent(error.message) from error
