"""Where money lies: picks mints for deposits and payments, and moves what is above a cap, or at a mint off the list.

A move is two effects: a deposit at one mint, and its invoice paid by another. Each is a saga of the wallet's own, so a
crash between them leaves an invoice that nobody pays, or a payment that arrives; never a coin that nobody knows of.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from core.clock import Clock
from core.effect import EffectClass, Permit
from core.error import InvalidInput, StoreUncertain, VendoError
from core.identifier import EffectId, OperationId
from core.money import Msat, Rate
from core.unit import Delete, Insert, UnitOfWork, Within
from fs.service.model.wallet import Transfer
from fs.service.treasury import canonical
from fs.session import Role, Session
from wallet.amount import SAT, Amount
from wallet.cashu.address import canonical_url
from wallet.error import FxUnpriced, MintFull, PaymentUnknown
from wallet.model import Balance
from wallet.payment import State
from wallet.spread import Held, Move, Rules, best_place, next_move, room
from wallet.wallet import Wallet
from wallet.worth import sat_worth

log = logging.getLogger(__name__)

ROUND_S = 60.0
FIRST_REST_S, LONGEST_REST_S = 600.0, 86_400.0  # after a move that failed, for that pair of mints
CALLER = "operator"
SENT = "spread/"  # in table `meta`, with a deposit's id: what a mint of ours was paid for another one and is to arrive

Act = Callable[[OperationId, EffectId, Permit], Awaitable[Mapping[str, Any]]]


class Mover(Protocol):
    """Moves money as one effect: `fs.service.treasury.Treasurer`."""

    async def move(
        self, session: Session, name: str, body: bytes, note: Mapping[str, str | int], effect: EffectClass, act: Act
    ) -> dict[str, Any]:
        """Do it, once however often it is asked for."""

    async def known(self, session: Session, name: str, body: bytes, effect: EffectClass) -> dict[str, Any] | None:
        """What a key that was used before for this request is answered; None for a new key."""


@dataclass(slots=True)
class _Rest:
    """When a pair of mints is tried again; each time later."""

    until: float
    length: float


class Spreading:
    """Keeps to the rules. A service: `run` moves money while they are `automatic`.

    Args:
        wallet: the coins.
        mover: makes effects of what is moved.
        unit: the database: what is on its way stands there.
        clock: the pace.
        rules: the owner's.
        rate: the exchange rate, if it is known: what a mint holds in other units counts towards its cap.
    """

    def __init__(
        self,
        wallet: Wallet,
        mover: Mover,
        unit: UnitOfWork,
        clock: Clock,
        rules: Rules,
        rate: Callable[[], Rate | None] = lambda: None,
    ) -> None:
        self._rate = rate
        self._wallet, self._mover, self._unit, self._clock = wallet, mover, unit, clock
        caps = {canonical_url(mint): cap for mint, cap in rules.caps_sat.items()}
        self.rules = replace(rules, caps_sat=caps)
        self._rests: dict[tuple[str, str], _Rest] = {}

    async def held(self) -> list[Held]:
        """What each mint holds; one that is off the list is there as long as it holds something.

        What was sent to a mint and has not arrived is bound there: one that keeps it gets no more.
        """
        listed, coming = set(self._wallet.mints), await self._coming()
        rows = await self._wallet.balance()
        foreign = self._foreign(rows)
        return [
            Held(
                one.mint,
                one.live,
                one.reserved + one.locked + coming.get(one.mint, 0),
                one.mint not in listed,
                foreign=foreign.get(one.mint, 0),
            )
            for one in rows
            if one.unit == SAT
        ]

    def _foreign(self, rows: Sequence[Balance]) -> dict[str, int | None]:
        """What each mint's coins in other units are worth in sat; None where one of them has no price now."""
        found: dict[str, int | None] = {}
        rate = self._rate()
        for one in rows:
            held = one.live + one.reserved + one.locked
            if one.unit == SAT or not held:
                continue
            worth, before = sat_worth(Amount(held, one.unit), rate), found.get(one.mint, 0)
            found[one.mint] = None if worth is None or before is None else before + worth
        return found

    async def _coming(self) -> dict[str, int]:
        """What is on its way to each mint, in sat. What has arrived meanwhile is taken off the list."""
        found: dict[str, int] = {}
        for row in await self._unit.select("meta", {"key": Within(SENT, SENT + "~")}):
            sent = orjson.loads(row["value"])
            view = await self._wallet.find(row["key"].removeprefix(SENT))
            if view is not None and view.state is State.DONE:
                await self._unit.commit([Delete("meta", {"key": row["key"]})])
            else:
                found[sent["mint"]] = found.get(sent["mint"], 0) + int(sent["sat"])
        return found

    async def into(self, sat: int, mint: str | None) -> str:
        """The mint for a deposit of so much.

        Raises:
            MintFull: it would hold more than its cap; nothing was asked for.
            FxUnpriced: it has a cap, and what it holds in other units has no price now.
            InvalidInput: this node has no mint.
        """
        held = await self.held()
        if mint is None:
            found = best_place(held, self.rules, sat)
            if found is None and not self._wallet.mints:
                raise InvalidInput("This node has no mint: add one to [node] mints.")
            if found is None:
                raise MintFull(f"No mint has room for {sat} sat more.")
            return found
        named = canonical_url(mint)
        one = next((one for one in held if one.mint == named), Held(named, 0))
        left = room(one, self.rules)
        if one.foreign is None and left is not None:
            raise FxUnpriced(
                f"{named} has a cap and holds coins in other units, whose worth is not known now.",
                remedy="Name another mint, or see that there is a rate: vendo cat /wallet/fx.",
            )
        if left is not None and left < sat and not one.retired:
            raise MintFull(f"{named} may hold {left} sat more, not {sat}.")
        return named

    async def out_of(self, sat: int, mint: str | None, *, but: str = "") -> str:
        """The mint that pays so much: the one that is named, or that which holds the most, so that it holds less.

        Raises:
            InvalidInput: this node has no mint.
        """
        if mint is not None:
            return canonical_url(mint)
        held = [one for one in await self.held() if not one.retired and one.mint != but]
        if not held:
            raise InvalidInput("This node has no mint: add one to [node] mints.")
        return max(held, key=lambda one: (one.live, one.mint)).mint

    async def transfer(self, session: Session, wish: Transfer) -> dict[str, Any]:
        """As `move`, between mints that are chosen for a new key; a known one goes on with those of the first time.

        Raises:
            InvalidInput: source and target are the same mint.
            MintFull: no mint has room.
            VendoError: as `move`.
        """
        body = canonical(wish.model_dump())
        begun = await self._mover.known(_half(session, "in"), "deposit", body, EffectClass.EXTERNAL) or {}
        paid = await self._mover.known(_half(session, "out"), "withdraw", body, EffectClass.IRREVERSIBLE) or {}
        target = str(begun.get("mint") or await self.into(wish.sat, wish.target))
        source = str(paid.get("mint") or await self.out_of(wish.sat, wish.source, but=target))
        if source == target:
            raise InvalidInput("Source and target are the same mint.")
        fee = self.rules.fee(wish.sat) if wish.max_fee_sat is None else wish.max_fee_sat
        return await self.move(session, Move(source, target, wish.sat, fee), body)

    async def move(self, session: Session, wish: Move, body: bytes = b"") -> dict[str, Any]:
        """Have so much arrive at one mint, paid by another; what became of both halves.

        `body` is what was asked for, in canonical bytes; without it the move itself.

        Raises:
            Refused: the gate said no.
            TooDear: it would cost more than `wish.fee`; nothing was paid.
            MintRefused: nothing was paid.
            PaymentUnknown: it may have been; recovery finds out.
        """
        note: dict[str, str | int] = {"source": wish.source, "target": wish.target, "sat": wish.sat}
        body = body or canonical(note)

        async def ask(op_id: OperationId, effect_id: EffectId, permit: Permit) -> Mapping[str, Any]:
            made = await self._wallet.deposit(op_id, wish.target, wish.sat, effect_id, permit)
            return {"state": made.state.value, "invoice": made.invoice}

        asked = await self._mover.move(_half(session, "in"), "deposit", body, note, EffectClass.EXTERNAL, ask)
        deposit = OperationId(asked["op_id"])
        invoice = (await self._wallet.poll(deposit)).invoice

        async def pay(op_id: OperationId, effect_id: EffectId, permit: Permit) -> Mapping[str, Any]:
            ceiling = Msat.of_sat(wish.sat + wish.fee)
            sent = orjson.dumps({"mint": wish.target, "sat": wish.sat}).decode()
            await self._unit.commit([Insert("meta", {"key": SENT + deposit, "value": sent}, or_ignore=True)])
            try:
                paid = await self._wallet.pay(op_id, wish.source, invoice, ceiling, effect_id, permit)
            except VendoError as error:
                if not isinstance(error, PaymentUnknown | StoreUncertain):  # it is certain that nothing left
                    await self._unit.commit([Delete("meta", {"key": SENT + deposit})])
                raise
            return {"state": "done", "fee_msat": paid.fee.value}

        paid = await self._mover.move(_half(session, "out"), "withdraw", body, note, EffectClass.IRREVERSIBLE, pay)
        arrived = await self._wallet.poll(deposit)
        return {
            **note,
            "deposit": deposit,
            "payment": paid["op_id"],
            "payment_state": str(paid.get("state", "")),
            "state": arrived.state.value,
        }

    # ---- by itself

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Look each minute, and move one sum at a time, until `stop`."""
        ready.set()
        stopping = asyncio.create_task(stop.wait())
        try:
            while self.rules.automatic and not stop.is_set():
                resting = asyncio.create_task(self._clock.sleep(ROUND_S))
                await asyncio.wait({resting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                resting.cancel()
                if not stop.is_set():
                    await self._round()
            await stopping
        finally:
            stopping.cancel()

    async def _round(self) -> None:
        try:
            wish = next_move(await self._rested(), self.rules)
            if wish is not None:
                await self._try(wish)
        except VendoError as error:
            log.warning("Money is not looked at: %s", error.code, extra={"action": "spread_waits"})

    async def _rested(self) -> list[Held]:
        """What each mint holds; those of a pair that failed lately are left alone for a while."""
        now = self._clock.monotonic()
        tired = {mint for pair, rest in self._rests.items() if rest.until > now for mint in pair}
        return [replace(one, silent=one.mint in tired) for one in await self.held()]

    async def _try(self, wish: Move) -> None:
        session = Session(CALLER, Role.OPERATOR, f"spread/{wish.source}/{wish.target}/{self._clock.millis()}")
        pair = (wish.source, wish.target)
        try:
            moved = await self.move(session, wish)
            failure = "" if moved["state"] == State.DONE else "not_arrived"
        except VendoError as error:
            failure = error.code
        if not failure:
            self._rests.pop(pair, None)
            log.info("Money was moved", extra={"action": "money_moved", "sat": wish.sat, "to": wish.target})
            return
        before = self._rests.get(pair)
        length = FIRST_REST_S if before is None else min(2 * before.length, LONGEST_REST_S)
        self._rests[pair] = _Rest(self._clock.monotonic() + length, length)
        log.warning("Money was not moved: %s", failure, extra={"action": "spread_failed", "to": wish.target})


def _half(session: Session, name: str) -> Session:
    """The same caller, for one half of a move."""
    return replace(session, key=f"{session.effect_key()}/{name}")
