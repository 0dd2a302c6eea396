"""Zaps (NIP-57): a receipt says where to look, and counts for nothing itself; our own wallet says whether money came.

A receipt is looked at only if it fits together in every way that NIP-57 names (`relays/nip57.py`) and so does its
invoice. If that is the invoice of a quote of ours, its mint is asked at once instead of a little later. Else it is an
invoice of our LNURL provider for our own Lightning wallet: what that wallet says has come in for it is credit of
whoever signed the zap request, and pays for the job that it names. A payment hash counts once.
"""

import asyncio
import logging
from collections import Counter as Tally
from hashlib import sha256
from typing import Protocol

from core.clock import Clock
from core.error import Conflict
from core.identifier import PubKey
from core.money import Msat
from core.unit import UnitOfWork
from dvm import tip as tips
from dvm.admission import Meter
from dvm.nutzap import Market, sale_of
from dvm.settlement import Account
from dvm.tip import Tip
from relays.error import MalformedEvent
from relays.event import Event
from relays.filter import Filter
from relays.kind import ZAP_RECEIPT
from relays.nip57 import Receipt, read_receipt
from relays.pool import Pool
from wallet.error import InvoiceRejected
from wallet.invoice import Invoice, read_invoice

log = logging.getLogger(__name__)

SUBSCRIPTION = "market/zaps"
PAST_S = 14 * 86_400
PER_SECOND, BURST = 5.0, 25


class Purse(Protocol):
    """Our own Lightning wallet: `wallet.lightning_wallet.Lightning`."""

    @property
    def name(self) -> str:
        """How rows call it."""

    async def received(self, payment_hash: str) -> int | None:
        """What came in for an invoice that our provider made, in msat; None if nothing did."""


def mismatch(receipt: Receipt, invoice: Invoice, *, ours: bool) -> str:
    """In which way a receipt and its invoice do not belong together; empty if they do (NIP-57, appendices E and F).

    Args:
        receipt: that of our provider.
        invoice: in it.
        ours: it is the invoice of a quote of ours, which was made for no zap request and holds no hash of one.
    """
    if not invoice.amount_msat or receipt.amount not in (None, invoice.amount_msat):
        return "amount"
    if not ours and invoice.description_hash != sha256(receipt.request.encode()).hexdigest():
        return "description_hash"
    return ""


class Zaps:
    """Takes zaps for one node. A service.

    Args:
        unit: the database.
        pool: relays.
        clock: time.
        key: ours, which is zapped.
        account: where zaps reach us.
        purse: says what came in.
        market: the sales that they may pay for.
        refused: where refusals are counted, by reason.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        pool: Pool,
        clock: Clock,
        key: PubKey,
        account: Account,
        purse: Purse,
        market: Market,
        refused: Tally[str],
    ) -> None:
        self._unit, self._pool, self._clock, self._key = unit, pool, clock, key
        self._account, self._purse, self._market, self._refused = account, purse, market, refused
        self._meter = Meter(BURST, PER_SECOND)

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Listen until `stop`."""
        asked = Filter(
            kinds=frozenset({ZAP_RECEIPT}),
            authors=frozenset({self._account.provider}),
            tags={"p": frozenset({self._key})},
            since=self._clock.now() - PAST_S,
        )
        self._pool.subscribe(SUBSCRIPTION, [asked], self._on_receipt)
        ready.set()
        try:
            await stop.wait()
        finally:
            self._pool.unsubscribe(SUBSCRIPTION)

    async def _on_receipt(self, event: Event, relay: str) -> None:
        """A verified kind 9735. When it returns, what came of it is durable.

        Raises:
            Unavailable: our wallet does not say; the relay is to be asked for the receipt again.
        """
        while not self._meter.take("", self._clock.monotonic()):
            await self._clock.sleep(1 / PER_SECOND)
        account = self._account
        try:
            receipt = read_receipt(event, provider=account.provider, recipient=self._key, lnurl=account.lnurl)
            invoice = read_invoice(receipt.invoice)
        except (MalformedEvent, InvoiceRejected) as error:
            return self._refuse(f"zap.{error.code}")
        sale = await sale_of(self._unit, (receipt.named,)) if receipt.named else ""
        if not sale:  # a gift to the owner: it is not ours to count
            return None
        open_ = self._market.find(sale)
        ours = open_ is not None and open_.invoiced == invoice.payment_hash
        if wrong := mismatch(receipt, invoice, ours=ours):
            return self._refuse(f"zap.{wrong}")
        if open_ is not None and ours:
            return await open_.look()
        await self._count(receipt, invoice, sale)
        if (open_ := self._market.find(sale)) is not None:
            await open_.take_credit()
        return None

    async def _count(self, receipt: Receipt, invoice: Invoice, sale: str) -> None:
        name = f"zap:{invoice.payment_hash}"
        if await self._unit.select(tips.TABLE, {"id": name}, columns=("id",)):
            return
        came = await self._purse.received(invoice.payment_hash)
        if came is None or came < (invoice.amount_msat or 0):
            return self._refuse("zap.not_received")
        net = Msat(came)
        now = self._clock.now()
        tip = Tip(name, receipt.sender, self._purse.name, now, tips.State.OWED, net, net, sale)
        try:
            await self._unit.commit([tips.insert(tip, now)])
        except Conflict:
            log.info("A zap was counted before", extra={"action": "zap_repeated"})

    def _refuse(self, reason: str) -> None:
        self._refused[reason] += 1
        log.info("A zap receipt was not taken: %s", reason, extra={"action": "zap_refused", "code": reason})
