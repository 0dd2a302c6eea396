"""Payments that no lock protects: how much a seller may hold of ours, and who is paid so no more.

Whoever is paid before the work may keep the money. That is bounded per seller, and a seller that took it and delivered
nothing is remembered: it gets locked ecash or nothing. A cancelled job is our own doing and not counted.
"""

from collections.abc import Callable, Iterable

from core.clock import Clock
from core.money import Msat
from core.unit import Insert, UnitOfWork, Update, Write
from dvm.job import Funds, Purchase, State
from dvm.policy import MARKET
from dvm.settlement import Method
from wallet.wallet import Wallet

KEY = "undelivered/"  # in table `meta`, with the seller's key; the value is when, in Unix seconds
REMEMBERED_S = 90 * 86_400


class Exposure:
    """One per node.

    Args:
        unit: the database.
        wallet: knows which invoices were paid.
        clock: time.
        most: msat that one seller may hold before it has delivered.
        others: every job that is not closed.
    """

    def __init__(
        self, unit: UnitOfWork, wallet: Wallet, clock: Clock, most: Msat, others: Callable[[], Iterable[Purchase]]
    ) -> None:
        self._unit, self._wallet, self._clock, self._most, self._others = unit, wallet, clock, most, others
        self._kept: set[str] = set()  # since the start: a row may have been read before it was written

    async def refusal(self, job: Purchase) -> str:
        """Why the job's chosen invoice may not be paid; empty if it may.

        Nothing is awaited after the sums are made: if the caller takes it at once into what `others` tells, two jobs
        that decide together do not both fit.

        Raises:
            VendoError: the database cannot be read.
        """
        payment = job.payment
        if payment is None or not payment.method.by_invoice:
            return ""
        found = await self._wallet.find(payment.op_id)
        rows = await self._unit.select("meta", {"key": KEY + payment.seller})
        others = [one for one in self._others() if one.job_id != job.job_id and one.payment is not None]
        if any(one.payment is not None and one.payment.op_id == payment.op_id for one in others):
            return "its invoice is offered for another job"
        if found is not None:
            return "its invoice was offered before"
        if payment.method is Method.INVOICE_AFTER:
            return ""
        held = sum(_held(one, payment.seller) for one in others)
        if held + payment.price.value > self._most.value:
            return f"it holds {held} msat for which it has not delivered yet; at most {self._most.value} are trusted"
        known = bool(rows) and int(rows[0]["value"]) > self._clock.now() - REMEMBERED_S
        if known or payment.seller in self._kept:
            return "it was paid before the work and delivered nothing"
        return ""

    def remember(self, job: Purchase) -> list[Write]:
        """What is written when the job is closed: its seller, if that kept the money and brought nothing."""
        if not _kept_for_nothing(job) or job.payment is None:
            return []
        self._kept.add(job.payment.seller)
        key, now = KEY + job.payment.seller, str(self._clock.now())
        return [
            Insert("meta", {"key": key, "value": now}, or_ignore=True),
            Update("meta", {"key": key}, {"value": now}),
        ]


def _held(job: Purchase, seller: str) -> int:
    payment = job.payment
    if payment is None or payment.seller != seller or payment.method is not Method.INVOICE_BEFORE:
        return 0
    return 0 if job.money is Funds.NONE else payment.price.value


def _kept_for_nothing(job: Purchase) -> bool:
    payment = job.payment
    if payment is None or payment.method is not Method.INVOICE_BEFORE or job.money is not Funds.CLAIMED:
        return False
    return job.state is not State.CANCELLED and not (job.state is State.DELIVERED and job.provider == MARKET)
