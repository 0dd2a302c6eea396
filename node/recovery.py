"""Finishes what a wallet memo named: searches its mints, takes up what was under way, takes locked money back in time.

Each entry is looked up at its mint first. What has to be done then is an effect like any other of the operator's, under
a key that derives from the entry, so that a process that dies in the middle goes on at its next start, and an entry
that comes again from another relay is not done twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from core.clock import Clock
from core.effect import EffectClass, Permit
from core.error import InvalidInput, StoreUncertain, VendoError
from core.identifier import EffectId, OperationId, derived_id
from fs.service.treasury import BASE, OperationEnded
from fs.session import Role, Session
from wallet.amount import SAT
from wallet.cashu.port import Mint
from wallet.error import MintLied, TokenSpent, UnitAbsent
from wallet.memo import Memo
from wallet.model import Gained, OperationView, Received, Restored
from wallet.payment import Kind, State
from wallet.pending import Pending
from wallet.recollection import Lookup, Recollection
from wallet.teller import first_of

log = logging.getLogger(__name__)

CALLER, NAME = "operator", "restore"
LOOK_S = 1.0
LONGEST_WAIT_S = 600.0
MARGIN_S = 2  # the mint's clock decides whether a locktime has passed
TRIES = 10_000  # of a refund; each is its own effect, and one that failed moved nothing
_ONCE = frozenset({Kind.DEPOSIT, Kind.MELT})
_ENDED = frozenset({"done", "gone", "begun", "absent"})

Act = Callable[[OperationId, EffectId, Permit], Awaitable[Mapping[str, Any]]]


class Mover(Protocol):
    """Moves money as one effect: `fs.service.treasury.Treasurer`."""

    async def move(
        self, session: Session, name: str, body: bytes, note: Mapping[str, str | int], effect: EffectClass, act: Act
    ) -> dict[str, Any]:
        """Do it, once however often it is asked for."""


class Coins(Protocol):
    """The wallet, as far as it is needed here: `wallet.wallet.Wallet`."""

    @property
    def recollection(self) -> Recollection:
        """What it makes of memos."""

    @property
    def units(self) -> tuple[str, ...]:
        """The units that it handles."""

    @property
    def mints(self) -> tuple[str, ...]:
        """The trusted ones."""

    @property
    def known_mints(self) -> tuple[str, ...]:
        """All mints that may be asked."""

    def fetch_from(self, mint: Mint) -> None:
        """Ask one more mint, for what is ours there."""

    async def find(self, op_id: str) -> OperationView | None:
        """One of its operations."""

    async def units_at(self, mint: str) -> tuple[str, ...]:
        """The units in which there may be something at a mint."""

    def is_contested(self, mint: str) -> bool:
        """Whether the mint contradicts itself about some of its keysets, which are left out of everything then."""

    async def restore(self, mint: str, unit: str) -> Restored:
        """Find coins of this seed, in one unit."""

    async def refund(self, op_id: str, lock_op_id: str, effect_id: EffectId, permit: Permit) -> Received:
        """Take a locked payment back."""


class Standing(StrEnum):
    """How far an entry is."""

    WAITING = "waiting"  # a lock that is not due, or a mint that did not say all: it is looked at again
    BEGUN = "begun"  # an ordinary operation of the wallet from now on
    DONE = "done"  # the money is back
    GONE = "gone"  # it was taken, by us or by whom it was for
    ABSENT = "absent"  # the mint never signed it


@dataclass(frozen=True, slots=True)
class Looked:
    """An entry, how far it is, and the code of the error that keeps it waiting."""

    entry: Pending
    standing: Standing
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Searched:
    """What a mint was found to hold, in one unit; `problem` is the error's code if it did not say all."""

    restored: Restored
    problem: str = ""


@dataclass(slots=True)
class _Pace:
    due: float
    wait: float = LOOK_S


def _got(got: Received | Gained) -> dict[str, str | int]:
    if isinstance(got, Received):
        return {"amount_sat": got.amount_sat}
    return {"unit": got.amount.unit, "amount": got.amount.value}


