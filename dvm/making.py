"""The result of a sale, from the provider to the event that goes out: in clear, sealed, or a pointer to its bytes."""

from dataclasses import replace
from typing import TYPE_CHECKING

from core.error import InvalidInput
from core.identifier import EffectId
from core.money import Msat
from dvm.bill import Bill, Invoice
from dvm.chain import as_compute
from dvm.error import ProviderFailed
from dvm.provider.supervision import supervised
from dvm.request import ComputeRequest
from dvm.seal import seal
from dvm.seller_event import Event, WorkDone, WorkPacked
from dvm.settlement import CLAIM_NEED_S
from dvm.stowage import UNSTOWED
from relays.blob import TAG_BYTES, Pointer
from relays.event import MAX_EVENT_BYTES
from relays.nip90 import Seal, result_draft
from relays.private_job import sealed_answer

if TYPE_CHECKING:
    from dvm.line import Line
    from dvm.sale import Counter, OpenSale

PAY_WITHIN_S = 600  # an invoice in a result can be paid for so long, if the mint makes one that lasts
TOO_LONG = "The result is too long for one event"


class Making:
    """Makes the result of one open sale.

    Args:
        counter: what all open sales share.
        line: where the work waits for its turn.
        place: the sale.
        bill: makes the invoice of a result that is paid for when it is there.
    """

    def __init__(self, counter: "Counter", line: "Line", place: "OpenSale", bill: Bill) -> None:
        self._counter, self._line, self._place, self._bill = counter, line, place, bill

    async def made(self) -> Event:
        """Have the work done: the result as it goes out, or packed if it is too large for an event.

        Raises:
            VendoError: it cannot be done, or not be sent.
        """
        place, shipping = self._place, self._counter.shipping
        whole = await self._gathered()
        async with self._line.turn(place.ticket()):
            answer = await supervised(place.service.provider, whole, place.time_left())
        size = len(answer.content.encode())
        bill = await self._billed() if place.sale.lent and size <= MAX_EVENT_BYTES else None
        signed = self._signed(answer.content, bill=bill) if size <= MAX_EVENT_BYTES else None
        # What is lent is not paid yet, so it fills no server (M7).
        room = shipping is not None and shipping.takes(size, place.request.blob_bytes)
        may_ship = room and bool(place.sale.price) and not place.sale.lent
        if may_ship and shipping is not None and shipping.is_large(size, signed):
            if await self._may_stow(size):
                return WorkPacked(await shipping.pack(place.sale.request_id, answer.content, answer.mime))
            if signed is None or len(signed) > MAX_EVENT_BYTES:
                raise ProviderFailed(f"{TOO_LONG}, and {UNSTOWED}.")
        if signed is None or len(signed) > MAX_EVENT_BYTES:  # found out later it would be at work for ever
            raise ProviderFailed(f"{TOO_LONG}.")
        paper = (bill.text, bill.op_id) if bill is not None else ("", "")
        return WorkDone(signed, self._counter.clock.now(), *paper)

    async def _may_stow(self, size: int) -> bool:
        """Whether our file servers have room for what may never be paid (M7)."""
        place, stowage = self._place, self._counter.stowage
        return stowage is None or await stowage.take(place.sale, place.load, size + TAG_BYTES)

    async def _billed(self) -> Invoice:
        """The invoice that goes out with the result.

        Raises:
            ProviderFailed: none can be had.
        """
        bill = await self._bill.make(self._counter.clock.now() + PAY_WITHIN_S)
        if bill is None:
            raise ProviderFailed("no invoice can be made now, try again later")
        return bill

    async def _gathered(self) -> ComputeRequest:
        """With what it builds on; it waits for that before it takes a place among those that are worked on."""
        place = self._place
        if self._counter.material is None:
            return as_compute(place.request)
        return await self._counter.material.gather(place.request, place.time_left(), paid=place.sale.paid)

    async def shipped(self) -> Event:
        """Put what was packed on our file servers: the result that says where it is.

        Raises:
            VendoError: no server took it.
        """
        counter, sale, shipping = self._counter, self._place.sale, self._counter.shipping
        if shipping is None or sale.packed is None:
            raise ProviderFailed(f"{TOO_LONG}, and this node has no file servers any more.")
        counter.gate.check(counter.gate.permit(EffectId(sale.effect_id)))
        pointer = await shipping.ship(sale.request_id, sale.packed, self._place.time_left())
        if sale.locktime and counter.clock.now() >= sale.locktime - CLAIM_NEED_S:
            raise ProviderFailed("It was stored too late to be paid for.")  # who can take its money back gets no key
        signed = self._signed("", pointer)
        if signed is None:
            raise ProviderFailed(f"{TOO_LONG}, and so is its address.")
        return WorkDone(signed, counter.clock.now())

    async def release(self) -> None:
        """The result is announced, or never will be."""
        shipping, packed = self._counter.shipping, self._place.sale.packed
        if shipping is not None and packed is not None:
            await shipping.done(packed)

    def _signed(self, text: str, pointer: Pointer | None = None, bill: Invoice | None = None) -> str | None:
        """The result as it goes out; None if it is too long to be encrypted."""
        if pointer is None:
            content, tag = self._sealed(text)
        else:  # what is sealed is the key: the bytes can be fetched, and checked, before any money is taken
            content, tag = self._sealed(pointer.secret())
            content = replace(pointer, sealed=content if tag is not None else "").to_json()
        request, sale = self._place.request, self._place.sale
        draft = result_draft(
            request=request,
            content=content,
            created_at=self._counter.clock.now(),
            amount=Msat(0) if not sale.price else sale.price if bill is not None else None,
            seal=tag,
            invoice=bill.text if bill is not None else "",
            blob=pointer is not None,
        )
        try:
            return sealed_answer(self._counter.key, request, draft).to_json()
        except InvalidInput:
            return None

    def _sealed(self, text: str) -> tuple[str, Seal | None]:
        """The result as it goes out: sealed, if its key is what was paid for."""
        sale = self._place.sale
        if not sale.paid_by:
            return text, None
        pair = self._place.pair
        sealed = seal(text, self._place.preimage, pair)
        return sealed.content, Seal(sale.hash, sale.paid_by, sealed.ct_hash, sealed.pt_hash, pair.public)
