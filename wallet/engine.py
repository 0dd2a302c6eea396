"""Drives one operation through the saga: asks the mint, looks up what is in doubt, books what is sure.

Nothing is sent before `begin` has made the plan durable, and what the mint gave is booked together with the postings
and with whatever rows the caller wants to commit with it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from core.clock import Clock
from core.effect import Permit
from core.error import Conflict, StoreUncertain, Unavailable, VendoError
from core.identifier import EffectId
from core.unit import Write
from relays.key import Key, Keyring
from wallet.cashu.book import KeysetBook
from wallet.cashu.keyset import fee
from wallet.cashu.port import CoinState, MeltQuote, MeltState, Mint, QuoteState
from wallet.cashu.proof import Output, Proof, Signature, total
from wallet.cashu.signature import quote_signature, unblind, witness
from wallet.copy import moved
from wallet.error import MintBusy, MintLied, MintRejected, MintUnreachable, TokenKeyset
from wallet.journal import Account, postings, source
from wallet.melt import change_coins, change_due, change_signatures, receipt, spent
from wallet.payment import (
    Answered,
    Coins,
    Effect,
    Event,
    InFlight,
    Kind,
    LookedUp,
    LookUpFailed,
    NeverSent,
    Operation,
    Rejected,
    Signed,
    Silent,
    State,
    step,
)
from wallet.purse import Coin, Purse, Stored
from wallet.record import Plan

_log = logging.getLogger(__name__)
_MAX_SUBMISSIONS = 2
_BOOKING_TRIES = 3
# An invoice can be paid in its last moment, and clocks differ. So long a mint may take to sign change, too.
_LATE_S = 600

# What says nothing new of an operation: its mint was not heard.
_UNHEARD = frozenset({"look_up_failed", "still_unreachable"})

Then = Callable[[Stored], Sequence[Write]]
Replan = Callable[[Stored], Awaitable[Stored]]
Conclude = Callable[[Stored, Sequence[Proof], Sequence[Proof]], dict[str, Any]]
Booked = Callable[[Stored], Awaitable[Sequence[Write]]]
MakeWay = Callable[[KeysetBook, Collection[Output]], Awaitable[None]]


def _tells(effect: Effect, name: str, reason: str) -> bool:
    """Whether an operation waits for another reason than is known; its owner is told that one."""
    return effect is Effect.WAIT and name not in _UNHEARD and name != reason


async def _untold(stored: Stored) -> Sequence[Write]:
    return ()


@dataclass(slots=True)
class _Drive:
    """What one run through the saga carries along."""

    stored: Stored
    permit: Permit
    then: Then | None
    signatures: dict[str, Signature]
    outputs: tuple[Output, ...] = ()
    proofs: tuple[Proof, ...] = ()
    gone: frozenset[str] = frozenset()
    submissions: int = 0
    collided: bool = False


class Engine:
    """One per wallet.

    Args:
        purse: the rows.
        keyring: signs inputs and quotes.
        clock: stamps postings.
        books: the mints that may be asked, by canonical address and unit.
        permit_for: the gate's permit for an effect that has begun, for work that goes on after a restart.
        replan: makes and commits a new plan for an operation whose keyset or fee is out of date, or raises.
        make_way: raises counters past what the mint has signed, and finds the coins of those outputs that are not ours
            to plan with any more.
        conclude: an operation's result, from what was kept and what is for others.
        collection: the same permit for deposits, also of an effect that has ended; `permit_for` if there is none.
    """

    def __init__(
        self,
        purse: Purse,
        keyring: Keyring,
        clock: Clock,
        books: dict[tuple[str, str], KeysetBook],
        permit_for: Callable[[EffectId], Permit],
        replan: Replan,
        make_way: MakeWay,
        conclude: Conclude,
        collection: Callable[[EffectId], Permit] | None = None,
    ) -> None:
        self._purse = purse
        self._keyring = keyring
        self._clock = clock
        self._books = books
        self._permit_for, self._collection = permit_for, collection or permit_for
        self._replan = replan
        self._make_way = make_way
        self._conclude = conclude
        self.booked: Booked = _untold  # asked for writes that go with a booking; asked again if that is tried again
        self._driven: dict[str, tuple[asyncio.Lock, list[None]]] = {}
        self._freed = asyncio.Event()

    # ------------------------------------------------------------------ who drives what

    @asynccontextmanager
    async def driving(self, id_: str) -> AsyncIterator[None]:
        """Only one task at a time drives an operation."""
        lock, users = self._driven.setdefault(id_, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                yield
        finally:
            users.pop()
            if not users:
                del self._driven[id_]

    def is_driven(self, id_: str) -> bool:
        """Whether a task is at it."""
        return id_ in self._driven

    @property
    def freed(self) -> asyncio.Event:
        """Set when next an operation ends, and so coins may be free. Take it before looking at the coins."""
        return self._freed

    def _free(self) -> None:
        event, self._freed = self._freed, asyncio.Event()
        event.set()

    # ------------------------------------------------------------------ the loop

    async def run(self, stored: Stored, event: Event | None, permit: Permit, then: Then | None = None) -> Stored:
        """Go on from where the operation stands until it ends or must wait. `event` None submits a fresh plan.

        Raises:
            Conflict: `then`'s writes did not fit; the operation itself is booked.
            StoreUncertain: the database failed; recovery goes on from what is durable.
        """
        drive = _Drive(stored, permit, then, {})
        effect: Effect | None = Effect.SUBMIT
        if event is not None:
            effect = await self._move(drive, event)
        while effect in (Effect.SUBMIT, Effect.LOOK_UP, Effect.REPLAN):
            if effect is Effect.REPLAN:
                effect = await self._renew(drive)
                continue
            if effect is Effect.SUBMIT and drive.submissions >= _MAX_SUBMISSIONS:
                break
            found = await (self._submit(drive) if effect is Effect.SUBMIT else self._look_up(drive))
            effect = await self._move(drive, found)
        return drive.stored

    async def resume(self, stored: Stored, event: Event) -> Stored:
        """Take up an operation that nobody drives."""
        permit_for = self._collection if stored.op.kind is Kind.DEPOSIT else self._permit_for
        return await self.run(stored, event, permit_for(stored.effect_id))

    async def _move(self, drive: _Drive, event: Event) -> Effect | None:
        old = drive.stored
        op, effect, name = step(old.op, event)
        if effect is None:
            return None
        drive.collided = name == "collided"
        if name != "answered":
            _log.info("operation moved", extra={"action": "wallet_saga", "operation": op.id, "transition": name})
        if effect is Effect.BOOK:
            await self._book(drive, op)
        elif effect is Effect.RELEASE:
            await self._release(drive, op, name)
        elif (
            op.state is not old.op.state
            or op.loose is not old.op.loose
            or isinstance(event, Silent)  # when the last request went out is to be known
            or _tells(effect, name, old.reason)
        ):
            await self._store(drive, replace(old, op=op, reason=name))
        else:
            drive.stored = replace(old, op=op)
        return effect

    async def _store(self, drive: _Drive, new: Stored, writes: Sequence[Write] = ()) -> None:
        await self._purse.commit([self._purse.change(drive.stored, new), *writes])
        drive.stored = replace(new, version=drive.stored.version + 1, updated_at=self._clock.now())

    # ------------------------------------------------------------------ asking the mint

    def _mint(self, stored: Stored) -> Mint:
        return self._books[stored.mint, stored.unit].mint

    def _key(self, stored: Stored) -> Key:
        return self._keyring.key(*stored.plan.key)

    async def _submit(self, drive: _Drive) -> Event:
        stored, plan = drive.stored, drive.stored.plan
        mint = self._mint(stored)
        drive.submissions += 1
        try:
            if stored.op.kind is Kind.MELT:
                return await self._melted(drive, await mint.melt(plan.quote, plan.inputs, plan.outputs, drive.permit))
            if stored.op.kind is Kind.DEPOSIT:
                proof = quote_signature(plan.quote, plan.outputs, self._key(stored))
                answer = await mint.mint(plan.quote, plan.outputs, proof, drive.permit)
            else:
                answer = await mint.swap(self._signed(stored), plan.outputs, drive.permit)
        except MintUnreachable:
            self._books[stored.mint, stored.unit].silent = True
            return NeverSent()
        except MintBusy:
            # Whoever stands before the mint may have let the request through all the same: it is looked up.
            self._books[stored.mint, stored.unit].silent = True
            return Rejected(0)
        except MintRejected as error:
            return Rejected(error.mint_code)
        except (Unavailable, MintLied):
            return Silent()
        if len(answer) != len(plan.outputs):
            return Silent()
        drive.signatures = {output.b: given for output, given in zip(plan.outputs, answer, strict=True)}
        return Answered() if await self._accept(drive, plan.outputs) else Silent()

    def _signed(self, stored: Stored) -> list[Proof]:
        plan = stored.plan
        if not plan.key:
            return list(plan.inputs)
        key = self._key(stored)
        return [
            proof.signed(
                witness(proof.secret, key, preimage=plan.preimage, cosigned=plan.cosigned.get(proof.secret, ""))
            )
            for proof in plan.inputs
        ]

    async def _accept(self, drive: _Drive, outputs: tuple[Output, ...]) -> bool:
        """Whether valid signatures for all of these outputs are at hand; if so they are what will be booked."""
        try:
            drive.proofs = tuple(await self._unblinded(drive, outputs))
        except (MintLied, TokenKeyset, Unavailable, MintRejected) as error:
            _log.warning(
                "signatures not usable",
                extra={"action": "mint_signatures", "operation": drive.stored.op.id, "code": error.code},
            )
            return False
        drive.outputs = outputs
        return True

    async def _unblinded(self, drive: _Drive, outputs: Sequence[Output]) -> list[Proof]:
        book = self._books[drive.stored.mint, drive.stored.unit]
        await book.known()
        proofs = []
        for output in outputs:
            keys = (await book.keys(output.keyset)).keys
            proofs.append(unblind(output, drive.signatures[output.b], keys[output.amount]))
        return proofs

    # ------------------------------------------------------------------ paying an invoice

    async def _melted(self, drive: _Drive, quote: MeltQuote) -> Event:
        """What the mint's answer to a melt says."""
        if quote.state is MeltState.PENDING:
            return InFlight()
        if quote.state is MeltState.UNPAID:
            return Rejected(0)
        proven = await self._proven(drive, quote)
        return Answered() if proven and not self._owed(drive) else Silent()

    @staticmethod
    def _owed(drive: _Drive) -> bool:
        """Whether change is missing of a melt that is proven; there are mints that sign it in a second step."""
        return spent(drive.stored.plan, total(drive.outputs)).withheld > 0

    def _late(self, plan: Plan) -> bool:
        return self._clock.now() > plan.expires + _LATE_S

    async def _proven(self, drive: _Drive, quote: MeltQuote, *, closed: bool = False) -> bool:
        """Whether a melt that is called paid was; if so its receipt and its change are what will be booked.

        `closed`: its invoice has ended and all its inputs are gone, so that no receipt is to be waited for.

        The mint is asked for the change by its outputs (NUT-09) even where its answer lists some: what is not asked for
        now would be left to a restore from the seed.
        """
        stored = drive.stored
        book, plan = self._books[stored.mint, stored.unit], stored.plan
        try:
            preimage = receipt(plan, quote, closed=closed)
            restored = await book.mint.restore(plan.outputs) if plan.outputs else {}
            every = change_signatures(plan, quote, restored)
            signed = change_due(plan, every)
            await book.known()
            keys = {output.keyset: (await book.keys(output.keyset)).keys for output, _ in signed}
            drive.proofs = change_coins(plan, signed, keys)
        except (MintLied, TokenKeyset, Unavailable, MintRejected) as error:
            _log.warning(
                "a melt is not proven",
                extra={"action": "mint_melt", "operation": stored.op.id, "code": error.code},
            )
            return False
        if len(signed) < len(every):
            _log.error("a mint signed too much change", extra={"action": "change_surplus", "operation": stored.op.id})
        drive.outputs = tuple(output for output, _ in signed)
        proven = replace(plan, terms={**plan.terms, "preimage": preimage})
        drive.stored = replace(stored, plan=proven)
        return True

    async def _melt_state(self, drive: _Drive) -> LookedUp:
        """What the mint's quote and our inputs say of a melt.

        Raises:
            MintLied: it calls the melt paid and cannot prove it.
        """
        stored, plan = drive.stored, drive.stored.plan
        if stored.op.rejected is not None:
            await self._books[stored.mint, stored.unit].refresh()  # maybe for its keyset: the next plan must know
        quote = await self._mint(stored).melt_quote(plan.quote)
        inputs = await self._inputs(drive)
        if quote.state is not MeltState.PAID and inputs is not Coins.UNSPENT:
            quote = await self._mint(stored).melt_quote(plan.quote)  # it may have paid between the two questions
        if quote.state is MeltState.PAID:
            closed = self._late(plan) and len(drive.gone) == len(plan.inputs)
            if inputs is Coins.SPENT and not await self._proven(drive, quote, closed=closed):
                raise MintLied("The mint calls an invoice paid and does not prove it.")
            if inputs is Coins.SPENT and self._owed(drive) and self._may_sign(stored):
                return LookedUp(Signed.ALL, Coins.PENDING)
            return LookedUp(Signed.ALL, inputs)
        paying = quote.state is MeltState.PENDING
        return LookedUp(Signed.NONE, Coins.PENDING if paying else inputs, late=self._late(plan))

    def _may_sign(self, stored: Stored) -> bool:
        """Whether the change of a paid melt may still come: a while from when it was first seen to be missing."""
        return stored.reason != "not_ours" or self._clock.now() < stored.updated_at + _LATE_S

    # ------------------------------------------------------------------ looking up

    async def _look_up(self, drive: _Drive) -> Event:
        try:
            if drive.stored.op.kind is Kind.MELT:
                return await self._melt_state(drive)
            signed = await self._restored(drive)
            inputs = await self._inputs(drive)
            if signed is not Signed.ALL:
                # The mint may have done the swap between the two questions.
                before, signed = signed, await self._restored(drive)
                inputs = inputs if signed is before else await self._inputs(drive)
            stale = signed is Signed.NONE and drive.stored.op.rejected is not None and await self._stale(drive)
        except (Unavailable, MintRejected, MintLied):
            return LookUpFailed()
        return LookedUp(signed, inputs, stale, late=self._clock.now() > drive.stored.updated_at + _LATE_S)

    async def _restored(self, drive: _Drive) -> Signed:
        plan = drive.stored.plan
        groups = [group for group in (plan.outputs, *plan.past) if group]
        found = await self._mint(drive.stored).restore([output for group in groups for output in group])
        drive.signatures = dict(found)
        most = Signed.NONE
        for group in groups:
            held = sum(output.b in found for output in group)
            if held == len(group):
                return Signed.ALL if await self._accept(drive, group) else Signed.SOME
            most = Signed.SOME if held else most
        return most

    async def _inputs(self, drive: _Drive) -> Coins:
        stored = drive.stored
        mint = self._mint(stored)
        if stored.op.kind is Kind.DEPOSIT:
            state = (await mint.quote(stored.plan.quote)).state
            return {QuoteState.PAID: Coins.UNSPENT, QuoteState.ISSUED: Coins.SPENT}.get(state, Coins.PENDING)
        reports = await mint.states([proof.y for proof in stored.plan.inputs])
        drive.gone = frozenset(y for y, report in reports.items() if report.state is CoinState.SPENT)
        states = {report.state for report in reports.values()}
        if CoinState.SPENT in states:
            return Coins.SPENT
        return Coins.PENDING if CoinState.PENDING in states else Coins.UNSPENT

    async def _stale(self, drive: _Drive) -> bool:
        stored = drive.stored
        book = self._books[stored.mint, stored.unit]
        await book.refresh()
        if not all(book.usable(output.keyset) for output in stored.plan.outputs):
            return True
        ids = [proof.keyset for proof in stored.plan.inputs]
        return all(id_ in book.infos for id_ in ids) and fee(ids, book.infos) != stored.plan.fee

    async def _renew(self, drive: _Drive) -> Effect | None:
        try:
            if drive.collided:
                drive.stored = await self._cleared(drive)
            drive.stored = await self._replan(drive.stored)
        except (StoreUncertain, Conflict):
            raise
        except VendoError as error:
            _log.info("no new plan", extra={"action": "wallet_replan", "code": error.code})
            # A deposit's money is at the mint: it is asked for again, as when it is turned away.
            end = State.WAITING if drive.stored.op.kind is Kind.DEPOSIT else State.REFUSED
            await self._release(drive, replace(drive.stored.op, state=end, rejected=None), "outdated")
            return None
        drive.submissions = 0
        return Effect.SUBMIT

    async def _cleared(self, drive: _Drive) -> Stored:
        """The operation without the outputs that were signed for something else; it is stored with its new plan.

        Nobody may look them up as its own any more: once its inputs are spent, they would be booked for it.
        """
        stored, plan = drive.stored, drive.stored.plan
        groups = [group for group in (*plan.past, plan.outputs) if group]
        taken = [any(output.b in drive.signatures for output in group) for group in groups]
        others = [output for group, gone in zip(groups, taken, strict=True) if gone for output in group]
        _log.error("outputs were signed before", extra={"action": "wallet_collision", "operation": stored.op.id})
        await self._make_way(self._books[stored.mint, stored.unit], others)
        past = tuple(group for group, gone in zip(groups, taken, strict=True) if not gone)
        return replace(stored, plan=replace(plan, outputs=(), past=past))

    # ------------------------------------------------------------------ booking

    async def _book(self, drive: _Drive, op: Operation) -> None:
        new = replace(drive.stored, op=op, reason="")
        pairs = list(zip(drive.proofs, drive.outputs, strict=True))
        kept, given = ([proof for proof, output in pairs if output.gives is gives] for gives in (False, True))
        conflict: Conflict | None = None
        for _ in range(_BOOKING_TRIES):
            writes, spent_fee = await self._booking(drive)
            done = replace(new, fee=spent_fee)
            done = replace(done, result=self._conclude(done, kept, given))
            told: Sequence[Write] = ()
            if self.booked is not _untold:
                told = await self.booked(done)
                writes, _ = await self._booking(drive)  # as the coins are now: asking took its time
            extra = list(drive.then(done)) if drive.then is not None and conflict is None else []
            try:
                await self._store(drive, done, [*writes, *told, *extra])
            except Conflict as error:
                fresh = await self._purse.find(op.id)
                if fresh is None or fresh.version != drive.stored.version:
                    raise
                # A coin's row changed meanwhile, or the caller's rows do not fit: the money is booked in any case.
                conflict = error
                continue
            self._free()
            if extra == [] and drive.then is not None and conflict is not None:
                raise conflict
            return
        raise conflict or Conflict()

    async def _booking(self, drive: _Drive) -> tuple[list[Write], int]:
        """Rows and postings for an operation that happened, and the mint's fee in it."""
        stored = drive.stored
        writes: list[Write] = []
        moves = dict.fromkeys(Account, 0)
        inputs = stored.plan.inputs
        owned = await self._purse.known([proof.y for proof in inputs])
        for proof in inputs:
            coin = owned.get(proof.y)
            writes += [] if coin is None else [self._purse.spend(coin)]
            moves[self._holder(coin, stored)] -= proof.amount
        for proof, output in zip(drive.proofs, drive.outputs, strict=True):
            state, account = ("locked", Account.LOCKED) if output.gives else ("live", Account.WALLET)
            writes.append(self._purse.insert(proof, stored.mint, stored.unit, state, stored.op.id))
            moves[account] += proof.amount
        if stored.op.kind is Kind.DEPOSIT:
            moves[Account.DEPOSITS] -= total(drive.outputs)
        if stored.op.kind is Kind.MELT:
            took = spent(stored.plan, total(drive.outputs))
            moves[Account.LIGHTNING], moves[Account.LOST] = took.amount, took.withheld
            if took.withheld:
                _log.error("a mint kept change", extra={"action": "change_withheld", "amount": took.withheld})
        moves[Account.FEES] = -sum(moves.values())
        writes += postings(stored.op.id, stored.mint, stored.unit, self._clock.now(), moves)
        return writes, moves[Account.FEES]

    @staticmethod
    def _holder(coin: Coin | None, stored: Stored) -> Account:
        """The account that an input stood in."""
        if coin is not None and coin.state == "reserved" and coin.operation == stored.op.id:
            return Account.WALLET
        if coin is not None and coin.state == "locked":
            return Account.LOCKED
        return source(stored.op.kind)

    async def _release(self, drive: _Drive, op: Operation, name: str) -> None:
        """Nothing happened: reserved coins are free again. Those that turned out spent elsewhere are written off."""
        old = drive.stored
        held = await self._purse.coins(operation=op.id, state="reserved")
        lost = [coin for coin in held if name == "lost_race" and coin.y in drive.gone]
        writes: list[Write] = [
            self._purse.spend(coin) if coin in lost else self._purse.move(coin, "live", "") for coin in held
        ]
        if lost:
            amount = sum(coin.amount for coin in lost)
            _log.error("coins were spent elsewhere", extra={"action": "coins_lost", "amount": amount})
            # The life that a copy does not remember spent them.
            moves = {Account.WALLET: -amount, (Account.ELSEWHERE if old.plan.copied else Account.LOST): amount}
            writes += postings(op.id, old.mint, old.unit, self._clock.now(), moves)
        if name == "lost_race" and old.plan.copied:
            writes.append(moved(old.mint))
        await self._store(drive, replace(old, op=op, reason=name), writes)
        self._free()
