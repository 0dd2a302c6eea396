"""The saga of one wallet operation, as a pure machine (DESIGN §4.4, M5).

Everything needed to finish an operation is durable before the mint is called. Then only three things end it: the mint's
valid signatures (from its answer or restored, NUT-09), a connection that was never made, or a *definite* no followed by
a look-up that shows our outputs unsigned and our inputs unspent. A lost answer ends nothing: the operation is unknown,
is looked up, and if the mint knows nothing of it the *same* request goes out again, which is harmless since its inputs
can be spent and its outputs signed only once.

Outputs that are signed while the inputs are unspent were signed for something else: a counter was used twice, as by an
old copy of the database. Then nothing of ours has happened, and once the mint has refused the request it never can; a
new plan with other outputs is made.

A melt (NUT-05) pays a Lightning invoice with its inputs, and its outputs are blank: they bring back what is left, and
there may be nothing. So its mint's melt quote says what happened: `Signed.ALL` stands for PAID with a true receipt,
`Signed.NONE` for not paid. Unlike a swap a refused melt may succeed when the same request comes a second time, since
the mint then tries to pay again. Hence `Operation.loose`: while a request of ours may still be on its way, nothing but
the payment itself ends a melt, or the invoice's end, after which nobody can pay it. Of a lock and a token it is much
the same: a refusal of one copy that may be only for now says nothing of another one that is still on its way. There a
while without news ends it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from core.change import replace
from core.identifier import OperationId

MAX_ATTEMPTS = 3
# The mint says "being processed": proofs pending, outputs pending. Not a no.
PENDING_CODES = frozenset({11002, 11004})
# "Outputs have already been signed", as the protocol and older mints number it.
SIGNED_CODES = frozenset({11003, 10002})
# Codes about the request itself: each copy of it is refused like this one. Others may be for the moment only.
_FINAL_CODES = range(10_001, 13_000)


class Kind(StrEnum):
    """What an operation is for."""

    DEPOSIT = "deposit"
    RECEIVE = "receive"
    SEND = "send"
    LOCK = "lock"
    CLAIM = "claim"
    REFUND = "refund"
    MELT = "melt"


# Gives coins to somebody; nothing else of it ends in time.
_GIVES = frozenset({Kind.LOCK, Kind.SEND})


class State(StrEnum):
    """Where an operation stands. `waiting` is a deposit whose invoice is unpaid, or paid and not minted yet."""

    WAITING = "waiting"
    PREPARED = "prepared"
    UNKNOWN = "unknown"
    DONE = "done"
    REFUSED = "refused"


class Signed(StrEnum):
    """How many of an operation's outputs the mint has signed."""

    ALL = "all"
    SOME = "some"
    NONE = "none"


class Coins(StrEnum):
    """What the mint says of an operation's inputs; for a deposit, of its quote (paid, pending, issued)."""

    UNSPENT = "unspent"
    PENDING = "pending"
    SPENT = "spent"


@dataclass(frozen=True)  # no slots: copied by core.change
class Operation:
    """The machine's state. `rejected` is the mint's code if the last request was definitely refused.

    `copied`: it would pay somebody, and its row comes from an old copy of the database. What the mint has signed for it
    is booked; nothing more is ever sent, since whatever it was for may have been paid in another way meanwhile.
    `loose`: a request went out to which the mint never answered; asked of what pays somebody.
    """

    id: OperationId
    kind: Kind
    state: State
    attempt: int = 1
    rejected: int | None = None
    copied: bool = False
    loose: bool = False


@dataclass(frozen=True, slots=True)
class QuotePaid:
    """A deposit's invoice was paid, and its outputs are planned."""


@dataclass(frozen=True, slots=True)
class QuoteExpired:
    """A deposit's invoice expired long ago, and nobody has paid it."""


@dataclass(frozen=True, slots=True)
class QuoteIssued:
    """A deposit of an old copy was minted after that copy was made: its coins are found by their counters."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Valid signatures for every output."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """The mint answered that it is still paying the invoice."""


@dataclass(frozen=True, slots=True)
class NeverSent:
    """No connection: the request did not leave."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The mint refused, with its code."""

    code: int


