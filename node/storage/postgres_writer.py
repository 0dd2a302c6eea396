"""The one who writes to PostgreSQL: groups of units, each group one transaction, in as few round trips as it takes.

A group is tried as a whole first, and nearly always that is one statement. If one unit does not fit, nothing of it
stays: the server is asked which ones are refused, and the others are tried again. What cannot be found out like that is
applied unit by unit, each behind a savepoint. An error before COMMIT is certain: the whole group was rolled back. One
near COMMIT, or a connection that is lost there, is not: its units may or may not be there.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

import asyncpg

from core.clock import Clock
from core.error import VendoError
from core.unit import Append, Row
from node.storage.address import shown
from node.storage.chain import Chain, Seal
from node.storage.error import StoreFailed, clash, missed
from node.storage.fence import FENCE_SQL, Fence
from node.storage.group import Unit, Verdicts
from node.storage.migration import check_revision
from node.storage.postgres_entry import Entries, Ready
from node.storage.postgres_link import (
    FAILED,
    Link,
    certain,
    check_server,
    close,
    connect,
    is_misfit,
    is_verdict,
    misfit,
    uncertain,
)
from node.storage.postgres_statement import Op
from node.storage.postgres_text import read, written
from node.storage.postgres_wave import FENCED, Wave, judged, sieve, together, waves_of
from node.storage.schema import facts

_log = logging.getLogger(__name__)

_PATIENCE_S = 60.0  # for one answer
_TRIES = 5  # of a group that was in another process's way
_SIFTS = 3
_LEAST_GROUP, _MOST_GROUP = 64, 512
_AHEAD = 4  # units sealed before others get a turn
_DISK_SHARE = 1 / 3  # of the time for a group's rows: while COMMIT takes longer than that, groups grow
_PROBE = 16  # of so many full groups one is timed in steps
_HEADS = """SELECT DISTINCT ON (run) run, seq, id, raw FROM entry WHERE run = ANY($1::text[]) ORDER BY run, seq DESC"""

Sealed = list[tuple[int, list[Op]]]


class _Again(Exception):
    """Another process was in the way; nothing was written, and the same may do at the next try."""


class _Refused(Exception):
    """A write of the group does not fit; nothing was written."""


class PostgresWriter:
    """Owns the writing connection. One group at a time.

    `largest` is the number of units to put into a group: it grows while the disk takes longer than the rows.
    """

    def __init__(self, url: str, seal: Seal, clock: Clock, *, unsafe: bool = False) -> None:
        self.largest = _LEAST_GROUP
        self.fence: Fence | None = None
        self._url, self._unsafe = url, unsafe
        self._newest: dict[str, Row] = {}
        self._known: set[str] = set()
        chain = Chain(seal, clock, self._newest.get)
        self._entries = Entries(chain, lambda: self._known, lambda: 2 * self.largest)
        self._sealing = False
        self._link: Link | None = None
        self._full = 0  # groups that were as large as may be

    async def start(self) -> None:
        """Open the connection.

        Raises:
            VendoError: the server cannot be reached, is not fit, or holds another schema.
        """
        await self._linked()

    async def stop(self) -> None:
        """Close the connection."""
        link, self._link = self._link, None
        await close(link)

    def ready(self, unit: Unit) -> Ready:
        """A unit that waits until it is applied; whatever is made here must be applied, in the same order."""
        return self._entries.ready(unit)

    def take(self, units: Sequence[Ready]) -> None:
        """The first of those that wait are to be applied now."""
        self._entries.take(units)

    async def apply(self, units: Sequence[Ready]) -> Verdicts:
        """Commit a group that was taken; for each unit None or what is wrong with it.

        Never raises but for a fault of our own.
        """
        try:
            return await self._applied(units)
        finally:
            self._entries.follow()

    async def _applied(self, units: Sequence[Ready]) -> Verdicts:
        verdicts: Verdicts = [None] * len(units)
        reason: VendoError = StoreFailed("Another process is in the way.")
        for _ in range(_TRIES):
            try:
                if self.fence is not None and self.fence.is_broken:
                    raise self.fence.broken()
                await self._apply(units, verdicts)
            except _Again:
                self._forget()
                verdicts = [None] * len(units)
            except VendoError as error:
                if self._link is not None and self._link.is_in_transaction():
                    self.drop()
                self._forget()
                reason = error
                break
            else:
                return verdicts
        _log.error("the database failed", extra={"action": "store_failed", "reason": reason.message})
        return [verdict or reason for verdict in verdicts]

    def drop(self) -> None:
        """End the connection at once: what is on its way is not waited for, and nothing remembered is believed."""
        link, self._link = self._link, None
        if link is not None:
            link.terminate()
        self._forget()

    def _forget(self) -> None:
        self._entries.forget()
        self._newest.clear()
        self._known.clear()

    async def _linked(self) -> Link:
        if self._link is None or self._link.is_closed():
            self._forget()
            link = await connect(self._url)
            try:
                await check_server(link, unsafe=self._unsafe)
                if not await check_revision(link, shown(self._url)):
                    raise StoreFailed(f"{shown(self._url)} has an older schema now.", remedy="Start the node again.")
            except FAILED as error:
                link.terminate()
                raise certain(error) from error
            except VendoError:
                link.terminate()
                raise
            self._link = link
        return self._link

    # --- a group

    async def _apply(self, units: Sequence[Ready], verdicts: Verdicts) -> None:
        """Commit those that have no verdict yet, and put down what is wrong with any."""
        link = await self._linked()
        await self._learn(link, units)
        for _ in range(_SIFTS):
            sealed = self._sealed(units, verdicts)
            if not sealed:
                return
            waves = waves_of(sealed)
            self._entries.follow()
            if not self._sealing:
                self._sealing = True
                asyncio.get_running_loop().call_soon(self._seal_ahead)
            try:
                await self._all_at_once(link, waves, in_steps=self._is_due(len(sealed)))
            except _Refused:
                self._entries.spoil()
                if not await self._sift(link, waves, units, verdicts):
                    break
            else:
                self._entries.keep(units[sealed[-1][0]])
                return
        await self._one_by_one(link, units, verdicts)

    def _seal_ahead(self) -> None:
        """Seal what waits, a part of it in each turn of the loop: while the server works on what came before."""
        self._sealing = self._entries.seal_some(_AHEAD)
        if self._sealing:
            asyncio.get_running_loop().call_soon(self._seal_ahead)

    async def _learn(self, link: Link, units: Sequence[Ready]) -> None:
        """Look up the last entries of runs that were not written to since the connection was opened."""
        runs = {step.run for unit in units for step in unit if isinstance(step, Append)} - self._known
        if not runs:
            return
        try:
            rows = await link.fetch(_HEADS, [written(run) for run in runs], timeout=_PATIENCE_S)
        except FAILED as error:
            raise self._failed(error) from error
        for row in rows:
            self._newest[read(row["run"])] = {"seq": row["seq"], "id": row["id"], "raw": read(row["raw"])}
        self._known |= runs

    def _sealed(self, units: Sequence[Ready], verdicts: Verdicts) -> Sealed:
        """The writes of all units that are not refused yet, with their ledger entries at their places."""
        while True:
            found: Sealed = []
            for number, unit in enumerate(units):
                if verdicts[number] is not None:
                    continue
                try:
                    found.append((number, self._entries.place(unit)))
                except VendoError as error:
                    verdicts[number] = error
                    break
            else:
                return found
            self._entries.spoil()  # and all entries anew, without that unit's

    def _is_due(self, units: int) -> bool:
        """Whether this group goes in steps, so that its rows and its COMMIT are timed: one full group of many."""
        self._full += units >= self.largest
        return units >= self.largest and self._full % _PROBE == 1

    async def _all_at_once(self, link: Link, waves: Sequence[Wave], *, in_steps: bool) -> None:
        """Commit them, or nothing.

        Raises:
            _Refused: a write does not fit.
        """
        if len(waves) == 1 and not waves[0].chosen and not in_steps:
            await self._statement(link, waves[0])
            return
        await self._begin(link)
        began = time.perf_counter()
        try:
            for wave in waves:
                await self._run(link, wave)
        except FAILED as error:
            raise await self._rolled_back(link, error) from error
        applied = time.perf_counter()
        await self._commit(link)
        if in_steps:
            self._fit(applied - began, time.perf_counter() - applied)

    def _fit(self, rows_s: float, disk_s: float) -> None:
        if disk_s > rows_s * _DISK_SHARE:
            self.largest = min(self.largest * 2, _MOST_GROUP)
        else:
            self.largest = max(self.largest // 2, _LEAST_GROUP)

    async def _statement(self, link: Link, wave: Wave) -> None:
        """A wave as a transaction of its own."""
        forms, lone, fence = wave.forms, wave.lone, self.fence
        shown_first = fence.params if fence is not None else ()
        text = together(forms, lone, FENCE_SQL if fence is not None else "")
        try:
            await link.fetchval(text, *shown_first, *wave.params(forms, lone=lone), timeout=_PATIENCE_S)
        except FAILED as error:
            if not is_verdict(error):
                self.drop()
                raise uncertain(error) from error
            raise self._judged(error) from error

    async def _sift(self, link: Link, waves: Sequence[Wave], units: Sequence[Ready], verdicts: Verdicts) -> bool:
        """Find the units that are refused; false if that must be found out one by one."""
        if len(waves) != 1:
            return False
        forms, fence = judged(waves[0]), self.fence
        if forms is None or (not forms and fence is None):
            return False
        shown_first = fence.params if fence is not None else ()
        text = sieve(forms, FENCE_SQL if fence is not None else "")
        try:
            rows = await link.fetch(text, *shown_first, *waves[0].params(forms, lone=False), timeout=_PATIENCE_S)
        except FAILED as error:
            raise self._failed(error) from error
        for form, write in sorted(map(tuple, rows)):
            if form == FENCED and fence is not None:
                raise fence.broken()
            number, op = waves[0].ops[forms[form]][write - 1]
            if isinstance(units[number].steps[op.position], Append):
                raise _Again("the ledger's run is written elsewhere")
            known = verdicts[number]
            if known is None or op.position < int(known.context["write"]):
                table = op.form.table
                verdicts[number] = clash(table, op.position) if op.form.is_insert else missed(table, op.position, 0, 1)
        return bool(rows)

    async def _one_by_one(self, link: Link, units: Sequence[Ready], verdicts: Verdicts) -> None:
        await self._begin(link)
        try:
            for number, unit in enumerate(units):
                if verdicts[number] is None:
                    await link.execute("SAVEPOINT unit", timeout=_PATIENCE_S)
                    verdicts[number] = await self._unit(link, unit.steps)
                    await link.execute("RELEASE unit", timeout=_PATIENCE_S)
        except FAILED as error:
            raise await self._rolled_back(link, error) from error
        await self._commit(link)

    async def _unit(self, link: Link, unit: Unit) -> VendoError | None:
        """None if it was applied."""
        try:
            for wave in waves_of([(0, self._entries.sealed(unit))]):
                await self._run(link, wave)
        except VendoError as error:  # from the seal
            return await self._undone(link, error)
        except FAILED as error:
            if not isinstance(self._judged(error), _Refused):
                raise
            await self._undone(link, None)
        else:
            self._entries.keep()
            return None
        return await self._steps(link, unit)

    async def _steps(self, link: Link, unit: Unit) -> VendoError | None:
        """The same write by write, to know which one does not fit."""
        for op in self._entries.sealed(unit):
            try:
                touched = await self._step(link, op)
            except FAILED as error:
                if isinstance(error, asyncpg.UniqueViolationError):
                    if isinstance(unit[op.position], Append):
                        raise await self._rolled_back(
                            link, error, _Again("the ledger's run is written elsewhere")
                        ) from error
                    return await self._undone(link, clash(op.form.table, op.position))
                if is_misfit(error):
                    return await self._undone(link, misfit(error))
                raise
            if op.form.rows is not None and touched != op.form.rows:
                return await self._undone(link, missed(op.form.table, op.position, touched, op.form.rows))
        self._entries.keep()
        return None

    async def _undone(self, link: Link, verdict: VendoError | None) -> VendoError | None:
        await link.execute("ROLLBACK TO unit", timeout=_PATIENCE_S)
        self._entries.spoil()
        return verdict

    # --- statements in a transaction

    async def _begin(self, link: Link) -> None:
        try:
            await link.execute("BEGIN", timeout=_PATIENCE_S)
            fence = self.fence
            held = fence is None or await link.fetchval(FENCE_SQL, *fence.params, timeout=_PATIENCE_S)
        except FAILED as error:
            raise await self._rolled_back(link, error) from error
        if not held and fence is not None:
            raise await self._rolled_back(link, None, fence.broken())

    async def _run(self, link: Link, wave: Wave) -> None:
        forms, lone = wave.forms, wave.lone
        for form in wave.chosen:
            await self._hold(link, form.table)
        text = together(forms, lone, "")
        await link.fetchval(text, *wave.params(forms, lone=lone), timeout=_PATIENCE_S)
        for form, greatest in wave.chosen.items():
            await self._count_from(link, form.table, greatest)

    async def _step(self, link: Link, op: Op) -> int:
        """One write; how many rows it touched."""
        form = op.form
        if form.counter is not None:
            await self._hold(link, form.table)
        status = await link.execute(form.lone(0), *op.params, timeout=_PATIENCE_S)
        if form.counter is not None:
            await self._count_from(link, form.table, int(op.params[form.counter]))
        return int(status.rpartition(" ")[2])

    async def _hold(self, link: Link, table: str) -> None:
        """Let nobody else take a number until the transaction ends: one is about to be chosen."""
        await link.execute(f'LOCK TABLE "{table}" IN SHARE ROW EXCLUSIVE MODE', timeout=_PATIENCE_S)

    async def _count_from(self, link: Link, table: str, number: int) -> None:
        counted = f'"{table}_{facts(table).counter}_seq"'
        text = f"SELECT setval('{counted}', $1) FROM {counted} WHERE last_value <= $1"  # noqa: S608 - names of the schema
        await link.execute(text, number, timeout=_PATIENCE_S)

    async def _commit(self, link: Link) -> None:
        try:
            status = await link.execute("COMMIT", timeout=_PATIENCE_S)
        except FAILED as error:
            self.drop()
            raise uncertain(error) from error
        if status != "COMMIT":
            raise StoreFailed(f"The database answered {status} to COMMIT.")

    # --- failures

    def _judged(self, error: BaseException) -> Exception:
        """What a refused statement means: the group's fault, another process's, or the server's."""
        if isinstance(error, asyncpg.SerializationError | asyncpg.DeadlockDetectedError):
            return _Again(type(error).__name__)
        if isinstance(error, asyncpg.UniqueViolationError | asyncpg.DivisionByZeroError) or is_misfit(error):
            return _Refused()
        return certain(error)

    def _failed(self, error: BaseException) -> VendoError:
        """What an error before COMMIT means; a connection that is not to be trusted any more is closed."""
        if not is_verdict(error):
            self.drop()
        return certain(error)

    async def _rolled_back(
        self, link: Link, error: BaseException | None, meaning: Exception | None = None
    ) -> Exception:
        """End the transaction; what to raise."""
        if error is not None and not is_verdict(error):
            self.drop()
            return certain(error)
        try:
            await link.execute("ROLLBACK", timeout=_PATIENCE_S)
        except FAILED:
            self.drop()
        return meaning or (self._judged(error) if error is not None else StoreFailed())
