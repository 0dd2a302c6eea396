"""One small unit of deleting what is old: what a rule finds next, and what of it goes.

Where each rule has come to is kept in memory: a restart begins at the beginning again, which costs reading and no more.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from core.clock import Clock
from core.error import Conflict
from core.unit import Among, Condition, Delete, Insert, Row, UnitOfWork, Update, Value, Within, Write
from node.retention.family import Members, gather, removal
from node.retention.rule import Aged, Blanked, Family, Numbered, Rule, Scale, Walked, cutoff, judge

log = logging.getLogger(__name__)

PAGE = 300  # rows of one unit: it keeps the writer for some milliseconds, at a million rows too
SMALL_PAGE = 100  # where each row is named by several columns
FAMILIES = 100
COUNTED = 100_000
MARK = "retention/"

Place = tuple[Any, ...]


class Pieces:
    """Takes away a page of rows at a time.

    Args:
        unit: the database.
        clock: time.
        settings: `[retention]`, by name; 0 days is for ever.
        own: how long replaced keys still decrypt, in days.

    Attributes:
        removed: rows that went since the start, per table.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, settings: Mapping[str, int], own: int = 0) -> None:
        self._unit, self._clock, self._settings, self._own = unit, clock, settings, own
        self._places: dict[int, Place] = {}
        self.removed: Counter[str] = Counter()

    def restart(self, keep: Sequence[Rule] = ()) -> None:
        """Begin anew, but for these rules."""
        kept = {id(rule) for rule in keep}
        self._places = {name: place for name, place in self._places.items() if name in kept}

    async def take(self, rule: Rule) -> bool:
        """One small unit. Whether there may be more.

        Raises:
            VendoError: the database failed.
        """
        match rule:
            case Aged():
                return await self._aged(rule)
            case Numbered():
                return await self._numbered(rule)
            case Blanked():
                return await self._blanked(rule)
            case Walked():
                return await self._walked(rule)
            case Family():
                return await self._families(rule)

    def _before(self, rule: Aged | Numbered | Blanked | Walked | Family) -> int | None:
        """Older than that is old, in the rule's scale; None: nothing ever is."""
        days = self._settings[rule.days]
        if not days:
            return None
        scale = rule.scale if isinstance(rule, Aged | Numbered) else Scale.SECONDS
        more = rule.more_days if isinstance(rule, Aged) else 0
        more += self._own if isinstance(rule, Walked) and rule.table == "identity" else 0
        return cutoff(self._clock.millis(), days, scale, more)

    async def _aged(self, rule: Aged) -> bool:
        page = PAGE if len(rule.key) == 1 else SMALL_PAGE
        before, most = self._before(rule), page
        if over := await self._over(rule):
            most = min(page, over)
            before = self._clock.now() - rule.spared_s if rule.spared_s else None
        elif before is None:
            return False
        where: dict[str, Condition] = {**rule.where, rule.column: Within(high=before)}
        rows = await self._unit.select(rule.table, where, order=(rule.column,), limit=most, columns=rule.key)
        await self._delete(rule.table, rule.key, rows, where)
        return len(rows) == most

    async def _over(self, rule: Aged | Numbered) -> int:
        """How many rows there are beyond what the setting allows. Counted once in a sweep."""
        most = self._settings[rule.rows] if rule.rows else 0
        if not most:
            return 0
        (over,) = self._places.get(id(rule)) or (None,)
        if over is None:
            where: dict[str, Condition] = {rule.column: Within()} if isinstance(rule, Aged) else {}
            over = max(0, await self._unit.count(rule.table, where) - most)
        self._places[id(rule)] = (max(0, over - PAGE),)
        return int(over)

    async def _numbered(self, rule: Numbered) -> bool:
        before, over = self._before(rule), await self._over(rule)
        if before is None and not over:
            return False
        columns = ("n", rule.column)
        rows = await self._unit.select(rule.table, order=("n",), limit=PAGE + 1, columns=columns)
        old = [
            row
            for place, row in enumerate(rows[:-1][:PAGE])  # the newest stays
            if place < over or (before is not None and row[rule.column] < before)
        ]
        await self._delete(rule.table, ("n",), old, {})
        return len(old) == PAGE

    async def _blanked(self, rule: Blanked) -> bool:
        before = self._before(rule)
        if before is None:
            return False
        at, n = self._places.get(id(rule)) or await self._recall(rule)
        rows = await self._page(rule, at, n, before)
        if not rows:
            return False
        last = rows[-1]
        place = (int(last[rule.column]), int(last["n"]))
        numbers: dict[str, Condition] = {"n": Among(tuple(row["n"] for row in rows)), **rule.where}
        value = f"{place[0]} {place[1]}"
        key = MARK + rule.table
        await self._unit.commit(
            [
                Update(rule.table, numbers, {rule.blank: ""}, rows=None),
                Insert("meta", {"key": key, "value": value}, or_ignore=True),
                Update("meta", {"key": key}, {"value": value}),
            ]
        )
        self._places[id(rule)] = place
        return True

    async def _recall(self, rule: Blanked) -> tuple[int, int]:
        rows = await self._unit.select("meta", {"key": MARK + rule.table})
        at, _, n = rows[0]["value"].partition(" ") if rows else ("0", "", "0")
        return int(at), int(n)

    async def _page(self, rule: Blanked, at: int, n: int, before: int) -> list[Row]:
        """What comes next: the rest of the second at which the last page ended, then later ones."""
        columns, order = ("n", rule.column), (rule.column, "n")
        same: dict[str, Condition] = {**rule.where, rule.column: at, "n": Within(low=n + 1)}
        rows = await self._unit.select(rule.table, same, order=("n",), limit=PAGE, columns=columns)
        if len(rows) < PAGE and at + 1 < before:
            later: dict[str, Condition] = {**rule.where, rule.column: Within(at + 1, before)}
            rows += await self._unit.select(rule.table, later, order=order, limit=PAGE - len(rows), columns=columns)
        return rows

    async def _walked(self, rule: Walked) -> bool:
        before = self._before(rule)
        if before is None:
            return False
        rows = await self._next(rule)
        if not rows:
            return False
        self._places[id(rule)] = tuple(rows[-1][name] for name in rule.key)
        today = datetime.fromtimestamp(before, UTC).date().isoformat()
        old = [row for row in rows if judge(rule.decide, row, before, today)]
        match rule.decide:
            case "dead":
                await self._give_up(old)
            case "identity":
                await self._delete(rule.table, rule.key, await self._replaced(old), rule.where)
            case "budget":
                await self._delete(rule.table, rule.key, old, {"held": 0})
            case _:
                await self._delete(rule.table, rule.key, old, rule.where)
        return len(rows) == PAGE

    async def _next(self, rule: Walked) -> list[Row]:
        """The next page by the primary key: first the rest of what shares the last row's first column, then more."""
        place = self._places.get(id(rule))
        if place is None:
            return await self._unit.select(rule.table, rule.where, order=rule.key, limit=PAGE)
        found: list[Row] = []
        for depth in reversed(range(len(rule.key))):
            where: dict[str, Condition] = dict(rule.where)
            where |= {name: place[at] for at, name in enumerate(rule.key[:depth])}
            where[rule.key[depth]] = Within(low=_after(place[depth]))
            limit = PAGE - len(found)
            if limit:
                found += await self._unit.select(rule.table, where, order=rule.key[depth:], limit=limit)
        return found

    async def _give_up(self, rows: Sequence[Row]) -> None:
        """Dead letters that nobody asked for. Their ids stay known as long as those of others."""
        if rows:
            where: dict[str, Condition] = {"n": Among(tuple(row["n"] for row in rows)), "state": "dead"}
            change: dict[str, Value] = {"state": "discarded", "ended_at": self._clock.now(), "payload": ""}
            await self._unit.commit([Update("inbox", where, change, rows=None)])
            self.removed["inbox (dead letters)"] += len(rows)

    async def _replaced(self, rows: Sequence[Row]) -> list[Row]:
        """Those keys after which another one came: the last one of a name says which comes next."""
        names = tuple({row["name"] for row in rows})
        newest: dict[str, int] = {}
        for row in await self._unit.select("identity", {"name": Among(names)}, columns=("name", "epoch")):
            newest[row["name"]] = max(newest.get(row["name"], -1), row["epoch"])
        return [row for row in rows if row["epoch"] < newest[row["name"]]]

    async def _families(self, rule: Family) -> bool:
        before = self._before(rule)
        if before is None:
            return False
        at, last = self._places.get(id(rule)) or (0, "")
        effects = await self._effects(at, last, before)
        if not effects:
            return False
        members = await gather(self._unit, effects)
        gone = [one for one in members if one.closed and (rule.money or not one.moved_money)]
        await self._remove(gone)
        self._places[id(rule)] = (effects[-1]["ended_at"], effects[-1]["id"])
        return len(effects) == FAMILIES

    async def _effects(self, at: int, last: str, before: int) -> list[Row]:
        columns = ("id", "ended_at", "state")
        same: dict[str, Condition] = {"ended_at": at, "id": Within(low=_after(last))}
        rows = await self._unit.select("effect", same, order=("id",), limit=FAMILIES, columns=columns)
        if len(rows) < FAMILIES and at + 1 < before:
            later: dict[str, Condition] = {"ended_at": Within(at + 1, before)}
            limit = FAMILIES - len(rows)
            rows += await self._unit.select("effect", later, order=("ended_at", "id"), limit=limit, columns=columns)
        return rows

    async def _remove(self, members: Sequence[Members]) -> None:
        if not members:
            return
        try:
            await self._unit.commit(await removal(self._unit, members, self._clock.now()))
        except Conflict:
            if len(members) == 1:
                log.info("an effect is not closed after all", extra={"action": "gc_kept"})
                return
            for one in members:
                await self._remove([one])
            return
        self.removed["effect"] += len(members)
        for name in ("purchases", "sales", "operations"):
            self.removed[name[:-1]] += sum(len(getattr(one, name)) for one in members)

    async def _delete(
        self, table: str, key: tuple[str, ...], rows: Sequence[Row], where: Mapping[str, Condition]
    ) -> None:
        """One unit. `where` holds still, or the row stays."""
        if not rows:
            return
        writes: list[Write]
        if len(key) == 1:
            named: dict[str, Condition] = {**where, key[0]: Among(tuple(row[key[0]] for row in rows))}
            writes = [Delete(table, named)]
        else:
            writes = [Delete(table, {**where, **{name: row[name] for name in key}}) for row in rows]
        await self._unit.commit(writes)
        self.removed[table] += len(rows)

    async def count(self, rules: Sequence[Rule]) -> dict[str, int]:
        """How many rows are old now, per table, counted to 100,000; of effects, how many would be looked at.

        Tables that must be walked are left out.
        """
        found: Counter[str] = Counter()
        for rule in rules:
            before = self._before(rule)
            if before is None:
                continue
            where: dict[str, Condition]
            match rule:
                case Aged():
                    where = {**rule.where, rule.column: Within(high=before)}
                    found[rule.table] += await self._unit.count(rule.table, where, limit=COUNTED)
                case Numbered():
                    found[rule.table] += await self._count_numbered(rule, before)
                case Family():
                    where = {"ended_at": Within(high=before)}
                    name = "effect" if rule.money else "effect (without money)"
                    found[name] += await self._unit.count("effect", where, limit=COUNTED)
                case _:
                    pass
            await self._clock.sleep(0)
        return {table: count for table, count in found.items() if count}

    async def _count_numbered(self, rule: Numbered, before: int) -> int:
        where: dict[str, Condition] = {rule.column: Within(high=before)}
        return await self._unit.count(rule.table, where, limit=COUNTED)


def _after(value: int | str) -> int | str:
    """The least value that is greater."""
    return value + 1 if isinstance(value, int) else value + "\0"
