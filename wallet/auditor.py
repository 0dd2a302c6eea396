"""Compares rows, journal and mints; books what others took; finds coins again from the seed."""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from core.clock import Clock
from core.error import Conflict, Unavailable, VendoError
from core.unit import Among, Write
from wallet.amount import SAT
from wallet.cashu.book import KeysetBook
from wallet.cashu.port import CoinReport, CoinState
from wallet.error import MintLied, MintRejected
from wallet.journal import LIGHTNING, Account, balances, postings, sink
from wallet.model import Audit, AuditedMint, Balance, SpentState
from wallet.payment import Kind
from wallet.purse import OPEN, PENDING, Coin, Purse

_log = logging.getLogger(__name__)
_LOOKS, _PAUSE_S = 5, 0.2
_HELD = Among(("live", "reserved", "locked"))


class Auditor:
    """Reads everything, and books only facts that a mint has stated.

    Args:
        purse: the rows.
        books: the mints, by canonical address and unit.
        clock: stamps postings.
    """

    def __init__(self, purse: Purse, books: Mapping[tuple[str, str], KeysetBook], clock: Clock) -> None:
        self._purse = purse
        self._books = books
        self._clock = clock

    async def balance(self) -> list[Balance]:
        """What is held, per mint and unit; of units other than sat where there is something."""
        sums: dict[tuple[str, str], Counter[str]] = {key: Counter() for key in self._books if key[1] == SAT}
        for coin in await self._purse.coins(state=_HELD):
            sums.setdefault((coin.mint, coin.unit), Counter())[coin.state] += coin.amount
        return [
            Balance(mint, unit, held["live"], held["reserved"], held["locked"])
            for (mint, unit), held in sorted(sums.items())
        ]

    # ------------------------------------------------------------------ what became of coins that we gave away

    async def spent(self, book: KeysetBook, ys: Sequence[str]) -> SpentState:
        """Ask the mint (NUT-07), and book locked coins of ours that were taken."""
        reports = await book.mint.states(ys)
        await self._book_taken(book, reports)
        states = {str(report.state) for report in reports.values()}
        return SpentState(states.pop() if len(states) == 1 else "MIXED", reports)

    async def _book_taken(self, book: KeysetBook, reports: Mapping[str, CoinReport]) -> None:
        gone = [y for y, report in reports.items() if report.state is CoinState.SPENT]
        if not gone:
            return
        # A refund of ours that is under way or in doubt may be what spent them.
        ours = {proof.y for stored in await self._purse.operations(state=OPEN) for proof in stored.plan.inputs}
        taken: dict[str, list[Coin]] = {}
        for coin in (await self._purse.known(gone)).values():
            here = (coin.mint, coin.unit) == (book.mint.url, book.unit)
            if here and coin.state == "locked" and coin.y not in ours:
                taken.setdefault(coin.operation, []).append(coin)
        for operation, coins in taken.items():
            await self._book_one(book, operation, coins)

    async def _book_one(self, book: KeysetBook, operation: str, coins: Sequence[Coin]) -> None:
        stored = await self._purse.find(operation)
        amount = sum(coin.amount for coin in coins)
        where = sink(stored.op.kind if stored is not None else Kind.SEND)
        writes: list[Write] = [self._purse.spend(coin) for coin in coins]
        moves = {Account.LOCKED: -amount, where: amount}
        writes += postings(operation, book.mint.url, book.unit, self._clock.now(), moves)
        try:
            await self._purse.commit(writes)
        except Conflict:
            _log.info("already booked", extra={"action": "taken_booked_twice", "operation": operation})

    async def sweep(self) -> None:
        """Ask about everything that we gave away and that was not taken when last seen. No mint waits for another."""
        async with asyncio.TaskGroup() as group:
            for book in list(self._books.values()):
                group.create_task(self._swept(book))

    async def _swept(self, book: KeysetBook) -> None:
        try:
            given = await self._purse.coins(mint=book.mint.url, unit=book.unit, state="locked")
            if given:
                await self.spent(book, [coin.y for coin in given])
        except VendoError as error:
            _log.info("not asked about locked coins", extra={"action": "wallet_sweep", "code": error.code})

    # ------------------------------------------------------------------ audit

    async def audit(self) -> Audit:
        """Whether rows, journal and mints agree."""
        differences: list[str] = []
        for book in list(self._books.values()):
            try:
                differences += await self._against_mint(book)
            except (Unavailable, MintRejected, MintLied) as error:
                differences.append(f"{book.mint.url} gave no usable answer ({error.code})")
        for left in range(_LOOKS, 0, -1):
            own = await self._own()
            if own.clean or left == 1:
                break
            await self._clock.sleep(_PAUSE_S)  # rows were read one after the other, and something was booked between
        return replace(own, differences=(*differences, *own.differences))

    async def _own(self) -> Audit:
        """Whether rows and journal agree, without the mints."""
        differences: list[str] = []
        journal = balances(await self._purse.posted())
        audited = []
        balances_now = await self.balance()
        doubtful = await self._purse.operations(state=OPEN)
        paying = Counter[tuple[str, str]]()
        for stored in doubtful:
            if stored.op.kind is Kind.MELT and stored.reason in PENDING:
                paying[stored.mint, stored.unit] += stored.amount
        for held in balances_now:
            accounts = journal.pop((held.mint, held.unit), Counter())
            audited.append(
                AuditedMint(
                    held.mint,
                    held.unit,
                    held.live,
                    held.reserved,
                    held.locked,
                    {str(name): amount for name, amount in sorted(accounts.items())},
                    paying[held.mint, held.unit],
                )
            )
            differences += _against_journal(held, accounts)
        for (mint, unit), accounts in journal.items():
            if mint.startswith(LIGHTNING):
                continue  # not coins: `wallet.lightning_audit` compares them
            if accounts[Account.WALLET] or accounts[Account.LOCKED] or sum(accounts.values()):
                differences.append(f"{mint} {unit}: the journal holds money of which there are no coins")
        differences += await self._orphans({stored.op.id for stored in doubtful})
        paying_sat = sum(amount for (_, unit), amount in paying.items() if unit == SAT)
        return Audit(tuple(audited), len(doubtful), tuple(differences), paying_sat)

    async def _against_mint(self, book: KeysetBook) -> list[str]:
        where = f"{book.mint.url} {book.unit}"
        given = await self._purse.coins(mint=book.mint.url, unit=book.unit, state="locked")
        if given:
            await self.spent(book, [coin.y for coin in given])
        live = await self._purse.coins(mint=book.mint.url, unit=book.unit, state="live")
        if not live:
            return []
        contested = sum(coin.amount for coin in live if coin.proof and coin.proof.keyset in book.roll.contested)
        found = [f"{where}: {contested} in a keyset of which the mint says two things"] if contested else []
        reports = await book.mint.states([coin.y for coin in live])
        wrong = [coin for coin in live if reports[coin.y].state is not CoinState.UNSPENT]
        # It may have been spent since we read it; what counts is whether it still is thought free.
        still = await self._purse.known([coin.y for coin in wrong])
        amount = sum(coin.amount for coin in wrong if coin.y in still and still[coin.y].state == "live")
        return [*found, f"{where}: {amount} thought free are spent or pending at the mint"] if amount else found

    async def _orphans(self, open_ids: set[str]) -> list[str]:
        reserved = await self._purse.coins(state="reserved")
        amounts: Counter[str] = Counter()
        for coin in reserved:
            if coin.operation not in open_ids:
                amounts[f"{coin.mint} {coin.unit}"] += coin.amount
        return [f"{where}: {held} are reserved for operations that have ended" for where, held in amounts.items()]


def _against_journal(held: Balance, accounts: Counter[Account]) -> list[str]:
    where = f"{held.mint} {held.unit}"
    found = []
    if sum(accounts.values()):
        found.append(f"{where}: the journal does not sum to zero")
    if accounts[Account.WALLET] != held.live + held.reserved:
        found.append(f"{where}: {held.live + held.reserved} in coins, {accounts[Account.WALLET]} in the journal")
    if accounts[Account.LOCKED] != held.locked:
        found.append(f"{where}: {held.locked} in locked coins, {accounts[Account.LOCKED]} in the journal")
    return found
