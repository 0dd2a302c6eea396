"""Begins operations durably, hands them to the engine, and says in the caller's words how they ended."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from core.clock import Clock
from core.effect import Permit
from core.error import Unavailable
from core.identifier import EffectId, OperationId
from core.money import Msat
from core.unit import Write
from wallet.amount import SAT, UNITS, Amount
from wallet.cashu.book import KeysetBook
from wallet.cashu.proof import Proof, total
from wallet.cashu.token import Payment, encode, to_payload
from wallet.engine import Engine, Then
from wallet.error import (
    InsufficientFunds,
    MintLied,
    MintRefused,
    MintRejected,
    MintUnlisted,
    OperationReused,
    PaymentUnknown,
    TokenSpent,
    UnitAbsent,
    UnitMixed,
)
from wallet.model import Gained, Locked, OperationResult, OperationView, OtherPaid, Paid, Received
from wallet.payment import Kind, Operation, QuoteExpired, QuoteIssued, QuotePaid, Restarted, State, step
from wallet.planner import Planned, Planner
from wallet.purse import PENDING, Purse, Stored
from wallet.record import Plan
from wallet.shelf import Shelf

_log = logging.getLogger(__name__)

# Taking what is ours may be tried again under the same id; paying somebody may not.
_REOPENED = frozenset({Kind.RECEIVE, Kind.CLAIM, Kind.REFUND})
# What is ours already, or was promised to us: it is fetched wherever it is.
_FETCHED = frozenset({Kind.CLAIM, Kind.REFUND})
_PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """An operation that a caller wants."""

    op_id: OperationId
    kind: Kind
    mint: str
    unit: str
    effect_id: EffectId
    digest: str


def conclude(stored: Stored, kept: Sequence[Proof], given: Sequence[Proof]) -> dict[str, Any]:
    """What an operation's sealed result says."""
    if stored.op.kind is Kind.LOCK:
        if stored.unit != SAT:
            raise UnitMixed("A payment that is locked is in sat.")
        payment = Payment(stored.mint, stored.unit, tuple(given), str(stored.plan.terms["quote_id"]))
        return {
            "payload": to_payload(payment),
            "ys": [proof.y for proof in given],
            "gross": Msat.of_sat(total(given) + stored.fee).value,
            "amount": Msat.of_sat(total(given)).value,
        }
    if stored.op.kind is Kind.SEND:
        return {"token": encode(stored.mint, stored.unit, given)}
    if stored.op.kind is Kind.MELT:
        terms = stored.plan.terms
        # What the mint withheld of the change has left us as well.
        gross = total(stored.plan.inputs) - total(kept)
        if stored.unit != SAT:
            return {"preimage": terms["preimage"], "gross": gross, "amount": terms["amount"], "msat": terms["msat"]}
        return {"preimage": terms["preimage"], "gross": Msat.of_sat(gross).value, "amount": terms["msat"]}
    return {"amount": total(kept), "fee": stored.fee}


def result_of(stored: Stored) -> OperationResult:
    """An operation's result in its own type; None until it is done."""
    body = stored.result
    if body is None:
        return None
    if stored.op.kind is Kind.LOCK:
        return Locked(stored.op.id, body["payload"], tuple(body["ys"]), Msat(body["gross"]), Msat(body["amount"]))
    if stored.op.kind is Kind.SEND:
        return str(body["token"])
    if stored.op.kind is Kind.MELT and stored.unit != SAT:
        gross, asked = Amount(body["gross"], stored.unit), Amount(body["amount"], stored.unit)
        return OtherPaid(stored.op.id, body["preimage"], gross, gross - asked, Msat(body["msat"]))
    if stored.op.kind is Kind.MELT:
        fee = Msat(body["gross"] - body["amount"])
        return Paid(stored.op.id, body["preimage"], Msat(body["gross"]), Msat(body["amount"]), fee)
    if stored.unit != SAT:
        return Gained(Amount(body["amount"], stored.unit), Amount(body["fee"], stored.unit))
    return Received(body["amount"], body["fee"])


def view_of(stored: Stored) -> OperationView:
    """An operation as others may see it."""
    return OperationView(
        stored.op.id,
        stored.op.kind,
        stored.op.state,
        stored.mint,
        stored.unit,
        stored.effect_id,
        stored.amount,
        stored.fee,
        stored.reason,
        result_of(stored),
        stored.op.state is State.UNKNOWN and stored.reason in PENDING,
    )


