"""What others may know of a job: as `/compute/jobs/<id>`, the CLI and the trigger of a finished job show it."""

from dataclasses import dataclass
from typing import Any

from core.money import Msat
from dvm.job import ENDED, Funds, Purchase, State
from dvm.parcel import Kept
from dvm.redundancy import canonical
from dvm.selection import Offer

_STATUS = {
    State.STAGED: "staged",
    State.QUOTING: "pending",
    State.ORDERED: "running",
    State.PAYING: "running",
    State.WORKING: "running",
    State.SEALED: "running",
    State.FALLBACK: "running",
    State.DELIVERED: "complete",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
_OUT = (Funds.LOCKED, Funds.REFUNDING, Funds.CLAIMED)


@dataclass(frozen=True, slots=True)
class PurchaseView:
    """One job as it stands. Money that is locked counts as paid until it is back."""

    purchase: Purchase
    version: int
    attempts: tuple["PurchaseView", ...] = ()  # of a job that several sellers do

    @property
    def job_id(self) -> str:
        """Its id."""
        return self.purchase.job_id

    @property
    def caller(self) -> str:
        """Who asked for it, as the gate names it."""
        return self.purchase.caller

    @property
    def state(self) -> str:
        """Where it is."""
        return self.purchase.state.value

    @property
    def status(self) -> str:
        """`staged`, `pending`, `running`, `complete`, `failed` or `cancelled`."""
        return _STATUS[self.purchase.state]

    @property
    def ended(self) -> bool:
        """Whether there will be no other result."""
        return self.purchase.state in ENDED

    @property
    def result(self) -> str | None:
        """The result, if there is one, and it is not kept in a file."""
        return self.purchase.result if self.purchase.state is State.DELIVERED and self.kept is None else None

    @property
    def kept(self) -> Kept | None:
        """The result, if it is so large that it lies in a file."""
        return self.purchase.kept if self.purchase.state is State.DELIVERED and not self.purchase.result else None

    @property
    def paid(self) -> Msat:
        """What the seller gets, net."""
        payment = self.purchase.payment
        return payment.price if payment is not None and self.purchase.money in _OUT else Msat(0)

    @property
    def cost(self) -> Msat:
        """All that has left the wallet for this job and is not back."""
        payment = self.purchase.payment
        if payment is not None and self.purchase.money in _OUT:
            return payment.gross
        return self.purchase.cost

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON. `*_msat` and `*_uusd` are whole numbers; µUSD is null where there was no rate."""
        job, payment = self.purchase, self.purchase.payment
        return {
            "job_id": job.job_id,
            "caller": job.caller,
            "kind": job.kind,
            "status": self.status,
            "state": self.state,
            "money": job.money.value,
            "closed": job.closed,
            "provider": job.provider or None,
            "seller": job.seller or None,
            "result": self.result,
            "kept": None if self.kept is None else {"bytes": self.kept.size, "sha256": self.kept.ox},
            "error": job.error or None,
            "fault": job.fault or None,
            "request_id": job.request_id or None,
            "result_id": job.result_id or None,
            "bid_msat": job.bid.value,
            "mint": payment.mint if payment is not None and job.money is not Funds.NONE else None,
            "locktime": payment.locktime if payment is not None and job.money is not Funds.NONE else None,
            "method": payment.method.value if payment is not None and job.money is not Funds.NONE else None,
            "mode": (payment.mode or None) if payment is not None and job.money is not Funds.NONE else None,
            "ys": list(payment.ys) if payment is not None else [],
            "rate": None
            if job.limit.rate is None
            else {"micro_usd": job.limit.rate.micro_usd, "msat": job.limit.rate.msat, "source": job.limit.rate.source},
            **self._amounts(),
            "redundancy": _redundancy(self.attempts, job),
            "panel": job.seat.panel if job.seat is not None else None,
            "prefer": job.prefer.value,
            "to": job.to or None,
            "private": job.private or None,
            "verdict": job.verdict.value or None,
            "took_ms": job.took_ms or None,
            "chosen": job.chosen or None,
            "why": list(job.why),
            "quotes": [_offer(item, chosen=item.event_id == job.chosen) for item in job.offers],
            "refused": [
                {"event_id": item.event_id, "seller": item.seller, "reason": item.reason} for item in job.refused
            ],
            "refused_count": job.refused_count,
            "events": [{"at_ms": note.at_ms, "word": note.word, "detail": note.detail} for note in job.notes],
            "parts": [{"at_ms": part.at_ms, "content": part.content} for part in job.parts],
            "created_at": job.created_at,
            "deadline": job.deadline or None,
            "version": self.version,
        }

    def _amounts(self) -> dict[str, Any]:
        limit, cost = self.purchase.limit, self.cost
        usd = limit.usd(cost)
        booked = limit.cost(cost)
        amounts: dict[str, dict[str, int | None]] = {
            "reserved": {
                "msat": limit.ceiling.value,
                "uusd": limit.value if limit.unit == "uusd" else _value(limit.usd(limit.ceiling)),
            },
            "paid": {"msat": self.paid.value, "uusd": _value(limit.usd(self.paid))},
            "cost": {"msat": cost.value, "uusd": _value(usd)},
            "released": {"msat": limit.ceiling.value - cost.value, "uusd": None},
        }
        paid_usd = amounts["paid"]["uusd"]
        amounts["fees"] = {
            "msat": cost.value - self.paid.value,
            "uusd": None if usd is None or paid_usd is None else usd.value - paid_usd,
        }
        if limit.unit == "uusd":
            amounts["released"]["uusd"] = limit.value - booked.value
        elif usd is not None and (whole := amounts["reserved"]["uusd"]) is not None:
            amounts["released"]["uusd"] = whole - usd.value
        flat = {f"{name}_{unit}": value for name, both in amounts.items() for unit, value in both.items()}
        return {**amounts, **flat}


def _redundancy(attempts: tuple[PurchaseView, ...], whole: Purchase) -> dict[str, Any] | None:
    seat = attempts[0].purchase.seat if attempts else None
    if seat is None:
        return None
    delivered = whole.state is State.DELIVERED
    taken = canonical(whole.kind, whole.result)
    return {
        "agree": seat.agree,
        "of": seat.of,
        "attempts": [
            {
                "job_id": one.job_id,
                "seller": one.purchase.seller or one.purchase.to,
                "state": one.state,
                "money": one.purchase.money.value,
                "paid_msat": one.paid.value,
                "cost_msat": one.cost.value,
                "agrees": canonical(whole.kind, one.result) == taken if delivered and one.result is not None else None,
            }
            for one in attempts
        ],
    }


def _value(amount: Any) -> int | None:
    return None if amount is None else int(amount.value)


def _offer(offer: Offer, *, chosen: bool) -> dict[str, Any]:
    best = offer.best
    return {
        "event_id": offer.event_id,
        "quote_id": offer.quote_id or None,
        "seller": offer.seller,
        "nature": offer.nature.value,
        "price_msat": None if offer.price is None else offer.price.value,
        "gross_msat": None if best is None else best.gross.value,
        "mint": None if best is None else best.mint,
        "expires_at": offer.expires_at or None,
        "eta_s": offer.eta_s or None,
        "reputation": offer.standing.reputation,
        "quality": offer.standing.quality,
        "measured_ms": offer.standing.took_ms or None,
        "paid_jobs": offer.standing.jobs,
        "at_ms": offer.at_ms,
        "chosen": chosen,
        "refusal": offer.refusal or None,
    }
