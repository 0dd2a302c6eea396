"""Faults planted in prepaid balances (ADR 27); see `planted`."""

from typing import Any

from _pytest.monkeypatch import MonkeyPatch

from core.change import replace
from core.money import Msat
from dvm import custody, deposit
from dvm.error import VoucherReplayed, VoucherSignature, VoucherTotal
from dvm.job import Funds, Purchase
from tests.simulation.pure import custodian, depositor
from tests.simulation.pure.planted_way import rows


def _overlooks(patch: MonkeyPatch, *faults: type) -> None:
    old = custody.fault

    def fault(held: Any, event: Any) -> Any:
        found = old(held, event)
        return None if found in faults else found

    patch.setattr(custody, "fault", fault)
    patch.setattr(custodian, "fault", fault)


def any_signature(patch: MonkeyPatch) -> None:
    """Nobody looks who signed a voucher."""
    _overlooks(patch, VoucherSignature)


def old_voucher(patch: MonkeyPatch) -> None:
    """A voucher that was taken is taken again."""
    _overlooks(patch, VoucherReplayed, VoucherTotal)


def silence_is_void(patch: MonkeyPatch) -> None:
    """A voucher of which the seller says nothing is called void."""
    old = deposit.verdict
    patch.setattr(depositor, "verdict", lambda held, job_id: bool(old(held, job_id)))


def counted_anyway(patch: MonkeyPatch) -> None:
    """A job that failed is counted as if it had been delivered."""

    def end_work(held: Any, event: Any) -> Any:
        done = replace(held, total=held.held, voucher=held.held_voucher)
        return replace(done, busy="", held=Msat(0), held_voucher=""), []

    rows(patch, custody.TRANSITIONS, (custody.State.OPEN, custody.WorkEnded), do=end_work)


def early(patch: MonkeyPatch) -> None:
    """A deposit is taken back before its locktime."""
    where = (deposit.State.CLOSING, deposit.LocktimePassed)
    rows(patch, deposit.TRANSITIONS, where, when=lambda held, event: True)
    old = depositor.Depositor._look

    def look(self: Any, id_: str, turn: int, pause: int) -> None:
        held = self.disk[id_]
        if self._turns.get(id_) == turn and not held.spent and held.state is deposit.State.CLOSING and pause > 2_000:
            return self.tell(id_, deposit.LocktimePassed(self.world.now // 1000))
        return old(self, id_, turn, pause)

    patch.setattr(depositor.Depositor, "_look", look)


def nothing_drawn(patch: MonkeyPatch) -> None:
    """The seller gives all of a deposit back, whatever it has earned."""
    old = custody.rest_sat
    patch.setattr(custody, "rest_sat", lambda amount, total, fee: old(amount, Msat(0), fee))


def charge_forgotten(patch: MonkeyPatch) -> None:
    """A delivered job's voucher is not counted by its buyer."""

    def count(held: Any, event: Any) -> Any:
        out = held.pending
        return held if out is None or out.job_id != event.job_id else replace(held, pending=None)

    patch.setattr(deposit, "_count", count)


def drawn_is_free(patch: MonkeyPatch) -> None:
    """What is drawn from a deposit is booked as if it had cost nothing."""
    old = Purchase.cost.fget
    assert old is not None

    def cost(job: Any) -> Msat:
        free = job.payment is not None and job.payment.deposit and job.money is Funds.CLAIMED
        return Msat(0) if free else old(job)

    patch.setattr(Purchase, "cost", property(cost))


def open_for_ever(patch: MonkeyPatch) -> None:
    """A deposit that was under way is not taken up again after a restart."""
    patch.setattr(depositor.Depositor, "restart", lambda self: None)
