"""M3 to M7 of what is given in public (ADR 29), and of what is owed to a customer for it."""

from abc import ABC, abstractmethod
from typing import Any

from dvm.seller import State as Sale
from dvm.tip import State, Tip
from tests.simulation.pure.mint import Output
from tests.simulation.pure.world import World
from wallet.payment import State as Op

SLACK_S = 900  # a mint may have been silent meanwhile
HOUR_S = 3_600


class Gifts(ABC):
    """A part of the judge."""

    world: World
    payers: dict[str, str]
    given: dict[str, str]
    count: int

    @abstractmethod
    def breach(self, rule: str, text: str) -> None:
        """A rule is broken."""

    def tip(self, seller: Any, before: Tip | None, after: Tip) -> None:
        """A step of a nutzap."""
        self.count += 1
        msg = self.world.log.get(after.raw or after.id)
        if msg is None or msg.signer != msg.author or msg.author != after.sender or msg.to != seller.key:
            return self.breach("M6", f"{seller.name}: a nutzap that its sender has not signed")
        if after.state is State.TAKEN and (before is None or before.state is State.SEEN):
            self._taken(seller, after, msg)
        if before is not None and after.net != before.net:
            got = self._redeemed(seller, after.id)
            if after.net.value != got * 1000 or not got:
                self.breach("M3", f"{seller.name} books {after.net.value} msat of a nutzap, and got {got} sat")
        if after.state is State.REFUSED and self._redeemed(seller, after.id):
            self.breach("M5", f"{seller.name}: a nutzap is called refused, and was taken")

    def _taken(self, seller: Any, after: Tip, msg: Any) -> None:
        """What is taken is the seller's alone to take, and counts once."""
        mint = next((one for one in self.world.mints if one.url == after.mint), None)
        now = self.world.now // 1000
        for coin in msg.body["coins"]:
            real = None if mint is None else mint.signed.get(coin.name)
            if real is None or real.lock is None or real.lock.key != seller.wallet_key:
                return self.breach("M7", f"{seller.name}: takes a nutzap whose coins are not its own to take")
            if real.lock.locktime < now + HOUR_S - SLACK_S:
                self.breach("M7", f"{seller.name}: takes a nutzap that others can take as well")
            if real.lock.giver not in ("", after.sender):
                self.breach("M6", f"{seller.name}: takes a nutzap that somebody else has given")
            if self.payers.setdefault(coin.name, after.id) != after.id:
                self.breach("M7", f"{seller.name}: one coin counts twice")
            self.given[coin.name] = after.id

    def _redeemed(self, seller: Any, id_: str) -> int:
        stored = seller.purse.ops.get(f"tip {seller.name} {id_}")
        return 0 if stored is None else sum(one.amount for one in stored.outputs if one.name in stored.mint.signed)

    def claims_gift(self, seller: Any, coin: Output) -> None:
        """A seller swaps the coins of a nutzap: it was written down before."""
        tip = seller.gifts.disk.get(self.given[coin.name])
        if tip is None or tip.state is not State.TAKEN:
            self.breach("M4", f"{seller.name}: takes a nutzap that it has not written down")

    # ---- credit

    def _sums(self, seller: Any, customer: str) -> tuple[int, int, int, int]:
        """Msat that came from a customer, are used, are owed; and how many invoices it paid."""
        paid = used = owed = invoices = 0
        for sale in seller.disk.values():
            if sale.customer != customer:
                continue
            stored = seller.purse.ops.get(sale.invoice_id)
            if stored is not None and stored.op.state is Op.DONE:
                paid += 1000 * sum(one.amount for one in stored.outputs if one.name in stored.mint.signed)
                invoices += 1
            owed += sale.owed.value
            if sale.by_invoice and sale.state not in (Sale.OWED, Sale.REPAID):
                used += sale.price.value
        if seller.gifts is not None:
            for tip in seller.gifts.disk.values():
                if tip.sender == customer:
                    paid += 1000 * self._redeemed(seller, tip.id) if tip.sale else 0
                    owed += tip.owed.value
        return paid, used, owed, invoices

    def credit_adds_up(self, seller: Any, customer: str) -> None:
        """Nobody is served, or owed, more than has come."""
        paid, used, owed, _ = self._sums(seller, customer)
        if used + owed > paid:
            self.breach("M7", f"{seller.name}: serves {used} and owes {owed} msat, and {paid} have come")

    def finish_gifts(self, seller: Any) -> None:
        """Nothing is open, and nothing that came is kept in silence."""
        for tip in seller.gifts.disk.values() if seller.gifts is not None else ():
            if tip.state in (State.SEEN, State.TAKEN) or tip.beside:
                self.breach("M4", f"{seller.name}: a nutzap never ended: {tip.state} {tip.beside}")
        for customer in {sale.customer for sale in seller.disk.values() if sale.by_invoice or sale.invoice_id}:
            paid, used, owed, invoices = self._sums(seller, customer)
            if paid - used - owed > 999 * invoices:
                self.breach("M4", f"{seller.name}: of {paid} msat {used} are used and {owed} owed: the rest is lost")
