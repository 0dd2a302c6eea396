"""Money that somebody gave in public (a nutzap, NIP-61), without I/O: `step(tip, event)`, with `TRANSITIONS` as data.

What names one of our quotes or requests is credit of whoever gave it, and credit pays for jobs (`dvm/credit.py`); the
rest is a gift. Nothing counts before it is in our own wallet.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from core.change import replace
from core.money import Msat
from core.unit import Condition, Delete, Insert, Row, Update, Value

TABLE = "tip"
ZERO = Msat(0)


class State(StrEnum):
    """Where a tip is."""

    SEEN = "seen"  # its mint does not answer, or the node is paused: nothing is known of its coins
    TAKEN = "taken"  # its coins are locked to us alone and signed by the mint; they are being swapped
    KEPT = "kept"  # in our wallet, a gift
    OWED = "owed"  # in our wallet, and credit of who gave it
    REPAID = "repaid"  # the credit has gone into jobs
    REFUSED = "refused"  # the mint says for certain that its coins are not to be had


ENDED = frozenset({State.KEPT, State.REPAID, State.REFUSED})


@dataclass(frozen=True)  # no slots: copied by core.change
class Tip:
    """One tip; the id is the event's. `net` is what arrived, `owed` what of it is credit.

    `sale` is the request that it names. `beside` names the deposits, parted by blanks, of invoices that could still be
    paid for sales that this tip has paid: what comes of them is credit as well.
    """

    id: str
    sender: str
    mint: str
    created_at: int
    state: State = State.SEEN
    net: Msat = ZERO
    owed: Msat = ZERO
    sale: str = ""
    beside: str = ""
    effect_id: str = ""
    raw: str = ""
    reason: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Appraised:
    """The wallet found its coins good, and the gate lets them be taken."""

    effect_id: str


@dataclass(frozen=True, slots=True)
class Redeemed:
    """Its coins are ours; `net` is what arrived."""

    net: Msat


@dataclass(frozen=True, slots=True)
class Refused:
    """The mint says for certain that its coins are not to be had."""

    reason: str


@dataclass(frozen=True, slots=True)
class Spent:
    """Of its credit so much went into a job; `beside`: that job's invoice could still be paid."""

    amount: Msat
    beside: str = ""


@dataclass(frozen=True, slots=True)
class PaidTwice:
    """The invoice of such a job was paid as well."""

    deposit: str
    amount: Msat


@dataclass(frozen=True, slots=True)
class Lapsed:
    """Such an invoice was not paid, and cannot be any more."""

    deposit: str


Event: TypeAlias = Appraised | Redeemed | Refused | Spent | PaidTwice | Lapsed


@dataclass(frozen=True, slots=True)
class Rule:
    """If `when` holds, do `do` and be in `to`."""

    to: State
    do: Callable[[Tip, Any], Tip]
    when: Callable[[Tip, Any], bool] = lambda tip, event: True


def _take(tip: Tip, event: Appraised) -> Tip:
    return replace(tip, effect_id=event.effect_id)


def _keep(tip: Tip, event: Redeemed) -> Tip:
    return replace(tip, net=event.net, raw="")


def _owe(tip: Tip, event: Redeemed) -> Tip:
    return replace(tip, net=event.net, owed=event.net, raw="")


def _refuse(tip: Tip, event: Refused) -> Tip:
    return replace(tip, reason=event.reason, raw="")


def _spend(tip: Tip, event: Spent) -> Tip:
    return replace(tip, owed=tip.owed - event.amount, beside=f"{tip.beside} {event.beside}".strip())


def _owe_more(tip: Tip, event: PaidTwice) -> Tip:
    return replace(_without(tip, event.deposit), owed=tip.owed + event.amount)


def _lapse(tip: Tip, event: Lapsed) -> Tip:
    return _without(tip, event.deposit)


def _without(tip: Tip, deposit: str) -> Tip:
    return replace(tip, beside=" ".join(one for one in tip.beside.split() if one != deposit))


