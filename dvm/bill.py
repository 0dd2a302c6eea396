"""The Lightning invoice of one open sale: made once at a mint of ours, then watched until its fate is known.

The invoice is a deposit (NUT-04) under the sale's own effect, so the wallet mints its coins by itself, also while this
sale is not looked at. All that is done here is to ask for it and to tell the sale what the wallet has booked; both may
be repeated after a crash, since the deposit's name derives from the request.
"""

import logging
from dataclasses import dataclass
from typing import Protocol

from core.clock import Clock
from core.effect import Gate
from core.error import VendoError
from core.identifier import EffectId, derived_id
from core.money import Msat
from dvm.seller import Sale, State
from dvm.seller_event import Event, InvoiceLapsed, InvoicePaid
from relays.nip90 import JobRequest
from wallet.invoice import read_invoice
from wallet.payment import State as OperationState
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

LEAST_LIFE_S = 20  # an invoice that expires sooner is of no use in a quote
MAX_MINTS = 2  # so many of our mints are asked until one makes an invoice
_LOOK_S = {State.QUOTED: 0.5, State.BILLED: 5.0, State.LAPSED: 15.0}  # where an invoice is waited for, and how often
_LOOK_AGAIN_S = 10.0


def deposit_id(request_id: str, mint: str) -> str:
    """The wallet's name of the deposit that pays for this request: the same request gets the same invoice."""
    return derived_id("invoice", request_id, mint)


class Owner(Protocol):
    """The open sale, as its bill sees it."""

    @property
    def request(self) -> JobRequest:
        """What the customer asked for."""

    @property
    def sale(self) -> Sale:
        """As it stands."""

    async def insist(self, event: Event) -> None:
        """Tell it something, until that is written."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """What goes into a quote. `op_id` is the deposit's name, `expires_at` in Unix seconds."""

    text: str
    op_id: str
    expires_at: int


class Bill:
    """Makes and watches the invoice of one sale."""

    def __init__(self, wallet: Wallet, gate: Gate, clock: Clock, owner: Owner) -> None:
        self._wallet, self._gate, self._clock, self._owner = wallet, gate, clock, owner
        self._looked_at = -_LOOK_AGAIN_S

    async def make(self, until: int) -> Invoice | None:
        """The invoice for the price, net to us (NUT-04 has no fee); None if no mint of ours makes one now.

        Args:
            until: Unix seconds until which it should be payable: the end of the quote.
        """
        sale = self._owner.sale
        effect = EffectId(sale.effect_id)
        for mint in self._wallet.mints[:MAX_MINTS]:
            op_id = deposit_id(sale.request_id, mint)
            try:
                made = await self._wallet.deposit(
                    op_id, mint, sale.price.sat_up(), effect, self._gate.permit(effect), until=until
                )
                expires_at = read_invoice(made.invoice).expires_at
            except VendoError as error:
                log.warning("No invoice for a quote: %s", error.code, extra={"action": "invoice_failed", "mint": mint})
                continue
            if made.state is OperationState.WAITING and expires_at >= self._clock.now() + LEAST_LIFE_S:
                return Invoice(made.invoice, op_id, expires_at)
        return None

    async def watch(self) -> None:
        """Until the sale is paid, or its invoice cannot be paid any more."""
        while (pause := _LOOK_S.get(self._owner.sale.state)) is not None:
            if await self._told():
                return
            await self._clock.sleep(pause)

    async def look(self) -> None:
        """Ask the mint now, and tell the sale; a customer that asks for it all the time is not heard each time."""
        if self._clock.monotonic() < self._looked_at + _LOOK_AGAIN_S:
            return
        self._looked_at = self._clock.monotonic()
        try:
            await self._wallet.poll(self._owner.sale.invoice_id)
        except VendoError as error:
            log.info("An invoice was not looked at: %s", error.code, extra={"action": "invoice_unseen"})
        await self._told()

    async def _told(self) -> bool:
        """Whether the wallet knew how it ended; then so does the sale, and again if it was told before."""
        sale = self._owner.sale
        try:
            found = await self._wallet.find(sale.invoice_id)
        except VendoError as error:
            log.warning("A deposit cannot be read: %s", error.code, extra={"action": "invoice_unread"})
            return False
        if found is None:
            return False
        if found.state is OperationState.DONE:
            await self._owner.insist(InvoicePaid(self._clock.now(), Msat.of_sat(found.amount), self._until()))
            return True
        if found.state is OperationState.REFUSED and sale.state in (State.LAPSED, State.BILLED):
            await self._owner.insist(InvoiceLapsed())
            return True
        return False

    def _until(self) -> int:
        return wanted_until(self._owner.request)


def wanted_until(request: JobRequest) -> int:
    """From when on no result is wanted (Unix seconds); 0 if the request does not say."""
    return min((end for end in (request.deadline, request.expiration) if end), default=0)
