"""Moves the operator's own money: each deposit, receipt and payment is one effect through the gate.

It is judged and begun, done by the wallet under an operation id that derives from caller, path and key, and settled by
what the wallet then says of that operation. A lost answer parks the effect as `unknown`, and `run` settles it once the
wallet has looked it up. What was begun and never reached the wallet before a crash is settled as failed; but after a
restore from an old copy nobody knows that, since the life that is forgotten may have gone on with it.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import orjson

from core.clock import Clock
from core.effect import Admission, EffectClass, Gate, Intent, Outcome, OutcomeState, Permit, Repeated
from core.error import NotFound, StoreUncertain, VendoError
from core.identifier import EffectId, OperationId, derived_id
from core.unit import Among, Row, UnitOfWork, Write
from fs.error import Unsupported
from fs.session import Session
from wallet.lightning_record import LightningView
from wallet.model import OperationView, OtherPaid, Paid, Received
from wallet.payment import Kind, State

log = logging.getLogger(__name__)

BASE = "/wallet/"
_LOOK_S = 1.0

Act = Callable[[OperationId, EffectId, Permit], Awaitable[Mapping[str, Any]]]


class BeginGate(Gate, Protocol):
    """A gate that also stages and commits in one go."""

    async def begin(self, intent: Intent, writes: Iterable[Write] = ()) -> Admission:
        """Stage, commit, and judge once more if another call was faster."""


class Finder(Protocol):
    """What the treasurer asks a wallet about operations."""

    async def find(self, op_id: OperationId) -> OperationView | LightningView | None:
        """An operation, or None if it never began."""


class OperationEnded(VendoError):
    """An earlier request with this key ended without success."""

    code = "wallet.operation_failed"
    status = 409
    unchanged = "No money has moved for it."
    remedy = "Use a new idempotency key to try again."


class Treasurer:
    """Begins and ends effects for the wallet's own operations. A service: `run` settles what was in doubt."""

    def __init__(self, wallet: Finder, gate: BeginGate, unit: UnitOfWork, clock: Clock) -> None:
        self._gate, self._unit, self._wallet, self._clock = gate, unit, wallet, clock
        self._active: Counter[str] = Counter()
        self._deciding = asyncio.Lock()  # two of a key: the later one is told what the earlier one decided

    async def move(
        self, session: Session, name: str, body: bytes, note: Mapping[str, str | int], effect: EffectClass, act: Act
    ) -> dict[str, Any]:
        """One operation that moves money.

        Args:
            session: who asks, and the key.
            name: the file below `/wallet` that was called.
            body: the request in canonical bytes; only its digest is kept.
            note: facts for the ledger, without secrets.
            effect: how far it reaches.
            act: does it, and answers with what the caller is told.

        Raises:
            Unsupported: it was asked for within a tick.
            Refused: the gate said no.
            OperationEnded: the key belongs to a request that failed.
            VendoError: what the wallet raised.
        """
        if session.staged:
            raise Unsupported("Moving money is not part of a tick.")
        path, key = BASE + name, session.effect_key()
        op_id = OperationId(derived_id(session.caller, path, key))
        intent = Intent(session.caller, path, key, body, effect, op_id, note=note)
        self._active[op_id] += 1  # before it begins: `run` must not take it for one that a crash left behind
        try:
            admission = await self._gate.begin(intent)
            if isinstance(admission, Repeated):
                return await self._again(OperationId(admission.subject))
            answer = await self._act(admission.effect_id, op_id, act)
        finally:
            self._active[op_id] -= 1
            if not self._active[op_id]:
                del self._active[op_id]
        return {"op_id": op_id, **answer}

    async def decide(
        self, session: Session, name: str, body: bytes, op_id: OperationId, act: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        """A decision of the owner's about an operation that is there: recorded before and after it takes effect.

        A repeated key goes on with a decision that a crash has cut off, and tells of one that was carried out.

        Raises:
            Unsupported: it was asked for within a tick.
            Refused: the gate said no.
            OperationEnded: the key belongs to a decision that was refused.
            VendoError: what the wallet raised; nothing was decided.
        """
        if session.staged:
            raise Unsupported("Deciding about money is not part of a tick.")
        intent = Intent(session.caller, BASE + name, session.effect_key(), body, EffectClass.IRREVERSIBLE, op_id)
        self._active[op_id] += 1
        try:
            async with self._deciding:
                admission = await self._gate.begin(intent)
                if isinstance(admission, Repeated) and await self._is_decided(admission, op_id):
                    return await self._again(op_id)
                return await self._carry_out(admission.effect_id, act)
        finally:
            self._active[op_id] -= 1
            if not self._active[op_id]:
                del self._active[op_id]

    async def _is_decided(self, before: Repeated, op_id: OperationId) -> bool:
        """Whether a decision was carried out; one that was begun and took no effect is still to be.

        Raises:
            OperationEnded: it was refused. That the operation is still open, or has ended by itself, is no decision.
        """
        if before.state == OutcomeState.FAIL:
            raise OperationEnded("What was asked for with this key was refused.")
        return before.state == OutcomeState.COMMIT or await self._settle(before.effect_id, op_id, doubt=False)

    async def _carry_out(self, effect_id: EffectId, act: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        try:
            answer = await act()
        except StoreUncertain:  # `run` finds out by how the operation stands
            raise
        except VendoError:
            await self._unit.commit(await self._gate.settle(effect_id, Outcome(OutcomeState.FAIL)))
            raise
        await self._unit.commit(await self._gate.settle(effect_id, Outcome(OutcomeState.COMMIT)))
        return answer

    async def _act(self, effect_id: EffectId, op_id: OperationId, act: Act) -> Mapping[str, Any]:
        try:
            answer = await act(op_id, effect_id, self._gate.permit(effect_id))
        except VendoError:
            await self._settle(effect_id, op_id, doubt=True)
            raise
        await self._settle(effect_id, op_id, doubt=False)
        return answer

    async def known(self, session: Session, name: str, body: bytes, effect: EffectClass) -> dict[str, Any] | None:
        """What a key that was used before for this request is answered; None for a new key. Nothing is begun.

        Raises:
            Refused: the gate said no, or the key was used for another request.
            OperationEnded: the request failed then.
        """
        path, key = BASE + name, session.effect_key()
        op_id = OperationId(derived_id(session.caller, path, key))
        admission = await self._gate.stage(Intent(session.caller, path, key, body, effect, op_id))
        return await self._again(OperationId(admission.subject)) if isinstance(admission, Repeated) else None

    async def operation(self, op_id: OperationId) -> dict[str, Any]:
        """What became of an operation.

        Raises:
            NotFound: there is none with this id.
        """
        view = await self._wallet.find(op_id)
        if view is not None:
            return shown(view)
        rows = await self._unit.select("effect", {"subject": op_id})
        if not any(row["path"].startswith(BASE) for row in rows):
            raise NotFound("There is no operation with this id.")
        state = {"fail": "refused", "unknown": "unknown"}.get(rows[0]["state"], "prepared")
        return {"op_id": op_id, "state": state}

    async def _again(self, op_id: OperationId) -> dict[str, Any]:
        """What a repeated key is answered.

        Raises:
            OperationEnded: the request failed then.
        """
        found = await self.operation(op_id)
        if found["state"] == State.REFUSED:
            raise OperationEnded
        return found

    async def _settle(self, effect_id: EffectId, op_id: OperationId, *, doubt: bool) -> bool:
        """End an effect by what the wallet says of its operation. Whether it has ended.

        `doubt`: the wallet's answer was an error; what is still open after it is parked as unknown.
        """
        view = await self._wallet.find(op_id)
        if view is None or view.state is State.REFUSED:
            outcome = Outcome(OutcomeState.FAIL)
        elif view.state is State.DONE:
            outcome = Outcome(OutcomeState.COMMIT)
        elif doubt or view.state is State.UNKNOWN:
            outcome = Outcome(OutcomeState.UNKNOWN)
        else:
            return False
        await self._unit.commit(await self._gate.settle(effect_id, outcome))
        return outcome.state is not OutcomeState.UNKNOWN

    # ---- after a restore from an old copy

    async def adopt_copy(self) -> int:
        """Before `run`, if the rows are an old copy's: park what had begun and not reached the wallet. How many."""
        return await self._end_unreached("begun", Outcome(OutcomeState.UNKNOWN, detail={"reason": "restored"}))

    async def nothing_was_paid(self) -> int:
        """Every mint has shown that no money moved since the copy: what was parked then has failed. How many.

        Mints know nothing of Lightning: what may have been paid from there stays unknown.
        """
        return await self._end_unreached("unknown", Outcome(OutcomeState.FAIL, detail={"reason": "never paid"}))

    async def _end_unreached(self, state: str, outcome: Outcome) -> int:
        count = 0
        for row in await self._unit.select("effect", {"state": state}):
            if not row["path"].startswith(BASE) or (state == "unknown" and _pays_over_lightning(row)):
                continue
            if await self._wallet.find(OperationId(row["subject"])) is None:
                await self._unit.commit(await self._gate.settle(EffectId(row["id"]), outcome))
                count += 1
        return count

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Settle what is open, at the start and whenever the wallet has looked something up."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                try:
                    await self._look()
                except VendoError as error:
                    log.warning("payments are not looked at", extra={"action": "treasury_waits", "code": error.code})
                resting = asyncio.create_task(self._clock.sleep(_LOOK_S))
                await asyncio.wait({resting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                resting.cancel()
        finally:
            stopping.cancel()

    async def _look(self) -> None:
        rows = await self._unit.select("effect", {"state": Among(("begun", "unknown"))})
        for row in rows:
            if not row["path"].startswith(BASE) or row["subject"] in self._active:
                continue
            try:
                if row["state"] == "unknown" and await self._wallet.find(OperationId(row["subject"])) is None:
                    continue  # parked by `adopt_copy`: what the wallet does not know may have happened all the same
                await self._settle(EffectId(row["id"]), OperationId(row["subject"]), doubt=False)
            except VendoError as error:
                log.warning("a payment waits", extra={"action": "treasury_waits", "code": error.code})


def _pays_over_lightning(effect: Row) -> bool:
    """Whether it pays an invoice from the Lightning wallet; a deposit is irreversible only if it does."""
    if effect["path"] == BASE + "lightning/pay":
        return True
    return bool(effect["path"] == BASE + "deposit" and effect["effect"] == EffectClass.IRREVERSIBLE)


def receipt(paid: Paid) -> dict[str, Any]:
    """What the owner is told of an invoice that was paid."""
    amount = paid.amount.sat_up()
    return {"amount_sat": amount, "fee_sat": paid.gross.sat_up() - amount, "preimage": paid.preimage}


def other_receipt(paid: OtherPaid) -> dict[str, Any]:
    """What the owner is told of an invoice that was paid with coins of another unit."""
    asked = paid.gross - paid.fee
    return {
        "unit": asked.unit,
        "amount": asked.value,
        "fee": paid.fee.value,
        "price_msat": paid.price.value,
        "preimage": paid.preimage,
    }


def canonical(body: Mapping[str, Any]) -> bytes:
    """The same bytes for the same request."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def shown(view: OperationView | LightningView) -> dict[str, Any]:
    """An operation for its owner. The token of a payment is money: it is shown here and nowhere else."""
    if isinstance(view, LightningView):
        return shown_lightning(view)
    out: dict[str, Any] = {
        "op_id": view.id,
        "kind": view.kind.value,
        "state": view.state.value,
        "mint": view.mint,
        "unit": view.unit,
        "amount": view.amount,
        "fee": view.fee,
        "reason": view.reason,
    }
    if isinstance(view.result, str):
        out["token" if view.kind is Kind.SEND else "invoice"] = view.result
    elif isinstance(view.result, Received):
        out["amount_sat"], out["fee_sat"] = view.result.amount_sat, view.result.fee_sat
    elif isinstance(view.result, Paid):
        out |= receipt(view.result)
    elif isinstance(view.result, OtherPaid):
        out |= other_receipt(view.result)
    if view.pending:
        out["pending"] = True
    return out


def shown_lightning(view: LightningView) -> dict[str, Any]:
    """A Lightning payment or invoice for its owner. A preimage proves who was paid, and is no money any more."""
    return {
        "op_id": view.id,
        "kind": view.kind.value,
        "state": view.state.value,
        "stage": view.stage.value,
        "mint": view.wallet,
        "unit": "msat",
        "amount": view.amount,
        "fee": view.fee,
        "reason": view.reason,
        "invoice": view.invoice,
        "payment_hash": view.payment_hash,
        "preimage": view.preimage,
        "note": view.note,
        "purpose": view.purpose,
        "expires_at": view.expires_at,
        "created_at": view.created_at,
    }