def _for_a_sale(tip: Tip, event: Redeemed) -> bool:
    return bool(tip.sale)


def _all_of_it(tip: Tip, event: Spent) -> bool:
    return event.amount == tip.owed


def _part_of_it(tip: Tip, event: Spent) -> bool:
    return ZERO < event.amount < tip.owed


def _beside(tip: Tip, event: Any) -> bool:
    return event.deposit in tip.beside.split()


S = State
TRANSITIONS: dict[tuple[State, type[Any]], tuple[Rule, ...]] = {
    (S.SEEN, Appraised): (Rule(S.TAKEN, _take),),
    (S.TAKEN, Redeemed): (Rule(S.OWED, _owe, _for_a_sale), Rule(S.KEPT, _keep)),
    (S.TAKEN, Refused): (Rule(S.REFUSED, _refuse),),
    (S.OWED, Spent): (Rule(S.REPAID, _spend, _all_of_it), Rule(S.OWED, _spend, _part_of_it)),
    (S.OWED, PaidTwice): (Rule(S.OWED, _owe_more, _beside),),
    (S.REPAID, PaidTwice): (Rule(S.OWED, _owe_more, _beside),),
    (S.OWED, Lapsed): (Rule(S.OWED, _lapse, _beside),),
    (S.REPAID, Lapsed): (Rule(S.REPAID, _lapse, _beside),),
}


def owner_of(event_id: str) -> str:
    """What the wallet calls the tip for which it has seen coins."""
    return f"nutzap:{event_id}"


def step(tip: Tip, event: Event) -> Tip:
    """The tip after an event. What no rule allows changes nothing."""
    for rule in TRANSITIONS.get((tip.state, type(event)), ()):
        if rule.when(tip, event):
            return replace(rule.do(tip, event), state=rule.to)
    return tip


def _columns(tip: Tip, now: int) -> dict[str, Value]:
    return {
        "state": tip.state.value,
        "net_msat": tip.net.value,
        "owed_msat": tip.owed.value,
        "beside": tip.beside,
        "effect_id": tip.effect_id,
        "raw": tip.raw,
        "reason": tip.reason,
        "updated_at": now,
    }


def insert(tip: Tip, now: int) -> Insert:
    """A new tip's row."""
    fixed: dict[str, Value] = {
        "id": tip.id,
        "sender": tip.sender,
        "mint": tip.mint,
        "sale": tip.sale,
        "created_at": tip.created_at,
        "version": 0,
    }
    return Insert(TABLE, fixed | _columns(tip, now))


def update(before: Tip, after: Tip, now: int) -> Update:
    """A tip's next version, if nobody changed it meanwhile."""
    where: dict[str, Condition] = {"id": before.id, "version": before.version}
    return Update(TABLE, where, _columns(after, now) | {"version": before.version + 1})


def next_version(after: Tip) -> Tip:
    """As its row is once `update` was committed."""
    return replace(after, version=after.version + 1)


def forget(tip: Tip) -> Delete:
    """Nothing is kept of one whose coins were never touched."""
    return Delete(TABLE, {"id": tip.id, "state": State.SEEN.value}, rows=1)


def read(row: Row) -> Tip:
    """A tip from its row."""
    return Tip(
        id=row["id"],
        sender=row["sender"],
        mint=row["mint"],
        created_at=int(row["created_at"]),
        state=State(row["state"]),
        net=Msat(int(row["net_msat"])),
        owed=Msat(int(row["owed_msat"])),
        sale=row["sale"],
        beside=row["beside"],
        effect_id=row["effect_id"],
        raw=row["raw"],
        reason=row["reason"],
        version=int(row["version"]),
    )


def shown(tip: Tip) -> Row:
    """One tip as plain values."""
    return {
        "id": tip.id,
        "sender": tip.sender,
        "mint": tip.mint,
        "state": tip.state.value,
        "net_msat": tip.net.value,
        "owed_msat": tip.owed.value,
        "request_id": tip.sale or None,
        "reason": tip.reason or None,
        "created_at": tip.created_at,
    }