@dataclass(frozen=True, slots=True)
class Silent:
    """The request went out and no usable answer came; or one came that cannot be true."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The process started again, or whoever drove the operation gave up."""


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What NUT-09 says of our outputs and NUT-07 of our inputs; for a melt, its quote (NUT-05) instead of NUT-09.

    `stale`: the plan's keyset or fee is out of date. `late`: the invoice of a melt can be paid no more; of others, the
    last request is so old that it will not arrive any more.
    """

    outputs: Signed
    inputs: Coins
    stale: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class LookUpFailed:
    """The mint did not answer the look-up."""


Event: TypeAlias = (
    QuotePaid
    | QuoteExpired
    | QuoteIssued
    | Answered
    | InFlight
    | NeverSent
    | Rejected
    | Silent
    | Restarted
    | LookedUp
    | LookUpFailed
)


class Effect(StrEnum):
    """What the driver does next."""

    SUBMIT = "submit"
    LOOK_UP = "look_up"
    BOOK = "book"
    RELEASE = "release"
    REPLAN = "replan"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Transition:
    """From one of `states`, on an event of this type for which `when` holds. The first that fits is taken."""

    name: str
    states: frozenset[State]
    event: type
    to: State
    effect: Effect
    when: Callable[[Operation, Event], bool] = lambda operation, event: True


def _found(outputs: Signed, inputs: Coins | None = None) -> Callable[[Operation, Event], bool]:
    def holds(operation: Operation, event: Event) -> bool:
        return isinstance(event, LookedUp) and event.outputs is outputs and inputs in (None, event.inputs)

    return holds


def _happened(operation: Operation, event: Event) -> bool:
    """Our outputs are signed, and for our inputs: those are gone.

    Of a copied operation nothing is ever sent again, so what was signed for it is all that there will be. A deposit
    that was not refused may be called paid for a while after it was minted.
    """
    if not isinstance(event, LookedUp) or event.outputs is not Signed.ALL:
        return False
    trusted = operation.copied or (operation.kind is Kind.DEPOSIT and operation.rejected is None)
    # A mint says of a melt that it is paid before it has signed the change; it spends the inputs last.
    return (trusted and operation.kind is not Kind.MELT) or event.inputs is Coins.SPENT


def _signed_for_else(operation: Operation, event: Event) -> bool:
    """Outputs are signed, and no input of ours went into that."""
    if not isinstance(event, LookedUp) or operation.copied or operation.kind is Kind.MELT:
        return False
    return event.outputs is not Signed.NONE and event.inputs is Coins.UNSPENT


def _contested(operation: Operation, event: Event) -> bool:
    """It looks so, and the mint has not refused yet: its answer to the same request says it."""
    return _signed_for_else(operation, event) and operation.rejected is None


def _collided(operation: Operation, event: Event) -> bool:
    if not _signed_for_else(operation, event) or not isinstance(event, LookedUp):
        return False
    refused = operation.rejected is not None if event.outputs is Signed.ALL else operation.rejected in SIGNED_CODES
    return refused and operation.attempt < MAX_ATTEMPTS


def _refused(operation: Operation, event: Event) -> bool:
    """The mint said no, and knows nothing of it."""
    absent = _found(Signed.NONE, Coins.UNSPENT)(operation, event)
    if operation.kind is Kind.MELT:
        return absent and (operation.copied or not operation.loose)
    return absent and (operation.rejected is not None or operation.copied)


def _never_happened(operation: Operation, event: Event) -> bool:
    """And no copy that is still on its way can change that."""
    if operation.kind not in _GIVES or not operation.loose or operation.copied or operation.rejected in _FINAL_CODES:
        return _refused(operation, event)
    return _refused(operation, event) and isinstance(event, LookedUp) and event.late


def _too_late(operation: Operation, event: Event) -> bool:
    absent = _found(Signed.NONE, Coins.UNSPENT)(operation, event)
    return absent and operation.kind is Kind.MELT and isinstance(event, LookedUp) and event.late


def _may_arrive(operation: Operation, event: Event) -> bool:
    """One copy was refused, and another one is still on its way, for all that we know."""
    absent = _found(Signed.NONE, Coins.UNSPENT)(operation, event)
    asked = operation.kind is Kind.MELT or operation.kind in _GIVES
    doubtful = operation.loose and operation.rejected is not None and not _never_happened(operation, event)
    return absent and asked and doubtful


def _disputed(operation: Operation, event: Event) -> bool:
    """A melt's inputs are gone and the mint says that it did not pay."""
    gone = _found(Signed.NONE, Coins.SPENT)(operation, event)
    return gone and operation.kind is Kind.MELT and not operation.copied


def _paid_for(operation: Operation, event: Event) -> bool:
    """Nothing happened, and a deposit's money is at the mint all the same: it is asked for again, ever more slowly."""
    unsent = isinstance(event, NeverSent)
    return operation.kind is Kind.DEPOSIT and (unsent or _refused(operation, event))


def _outdated(operation: Operation, event: Event) -> bool:
    return (
        _refused(operation, event)  # the new plan has the same inputs, and the old outputs are looked up with it
        and isinstance(event, LookedUp)
        and event.stale
        and operation.kind is not Kind.MELT
        and operation.attempt < MAX_ATTEMPTS
        and not operation.copied
    )


_OPEN = frozenset({State.PREPARED, State.UNKNOWN})
_WAITING = frozenset({State.WAITING})

