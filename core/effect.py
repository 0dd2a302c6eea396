"""What leaves the process is an *intent*, and there is one gate (DESIGN §5). These are the words both sides use.

The life of one effect, and the only order in which a driver may act:

1. `staged = await gate.stage(intent)`: judged, reserved, nothing written yet.
2. `await unit.commit([*staged.writes, *own_rows])`: `begin`, reservation and the driver's rows, durable together.
3. `permit = gate.permit(staged.effect_id)`, then act; everything that acts asks `gate.check(permit)`.
4. `await unit.commit([*await gate.settle(effect_id, outcome), *own_rows])`: `commit`, `fail` or `unknown`.

An `unknown` effect may be settled once more, when its truth was looked up.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol, TypeAlias

from core.identifier import EffectId
from core.money import Money
from core.unit import Write


class EffectClass(IntEnum):
    """How far an effect reaches; a writ's ceiling is one of these."""

    PURE = 0
    READ = 1
    WRITE = 2
    EXTERNAL = 3
    IRREVERSIBLE = 4


@dataclass(frozen=True, slots=True)
class Intent:
    """Something a caller wants done outside the process.

    Attributes:
        caller: who asks: `operator`, `agent:<name>` or `customer:<pubkey>`.
        path: the canonical path of the file that was written, e.g. `/compute/new`.
        key: the idempotency key; it is scoped to caller and path.
        body: the request in canonical bytes; another body under the same key is refused.
        effect: how far it reaches.
        subject: id of the thing it is about (job, operation, message).
        reserve: the most that it may cost, in the budget's unit; None if it can cost nothing.
        note: facts for the ledger's `begin` entry, without secrets.
    """

    caller: str
    path: str
    key: str
    body: bytes
    effect: EffectClass
    subject: str
    reserve: Money | None = None
    note: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Staged:
    """Allowed. Nothing has happened until these writes are committed."""

    effect_id: EffectId
    writes: tuple[Write, ...]


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same key and body were seen before: `subject` is what came of it then."""

    effect_id: EffectId
    subject: str
    state: str


Admission: TypeAlias = Staged | Repeated


class OutcomeState(StrEnum):
    """How an effect ended, as its last ledger entry says."""

    COMMIT = "commit"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an effect. `cost` is in the budget's unit; the rest of the reservation is released.

    For UNKNOWN nothing is released.
    """

    state: OutcomeState
    cost: Money | None = None
    detail: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Permit:
    """The gate's leave to act on one begun effect. Only the gate that made it accepts it."""

    effect_id: EffectId


class Gate(Protocol):
    """The one gate of a node."""

    async def stage(self, intent: Intent, pending: Iterable[Write] = ()) -> Admission:
        """Judge an intent. Changes nothing.

        `pending` are writes that the caller has gathered and will commit in the same unit, so that several
        intents of one tick are judged together.

        Raises:
            Refused: authority or policy says no.
            KeyReused: the key was used with another body.
            BudgetExceeded: the reservation does not fit.
            Paused: the node begins no new effects.
        """

    async def allocate(self, effect_id: EffectId, counterparty: str, amount: Money) -> tuple[Write, ...]:
        """Writes that count `amount` of a begun effect against the limit for one counterparty.

        An effect pays one counterparty: for another than before is asked only when it is certain that the former got
        nothing, and what was counted against that one's limit is released.

        Raises:
            BudgetExceeded: the limit for this counterparty does not cover it.
        """

    async def settle(self, effect_id: EffectId, outcome: Outcome) -> tuple[Write, ...]:
        """Writes that end an effect: its last entry, its cost booked, its reservation released.

        Empty if the effect has already ended so.
        """

    def permit(self, effect_id: EffectId) -> Permit:
        """Leave to act on an effect whose `begin` is durable."""

    def standing(self, purpose: str) -> Permit:
        """Leave for self-maintenance with fixed content (announcements, relay lists, heartbeats)."""

    def check(self, permit: Permit) -> None:
        """Called by everything that acts.

        Raises:
            Unpermitted: this gate did not give the permit.
        """