def settled(stored: Stored) -> Stored:
    """The operation, if it is done.

    Raises:
        TokenSpent: somebody else took the coins first.
        MintRefused: looked up: nothing left us.
        PaymentUnknown: not yet known.
    """
    if stored.op.state is State.DONE:
        return stored
    if stored.op.state is not State.REFUSED:
        raise PaymentUnknown(operation=stored.op.id)
    if stored.reason == "lost_race" and stored.op.kind in _REOPENED:
        raise TokenSpent("The coins were spent by somebody else.")
    raise MintRefused(operation=stored.op.id, reason=stored.reason)


class Teller:
    """Between the wallet's public methods and the engine.

    Args:
        purse: the rows.
        planner: makes plans.
        engine: drives operations.
        books: keysets by canonical mint address and unit; a mint that is not here is not asked for anything.
        clock: measures patience.
        check: the gate's check of permits.
        guard: compares counters with a mint; asked once per mint, before the first operation there.
        look_up: looks up the open operations of a mint whose rows come from an old copy.
    """

    def __init__(
        self,
        purse: Purse,
        planner: Planner,
        engine: Engine,
        books: Shelf,
        clock: Clock,
        check: Callable[[Permit], None],
        guard: Callable[[KeysetBook], Awaitable[None]],
        look_up: Callable[[KeysetBook], Awaitable[None]],
    ) -> None:
        self._guard, self._look_up = guard, look_up
        self._purse = purse
        self._planner = planner
        self._engine = engine
        self._books = books
        self._clock = clock
        self._check = check
        self._locks = {key: asyncio.Lock() for key in books}
        books.on_open = self.attend

    @property
    def planner(self) -> Planner:
        """Makes plans."""
        return self._planner

    def attend(self, book: KeysetBook) -> None:
        """One more mint or unit is among the books."""
        self._locks.setdefault((book.mint.url, book.unit), asyncio.Lock())

    def book(self, mint: str, unit: str) -> KeysetBook:
        """The keysets of a mint that we trust, in one unit.

        Raises:
            MintUnlisted: we do not.
            UnitAbsent: no such unit is handled.
        """
        if unit not in UNITS:
            raise UnitAbsent(f"Coins in {unit[:32]!r} are not handled.")
        try:
            return self._books[mint, unit]
        except KeyError:
            raise MintUnlisted from None

    async def perform(
        self,
        wanted: Request,
        permit: Permit,
        make: Callable[[], Awaitable[Planned]],
        then: Then | None = None,
        ask: Callable[[], Awaitable[None]] | None = None,
    ) -> Stored:
        """Begin an operation, or go on with it, or find it ended.

        Args:
            wanted: which one.
            permit: the gate's.
            make: plans a new one; nobody else chooses coins or counters meanwhile.
            then: the caller's writes for its booking.
            ask: what a new one needs to know of the mint before it is planned; others go on meanwhile.

        Raises:
            OperationReused: the id stands for another request.
            MintUnlisted: the mint is trusted no more; what was begun there earlier goes on.
            InsufficientFunds: too few free coins; nothing was begun.
            MintRefused: the mint's keysets cannot be had, or it does not answer; nothing was begun.
        """
        async with self._engine.driving(wanted.op_id):
            stored = await self.begun(wanted)
            if stored is None:
                self._check(permit)
                self.admit(wanted)
                stored = await self._begin(wanted, make, ask)
                return await self._engine.run(stored, None, permit, then)
            if stored.op.state in (State.PREPARED, State.UNKNOWN):
                return await self._engine.run(stored, Restarted(), permit, then)
            if stored.op.state is State.REFUSED and await self._may_reopen(stored):
                self._check(permit)
                self.admit(wanted)
                return await self._engine.run(await self._reopen(stored), None, permit, then)
            return stored

    def admit(self, wanted: Request) -> None:
        """Nothing new is begun at a mint that is off the list.

        Raises:
            MintUnlisted: it is.
        """
        # Paying an invoice is how money leaves such a mint.
        if wanted.kind not in _FETCHED | {Kind.MELT} and self.book(wanted.mint, wanted.unit).retired:
            raise MintUnlisted

    async def begun(self, wanted: Request) -> Stored | None:
        """The operation, if it was begun before.

        Raises:
            OperationReused: the id stands for another request.
        """
        stored = await self._purse.find(wanted.op_id)
        if stored is not None and (stored.op.kind is not wanted.kind or stored.plan.digest != wanted.digest):
            raise OperationReused
        return stored

    async def keysets(self, book: KeysetBook) -> None:
        """Have the mint's keysets.

        Raises:
            MintRefused: they cannot be had; nothing was begun.
        """
        try:
            await self.compared(book)
        except (Unavailable, MintLied, MintRejected) as error:
            raise MintRefused("The mint's keysets cannot be had; nothing was begun.", cause=error.code) from error

    async def _heard(self, book: KeysetBook) -> None:
        try:
            await book.heard()
        except (Unavailable, MintLied, MintRejected) as error:
            raise MintRefused("The mint does not answer; nothing was begun.", cause=error.code) from error

    async def warm(self, book: KeysetBook) -> None:
        """Have the mint's keysets if it answers; at start a dead mint is no reason to stop."""
        try:
            await self.compared(book)
        except (Unavailable, MintLied, MintRejected) as error:
            _log.warning("a mint's keysets cannot be had", extra={"action": "mint_cold", "code": error.code})

    async def compared(self, book: KeysetBook) -> None:
        """Have the mint's keysets, and our counters and coins compared with it.

        Raises:
            Unavailable, MintRejected, MintLied: it did not say all.
        """
        await book.known()
        if book.guarded:
            return
        if book.copied:
            await self._look_up(book)  # before the lock is taken: an operation that goes on may choose coins
        async with self.choosing(book):
            if not book.guarded:
                await self._guard(book)
                book.guarded = True

    @asynccontextmanager
    async def choosing(self, book: KeysetBook) -> AsyncIterator[None]:
        """Nobody else chooses coins or counters of this mint meanwhile."""
        async with self._locks[book.mint.url, book.unit]:
            yield

    async def _begin(
        self,
        wanted: Request,
        make: Callable[[], Awaitable[Planned]],
        ask: Callable[[], Awaitable[None]] | None,
    ) -> Stored:
        book = self.book(wanted.mint, wanted.unit)
        await self.keysets(book)
        if wanted.kind not in _FETCHED:
            # Each try would use up counters, and too many unused in a row hide later coins from a restore. What is
            # fetched is tried under the same id with the same ones.
            await self._heard(book)
        if ask is not None:
            await ask()
        give_up = self._clock.monotonic() + _PATIENCE_S
        while True:
            freed = self._engine.freed
            try:
                return await self._write_ahead(wanted, make)
            except InsufficientFunds:
                tied_up = await self._purse.coins(mint=wanted.mint, unit=wanted.unit, state="reserved")
                left = give_up - self._clock.monotonic()
                if not tied_up or left <= 0:
                    raise
            await first_of(freed, left, self._clock)

    async def _write_ahead(self, wanted: Request, make: Callable[[], Awaitable[Planned]]) -> Stored:
        """Choose coins and counters and make the plan durable; nobody else may choose meanwhile."""
        async with self._locks[wanted.mint, wanted.unit]:
            try:
                planned = await make()
            except (Unavailable, MintLied, MintRejected) as error:
                raise MintRefused("The mint's keys cannot be had; nothing was begun.", cause=error.code) from error
            plan = planned.plan
            self._check_outputs(plan, wanted.mint, wanted.unit)
            operation = Operation(wanted.op_id, wanted.kind, State.PREPARED)
            stored = Stored(
                operation, plan, wanted.mint, wanted.unit, wanted.effect_id, planned.amount, plan.fee, "", 0, 0
            )
            await self._purse.commit([self._purse.begin(stored), *await self._reserve(stored), *planned.writes])
            return stored

    async def _reserve(self, stored: Stored) -> list[Write]:
        held = await self._purse.known([proof.y for proof in stored.plan.inputs])
        if any((coin.mint, coin.unit) != (stored.mint, stored.unit) for coin in held.values()):
            raise UnitMixed("Coins of another mint or unit were about to be spent.")
        return [self._purse.move(coin, "reserved", stored.op.id) for coin in held.values() if coin.state == "live"]

    def _check_outputs(self, plan: Plan, mint: str, unit: str) -> None:
        """Whatever made the plan: what goes in and what is asked for is of one mint and unit.

        Raises:
            UnitMixed: a keyset is known to be of another unit.
            MintRefused: the mint's keysets have no such coins; nothing was begun.
        """
        book = self.book(mint, unit)
        keysets = {coin.keyset for coin in plan.inputs} | {output.keyset for output in plan.outputs}
        if any(book.roll.unit(keyset) not in (unit, None) for keyset in keysets):
            raise UnitMixed("Coins of different units were about to be swapped.")
        if any(output.amount and not book.has(output.keyset, output.amount) for output in plan.outputs):
            raise MintRefused("The mint has no coins of an amount that this takes; nothing was begun.")
        for keyset in keysets:
            book.roll.pin(keyset, unit)

    async def _may_reopen(self, stored: Stored) -> bool:
        """Whether what was refused may be tried again."""
        if stored.op.kind not in _REOPENED:
            return False
        if stored.reason != "lost_race":
            return True
        # Somebody was first, maybe for a part only: the rest of a locked payment can still come back.
        left = await self._planner.left(stored)
        return 0 < len(left) < len(stored.plan.inputs)

    async def _reopen(self, stored: Stored) -> Stored:
        """Take it up again, with the same request if it still fits: every new one uses up counters.

        Too many of those unused would hide later coins from a restore. Old outputs are looked up with new ones.
        """
        book = self.book(stored.mint, stored.unit)
        await self.keysets(book)
        operation = replace(stored.op, state=State.PREPARED, attempt=1, rejected=None)
        left = await self._planner.left(stored) or stored.plan.inputs
        same = {proof.y for proof in left} == {proof.y for proof in stored.plan.inputs}
        if not same or not all(book.usable(output.keyset) for output in stored.plan.outputs):
            return await self._again(stored, operation)
        new = replace(stored, op=operation, plan=replace(stored.plan, attempt=1), reason="")
        # A restore from the seed takes every coin that is not an open operation's.
        async with self._locks[stored.mint, stored.unit]:
            await self._purse.commit([self._purse.change(stored, new)])
        return replace(new, version=stored.version + 1)

    async def _again(self, stored: Stored, operation: Operation) -> Stored:
        book = self.book(stored.mint, stored.unit)
        async with self._locks[stored.mint, stored.unit]:
            await self._ensure_guarded(book)
            planned = await self._planner.again(stored)
            self._check_outputs(planned.plan, stored.mint, stored.unit)
            plan = replace(planned.plan, attempt=operation.attempt)
            new = replace(stored, op=operation, plan=plan, fee=plan.fee, amount=planned.amount, reason="")
            await self._purse.commit([self._purse.change(stored, new), *planned.writes])
        return replace(new, version=stored.version + 1)

    async def _ensure_guarded(self, book: KeysetBook) -> None:
        """No counter is used before all were compared with the mint.

        Raises:
            MintRefused: they cannot be compared now: our rows are an old copy's, and what is open comes first.
        """
        if book.guarded:
            return
        if book.copied:
            raise MintRefused("What happened at this mint is not known yet; nothing new is asked for.")
        await self._guard(book)
        book.guarded = True

    async def renew(self, stored: Stored) -> Stored:
        """A new plan, made durable, for an operation whose keyset or fee is out of date; see `Planner.again`."""
        return await self._again(stored, stored.op)

    # ------------------------------------------------------------------ deposits

    async def await_payment(self, wanted: Request, plan: Plan, amount: int) -> Stored:
        """Store a deposit whose invoice waits to be paid."""
        operation = Operation(wanted.op_id, Kind.DEPOSIT, State.WAITING)
        stored = Stored(operation, plan, wanted.mint, wanted.unit, wanted.effect_id, amount, 0, "", 0, 0)
        await self._purse.commit([self._purse.begin(stored)])
        return stored

    async def paid(self, stored: Stored, permit: Permit) -> Stored:
        """The invoice was paid: plan outputs, make that durable, mint. A later try is made with the same outputs."""
        book = self.book(stored.mint, stored.unit)
        await self.keysets(book)
        async with self._locks[stored.mint, stored.unit]:
            plan, writes = await self._for_deposit(stored, book)
            operation, _, _ = step(replace(stored.op, attempt=1), QuotePaid())
            new = replace(stored, op=operation, plan=replace(plan, attempt=1), reason="")
            await self._purse.commit([self._purse.change(stored, new), *writes])
        return await self._engine.run(replace(new, version=stored.version + 1), None, permit)

    async def _for_deposit(self, stored: Stored, book: KeysetBook) -> tuple[Plan, tuple[Write, ...]]:
        old = stored.plan
        if old.outputs and all(book.usable(output.keyset) for output in old.outputs):
            return old, ()
        planned = await (self._planner.again(stored) if old.outputs else self._planner.deposit(old, book))
        self._check_outputs(planned.plan, stored.mint, stored.unit)
        return planned.plan, planned.writes

    async def expired(self, stored: Stored, permit: Permit) -> Stored:
        """The invoice was never paid."""
        return await self._engine.run(stored, QuoteExpired(), permit)

    async def minted_before(self, stored: Stored, permit: Permit) -> Stored:
        """The coins were minted in the time that this database does not remember."""
        return await self._engine.run(stored, QuoteIssued(), permit)


async def first_of(event: asyncio.Event, seconds: float, clock: Clock) -> None:
    """Wait for the event, at most so long by this clock."""
    waiter = asyncio.ensure_future(event.wait())
    sleeper = asyncio.ensure_future(clock.sleep(max(0.0, seconds)))
    try:
        await asyncio.wait({waiter, sleeper}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
        sleeper.cancel()
        await asyncio.gather(waiter, sleeper, return_exceptions=True)
