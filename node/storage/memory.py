"""A database in memory with the semantics of the real one, for simulations and for tests of drivers.

It passes the same contract suite (`tests/contract/test_unit_of_work.py`). It outlives a simulated crash: whoever
restarts a node passes the same object in again. Units are applied in the order in which they were submitted.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from core.clock import Clock, SystemClock
from core.error import Conflict, Unavailable
from core.unit import Among, Append, Condition, Delete, Insert, Row, Update, Value, Within, Write
from node.storage.chain import Chain, Seal, unsigned_seal
from node.storage.error import BadWrite, clash, missed
from node.storage.schema import TableFacts, facts

_Undo = Callable[[], None]


def _plain(value: Value) -> Value:
    """Without the enum around it, as a database would give it back."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise BadWrite("A text is not valid Unicode.") from error
        return str.__str__(value)
    return int(value) if isinstance(value, int) else value


def _plain_condition(wanted: Condition) -> Condition:
    if isinstance(wanted, Among):
        return Among(tuple(_plain(value) for value in wanted.values))
    if isinstance(wanted, Within):
        return Within(_plain(wanted.low), _plain(wanted.high))  # type: ignore[arg-type]  # as it came: never bytes
    return _plain(wanted)


def _matches(row: Row, where: Mapping[str, Condition]) -> bool:
    for column, wanted in where.items():
        value = row[column]
        if isinstance(wanted, Among):
            if value not in wanted.values:
                return False
        elif isinstance(wanted, Within):
            if value is None or (wanted.low is not None and value < wanted.low):
                return False
            if wanted.high is not None and value >= wanted.high:
                return False
        elif value != wanted:
            return False
    return True


class _Rows:
    """One table: rows by number, and what finds them."""

    def __init__(self, about: TableFacts) -> None:
        self.facts = about
        self.rows: dict[int, Row] = {}
        self._next = 1
        self._keys: dict[tuple[str, ...], dict[tuple[Any, ...], int]] = {key: {} for key in about.unique}
        self._index: dict[str, dict[Any, dict[int, None]]] = {column: {} for column in about.indexed}

    def taken(self, row: Row, *, but: int = 0) -> bool:
        """Whether another row has one of its unique keys; a null is equal to nothing."""
        for key, known in self._keys.items():
            values = tuple(row[column] for column in key)
            if None not in values and known.get(values, but) != but:
                return True
        return False

    def put(self, number: int, row: Row) -> None:
        self.rows[number] = row
        for key, known in self._keys.items():
            known[tuple(row[column] for column in key)] = number
        for column, index in self._index.items():
            index.setdefault(row[column], {})[number] = None

    def drop(self, number: int) -> Row:
        row = self.rows.pop(number)
        for key, known in self._keys.items():
            known.pop(tuple(row[column] for column in key), None)
        for column, index in self._index.items():
            bucket = index[row[column]]
            del bucket[number]
            if not bucket:
                del index[row[column]]
        return row

    def number(self) -> int:
        """A number that was never given."""
        number, self._next = self._next, self._next + 1
        return number

    def used(self, number: int) -> None:
        """A caller chose the number itself."""
        self._next = max(self._next, number + 1)

    def look_up(self, where: Mapping[str, Condition]) -> list[int]:
        """The numbers of the rows that match, in the order in which they came.

        Raises:
            BadWrite: a condition does not fit the table.
        """
        self.facts.check_where(where)
        return self.find({column: _plain_condition(wanted) for column, wanted in where.items()})

    def find(self, where: Mapping[str, Condition]) -> list[int]:
        candidates: Collection[int] | None = None
        for column, wanted in where.items():
            if column in self._index and not isinstance(wanted, Within):
                values = set(wanted.values) if isinstance(wanted, Among) else (wanted,)
                found = [number for value in values for number in self._index[column].get(value, ())]
                if candidates is None or len(found) < len(candidates):
                    candidates = found
        return sorted(
            number for number in (self.rows if candidates is None else candidates) if _matches(self.rows[number], where)
        )


