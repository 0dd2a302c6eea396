"""What an invoice asks for is a debt, and it is paid once, whichever way: with coins at a mint, or over Lightning."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from core.identifier import OperationId
from wallet.lightning_error import InvoiceKnown

Payer = Callable[[str], Awaitable[OperationId | None]]
"""The operation that pays an invoice with this payment hash, has paid it, or may have; None if nothing left for it."""


class Debts:
    """One per wallet; every way to pay an invoice is told to it, and asks it before anything is begun."""

    def __init__(self) -> None:
        self._payers: list[Payer] = []
        self._hashes: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def add(self, payer: Payer) -> None:
        """One more way."""
        self._payers.append(payer)

    async def check(self, payment_hash: str, op_id: str) -> None:
        """Whether this operation may pay.

        Raises:
            InvoiceKnown: another one pays this invoice, has paid it, or may have.
        """
        for payer in self._payers:
            other = await payer(payment_hash)
            if other not in (None, op_id):
                why = f"Another operation pays this invoice, or may have paid it: {other}."
                raise InvoiceKnown(why, operation=other or "")

    @asynccontextmanager
    async def alone(self, payment_hash: str, op_id: str) -> AsyncIterator[None]:
        """Begin to pay in here, where nobody else begins to pay the same invoice.

        Raises:
            InvoiceKnown: see `check`.
        """
        await self.check(
            payment_hash, op_id
        )  # at once: who is ahead of us may hold the lock for as long as a mint takes
        async with self._hashes.setdefault(payment_hash, asyncio.Lock()):
            await self.check(payment_hash, op_id)
            yield
