"""The node's gate: `core.effect.Gate` over the database. It judges, reserves, records, and gives leave to act.

It knows that an effect was begun only from the database itself, which tells it of every entry once that is durable;
so there is no leave for an effect that was staged and never committed. What is open after a restart comes from
`load`.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Protocol

from core.clock import Clock
from core.effect import Admission, Intent, Outcome, Permit, Repeated, Staged
from core.error import (
    BudgetExceeded,
    Conflict,
    InvalidInput,
    KeyReused,
    NotFound,
    Paused,
    Refused,
    Unpermitted,
    VendoError,
)
from core.identifier import EffectId, PubKey, derived_id
from core.money import Money
from core.unit import Among, Append, Insert, Row, UnitOfWork, Update, Within, Write
from node.error import DiskLow
from node.gate import book
from node.gate.compile import Deny, Facts, Reason, Usage, judge, over_budget
from node.gate.limits import Limits, day_budget, seller_budget
from node.gate.standing import Standing
from node.gate.state import NodeState
from node.gate.writ import Writ, operator_writ

_log = logging.getLogger(__name__)

_OPEN = ("begun", "unknown")
_GAP_S = 60.0
_NEAR = 200  # numbers below the newest that may still be on their way when this process begins to read
_BEGUN = 4_096  # effects that another process goes on with are known here for so long
_ERRORS: dict[Reason, type[VendoError]] = {
    Reason.INVALID: InvalidInput,
    Reason.AUTHORITY: Refused,
    Reason.PAUSED: Paused,
    Reason.DISK: DiskLow,
    Reason.BUDGET: BudgetExceeded,
}


class LedgerUnit(UnitOfWork, Protocol):
    """A database that also tells of each entry once it is durable."""

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        """Call `watcher` with every entry from now on, before the `commit` that brought it returns."""


class Shared(Protocol):
    """This process among others that share its database: `node.share.company.Company`."""

    @property
    def slot(self) -> int:
        """Its place, from 0."""

    @property
    def leads(self) -> bool:
        """Whether it drives what was begun."""

    def slots(self) -> Collection[int]:
        """The places of the others."""

    def begun(self) -> None:
        """It began an effect that another process drives."""

    def check(self) -> None:
        """Called before anything is done outside of the database.

        Raises:
            LeaseUnsure: another process may have taken its place.
        """


def effect_id(caller: str, path: str, key: str) -> EffectId:
    """The id of the effect under an idempotency key: scoped to caller and path, never to the route chosen.

    Raises:
        InvalidInput: one of them is not valid Unicode.
    """
    try:
        return EffectId(derived_id(caller, path, key))
    except UnicodeEncodeError as error:
        raise InvalidInput("The path or the idempotency key is not valid Unicode.") from error


class NodeGate:
    """The only gate of a node.

    Args:
        unit: the database, with the seal that signs entries.
        clock: gives days, and times of effects.
        limits: the operator's.
        node: the public key with which the seal signs.
        writ: who may do what; the built-in one by default.
        shared: how this process stands among others that share the database; None where it is alone.
    """

    def __init__(
        self,
        unit: LedgerUnit,
        clock: Clock,
        limits: Limits,
        node: PubKey,
        writ: Writ | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.limits = limits
        self.is_full: Callable[[], bool] = lambda: False  # whether the disk is nearly full
        self._unit, self._clock = unit, clock
        self._writ = writ or operator_writ()
        self._shared = shared
        self._open: set[EffectId] = set()
        self._permits: dict[EffectId, Permit] = {}
        self._state = NodeState(unit, clock, node, shared.slot if shared is not None else 0)
        self._read = 0  # of the ledger's entries, when others write there too
        self._gaps: dict[int, float] = {}  # numbers below that were not there, and since when
        self._begun: deque[EffectId] = deque()
        self.days = Standing(unit, clock, self._state)

    # --- start, pause -----------------------------------------------------------------------------------------------

    async def load(self) -> list[Row]:
        """Read what the database knows; begin the ledger if there is none. Answers as `open_effects`.

        Raises:
            ForeignLedger: another node's key signed this ledger.
        """
        await self._state.load()
        self._unit.on_entry(self._told)
        found = await self.reopen()
        await self.days.open()
        return found

    async def reopen(self) -> list[Row]:
        """Read anew which effects are open: this process drives them from now on. Answers as `open_effects`."""
        newest = await self._unit.select("entry", order=("-n",), limit=1, columns=("n",))
        self._read = int(newest[0]["n"]) if newest else 0
        since = self._clock.monotonic()
        self._gaps = dict.fromkeys(range(max(1, self._read - _NEAR), self._read), since)
        found = await self.open_effects()
        self._open |= {EffectId(row["id"]) for row in found}
        self._begun.clear()
        return found

    async def adopt(self) -> None:
        """Learn what other processes have begun and ended since the last time.

        Entries get their numbers before they are committed, so one may come after later ones: numbers that were left
        out are asked for again, until nobody can be about to use them any more. Asked for last and told first: whoever
        sees the end of an effect sees its beginning.
        """
        names, now = ("n", "type", "effect_id"), self._clock.monotonic()
        fresh = await self._unit.select("entry", {"n": Within(self._read + 1)}, order=("n",), columns=names)
        gaps = tuple(self._gaps)
        late = await self._unit.select("entry", {"n": Among(gaps)}, order=("n",), columns=names) if gaps else []
        for row in (*late, *fresh):
            self._told(Append("", row["type"], row["effect_id"], ""))
        came = {int(row["n"]) for row in late}
        self._gaps = {n: since for n, since in self._gaps.items() if n not in came and now - since < _GAP_S}
        if fresh:
            there = {int(row["n"]) for row in fresh}
            before, self._read = self._read, max(there)
            self._gaps |= {n: now for n in range(before + 1, self._read) if n not in there}

    async def is_theirs(self, effect: EffectId) -> bool:
        """Whether another process, which is alive, began an effect."""
        if self._shared is None:
            return False
        rows = await self._unit.select("entry", {"effect_id": effect, "type": "begin"}, columns=("run",))
        return bool(rows) and rows[0]["run"] in await self._state.runs(self._shared.slots())

    @property
    def run(self) -> str:
        """The ledger run to which entries are added."""
        return self._state.run

    async def new_run(self, reason: str) -> None:
        """Go on in a new ledger run, e.g. after a restore from an old copy."""
        await self._state.new_run(reason)

    @property
    def paused(self) -> bool:
        """Whether new effects are refused."""
        return self._state.paused

    async def pause(self) -> None:
        """Refuse new effects, also after a restart. What is open is finished."""
        await self._state.set_paused(True)

    async def resume(self) -> None:
        """Begin new effects again."""
        await self._state.set_paused(False)

    def _told(self, entry: Append) -> None:
        """An entry is durable."""
        effect = EffectId(entry.effect_id)
        if entry.type == "begin":
            self._open.add(effect)
            if self._shared is not None and not self._shared.leads:
                self._hand_over(effect, self._shared)
        elif entry.type in ("commit", "fail"):
            self._open.discard(effect)
            self._permits.pop(effect, None)

    def _hand_over(self, effect: EffectId, shared: Shared) -> None:
        """The steward goes on with it, and its end is not told here."""
        self._begun.append(effect)
        if len(self._begun) > _BEGUN:
            self._open.discard(self._begun.popleft())
        shared.begun()

    # --- beginning --------------------------------------------------------------------------------------------------

    async def stage(self, intent: Intent, pending: Iterable[Write] = ()) -> Admission:
        """As `core.effect.Gate.stage`.

        `pending` are writes that will be committed before or with these (a tick's), so that several intents of one
        tick are judged together.

        Raises:
            InvalidInput: the intent is not well formed.
            Refused: no writ allows it.
            KeyReused: the key was used with another body.
            BudgetExceeded: the reservation does not fit.
            Paused, DiskLow: the node begins no new effects.
        """
        effect, pending = effect_id(intent.caller, intent.path, intent.key), tuple(pending)
        if (before := await self._before(effect, intent, pending)) is not None:
            return before
        if self._shared is not None:
            await self._state.look()
        now = self._clock.now()
        budget = day_budget(now)
        facts = Facts(now, self._state.paused, await self._usage(budget, pending), self.is_full())
        decision = judge(intent, self._writ, self.limits, facts)
        if isinstance(decision, Deny):
            _log.info("refused", extra={"action": "gate_refused", "caller": intent.caller, "reason": decision.reason})
            raise _ERRORS[decision.reason](decision.message)
        held = () if decision.hold is None else book.hold(effect, budget, decision.hold, self.limits.per_day)
        entry = book.begin_body(intent, self._writ.id, self.limits, facts)
        return Staged(effect, book.begin(intent, effect, self._state.run, entry, now, held))

    async def begin(self, intent: Intent, writes: Iterable[Write] = ()) -> Admission:
        """Stage and commit together with the caller's own rows.

        If something else changed the budget or used the key meanwhile, it is judged once more.

        Raises:
            Conflict: it did so twice, or the caller's own rows conflict.
            VendoError: as `stage` and as the database's `commit`.
        """
        own = tuple(writes)
        staged = await self.stage(intent)
        if isinstance(staged, Repeated):
            return staged
        try:
            await self._unit.commit([*staged.writes, *own])
        except Conflict:
            staged = await self.stage(intent)
            if isinstance(staged, Staged):
                await self._unit.commit([*staged.writes, *own])
        return staged

    async def _before(self, effect: EffectId, intent: Intent, pending: tuple[Write, ...]) -> Repeated | None:
        """What came of this key before."""
        row: Any = next(iter(await self._unit.select("effect", {"id": effect})), None)
        if row is None:
            staged = (write.row for write in pending if isinstance(write, Insert) and write.table == "effect")
            row = next((found for found in staged if found["id"] == effect), None)
        elif row["state"] in _OPEN:
            self._open.add(effect)  # its commit may have been uncertain when it was made
        if row is None:
            return None
        if row["digest"] != book.digest(intent):
            raise KeyReused
        return Repeated(effect, row["subject"], row["state"])

    async def _usage(self, budget: str, pending: tuple[Write, ...] = ()) -> Usage | None:
        found = await self._unit.select("budget", {"name": budget})
        more = sum(
            write.add.get("held", 0) + write.add.get("spent", 0)
            for write in pending
            if isinstance(write, Update) and write.table == "budget" and write.where.get("name") == budget
        )
        if not found:
            return Usage(self.limits.unit, more, 0) if more else None
        return Usage(found[0]["unit"], found[0]["held"] + more, found[0]["spent"])

    # --- while it is open -------------------------------------------------------------------------------------------

    async def _effect(self, effect: EffectId) -> Row:
        found = await self._unit.select("effect", {"id": effect})
        if not found:
            raise NotFound(f"No effect {effect} was begun.")
        if found[0]["state"] in _OPEN:
            self._open.add(effect)
        return found[0]

    async def allocate(self, effect: EffectId, counterparty: str, amount: Money) -> tuple[Write, ...]:
        """As `core.effect.Gate.allocate`. Asked again for the same counterparty, the larger amount counts.

        Only one counterparty of an effect is ever paid: what was held for an earlier one is released.

        Raises:
            BudgetExceeded: it does not fit under the effect's reservation or the limit for this counterparty.
            Conflict: the effect has ended.
            NotFound: there is no such effect.
        """
        row = await self._effect(effect)
        if row["state"] not in _OPEN:
            raise Conflict(f"The effect has ended as {row['state']}.")
        limit = self.limits.per_seller
        if row["unit"] != amount.unit or amount.value < 0 or amount.value > row["reserved"]:
            raise BudgetExceeded("The amount is not within what the effect has reserved.")
        rows = await self._unit.select("hold", {"effect_id": effect}, order=["budget"])
        holds = {held["budget"]: int(held["amount"]) for held in rows}
        mine = [name for name in holds if name.startswith(f"seller:{counterparty}:")]
        budget = mine[0] if mine else seller_budget(counterparty, self._clock.now())
        had = holds.get(budget, 0)
        others = [held for held in rows if held["budget"].startswith("seller:") and held["budget"] != budget]
        dropped = book.drop(others)
        if amount.value <= had:
            return dropped
        used = await self._usage(budget)
        if used is not None:
            used = Usage(used.unit, used.held - had, used.spent)
        if message := over_budget(amount, used, limit, "per-seller"):
            raise BudgetExceeded(message)
        if mine:
            return (*dropped, *book.raise_hold(effect, budget, had, amount, limit))
        return (*dropped, *book.hold(effect, budget, amount, limit))

    async def settle(self, effect: EffectId, outcome: Outcome) -> tuple[Write, ...]:
        """As `core.effect.Gate.settle`. A cost above the reservation is booked as it is and marked `over`.

        Raises:
            Conflict: the effect has already ended otherwise.
            NotFound: there is no such effect.
            ValueError: the cost is negative or in another unit than the reservation.
        """
        row = await self._effect(effect)
        if row["state"] == outcome.state.value:
            return ()
        if row["state"] not in _OPEN:
            raise Conflict(f"The effect has already ended as {row['state']}.")
        cost = outcome.cost
        if cost is not None and (cost.value < 0 or cost.unit != (row["unit"] or self.limits.unit)):
            raise ValueError(f"a cost is a whole number of {row['unit'] or self.limits.unit}, not below zero")
        holds = await self._unit.select("hold", {"effect_id": effect}, order=["budget"])
        now = self._clock.now()
        spare = day_budget(now)
        used = await self._usage(spare)
        if used is not None and used.unit != self.limits.unit:
            spare += f":{self.limits.unit}"  # the limits' unit was changed today: the two are never summed
        return book.settle(row, holds, outcome, self._state.run, now, spare, self.limits)

    async def open_effects(self) -> list[Row]:
        """Effects that were begun and have not ended, oldest first; among them those that are parked as unknown."""
        found = await self._unit.select("effect", {"state": Among(_OPEN)}, order=["begun_at"])
        return [row for row in found if row["path"] != Standing.PATH]

    # --- leave to act -----------------------------------------------------------------------------------------------

    def permit(self, effect: EffectId) -> Permit:
        """As `core.effect.Gate.permit`.

        Raises:
            Unpermitted: no such effect is durably begun and open.
        """
        if effect not in self._open:
            raise Unpermitted(f"The effect {effect} is not open.")
        permit = self._permits.get(effect)
        if permit is None:
            permit = self._permits[effect] = Permit(effect)
        return permit

    def standing(self, purpose: str) -> Permit:
        """As `core.effect.Gate.standing`.

        Raises:
            Unpermitted: the gate has not been loaded.
        """
        return self.days.permit(purpose)

    def delivery(self, effect: str) -> Permit:
        """Leave to put stored event bytes on the wire: the effect's own while it is open.

        What was committed to the outbox under an effect that has ended meanwhile is still sent, as it is.

        Raises:
            Unpermitted: the gate has not been loaded.
        """
        return self.permit(EffectId(effect)) if effect in self._open else self.days.permit("outbox")

    def collection(self, effect: EffectId) -> Permit:
        """Leave to take in what was paid to us under an effect: the effect's own while it is open.

        Whoever pays an invoice of ours after its effect has ended has paid all the same, and the coins are fetched.

        Raises:
            Unpermitted: the gate has not been loaded.
        """
        return self.permit(effect) if effect in self._open else self.days.permit("collection")

    def check(self, permit: Permit) -> None:
        """As `core.effect.Gate.check`.

        Raises:
            Unpermitted: this gate did not give the permit.
            LeaseUnsure: another process may have taken this one's place.
        """
        if self._shared is not None:
            self._shared.check()
        if self._permits.get(permit.effect_id) is not permit and not self.days.gave(permit):
            raise Unpermitted