class Recovery:
    """One per node. A service: `run` goes on with entries until none is left.

    Args:
        wallet: the coins.
        mover: makes effects of what is moved.
        clock: the pace.
        connect: a client for a mint's address.
    """

    def __init__(self, wallet: Coins, mover: Mover, clock: Clock, connect: Callable[[str], Mint]) -> None:
        self._wallet, self._mover, self._clock, self._connect = wallet, mover, clock, connect
        self._mind = wallet.recollection
        self._paces: dict[str, _Pace] = {}
        self._places: dict[str, int] = {}
        self._next = 0.0  # when a round finds something to do
        self._kept = asyncio.Event()
        self._turn = asyncio.Lock()

    # ---- what a memo said

    async def load(self) -> None:
        """Before anything acts: the mints of what is not finished are asked again, also those off the list.

        Raises:
            VendoError: the database failed.
        """
        mints = {one.mint for one in await self._mind.kept()} | {mint for mint, _ in await self._mind.unscanned()}
        for mint in sorted(mints):
            self._wallet.fetch_from(self._connect(mint))
        if mints:
            self._next = 0.0
            self._kept.set()

    async def take_in(self, memo: Memo) -> list[Pending]:
        """Make durable what a memo says. What of it is new here.

        Raises:
            VendoError: the database failed; nothing is known of the memo then.
        """
        fresh = await self._mind.keep(memo, self._wallet.units)
        await self.load()
        self._paces.clear()  # somebody waits for it
        return fresh

    def is_listed(self, mint: str) -> bool:
        """Whether a mint is trusted; of another one only what is ours there is fetched."""
        return mint in self._wallet.mints

    def is_known(self, mint: str) -> bool:
        """Whether a mint may be asked: it is trusted, or something of ours lies there."""
        return mint in self._wallet.known_mints

    # ---- one round

    async def look(self) -> tuple[list[Searched], list[Looked]]:
        """Search every mint for coins, and go on with every entry, whatever its pace.

        Raises:
            VendoError: the database failed.
        """
        async with self._turn:
            entries = await self._mind.kept()
            # Before the search: what such a payment holds must not be taken for free coins.
            looked = [await self._advance(one) for one in entries if one.kind is Kind.MELT]
            searched = [one for mint in self._wallet.known_mints for one in await self._search(mint)]
            looked += [await self._advance(one) for one in entries if one.kind is not Kind.MELT]
            return searched, looked

    async def _search(self, mint: str) -> list[Searched]:
        """In each of its units. What it has not said is asked for again."""
        try:
            units = await self._wallet.units_at(mint)
        except StoreUncertain:
            raise
        except VendoError as error:
            return [self._unsearched(mint, SAT, error)]
        # That a mint lists no keysets of a unit now does not say that nothing lies there.
        named = {unit for one, unit in await self._mind.unscanned() if one == mint}
        found = [await self._search_unit(mint, unit, is_named=unit in named) for unit in units]
        return found + [self._unsearched(mint, unit, UnitAbsent()) for unit in sorted(named - set(units))]

    async def _search_unit(self, mint: str, unit: str, *, is_named: bool) -> Searched:
        """In one unit. `is_named`: a memo says that something lies there, and says so until all was searched."""
        found = Restored(mint, 0, 0, 0, unit)
        try:
            found = await self._wallet.restore(mint, unit)
            if is_named and not found.keysets:
                raise UnitAbsent
            if self._wallet.is_contested(mint):
                raise MintLied  # those keysets were not searched
            await self._mind.scanned(mint, unit)
        except StoreUncertain:
            raise
        except VendoError as error:
            return replace(self._unsearched(mint, unit, error), restored=found)
        return Searched(found)

    @staticmethod
    def _unsearched(mint: str, unit: str, error: VendoError) -> Searched:
        about = {"action": "restore_waits", "mint": mint, "unit": unit, "code": error.code}
        log.warning("a mint was not searched", extra=about)
        return Searched(Restored(mint, 0, 0, 0, unit), error.code)

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Go on with what is left until `stop`."""
        ready.set()
        while not stop.is_set():
            if self._kept.is_set() and self._clock.monotonic() >= self._next:
                self._next = self._clock.monotonic() + LOOK_S
                try:
                    await self._round(stop)
                except VendoError as error:
                    log.warning("a restore waits", extra={"action": "restore_waits", "code": error.code})
            await first_of(stop, LOOK_S, self._clock)

    async def _round(self, stop: asyncio.Event) -> None:
        entries, unsearched = await self._mind.kept(), await self._mind.unscanned()
        if not entries and not unsearched:
            self._kept.clear()
            return
        melts = [one for one in entries if one.kind is Kind.MELT]
        for one in (*melts, *(one for one in entries if one.kind is not Kind.MELT)):
            if stop.is_set():
                return
            if self._is_due(one.op_id):
                async with self._turn:
                    await self._advance(one)
        held_back = {one.mint for one in await self._mind.kept() if one.kind is Kind.MELT}
        for mint in sorted({mint for mint, _ in unsearched} - held_back):
            if self._is_due(mint):
                async with self._turn:
                    await self._search(mint)
        listed = {one.op_id for one in entries} | {mint for mint, _ in unsearched}
        self._next = min(self._paces[name].due if name in self._paces else 0.0 for name in listed)

    def _is_due(self, name: str) -> bool:
        now = self._clock.monotonic()
        pace = self._paces.setdefault(name, _Pace(now))
        if pace.due > now:
            return False
        pace.due, pace.wait = now + pace.wait, min(2 * pace.wait, LONGEST_WAIT_S)
        return True

    # ---- one entry

    async def _advance(self, one: Pending) -> Looked:
        """Look an entry up and do what is to be done; what is finished is dropped."""
        try:
            standing = await (self._lock(one) if one.kind is Kind.LOCK else self._take_up(one))
        except StoreUncertain:
            raise
        except VendoError as error:
            about = {"action": "restore_waits", "operation": one.op_id, "code": error.code}
            log.warning("what a memo named waits", extra=about)
            return Looked(one, Standing.WAITING, error.code)
        if standing in _ENDED:
            await self._mind.drop(one)
            self._paces.pop(one.op_id, None)
            log.info("what a memo named", extra={"action": "recovered", "operation": one.op_id, "standing": standing})
        return Looked(one, standing)

    async def _lock(self, one: Pending) -> Standing:
        found = await self._mind.lock(one)
        now = self._clock.now()
        if found is Lookup.GONE:
            return Standing.GONE
        if now <= one.due + MARGIN_S:
            # Asked for again even if it is absent: our last request may still be on its way.
            left = float(one.due + MARGIN_S + 1 - now)
            self._paces[one.op_id] = _Pace(self._clock.monotonic() + min(left, LONGEST_WAIT_S))
            return Standing.WAITING
        if found is Lookup.ABSENT:
            return Standing.ABSENT
        if await self._mind.taken(one):
            return Standing.GONE

        async def refund(op_id: OperationId, effect_id: EffectId, permit: Permit) -> Mapping[str, Any]:
            back = await self._wallet.refund(op_id, one.op_id, effect_id, permit)
            return {"state": "done", "amount_sat": back.amount_sat}

        answer = await self._move(one, refund)
        return Standing.DONE if answer.get("state") == State.DONE else Standing.WAITING

    async def _take_up(self, one: Pending) -> Standing:
        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> Mapping[str, Any]:
            if one.kind is Kind.DEPOSIT:
                return {"state": str(await self._mind.deposit(op_id, one, effect_id))}
            if one.kind is Kind.MELT:
                return {"state": str(await self._mind.melt(op_id, one, effect_id))}
            got = await self._mind.take(op_id, one, effect_id, permit)
            return {"state": "done", **_got(got)}

        try:
            answer = await self._move(one, act)
        except TokenSpent:
            return Standing.GONE
        if await self._wallet.find(answer["op_id"]) is None:
            return Standing.WAITING  # a crash came between its effect and its row; the treasurer ends that effect
        return Standing.DONE if answer.get("state") == State.DONE else Standing.BEGUN

    async def _move(self, one: Pending, act: Act) -> dict[str, Any]:
        """One effect; if an earlier one for this entry has ended without success, another one.

        Not where the wallet has looked it up: a payment that was not made, or a deposit that was minted before.

        Raises:
            TokenSpent: it was, and there is nothing more to do.
            OperationEnded: it was tried too often.
            VendoError: what the gate, the wallet or the database raised.
        """
        body = derived_id("found", one.op_id, str(one.kind)).encode()
        note: dict[str, str | int] = {
            "kind": str(one.kind),
            "mint": one.mint,
            "unit": one.unit,
            "amount": one.amount,
        }
        for place in range(self._places.get(one.op_id, 0), TRIES):
            session = Session(CALLER, Role.OPERATOR, f"found/{derived_id(one.op_id)}/{place}")
            self._places[one.op_id] = place
            try:
                return await self._mover.move(session, NAME, body, note, EffectClass.EXTERNAL, act)
            except OperationEnded as error:
                op_id = derived_id(session.caller, BASE + NAME, session.effect_key())
                if one.kind in _ONCE and await self._wallet.find(op_id) is not None:
                    raise TokenSpent from error
        raise InvalidInput("This was tried too often.")