TRANSITIONS: tuple[Transition, ...] = (
    Transition("paid", _WAITING, QuotePaid, State.PREPARED, Effect.SUBMIT),
    Transition("expired", _WAITING, QuoteExpired, State.REFUSED, Effect.RELEASE),
    Transition("minted_before", _WAITING, QuoteIssued, State.REFUSED, Effect.RELEASE),
    Transition("answered", _OPEN, Answered, State.DONE, Effect.BOOK),
    Transition("in_flight", _OPEN, InFlight, State.UNKNOWN, Effect.WAIT),
    Transition("not_minted", frozenset({State.PREPARED}), NeverSent, State.WAITING, Effect.RELEASE, _paid_for),
    # Only the very first request of a plan can be known to have never left.
    Transition("never_sent", frozenset({State.PREPARED}), NeverSent, State.REFUSED, Effect.RELEASE),
    Transition("still_unreachable", frozenset({State.UNKNOWN}), NeverSent, State.UNKNOWN, Effect.WAIT),
    Transition("rejected", _OPEN, Rejected, State.UNKNOWN, Effect.LOOK_UP),
    Transition("silent", _OPEN, Silent, State.UNKNOWN, Effect.LOOK_UP),
    Transition("restarted", _OPEN, Restarted, State.UNKNOWN, Effect.LOOK_UP),
    Transition("look_up_failed", _OPEN, LookUpFailed, State.UNKNOWN, Effect.WAIT),
    Transition("found", _OPEN, LookedUp, State.DONE, Effect.BOOK, _happened),
    Transition("collided", _OPEN, LookedUp, State.PREPARED, Effect.REPLAN, _collided),
    Transition("contested", _OPEN, LookedUp, State.UNKNOWN, Effect.SUBMIT, _contested),
    # Still at it; or it collided again and again, and somebody must look.
    Transition("not_ours", _OPEN, LookedUp, State.UNKNOWN, Effect.WAIT, _found(Signed.ALL)),
    # No honest mint signs a part. Nothing may be guessed about the rest.
    Transition("partly_signed", _OPEN, LookedUp, State.UNKNOWN, Effect.WAIT, _found(Signed.SOME)),
    Transition("outdated", _OPEN, LookedUp, State.PREPARED, Effect.REPLAN, _outdated),
    Transition("turned_away", _OPEN, LookedUp, State.WAITING, Effect.RELEASE, _paid_for),
    Transition("expired_unpaid", _OPEN, LookedUp, State.REFUSED, Effect.RELEASE, _too_late),
    Transition("may_arrive", _OPEN, LookedUp, State.UNKNOWN, Effect.WAIT, _may_arrive),
    Transition("never_happened", _OPEN, LookedUp, State.REFUSED, Effect.RELEASE, _never_happened),
    Transition("not_arrived", _OPEN, LookedUp, State.UNKNOWN, Effect.SUBMIT, _found(Signed.NONE, Coins.UNSPENT)),
    Transition("in_progress", _OPEN, LookedUp, State.UNKNOWN, Effect.WAIT, _found(Signed.NONE, Coins.PENDING)),
    # Only a twin of this wallet or a lying mint leads here; the invoice may be paid, so somebody must look.
    Transition("disputed", _OPEN, LookedUp, State.UNKNOWN, Effect.WAIT, _disputed),
    # Spent, and not for our outputs: somebody else was first.
    Transition("lost_race", _OPEN, LookedUp, State.REFUSED, Effect.RELEASE, _found(Signed.NONE, Coins.SPENT)),
)


def step(operation: Operation, event: Event) -> tuple[Operation, Effect | None, str]:
    """The next state, what to do, and the transition's name. Events that fit nothing change nothing."""
    for row in _rows_of(TRANSITIONS).get((operation.state, type(event)), ()):
        if row.when(operation, event):
            return _moved(operation, event, row), row.effect, row.name
    return operation, None, ""


def _rows_of(table: tuple[Transition, ...]) -> dict[tuple[State, type], list[Transition]]:
    """The table by state and event, in its order; kept for the table that was asked for last."""
    if _INDEX.get("table") is not table:
        index: dict[tuple[State, type], list[Transition]] = {}
        for row in table:
            for state in row.states:
                index.setdefault((state, row.event), []).append(row)
        _INDEX.update(table=table, index=index)
    found: dict[tuple[State, type], list[Transition]] = _INDEX["index"]
    return found


_INDEX: dict[str, Any] = {}


def _moved(operation: Operation, event: Event, row: Transition) -> Operation:
    # A request that was on its way when the process ended has no answer either.
    lost = isinstance(event, Silent) or (isinstance(event, Restarted) and operation.state is State.PREPARED)
    moved = replace(operation, state=row.to, loose=operation.loose or lost)
    if isinstance(event, Rejected):
        definite = event.code not in PENDING_CODES
        return replace(moved, rejected=event.code if definite else None)
    if row.effect is Effect.REPLAN:
        return replace(moved, attempt=operation.attempt + 1, rejected=None)
    if isinstance(event, Silent | Restarted) or row.effect is Effect.SUBMIT or row.to is State.WAITING:
        return replace(moved, rejected=None)
    return moved