class MemoryDatabase:
    """`core.unit.UnitOfWork` in memory.

    Args:
        seal: makes ledger entries; unsigned ones by default.
        clock: gives entries their time.
        crash_after: called with the number of each unit once it is applied and before its owner learns of it. What
            it raises goes to the owner, as if the process had died there with the unit durable.
    """

    def __init__(
        self,
        seal: Seal | None = None,
        clock: Clock | None = None,
        crash_after: Callable[[int], None] | None = None,
    ) -> None:
        self.crash_after = crash_after
        self._tables: dict[str, _Rows] = {}
        self._chain = Chain(seal or unsigned_seal, clock or SystemClock(), self._newest)
        self._watchers: list[Callable[[Append], None]] = []
        self._units = self._conflicts = 0
        self._closed = False

    def _rows(self, table: str) -> _Rows:
        rows = self._tables.get(table)
        if rows is None:
            rows = self._tables[table] = _Rows(facts(table))
        return rows

    def _newest(self, run: str) -> Row | None:
        rows = self._rows("entry")
        found = [rows.rows[number] for number in rows.find({"run": run})]
        return max(found, key=lambda row: int(row["seq"]), default=None)

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        """Have every ledger entry told once it is durable, before the `commit` that brought it returns."""
        self._watchers.append(watcher)

    async def commit(self, writes: Iterable[Write]) -> None:
        """As `UnitOfWork.commit`."""
        if self._closed:
            raise Unavailable("The database is closed.")
        unit = tuple(writes)
        undo: list[_Undo] = []
        is_whole = False
        try:
            for position, write in enumerate(unit):
                self._apply(write, position, undo)
            is_whole = True
        except Conflict:
            self._conflicts += 1
            raise
        finally:
            if not is_whole:  # all or nothing, whatever interrupts it
                while undo:
                    undo.pop()()
                self._chain.give_back()
        self._chain.keep()
        if not unit:
            return
        self._units += 1
        for write in unit:
            if isinstance(write, Append):
                for watcher in self._watchers:
                    watcher(write)
        if self.crash_after is not None:
            self.crash_after(self._units)
        await asyncio.sleep(0)  # others run between a commit and its owner's next step, as they do with a real disk

    def _apply(self, write: Write, position: int, undo: list[_Undo]) -> None:
        if isinstance(write, Insert):
            self._insert(write, position, undo)
        elif isinstance(write, Update):
            self._update(write, position, undo)
        elif isinstance(write, Delete):
            rows = self._rows(write.table)
            found = self._targets(rows, write, position)
            for number in found:
                row = rows.drop(number)
                undo.append(partial(rows.put, number, row))
        else:
            self._insert(Insert("entry", self._chain.append(write)), position, undo)

    def _insert(self, write: Insert, position: int, undo: list[_Undo]) -> None:
        rows = self._rows(write.table)
        about = rows.facts
        row: Row = {column: about.defaults.get(column) for column in about.kinds}
        about.check_insert(write.row)
        row.update({column: _plain(value) for column, value in write.row.items()})
        chosen = row[about.counter] if about.counter is not None else None
        number = rows.number() if chosen is None else int(chosen)
        if about.counter is not None:
            rows.used(number)
            row[about.counter] = number
        if rows.taken(row):
            if write.or_ignore:
                return
            raise clash(write.table, position)
        rows.put(number, row)
        undo.append(lambda: _discard(rows, number))

    def _targets(self, rows: _Rows, write: Update | Delete, position: int) -> list[int]:
        found = rows.look_up(write.where)
        if isinstance(write, Update) and write.ceiling is not None:
            parts, most = write.ceiling
            changed = [(number, self._changed(rows.rows[number], write)) for number in found]
            found = [
                number
                for number, row in changed
                if row[most] is None or sum(int(row[part]) for part in parts) <= int(row[most])
            ]
        if write.rows is not None and len(found) != write.rows:
            raise missed(write.table, position, len(found), write.rows)
        return found

    def _changed(self, row: Row, write: Update) -> Row:
        changed = {**row, **{column: _plain(value) for column, value in write.set.items()}}
        for column, value in write.add.items():
            changed[column] = None if row[column] is None else int(row[column]) + value
        return changed

    def _update(self, write: Update, position: int, undo: list[_Undo]) -> None:
        rows = self._rows(write.table)
        rows.facts.check_update(write)
        for number in self._targets(rows, write, position):
            before = rows.rows[number]
            after = self._changed(before, write)
            if rows.taken(after, but=number):
                raise clash(write.table, position)
            rows.drop(number)
            rows.put(number, after)
            undo.append(partial(_restore, rows, number, before))

    async def select(
        self,
        table: str,
        where: Mapping[str, Condition] | None = None,
        *,
        order: Sequence[str] = (),
        limit: int | None = None,
        columns: Sequence[str] = (),
        distinct: bool = False,
    ) -> list[Row]:
        """As `UnitOfWork.select`."""
        if self._closed:
            raise Unavailable("The database is closed.")
        rows = self._rows(table)
        rows.facts.check_question(order, columns, distinct)
        found = [rows.rows[number] for number in rows.look_up(where or {})]
        for name in reversed(order):
            column = name.removeprefix("-")
            found.sort(key=lambda row: (row[column] is not None, row[column]), reverse=name.startswith("-"))
        wanted = tuple(columns) or tuple(rows.facts.kinds)
        if distinct:
            found = list({tuple(row[column] for column in wanted): row for row in found}.values())
        return [{column: row[column] for column in wanted} for row in found[: None if limit is None else max(0, limit)]]

    async def count(self, table: str, where: Mapping[str, Condition] | None = None, *, limit: int | None = None) -> int:
        """As `UnitOfWork.count`."""
        if self._closed:
            raise Unavailable("The database is closed.")
        found = len(self._rows(table).look_up(where or {}))
        return found if limit is None else min(found, max(0, limit))

    def stats(self) -> dict[str, int]:
        """Counts since the start; every unit is a group of its own here."""
        return {"groups": self._units, "units": self._units, "conflicts": self._conflicts}

    async def aclose(self) -> None:
        """Refuse what comes from now on."""
        self._closed = True


def _discard(rows: _Rows, number: int) -> None:
    rows.drop(number)


def _restore(rows: _Rows, number: int, before: Row) -> None:
    rows.drop(number)
    rows.put(number, before)
