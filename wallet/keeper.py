"""The wallet's background work: takes up operations that nobody drives, mints paid deposits, books taken payments."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from core.clock import Clock
from core.effect import Permit
from core.error import VendoError
from core.identifier import EffectId
from wallet.auditor import Auditor
from wallet.cashu.book import KeysetBook
from wallet.cashu.port import QuoteState
from wallet.engine import Engine
from wallet.error import MintUnlisted
from wallet.payment import Restarted, State
from wallet.purse import OPEN, Purse, Stored
from wallet.teller import Teller, first_of

_log = logging.getLogger(__name__)
_TICK_S = 0.5
_SLOWEST_S = 60.0
_SLOWEST_POLL_S = 10.0
_SWEEP_S = 60.0
_SWEEP = "sweep"
# An invoice that was paid in its last moment may show as paid much later.
_LATE_POLL_S = 3_600.0
_EXPIRY_MARGIN_S = 7 * 86_400
# Of invoices that strangers ask for most are never paid, and their number costs.
_BRIEF_MARGIN_S = 3_600
UNTIL = "until"  # in a deposit's terms: until when it is expected to be paid


@dataclass(slots=True)
class _Pace:
    """When an operation is looked at again; each time later."""

    due: float
    delay: float


def _margin(stored: Stored) -> int:
    return _BRIEF_MARGIN_S if UNTIL in stored.plan.terms else _EXPIRY_MARGIN_S


def _name(book: KeysetBook) -> str:
    return f"{book.unit} {book.mint.url}"


class Keeper:
    """Owned by the wallet; see `run`.

    Args:
        purse: the rows.
        teller: mints paid deposits.
        engine: drives operations.
        auditor: books taken payments.
        books: the mints.
        clock: the pace.
        permit_for: the gate's permit for deposits, also of an effect that has ended.
    """

    def __init__(
        self,
        purse: Purse,
        teller: Teller,
        engine: Engine,
        auditor: Auditor,
        books: Mapping[tuple[str, str], KeysetBook],
        clock: Clock,
        permit_for: Callable[[EffectId], Permit],
    ) -> None:
        self._purse = purse
        self._teller = teller
        self._engine = engine
        self._auditor = auditor
        self._books = books
        self._clock = clock
        self._permit_for = permit_for
        self._pace: dict[str, _Pace] = {}
        self._swept_at = clock.monotonic()
        self._busy: set[str] = set()  # mints that a task is at

    async def recover(self) -> int:
        """Take up every open operation once; how many are still open afterwards."""
        by_mint: dict[str, list[Stored]] = {}
        for stored in await self._purse.operations(state=OPEN):
            by_mint.setdefault(stored.mint, []).append(stored)
        # One silent mint must not keep the others waiting.
        async with asyncio.TaskGroup() as group:
            for operations in by_mint.values():
                group.create_task(self._each(operations))
        return len(await self._purse.operations(state=OPEN))

    async def look_up(self, book: KeysetBook) -> None:
        """Take up every open operation at one mint."""
        await self._each(await self._purse.operations(mint=book.mint.url, unit=book.unit, state=OPEN))

    async def _each(self, operations: list[Stored]) -> None:
        for stored in operations:
            await self._resume(stored.op.id)

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Work until told to stop. A failure of one operation never ends it."""
        ready.set()
        # A mint that is away, or has much to say, keeps no other one waiting.
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                await self._round(group)
                await first_of(stop, _TICK_S, self._clock)

    async def _round(self, group: asyncio.TaskGroup) -> None:
        try:
            waiting = await self._purse.operations(state=str(State.WAITING))
            doubtful = await self._purse.operations(state=OPEN)
        except VendoError as error:
            _log.warning("the wallet's rows cannot be read", extra={"action": "wallet_round", "code": error.code})
            return
        copied = [book for book in self._books.values() if book.copied]
        listed = {stored.op.id for stored in (*waiting, *doubtful)} | {_name(book) for book in copied}
        self._pace = {id_: pace for id_, pace in self._pace.items() if id_ in listed}
        for mint in {stored.mint for stored in (*waiting, *doubtful)} | {book.mint.url for book in copied}:
            work = self._at_mint(
                [stored for stored in waiting if stored.mint == mint],
                [book for book in copied if book.mint.url == mint],
                [stored for stored in doubtful if stored.mint == mint],
            )
            self._begin(group, mint, work)
        if self._clock.monotonic() - self._swept_at >= _SWEEP_S:
            self._swept_at = self._clock.monotonic()
            self._begin(group, _SWEEP, self._guarded(self._auditor.sweep))

    def _begin(self, group: asyncio.TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Unless a task is still at it."""

        async def go() -> None:
            try:
                await work
            finally:
                self._busy.discard(name)

        if name in self._busy:
            work.close()
            return
        self._busy.add(name)
        group.create_task(go())

    async def _at_mint(self, waiting: list[Stored], copied: list[KeysetBook], doubtful: list[Stored]) -> None:
        for stored in waiting:
            late = self._clock.now() > int(stored.plan.terms.get(UNTIL, stored.plan.expires))
            if self._due(stored.op.id, _LATE_POLL_S if late else _SLOWEST_POLL_S):
                await self.poll(stored.op.id)
        for book in copied:
            if self._due(_name(book), _SLOWEST_S):
                await self._teller.warm(book)
        for stored in doubtful:
            if not self._engine.is_driven(stored.op.id) and self._due(stored.op.id, _SLOWEST_S):
                await self._resume(stored.op.id)

    def _due(self, id_: str, slowest: float) -> bool:
        now = self._clock.monotonic()
        pace = self._pace.setdefault(id_, _Pace(now, _TICK_S))
        if pace.due > now:
            return False
        pace.delay = min(pace.delay * 2, slowest)
        pace.due = now + pace.delay
        return True

    async def _resume(self, id_: str) -> None:
        async def go() -> None:
            async with self._engine.driving(id_):
                stored = await self._purse.find(id_)
                if stored is not None and stored.op.state in (State.PREPARED, State.UNKNOWN):
                    self._book(stored)
                    await self._engine.resume(stored, Restarted())

        await self._guarded(go)

    async def poll(self, id_: str) -> None:
        """Look whether a deposit's invoice was paid, and mint if so."""

        async def go() -> None:
            async with self._engine.driving(id_):
                stored = await self._purse.find(id_)
                if stored is not None and stored.op.state is State.WAITING:
                    await self._settle(stored)

        await self._guarded(go)

    async def _settle(self, stored: Stored) -> None:
        permit = self._permit_for(stored.effect_id)
        quote = await self._book(stored).mint.quote(stored.plan.quote)
        if quote.state is QuoteState.PAID:
            await self._teller.paid(stored, permit)
        elif quote.state is QuoteState.ISSUED:
            await self._issued(stored, permit)
        elif quote.state is QuoteState.UNPAID and self._clock.now() > stored.plan.expires + _margin(stored):
            await self._teller.expired(stored, permit)

    async def _issued(self, stored: Stored, permit: Permit) -> None:
        """If its outputs are known they may be what was signed; else the coins of an old copy's deposit were found.

        A copy of a request may reach the mint late, after another copy was refused and the deposit waits again.
        """
        if stored.plan.outputs or stored.plan.past:
            await self._teller.paid(stored, permit)
        elif stored.plan.copied and not self._book(stored).copied:
            await self._teller.minted_before(stored, permit)

    def _book(self, stored: Stored) -> KeysetBook:
        try:
            return self._teller.book(stored.mint, stored.unit)
        except MintUnlisted:
            _log.error("an open operation's mint is no longer listed", extra={"action": "mint_unlisted"})
            raise

    async def _guarded(self, act: Callable[[], Awaitable[None]]) -> None:
        try:
            await act()
        except VendoError as error:
            _log.warning("background work failed", extra={"action": "wallet_background", "code": error.code})
