"""A seller's firm quotes: the ways to pay that stand in them, and who may have a sealed result in which mode."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import sha256

from core.clock import Clock
from core.money import Msat
from core.unit import Among, Condition, UnitOfWork
from dvm.bill import Invoice
from dvm.custodian import Custodian
from dvm.line import Line
from dvm.receipt import wallet_text
from dvm.record import decode
from dvm.sale import TABLE, OpenSale
from dvm.seal import hash_of, is_key
from dvm.seller import Sale, State
from dvm.seller_event import Quoted
from dvm.settlement import MODE_A, Settlement
from dvm.stowage import UNSTOWED, Stowage
from relays.key import Key
from relays.nip90 import JobRequest, PayMethod, quote_draft
from relays.private_job import sealed_answer

_LOOKED_AT = 100  # sales of one customer


class Quoting:
    """Of one seller.

    Args:
        unit: the database: who did not pay for work is found there.
        clock: time.
        key: signs quotes.
        wallet_key: to which payments are locked; it signs quotes too, so that none names another's.
        ttl_s: how long a quote stands.
        settlement: which jobs are sold sealed, and in which mode.
        proven: whether a mint was found to show preimages; at no other is a sealed result sold.
        open_sales: those that have not ended.
        custodian: holds customers' deposits.
        stowage: what may lie on our file servers unpaid.
    """

    def __init__(
        self,
        unit: UnitOfWork,
        clock: Clock,
        key: Key,
        wallet_key: Key,
        ttl_s: int,
        settlement: Settlement,
        proven: Callable[[str], bool],
        open_sales: Callable[[], Iterable[OpenSale]],
        custodian: Custodian,
        stowage: Stowage,
    ) -> None:
        self._stowage = stowage
        self._unit, self._clock, self._settlement, self._proven = unit, clock, settlement, proven
        self._key, self._wallet_key, self._ttl_s, self._open = key, wallet_key.compressed, ttl_s, open_sales
        self._sign, self._custodian = wallet_key.sign_digest, custodian

    def quote(
        self, place: OpenSale, quote_id: str, line: Line, invoice: Invoice | None, *, trusted: bool = False
    ) -> Quoted:
        """The signed quote, payable by the invoice if there is one, else with ecash; its place in the line is promised.

        Args:
            place: the sale.
            quote_id: names the quote.
            line: the workers of its kind.
            invoice: of a mint of ours.
            trusted: whether the customer may have work done before it pays.
        """
        now = self._clock.now()
        expires_at = now + self._ttl_s
        if invoice is not None:
            expires_at = min(expires_at, invoice.expires_at)
        sat = place.sale.price.sat_up()
        eta_s = place.service.eta_s + line.wait_s(place.ticket())
        mode, hash_, sealed = self.ways(place, trusted=trusted) if invoice is None else ("", "", [])
        plain = place.sale.mints if invoice is None else ()
        draft = quote_draft(
            request=place.request,
            quote_id=quote_id,
            amount=place.sale.price,
            expires_at=expires_at,
            eta_s=eta_s,
            methods=[
                *self._drawn(place, now + self._ttl_s + eta_s, invoice),
                *sealed,
                *(PayMethod("cashu", mint, "sat", self._wallet_key) for mint in plain),
            ],
            created_at=now,
            text=f"{sat} sat, about {eta_s} s",
            invoice=invoice.text if invoice is not None else "",
        )
        ours = self._sign(sha256(wallet_text(self._key.pubkey, quote_id).encode()).digest()).hex()
        draft = replace(draft, tags=(*draft.tags, ("walletsig", ours)))
        signed = sealed_answer(self._key, place.request, draft).to_json()
        line.promise(place.ticket())
        if invoice is None:
            return Quoted(quote_id, expires_at, signed, mode=mode, hash=hash_)
        return Quoted(quote_id, expires_at, signed, invoice.text, invoice.op_id)

    def _drawn(self, place: OpenSale, done_at: int, invoice: Invoice | None) -> list[PayMethod]:
        """The customer's deposit here, if the job can be drawn from it."""
        sale = place.sale
        found = self._custodian.offer(sale.customer, sale.price, done_at) if invoice is None else None
        if found is None:
            return []
        total = (found.held if found.busy else found.total).value
        key = self._wallet_key
        return [PayMethod("prepaid", found.mint, "sat", key, deposit=found.id, seq=found.seq, total=total)]

    async def may_order(self, request: JobRequest, price: Msat) -> bool:
        """Whether this customer may have work done before it pays: not for a while if that was in vain (M7).

        It was if the customer did not pay, or if the result could not be stored before it does. Where it fetches large
        results there must be room for some, if any is ever stored unpaid.
        """
        settlement = self._settlement
        if MODE_A not in request.modes or price > settlement.order_max:
            return False
        if request.blob_bytes and settlement.order_bytes and not await self._stowage.has_room(request.customer):
            return False
        asked: dict[str, Condition] = {
            "customer": request.customer,
            "state": Among((State.LOST.value, State.FAILED.value)),
        }
        rows = await self._unit.select(TABLE, asked, order=("-updated_at",), limit=_LOOKED_AT)
        since = self._clock.now() - settlement.ban_s
        ended = (decode(Sale, row["body"]) for row in rows if row["updated_at"] >= since)
        return not any(sale.paid_by == MODE_A and not sale.paid and _in_vain(sale) for sale in ended)

    def _room_to_order(self, customer: str) -> bool:
        unpaid = [one.sale.customer for one in self._open() if one.offered == MODE_A and not one.sale.paid]
        settlement = self._settlement
        return len(unpaid) < settlement.orders and unpaid.count(customer) < settlement.orders_per_customer

    def ways(self, place: OpenSale, *, trusted: bool) -> tuple[str, str, list[PayMethod]]:
        """The mode in which this job is offered sealed, the hash of its key, and the ways to pay for that.

        They are at mints that show preimages; mode and hash are empty and there is no way if it is not offered sealed.
        """
        request = place.request
        mints = [mint for mint in place.sale.mints if self._proven(mint)]
        mode = self._settlement.mode_for(
            place.sale.price, request.modes, trusted=trusted and self._room_to_order(request.customer)
        )
        keys = {self._wallet_key[2:], request.seal_key[2:], request.cosign_key[2:]}
        if not mode or not mints or len(keys) != 3 or not is_key(request.seal_key) or not is_key(request.cosign_key):
            return "", "", []
        place.offered = mode
        seal_key, hash_ = place.pair.ours.compressed, hash_of(place.preimage)
        methods = [PayMethod("htlc", mint, "sat", self._wallet_key, mode, hash_, seal_key) for mint in mints]
        return mode, hash_, methods


def _in_vain(sale: Sale) -> bool:
    """Whether work was done for nothing: it was not paid, or could not be handed over unpaid."""
    return sale.state is State.LOST or UNSTOWED in sale.error
