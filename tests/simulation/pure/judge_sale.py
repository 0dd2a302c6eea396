"""M2, M3, M6 and M7 of sales: for what a seller works, and what it takes."""

from abc import ABC, abstractmethod
from typing import Any

from dvm.sale import CLAIM_MARGIN_S
from dvm.seller import Claimed, CreditSpent, CreditTaken, InvoicePaid, Lent, Sale, State
from dvm.settlement import CLAIM_NEED_S, COSIGN_MARGIN_S, MODE_A, MODE_B
from tests.simulation.pure.billing import CREDIT
from tests.simulation.pure.sealing import ORDER
from tests.simulation.pure.seller import ALLOWED, ETA_S
from tests.simulation.pure.world import Msg, World


class Sales(ABC):
    """A part of the judge."""

    world: World
    waiting: dict[tuple[str, str], int]
    unpaid: dict[tuple[str, str], int]
    worked: dict[tuple[str, str], list[int]]
    payers: dict[str, str]
    works_drawn: Any
    credit_adds_up: Any
    cancels: set[tuple[str, str]]
    count: int

    @abstractmethod
    def breach(self, rule: str, text: str) -> None:
        """A rule is broken."""

    # ---- sales

    def sale(self, seller: Any, before: Sale, after: Sale, event: type) -> None:
        self.count += 1
        request_id = after.request_id
        if before.state is not after.state:
            self._places(seller, before, after)
        if event is Claimed:
            self._earned(seller, after)
        if after.state is State.CANCELLED:
            own = (request_id, after.customer) in self.cancels
            if not own:
                self.breach("M6", f"{seller.name}: a request was cancelled by somebody else")
        if after.payment and not before.payment:
            self._paid(seller, after)
        if event is InvoicePaid:
            self._invoiced(seller, after)
        elif event is Lent:
            self._lends(seller, after)
        elif event is CreditTaken or event is CreditSpent:
            self._credit(seller, after)

    def _invoiced(self, seller: Any, after: Sale) -> None:
        """Its invoice's money is in the seller's wallet, and is worked for, or owed, as often as it came."""
        stored = seller.purse.ops.get(after.invoice_id)
        got = 0 if stored is None else sum(one.amount for one in stored.outputs if one.name in stored.mint.signed)
        if after.claimed.value != got * 1000 or not got:
            self.breach("M3", f"{seller.name} books {after.claimed.value} msat of an invoice, and got {got} sat")

    def _credit(self, seller: Any, after: Sale) -> None:
        owed = sum(one.owed.value for one in seller.disk.values() if one.customer == after.customer)
        if owed < 0 or after.owed.value < 0:
            self.breach("M7", f"{seller.name}: more is served than is owed")

    def _places(self, seller: Any, before: Sale, after: Sale) -> None:
        place = seller.name, after.customer
        if after.state is State.QUOTED:
            self.waiting[place] = self.waiting.get(place, 0) + 1
            if self.waiting[place] > ALLOWED.open_per_customer:
                self.breach("M7", f"{seller.name}: {self.waiting[place]} quotes for one key")
        elif before.state is State.QUOTED:
            self.waiting[place] -= 1
        if after.paid_by == MODE_A and after.state is State.WORKING:
            self.unpaid[place] = self.unpaid.get(place, 0) + 1
            if self.unpaid[place] > ORDER.orders_per_customer:
                self.breach("M7", f"{seller.name}: works on {self.unpaid[place]} unpaid orders of one key")
        elif after.paid_by == MODE_A and (after.state is State.FAILED or (before.state is State.SEALED and after.paid)):
            self.unpaid[place] -= 1  # who leaves without paying keeps its place: it gets no other order

    def _earned(self, seller: Any, after: Sale) -> None:
        stored = seller.purse.ops[f"claim {seller.name} {after.request_id}"]
        got = sum(output.amount for output in stored.outputs if output.name in stored.mint.signed)
        if after.claimed.value != got * 1000:
            self.breach("M3", f"{seller.name} books {after.claimed.value} msat, and got {got} sat")

    def _paid(self, seller: Any, after: Sale) -> None:
        """A payment is taken for good: it must be the customer's, for this request, in time, and enough."""
        msg = self.world.log.get(after.payment_id)
        if msg is None or msg.signer != msg.author or msg.author != after.customer or msg.to != seller.key:
            return self.breach("M6", f"{seller.name}: a payment that is not the customer's")
        if msg.ref != after.request_id or msg.body["quote"] != after.quote_id:
            self.breach("M2", f"{seller.name}: a payment for another quote is taken")
        if msg.at >= after.expires_at * 1000 and msg.body.get("mode") != MODE_A:
            self.breach("M2", f"{seller.name}: a payment for an expired quote is taken")
        least = msg.at // 1000 + ETA_S + CLAIM_MARGIN_S
        mode = msg.body.get("mode", "")
        if mode:
            least += COSIGN_MARGIN_S + CLAIM_NEED_S - CLAIM_MARGIN_S if mode == MODE_B else -ETA_S
            self._paid_sealed(seller, after, msg, mode)
        if any(coin.lock is not None and coin.lock.locktime < least for coin in msg.body["coins"]):
            self.breach("M7", f"{seller.name}: takes money that can be taken back before it is claimed")
        for name in after.ys:
            if self.payers.setdefault(name, after.request_id) != after.request_id:
                self.breach("M7", f"{seller.name}: one coin pays for two jobs")

    def _paid_sealed(self, seller: Any, after: Sale, msg: Msg, mode: str) -> None:
        request = self.world.log[after.request_id].body
        cosigner = request.cosign_key if mode == MODE_B else ""
        for coin in msg.body["coins"]:
            if coin.lock is None or (coin.lock.hash, coin.lock.cosigner) != (after.hash, cosigner):
                self.breach("M7", f"{seller.name}: takes money for a sealed result that its key does not open")

    def works(self, seller: Any, sale: Sale) -> None:
        """A provider begins: for a priced job its money must be there, and the seller's to take."""
        self.count += 1
        times = self.worked.setdefault((seller.name, sale.request_id), [0, -1])
        if times[1] == seller.life:
            self.breach("M7", f"{seller.name}: works again and again for {sale.request_id}")
        times[0], times[1] = times[0] + 1, seller.life
        if not sale.price or sale.paid_by == MODE_A:  # an order: see `_places`
            return
        if sale.deposit:
            return self.works_drawn(seller, sale)
        if sale.lent:
            return
        if sale.by_invoice:
            return self.credit_adds_up(seller, sale.customer)
        mint = next((mint for mint in self.world.mints if mint.url == sale.mint), None)
        if mint is None:
            return self.breach("M7", f"{seller.name}: works unpaid")
        coins = [mint.signed.get(name) for name in sale.ys]
        worth = 0
        for coin in coins:
            if coin is None or coin.lock is None or coin.lock.key != seller.wallet_key:
                return self.breach("M7", f"{seller.name}: works for coins that are not its own to take")
            worth += coin.amount
        if not coins or (worth - mint.fee(len(coins))) * 1000 < sale.price.value:
            self.breach("M7", f"{seller.name}: works for {worth} sat at a price of {sale.price.value} msat")

    def _lends(self, seller: Any, sale: Sale) -> None:
        """Work before the money: for who is trusted, has paid all of them, and owes no more than is allowed."""
        lent = [one for one in seller.disk.values() if one.lent and not one.paid and one.state is not State.FAILED]
        mine = [one for one in lent if one.customer == sale.customer]
        if any(one.state is State.LOST for one in mine):
            self.breach("M7", f"{seller.name}: lends to somebody who has not paid for what was lent")
        open_ = [one for one in lent if one.state is not State.LOST]
        if sum(one.price.value for one in open_ if one.customer == sale.customer) > CREDIT.credit_per_key.value:
            self.breach("M7", f"{seller.name}: lends one key more than it may owe")
        if sum(one.price.value for one in open_) > CREDIT.credit.value:
            self.breach("M7", f"{seller.name}: lends more than may be out in all")
        paid = sum(one.claimed.value for one in seller.disk.values() if one.customer == sale.customer)
        if sale.customer not in self.world.trusted and paid < sale.price.value:
            self.breach("M7", f"{seller.name}: lends to a stranger")
