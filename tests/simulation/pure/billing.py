"""What a seller's driver does for invoices and for what is owed (`dvm.bill`, `dvm.credit`): a part of `seller.Seller`."""

from functools import partial
from typing import Any

from dvm import seller as machine
from dvm.bill import LEAST_LIFE_S
from dvm.seller import Sale, State
from tests.simulation.pure.purse import Purse, Stored
from tests.simulation.pure.world import Msg, World
from core.money import Msat
from wallet.payment import State as Op

LABELS = {state: f"seller {state}" for state in State}


class Billing:
    """Makes and watches invoices."""

    world: World
    name: str
    disk: dict[str, Sale]
    purse: Purse
    quotes: dict[str, str]
    sold_to: dict[str, list[str]]
    tell: Any
    step: Any
    _quoted: Any
    _watch_expiry: Any

    # ---- invoices

    def _make_invoice(self, request_id: str, number: int) -> None:
        """As `dvm.bill`: a mint of ours after another is asked; the same request gets the same invoice."""
        world, sale = self.world, self.disk[request_id]
        if sale.state is not State.INVOICING:
            return
        if number == len(world.mints):
            if not sale.mints:
                return self.tell(request_id, machine.InvoiceFailed("no invoice can be made now, try again later"))
            return self._quote_now(request_id, None)
        mint = world.mints[number]
        id_ = f"invoice {self.name} {request_id} {number}"
        stored = self.purse.ops.get(id_)
        if stored is not None:
            good = stored.op.state is Op.WAITING and stored.expires >= world.now + LEAST_LIFE_S * 1000
            return self._quote_now(request_id, stored) if good else self._make_invoice(request_id, number + 1)
        expires = world.now // 1000 + (25 if world.plot.seed & 4 else 60)

        def made() -> Any:
            def paid() -> None:
                world.pay_invoice(mint, f"quote {bolt11.hash}")

            sat = sale.price.sat_up()
            bolt11 = world.lightning.invoice(id_, sat * 1000, expires, paid)
            mint.quotes.setdefault(f"quote {bolt11.hash}", ["unpaid"])
            return bolt11

        def heard(word: str, bolt11: Any) -> None:
            if self.disk[request_id].state is not State.INVOICING:
                return
            if word != "ok":
                return self._make_invoice(request_id, number + 1)
            self.purse.deposit(id_, mint, sale.price.sat_up(), bolt11, request_id)
            self._quote_now(request_id, self.purse.ops[id_])

        world.ask(self, made, heard)

    def _quote_now(self, request_id: str, stored: Stored | None) -> None:
        sale = self.disk[request_id]
        self.sold_to.setdefault(sale.customer, []).append(request_id)
        self.step(sale, self._quoted(sale, stored))
        sale = self.disk[request_id]
        self.quotes[sale.quote_id] = request_id
        self._watch_expiry(sale)
        self._tell_invoice(request_id)

    def _tell_invoice(self, request_id: str) -> None:
        """What the wallet has booked of it is told to the sale, and again after a restart."""
        sale = self.disk[request_id]
        stored = self.purse.ops.get(sale.invoice_id)
        if stored is None or sale.state not in (State.QUOTED, State.LAPSED):
            return
        if stored.op.state is Op.DONE:
            until = self.world.log[request_id].body.deadline or 0
            amount = Msat.of_sat(sum(output.amount for output in stored.outputs))
            self.tell(request_id, machine.InvoicePaid(self.world.now // 1000, amount, until))
        elif stored.op.state is Op.REFUSED and sale.state is State.LAPSED:
            self.tell(request_id, machine.InvoiceLapsed())

    def _look_at_invoice(self, request_id: str) -> None:
        stored = self.purse.ops.get(self.disk[request_id].invoice_id)
        if stored is not None:
            self.purse.poll(stored)

    def _credit(self, sale: Sale) -> bool:
        """As `dvm.credit`: what is owed to a customer pays for its request, and both change in one commit."""
        for request_id in self.sold_to.get(sale.customer, ()):
            owed = self.disk[request_id]
            if owed.state is not State.OWED or owed.owed < sale.price:
                continue
            after, _ = machine.step(owed, machine.CreditSpent(sale.price))
            self.step(sale, machine.CreditTaken(sale.price), ((LABELS[after.state], partial(self._also, after)),))
            return True
        return False

    def _also(self, other: Sale) -> None:
        """What is owed has changed: written in the same commit."""
        before, self.disk[other.request_id] = self.disk[other.request_id], other
        self.world.judge.sale(self, before, other, machine.CreditSpent)

