"""M1, M3, M4 and M5 of a Lightning wallet over NWC: what it has paid is in its ledger, whatever it says."""

from abc import ABC, abstractmethod
from typing import Any

from wallet.lightning import ENDED, Direction, Stage


class Wallets(ABC):
    """A part of the judge."""

    count: int

    @abstractmethod
    def breach(self, rule: str, text: str) -> None:
        """A rule is broken."""

    def nwc(self, nwc: Any, stored: Any, before: Any) -> None:
        """A step of a payment or an invoice."""
        self.count += 1
        after, name = stored.payment, nwc.node.name
        entry = nwc.ledger.get(stored.bolt11.hash)
        settled = entry is not None and entry.state == "settled"
        if before.stage in ENDED and not (before.stage is Stage.FAILED and after.stage is Stage.PAID):
            self.breach("M5", f"{name}: {after.id} goes on after its end")
        if after.stage is Stage.PAID and not settled:
            self.breach("M5", f"{name}: {after.id} is booked, and the wallet has not paid it")
        if after.stage is Stage.FAILED and after.direction is Direction.PAY:
            moves = entry is not None and entry.state == "pending" and after.id not in nwc.lied
            if settled or moves:
                self.breach("M5", f"{name}: {after.id} is given up, and the wallet pays it")

    def nwc_paid(self, nwc: Any, stored: Any) -> None:
        """The wallet has paid."""
        self.count += 1
        if stored.payment.stage is Stage.FAILED and stored.payment.id not in nwc.lied:
            self.breach("M5", f"{nwc.node.name}: {stored.payment.id} was given up, and happens")

    def finish_nwc(self, nwc: Any, start: int) -> None:
        """Nothing is open, and what is booked is what the wallet has."""
        balance = start
        for stored in nwc.ops.values():
            payment, msat = stored.payment, stored.bolt11.msat
            if payment.stage not in ENDED:
                self.breach("M4", f"{nwc.node.name}: {payment.id} never ended: {payment.stage}")
            if payment.stage is Stage.PAID:
                balance += msat if payment.direction is Direction.INVOICE else -msat
            elif payment.id in nwc.lied and stored.bolt11.times:
                # Its wallet said "failed" for longer than anybody waits, and told of the payment while nobody was
                # there: `vendo wallet audit` finds it.
                nwc.world.coverage.checks["a lie that the audit finds"] += 1
                balance -= msat
        if balance != nwc.balance:
            self.breach("M3", f"{nwc.node.name} counts {balance} msat, and its wallet has {nwc.balance}")
