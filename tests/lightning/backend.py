"""The program of a mint on a real Lightning node: nutshell's own, with one more back end than it comes with.

It is run by `tests.lightning.mint`, in an empty folder and with nothing else in its environment.
"""

import asyncio
import math
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, ClassVar

import bolt11
import cashu.lightning
from cashu.core.base import Amount, MeltQuote, Unit
from cashu.core.helpers import fee_reserve
from cashu.core.models import PostMeltQuoteRequest
from cashu.lightning.base import (
    InvoiceResponse,
    LightningBackend,
    PaymentQuoteResponse,
    PaymentResponse,
    PaymentResult,
    PaymentStatus,
    StatusResponse,
)

from tests.lightning.mint import NAME, PASSWORD, PATIENCE, SOCKET
from tests.lightning.rpc import Fate, NodeClient, NodeRefused, Paid

_LOOK_S = 0.1  # between two looks at the invoices that wait
_HOUR_S = 3600
_INCOMING = {Fate.PAID: PaymentResult.SETTLED, Fate.EXPIRED: PaymentResult.FAILED, Fate.UNKNOWN: PaymentResult.UNKNOWN}
# What the node has no record of may be on its way to it; what it has tried and given up has failed.
_OUTGOING = {
    Fate.PAID: PaymentResult.SETTLED,
    Fate.IN_FLIGHT: PaymentResult.PENDING,
    Fate.UNKNOWN: PaymentResult.UNKNOWN,
}


class ElectrumNode(LightningBackend):
    """Asks the node for everything, so that a killed mint finds it again; only `paid_invoices_stream` forgets."""

    supported_units: ClassVar = {Unit.sat}
    supports_description = True
    supports_incoming_payment_stream = True

    def __init__(self, unit: Unit = Unit.sat, **_: Any) -> None:
        self.assert_unit_supported(unit)
        self.unit = unit
        self._node = NodeClient(Path(os.environ[SOCKET]), os.environ[PASSWORD])
        # A payment that takes longer is pending for the mint, and settles or fails without it.
        self._patience_s = float(os.environ.get(PATIENCE, "60"))
        self._waiting: set[str] = set()
        self._paying: set[asyncio.Task[Paid]] = set()

    async def status(self) -> StatusResponse:
        channels = await self._node.channels()
        return StatusResponse(balance=Amount(Unit.sat, sum(one["local_balance"] for one in channels)))

    async def create_invoice(
        self,
        amount: Amount,
        memo: str | None = None,
        description_hash: bytes | None = None,
        **_: Any,
    ) -> InvoiceResponse:
        bill = await self._node.bill(amount.to(Unit.sat).amount, memo or "", _HOUR_S)
        self._waiting.add(bill.payment_hash)
        return InvoiceResponse(ok=True, checking_id=bill.payment_hash, payment_request=bill.invoice)

    async def get_invoice_status(self, checking_id: str) -> PaymentStatus:
        fate = await self._node.bill_fate(checking_id)
        return PaymentStatus(result=_INCOMING.get(fate, PaymentResult.PENDING))

    async def get_payment_quote(self, melt_quote: PostMeltQuoteRequest) -> PaymentQuoteResponse:
        invoice = bolt11.decode(melt_quote.request)
        if not invoice.amount_msat:
            raise ValueError("the invoice says no amount")
        sat = math.ceil(invoice.amount_msat / 1000)
        reserve = math.ceil(fee_reserve(invoice.amount_msat) / 1000)
        return PaymentQuoteResponse(
            checking_id=invoice.payment_hash, amount=Amount(Unit.sat, sat), fee=Amount(Unit.sat, reserve)
        )

    async def pay_invoice(self, quote: MeltQuote, fee_limit_msat: int) -> PaymentResponse:
        """The node takes no limit of fees from outside; its own is below what nutshell reserves."""
        name = quote.checking_id
        # Who has no more patience must not take the request away from the node.
        paying = asyncio.create_task(self._node.pay(quote.request, limit_s=_HOUR_S))
        self._paying.add(paying)
        paying.add_done_callback(self._paying.discard)
        if not (await asyncio.wait({paying}, timeout=self._patience_s))[0]:
            return PaymentResponse(result=PaymentResult.PENDING, checking_id=name)
        try:
            done = paying.result()
        except NodeRefused as error:
            return PaymentResponse(result=PaymentResult.FAILED, checking_id=name, error_message=str(error))
        if not done.success:
            return PaymentResponse(result=PaymentResult.FAILED, checking_id=name, error_message=done.log)
        status = await self.get_payment_status(name)
        return PaymentResponse(result=status.result, checking_id=name, fee=status.fee, preimage=status.preimage)

    async def get_payment_status(self, checking_id: str) -> PaymentStatus:
        result = _OUTGOING.get(await self._node.payment_fate(checking_id), PaymentResult.FAILED)
        if result is not PaymentResult.SETTLED:
            return PaymentStatus(result=result)
        payment = await self._node.payment(checking_id)
        if payment is None:  # its books are a moment behind
            return PaymentStatus(result=PaymentResult.PENDING)
        return PaymentStatus(result=result, preimage=payment.preimage, fee=Amount(Unit.msat, payment.fee_msat))

    async def paid_invoices_stream(self) -> AsyncGenerator[str, None]:
        while True:
            for name in sorted(self._waiting):
                fate = await self._node.bill_fate(name)
                if fate in (Fate.PAID, Fate.EXPIRED):
                    self._waiting.discard(name)
                if fate is Fate.PAID:
                    yield name
            await asyncio.sleep(_LOOK_S)


if __name__ == "__main__":
    setattr(cashu.lightning, NAME, ElectrumNode)
    from cashu.mint.main import main

    sys.argv = sys.argv[:1]
    main()
