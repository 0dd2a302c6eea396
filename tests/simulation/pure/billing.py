"""What a seller's driver does for invoices, and for what it owes (`dvm.bill`): a part of `seller.Seller`.

What is owed to a customer is put together by `dvm.credit` itself.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from core.money import Msat
from dvm import seller as machine
from dvm import tip as tips
from dvm.bill import LEAST_LIFE_S
from dvm.credit import credit_of
from dvm.lending import Lending
from dvm.record import decode, encode
from dvm.seller import ENDED, Sale, State
from dvm.settlement import Settlement
from dvm.trust import Standing, standing_of
from tests.simulation.pure.appraisal import at_once
from tests.simulation.pure.purse import Purse, Stored
from tests.simulation.pure.world import Msg, World
from wallet.payment import State as Op

Beside = tuple[str, Callable[[], None]]
WATCHED = frozenset({State.QUOTED, State.LAPSED, State.BILLED})
LENT_FOR_S = 45
CREDIT = Settlement(credit_per_key=Msat(14_000), credit=Msat(30_000))
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
    gifts: Any
    made: dict[str, Msg]
    _rows: Any
    _lending: Lending
    _result: Any
    _quoted: Any
    _watch_expiry: Any

    # ---- invoices

    def _make_invoice(self, request_id: str) -> None:
        """For a quote. Without one it is for ecash, if the customer may have some."""

        def made(stored: Stored | None) -> None:
            if stored is None and not self.disk[request_id].mints:
                return self.tell(request_id, machine.InvoiceFailed("no invoice can be made now, try again later"))
            self._quote_now(request_id, stored)

        self._ask_for_invoice(request_id, State.INVOICING, 25 if self.world.plot.seed & 4 else 60, made)

    def _bill(self, request_id: str) -> None:
        """For a result that is lent: it goes out with the invoice, or not at all."""

        def made(stored: Stored | None) -> None:
            if stored is None:
                return self.tell(request_id, machine.WorkFailed("no invoice can be made now, try again later"))
            sale, text = self.disk[request_id], stored.terms.text
            result = self._result(sale)
            result.body = sale.price, text
            self.made[result.id] = result
            self.tell(request_id, machine.WorkDone(result.id, self.world.now // 1000, text, stored.id))
            self._tell_invoice(request_id)

        self._ask_for_invoice(request_id, State.WORKING, LENT_FOR_S, made)

    def _ask_for_invoice(
        self, request_id: str, state: State, life_s: int, done: Callable[[Stored | None], None], number: int = 0
    ) -> None:
        """As `dvm.bill`: a mint of ours after another is asked; the same request gets the same invoice."""
        world, sale = self.world, self.disk[request_id]
        if sale.state is not state:
            return
        if number == len(world.mints):
            return done(None)
        mint = world.mints[number]
        id_ = f"invoice/{self.name}/{request_id.replace(' ', '/')}/{number}"  # no blanks, as in the product
        stored = self.purse.ops.get(id_)
        if stored is not None:
            good = stored.op.state is Op.WAITING and stored.expires >= world.now + LEAST_LIFE_S * 1000
            return done(stored) if good else self._ask_for_invoice(request_id, state, life_s, done, number + 1)
        expires = world.now // 1000 + life_s

        def made() -> Any:
            def paid() -> None:
                world.pay_invoice(mint, f"quote {bolt11.hash}")

            sat = sale.price.sat_up()
            bolt11 = world.lightning.invoice(id_, sat * 1000, expires, paid)
            mint.quotes.setdefault(f"quote {bolt11.hash}", ["unpaid"])
            return bolt11

        def heard(word: str, bolt11: Any) -> None:
            if self.disk[request_id].state is not state:
                return
            if word != "ok":
                return self._ask_for_invoice(request_id, state, life_s, done, number + 1)
            self.purse.deposit(id_, mint, sale.price.sat_up(), bolt11, request_id)
            done(self.purse.ops[id_])

        world.ask(self, made, heard)

    def _quote_now(self, request_id: str, stored: Stored | None) -> None:
        sale = self.disk[request_id]
        self.step(sale, self._quoted(sale, stored))
        sale = self.disk[request_id]
        self.quotes[sale.quote_id] = request_id
        self._watch_expiry(sale)
        self._tell_invoice(request_id)

    def _tell_invoice(self, request_id: str) -> None:
        """What the wallet has booked of it is told to the sale, and again after a restart."""
        sale = self.disk[request_id]
        stored = self.purse.ops.get(sale.invoice_id)
        if stored is None or sale.state not in WATCHED:
            return
        if stored.op.state is Op.DONE:
            until = self.world.log[request_id].body.deadline or 0
            amount = Msat.of_sat(sum(output.amount for output in stored.outputs))
            self.tell(request_id, machine.InvoicePaid(self.world.now // 1000, amount, until))
        elif stored.op.state is Op.REFUSED and sale.state is not State.QUOTED:
            self.tell(request_id, machine.InvoiceLapsed())

    def _look_at_invoice(self, request_id: str) -> None:
        stored = self.purse.ops.get(self.disk[request_id].invoice_id)
        if stored is not None:
            self.purse.poll(stored)

    # ---- what is lent

    def _lends(self, sale: Sale) -> bool:
        """Whether a sale is served before it is paid, as `dvm.lending` has it."""
        place = SimpleNamespace(sale=sale, service=SimpleNamespace(lends=True), lent=False)
        return bool(at_once(self._lending.may(place, self.standing(sale.customer))))

    def standing(self, customer: str) -> Standing:
        """What a customer has earned: by its name, or by what it has paid."""
        mine = [self.disk.get(id_) for id_ in self.sold_to.get(customer, ())]
        settled = Msat(sum(sale.claimed.value for sale in mine if sale is not None))
        return standing_of(named=customer in self.world.trusted, settled=settled, free_today=0, free_per_day=0)

    def _open_sales(self) -> list[Any]:
        return [SimpleNamespace(sale=one, lent=one.lent) for one in self.disk.values() if one.state not in ENDED]

    # ---- what is owed

    def _owed(self, sale: Sale) -> tuple[Msat, tuple[Beside, ...]] | None:
        """What covers the price of a sale, as `dvm.credit` finds it: what of it is fresh, and what takes it."""
        found = at_once(credit_of(self._rows, sale, self.world.now // 1000))
        return None if found is None else (found.fresh, tuple([self._taken(write) for write in found.writes]))

    def _taken(self, write: Any) -> Beside:
        id_ = write.where["id"]
        if write.table == tips.TABLE:
            return self.gifts.taken(id_, write.set)
        after = decode(Sale, write.set["body"])
        return LABELS[after.state], partial(self._also, after)

    def _also(self, other: Sale) -> None:
        """What is owed has changed: written in the same commit."""
        before, self.disk[other.request_id] = self.disk[other.request_id], other
        self.world.judge.sale(self, before, other, machine.CreditSpent)

    def take_credit(self, request_id: str) -> None:
        """Have the work paid by what its customer is owed, if that covers it."""
        sale = self.disk.get(request_id)
        if sale is None or sale.state not in (State.QUOTED, State.LAPSED, State.BILLED):
            return
        owed = self._owed(sale)
        if owed is not None:
            until = self.world.log[request_id].body.deadline or 0
            self.step(sale, machine.CreditTaken(sale.price, owed[0], self.world.now // 1000, until), owed[1])


class Rows:
    """The seller's rows, as `dvm.credit` asks for them."""

    def __init__(self, node: Any) -> None:
        self.node = node

    async def select(self, table: str, where: dict[str, str], **more: Any) -> list[dict[str, Any]]:
        if table == tips.TABLE:
            return self.node.gifts.rows(where["sender"]) if self.node.gifts is not None else []
        state = where["state"]
        found = [self.node.disk.get(id_) for id_ in dict.fromkeys(self.node.sold_to.get(where["customer"], ()))]
        return [
            {"body": encode(sale), "version": 0} for sale in found if sale is not None and sale.state.value == state
        ]
