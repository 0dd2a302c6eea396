"""What several purchases of one job came to (ADR 28). Pure, and computed anew from their states each time.

There is no state of its own that a crash could lose: a purchase that has ended stays as it is, more than half must
agree, and each seller has one voice. So once there is an outcome it can never become another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from core.change import replace
from core.money import Msat
from dvm.job import ENDED, Funds, Limit, Payment, Purchase, State
from dvm.policy import MARKET
from dvm.redundancy import canonical
from dvm.reputation import Verdict
from dvm.view import PurchaseView

_SPARE = (State.STAGED, State.QUOTING)  # nothing was ordered or paid: it can be ended for nothing
# The first that one of them has: each before the others is one under which the whole cost is shown
_SHOWN = (Funds.REFUNDING, Funds.LOCKED, Funds.CLAIMED, Funds.REFUNDED, Funds.LOCKING, Funds.NONE)
_ORDER = (State.STAGED, State.QUOTING, State.ORDERED, State.PAYING, State.WORKING, State.SEALED)


class Outcome(StrEnum):
    """Whether it is decided, and how."""

    OPEN = "open"
    AGREED = "agreed"
    FAILED = "failed"  # so many cannot agree any more
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is decided. `text` is the agreed result in canonical form; `jobs` found it, `against` something else."""

    outcome: Outcome
    text: str = ""
    jobs: tuple[str, ...] = ()
    against: tuple[str, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether nothing can change it any more."""
        return self.outcome is not Outcome.OPEN


def weigh(jobs: Sequence[Purchase]) -> Ruling:
    """The ruling on all purchases of one job, which may have ended or not."""
    assert jobs  # a panel has seats
    assert jobs[0].seat is not None
    agree = jobs[0].seat.agree
    voices: dict[str, dict[str, str]] = {}  # text: seller: job
    for job in jobs:
        lies_elsewhere = job.kept is not None and not job.result  # a text that is not at hand agrees with none
        if job.state is State.DELIVERED and job.provider == MARKET and not lies_elsewhere:
            voices.setdefault(canonical(job.kind, job.result), {}).setdefault(job.seller, job.job_id)
    best = max(voices, key=lambda text: len(voices[text]), default="")
    count = len(voices.get(best, ()))
    if count >= agree:
        return Ruling(Outcome.AGREED, best, tuple(voices[best].values()), _others(voices, best))
    still = sum(job.state not in ENDED for job in jobs)
    given_up = sum(job.state is State.CANCELLED for job in jobs)
    if count + still + given_up < agree:
        return Ruling(Outcome.FAILED)
    return Ruling(Outcome.OPEN if still else Outcome.CANCELLED)


def _others(voices: dict[str, dict[str, str]], agreed: str) -> tuple[str, ...]:
    return tuple(job for text, told in voices.items() if text != agreed for job in told.values())


def spare(jobs: Sequence[Purchase]) -> tuple[str, ...]:
    """Purchases to end once it is decided, for nothing; where money or work is out they go on to their end."""
    return tuple(job.job_id for job in jobs if job.state in _SPARE) if weigh(jobs).decided else ()


def judged(job: Purchase, ruling: Ruling, at_ms: int) -> Purchase:
    """A closed purchase as it counts for its seller: who disagreed delivered something else than what is right."""
    if job.job_id not in ruling.against or job.verdict is Verdict.BAD:
        return job
    return replace(job, verdict=Verdict.BAD).noted(at_ms, "outvoted", "others agreed on another result")


def is_shown(job: Purchase, ruling: Ruling) -> bool:
    """Whether a receipt tells of a closed purchase: not of a result that nobody knows to be right."""
    return job.state is not State.DELIVERED or job.job_id in ruling.jobs


# ---- as one job, for whoever asked for it


def together(jobs: Sequence[Purchase]) -> Purchase:
    """All purchases as if they were one: what was asked for, the agreed result, and the sum of all money."""
    ruling, seat = weigh(jobs), jobs[0].seat
    assert seat is not None
    views = [PurchaseView(job, 0) for job in jobs]
    base = next((job for job in jobs if job.job_id in ruling.jobs), jobs[0])
    taken = ruling.outcome is Outcome.AGREED
    money = next(one for one in _SHOWN if any(job.money is one for job in jobs))
    cost, paid = (Msat(sum(getattr(view, name).value for view in views)) for name in ("cost", "paid"))
    return replace(
        base,
        job_id=seat.panel,
        effect_id=jobs[0].effect_id,
        seat=None,
        to="",
        limit=_whole([job.limit for job in jobs]),
        bid=Msat(sum(job.bid.value for job in jobs)),
        state=_state(jobs, ruling),
        money=money,
        payment=_sum(base.payment or next((job.payment for job in jobs if job.payment), None), paid, cost),
        result=base.result if taken else "",
        result_id=base.result_id if taken else "",
        seller=base.seller if taken else "",
        provider=MARKET if taken else "",
        error=_error(jobs, ruling),
        why=(*_why(jobs, ruling), *base.why),
        offers=tuple(offer for job in jobs for offer in job.offers),
        parts=(),  # of results that may not be taken
        fault="",
        sealed="",
        verdict=Verdict.NONE,
        closed=all(job.closed for job in jobs),
    )


def _whole(limits: Sequence[Limit]) -> Limit:
    ceiling = Msat(sum(one.ceiling.value for one in limits))
    return Limit(limits[0].unit, sum(one.value for one in limits), ceiling, limits[0].rate)


def _sum(payment: Payment | None, paid: Msat, cost: Msat) -> Payment | None:
    if payment is None:
        return None
    return replace(payment, price=paid, gross=cost, received=Msat(0), ys=(), op_id="")


def _state(jobs: Sequence[Purchase], ruling: Ruling) -> State:
    match ruling.outcome:
        case Outcome.AGREED:
            return State.DELIVERED
        case Outcome.FAILED:
            return State.FAILED
        case Outcome.CANCELLED:
            return State.CANCELLED
    furthest = max(_ORDER.index(job.state) for job in jobs if job.state in _ORDER)
    return _ORDER[furthest]


def _error(jobs: Sequence[Purchase], ruling: Ruling) -> str:
    seat = jobs[0].seat
    assert seat is not None
    match ruling.outcome:
        case Outcome.FAILED:
            found = len({canonical(job.kind, job.result) for job in jobs if job.state is State.DELIVERED})
            told = f"{sum(job.state is State.DELIVERED for job in jobs)} delivered, {found} different results"
            return f"Fewer than {seat.agree} of {seat.of} sellers agree: {told}."
        case Outcome.CANCELLED:
            return "Cancelled."
    return ""


def _why(jobs: Sequence[Purchase], ruling: Ruling) -> tuple[str, ...]:
    lines = []
    for job in jobs:
        who = job.seller or job.to
        if job.job_id in ruling.jobs:
            lines.append(f"{who}: agreed")
        elif job.job_id in ruling.against:
            lines.append(f"{who}: disagreed; its result is kept in {job.job_id}")
        elif job.state in ENDED and job.state is not State.DELIVERED:
            lines.append(f"{who}: {job.error or job.state.value}")
    return tuple(lines)
