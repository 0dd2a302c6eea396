"""The gate's bookkeeping as data: which rows begin an effect, count it against a budget, and end it. Pure.

Every change of a budget comes in the same unit as the row that explains it, so that a crash can leak nothing:
what a budget holds is always the sum of its holds.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from core.effect import Intent, Outcome, OutcomeState
from core.identifier import EffectId
from core.money import Money
from core.unit import Append, Delete, Insert, Row, Update, Write
from node.gate.compile import Facts
from node.gate.ledger import body
from node.gate.limits import Limits

_CEILING = (("held", "spent"), "ceiling")


def digest(intent: Intent) -> str:
    """What tells two bodies under one key apart."""
    return sha256(intent.body).hexdigest()


def amount(value: Money | None) -> dict[str, str | int] | None:
    """Money as an entry shows it."""
    return None if value is None else {"unit": value.unit, "value": value.value}


def hold(effect_id: EffectId, budget: str, value: Money, limit: Money) -> tuple[Write, ...]:
    """Hold an amount of a budget for an effect; a `Conflict` if it does not fit under the limit as it is now."""
    return (
        Insert("budget", {"name": budget, "unit": limit.unit, "ceiling": limit.value}, or_ignore=True),
        Update(
            "budget",
            {"name": budget, "unit": limit.unit},
            set={"ceiling": limit.value},  # the limit may have been changed during the day
            add={"held": value.value},
            ceiling=_CEILING,
        ),
        Insert("hold", {"effect_id": effect_id, "budget": budget, "amount": value.value}),
    )


def raise_hold(effect_id: EffectId, budget: str, had: int, value: Money, limit: Money) -> tuple[Write, ...]:
    """Hold more of a budget than the effect already does."""
    return (
        Update(
            "budget",
            {"name": budget, "unit": limit.unit},
            set={"ceiling": limit.value},
            add={"held": value.value - had},
            ceiling=_CEILING,
        ),
        Update("hold", {"effect_id": effect_id, "budget": budget, "amount": had}, set={"amount": value.value}),
    )


def drop(holds: Sequence[Row]) -> tuple[Write, ...]:
    """Hold these no longer, and charge nothing for them."""
    writes: list[Write] = []
    for row in holds:
        writes.append(Delete("hold", {name: row[name] for name in ("effect_id", "budget", "amount")}, rows=1))
        writes.append(Update("budget", {"name": row["budget"]}, add={"held": -int(row["amount"])}))
    return tuple(writes)


def begin_body(intent: Intent, writ: str, limits: Limits, facts: Facts) -> str:
    """All that the judgement rested on, so that it can be made again."""
    day = facts.day
    return body(
        {
            "caller": intent.caller,
            "path": intent.path,
            "key": intent.key,
            "digest": digest(intent),
            "effect": intent.effect.name.lower(),
            "subject": intent.subject,
            "reserve": amount(intent.reserve),
            "note": intent.note,
            "writ": writ,
            "now": facts.now,
            "limits": {
                "unit": limits.unit,
                "per_job": limits.per_job.value,
                "per_day": limits.per_day.value,
                "per_seller": limits.per_seller.value,
            },
            "day": None if day is None else {"unit": day.unit, "held": day.held, "spent": day.spent},
        }
    )


def begin(
    intent: Intent, effect_id: EffectId, run: str, entry: str, now: int, held: Sequence[Write] = ()
) -> tuple[Write, ...]:
    """The rows of a begun effect: itself, what it holds, its first entry."""
    row: dict[str, Any] = {
        "id": effect_id,
        "caller": intent.caller,
        "path": intent.path,
        "key": intent.key,
        "digest": digest(intent),
        "subject": intent.subject,
        "effect": int(intent.effect),
        "state": "begun",
        "unit": None if intent.reserve is None else intent.reserve.unit,
        "reserved": 0 if intent.reserve is None else intent.reserve.value,
        "begun_at": now,
    }
    return (Insert("effect", row), *held, Append(run, "begin", effect_id, entry))


def _share(held: Row, cost: int, over: int) -> int:
    """What one budget is charged: the day all of the cost, the counterparty at most its part and what went over."""
    return cost if held["budget"].startswith("day:") else min(cost, int(held["amount"])) + over


def _booked(effect: Row, holds: Sequence[Row], cost: int, spare: str, limits: Limits) -> list[Write]:
    writes: list[Write] = []
    over = max(0, cost - int(effect["reserved"]))
    for row in holds:
        add = {"held": -int(row["amount"]), "spent": _share(row, cost, over)}
        writes.append(Update("budget", {"name": row["budget"]}, add=add))
        writes.append(Delete("hold", {"effect_id": effect["id"], "budget": row["budget"]}, rows=1))
    if cost and not any(row["budget"].startswith("day:") for row in holds):
        new: dict[str, Any] = {"name": spare, "unit": limits.unit, "ceiling": limits.per_day.value}
        writes += [Insert("budget", new, or_ignore=True), Update("budget", {"name": spare}, add={"spent": cost})]
    return writes


def settle(
    effect: Row, holds: Sequence[Row], outcome: Outcome, run: str, now: int, spare: str, limits: Limits
) -> tuple[Write, ...]:
    """The rows that end an effect, or park it as unknown with all that it holds.

    `spare` is the budget that is charged if an effect that held nothing cost something after all.
    """
    state, cost = outcome.state, 0 if outcome.cost is None else outcome.cost.value
    facts: dict[str, Any] = {"detail": outcome.detail}
    change: dict[str, Any] = {"state": state.value}
    writes: list[Write] = []
    if state is not OutcomeState.UNKNOWN:
        facts["cost"] = amount(outcome.cost)
        if cost > effect["reserved"]:
            facts["over"] = cost - effect["reserved"]
        change |= {"cost": cost, "ended_at": now}
        writes = _booked(effect, holds, cost, spare, limits)
    return (
        Update("effect", {"id": effect["id"], "state": effect["state"]}, set=change),
        *writes,
        Append(run, state.value, effect["id"], body(facts)),
    )
