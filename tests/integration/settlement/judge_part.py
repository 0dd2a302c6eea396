"""What became of a job whose money is final, and whether that is right. A fate is one word:

* `claimed`: the seller has the price, once, and the buyer the result;
* `refunded`: money went out and came back;
* `owed`: an invoice was paid, nothing was delivered, and the seller has said that it keeps the money for the buyer;
* `unpaid`: a result was delivered before its payment, and that never came;
* `served`: it was delivered, and nothing was to be paid;
* `nothing`: no money ever left.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from tests.integration.settlement.fact_part import Facts
from tests.integration.settlement.method_part import Job

CLOSING_SAT = 2  # what a seller keeps of a deposit's rest beyond what it has earned, at most


@dataclass(frozen=True, slots=True)
class Case:
    """One job: what the buyer shows of it, the facts, and what both wallets held before and after."""

    job: Job
    shown: Mapping[str, Any]  # empty if it was never asked for
    facts: Facts
    before: Mapping[str, int]
    after: Mapping[str, int]

    @property
    def spent(self) -> int:
        """What the buyer has less."""
        return self.before["buyer"] - self.after["buyer"]

    @property
    def earned(self) -> int:
        """What the seller has more."""
        return self.after["seller"] - self.before["seller"]

    @property
    def delivered(self) -> bool:
        """Whether the buyer has the result that it paid for."""
        told = [self.shown.get(name) for name in ("state", "result", "money")]
        return told == ["delivered", self.job.text, "claimed"]

    @property
    def failed(self) -> bool:
        """Whether the buyer knows that it has no result, and no money out."""
        return not self.shown or (self.shown["state"] == "failed" and self.shown["money"] in ("refunded", "none"))

    def __str__(self) -> str:
        told = {name: self.shown.get(name) for name in ("state", "money", "error", "why", "events", "refused")}
        return f"{self.job} {told} {self.facts} {self.before} {self.after}"


def judge(case: Case) -> str:
    """The fate of a job.

    Raises:
        AssertionError: something was lost, forgotten, or happened twice.
    """
    facts = case.facts
    for many in (facts.requests, facts.results, facts.paid.given, facts.deposit.given, facts.vouchers):
        assert len(many) <= 1, str(case)
    assert facts.bills.payments <= 1, str(case)
    return _JUDGES[case.job.method](case)


def _sealed(case: Case) -> str:
    facts = case.facts
    if not facts.paid.preimages:
        return _not_paid(case)
    assert facts.paid.states == {"SPENT"}, str(case)
    assert facts.paid.takers == {"seller"}, str(case)
    assert {sha256(bytes.fromhex(one)).hexdigest() for one in facts.paid.preimages} == facts.hashes, str(case)
    assert case.delivered, str(case)
    return _priced(case)


def _locked(case: Case) -> str:
    facts = case.facts
    if facts.paid.takers != {"seller"}:
        return _not_paid(case)
    assert facts.paid.states == {"SPENT"}, str(case)
    assert facts.results, str(case)
    assert case.delivered or facts.late, str(case)
    assert case.shown["money"] == "claimed", str(case)
    return _priced(case)


def _priced(case: Case) -> str:
    assert case.earned == case.job.sat, str(case)
    assert case.job.sat <= case.spent <= case.job.sat + case.job.way.fees_sat, str(case)
    return "claimed"


def _not_paid(case: Case) -> str:
    """Of what was locked all came back but fees. The seller may have worked, and come too late for its money."""
    assert case.earned == 0, str(case)
    assert 0 <= case.spent <= (case.job.way.fees_sat if case.facts.requests else 0), str(case)
    assert case.facts.paid.states <= {"SPENT"}, str(case)
    assert case.facts.paid.takers <= {"buyer"}, str(case)
    assert case.failed, str(case)
    return "refunded" if case.spent else "nothing"


def _prepaid(case: Case) -> str:
    facts, price = case.facts, case.job.sat
    assert not facts.paid.given, str(case)
    assert facts.deposit.states <= {"SPENT"}, str(case)
    assert all(total == price * 1000 for _, total in facts.vouchers), str(case)
    assert facts.results or case.failed, str(case)
    if facts.results:
        assert facts.vouchers, str(case)
        assert case.delivered or facts.late, str(case)
    if facts.deposit.takers == {"seller"}:
        due = price if facts.results else 0
        assert due <= case.earned <= due + CLOSING_SAT, str(case)
        assert case.earned <= case.spent <= due + case.job.way.fees_sat, str(case)
        return "claimed" if facts.results else "refunded"
    # The seller comes too late for what it has earned of a deposit that is back.
    assert facts.deposit.takers <= {"buyer"}, str(case)
    assert case.earned == 0, str(case)
    assert 0 <= case.spent <= case.job.way.fees_sat, str(case)
    return "refunded" if case.spent else "nothing"


def _invoice(case: Case) -> str:
    facts, bills = case.facts, case.facts.bills
    assert len(bills.invoices) <= 1, str(case)
    if not bills.payments:
        assert (case.spent, case.earned) == (0, 0), str(case)
        assert not bills.melts & {"PAID", "PENDING"}, str(case)
        assert case.failed, str(case)
        return _not_owed(case)
    assert bills.melts == {"PAID"}, str(case)
    assert bills.quotes == {"ISSUED"}, str(case)
    assert case.shown["money"] == "claimed", str(case)
    _priced(case)
    if facts.results:
        assert not facts.owed, str(case)
        assert case.delivered or facts.late, str(case)
        return "claimed"
    assert facts.owed, str(case)
    assert case.shown["state"] == "failed", str(case)
    return "owed"


def _not_owed(case: Case) -> str:
    """Nothing was paid: work that is sold before it is paid for may be lost, no other."""
    assert not case.facts.owed, str(case)
    if case.job.method == "invoice after":
        return "unpaid" if case.facts.results else "nothing"
    assert not case.facts.results, str(case)
    return "nothing"


def _free(case: Case) -> str:
    assert (case.spent, case.earned) == (0, 0), str(case)
    assert not case.facts.paid.given, str(case)
    assert not case.facts.bills.invoices, str(case)
    assert case.shown["money"] == "none", str(case)
    if case.shown["state"] == "delivered":
        assert case.facts.results, str(case)
        assert case.shown["result"] == case.job.text, str(case)
        return "served"
    assert case.shown["state"] == "failed", str(case)
    assert case.facts.late or not case.facts.results, str(case)
    return "nothing"


_JUDGES: dict[str, Callable[[Case], str]] = {
    "A": _sealed,
    "B": _sealed,
    "locked": _locked,
    "prepaid": _prepaid,
    "free": _free,
    "invoice before": _invoice,
    "invoice after": _invoice,
}
GOOD = frozenset({"claimed", "served"})
FATES = {
    "A": {"claimed", "refunded", "nothing"},
    "B": {"claimed", "refunded", "nothing"},
    "locked": {"claimed", "refunded", "nothing"},
    "prepaid": {"claimed", "refunded", "nothing"},
    "free": {"served", "nothing"},
    "invoice before": {"claimed", "owed", "nothing"},
    "invoice after": {"claimed", "unpaid", "nothing"},
}
