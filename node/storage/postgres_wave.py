"""Which writes can go to PostgreSQL together. Pure.

The writes of a group are cut into waves, in their order. All writes of a wave touch different rows, so that they may be
applied in any order: as one statement, with an array for each parameter. What touches a row of the wave before, or
rows that are not known by their key, begins the next wave.
"""
# ruff: noqa: S608 - names and words that the schema knows; values are bound

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from node.storage.postgres_statement import CHOSEN, DELETE, Form, Op
from node.storage.postgres_text import array, listed

_TEXTS = 1024
FENCED = -1


@dataclass(slots=True)
class _Touched:
    """What a wave does to one table.

    Attributes:
        only: the one form of all its writes there; None if there are several.
        insert: the form of rows that come, if these are numbered: with two forms they would not be in their order.
        closed: it touches rows that are not known by their keys.
        finder: the unique key by which rows are found.
        sorts: of the writes.
        keys: the rows, and whether all that is done to one is to propose it (`or_ignore`).
    """

    only: Form | None
    insert: Form | None
    closed: bool
    finder: int | None
    sorts: set[str]
    keys: dict[tuple[Any, ...], bool] = field(default_factory=dict)

    def takes(self, form: Form, keys: tuple[tuple[Any, ...], ...]) -> bool:
        """Whether one more write leaves it open in which order they are applied."""
        if self.closed or (form is not self.only and not (form.by_key and self._fits(form))):
            return False
        if self.keys.keys().isdisjoint(keys):
            return True
        return form.proposed and all(self.keys.get(key, True) for key in keys)

    def _fits(self, form: Form) -> bool:
        if form.is_insert:
            if form.numbered and self.insert not in (None, form):
                return False
            # a row that goes, or a number that is chosen, may be in the way of one that comes
            return DELETE not in self.sorts and (CHOSEN not in (form.sort, *self.sorts) or self.sorts == {form.sort})
        if CHOSEN in self.sorts or (form.sort == DELETE and self.sorts != {DELETE}):
            return False
        return self.finder in (None, form.finder)


@dataclass(slots=True)
class Wave:
    """Writes that can go together: by form, each with the number of its unit."""

    ops: dict[Form, list[tuple[int, Op]]] = field(default_factory=dict)
    _tables: dict[str, _Touched] = field(default_factory=dict)

    def takes(self, unit: int, op: Op) -> bool:
        """Add a write; false if it must come later."""
        form, _, keys, _ = op
        touched = self._tables.get(form.table)
        if touched is None:
            touched = _Touched(form, form if form.is_insert else None, not form.by_key, form.finder, {form.sort})
            self._tables[form.table] = touched
        elif not touched.takes(form, keys):
            return False
        elif form is not touched.only:
            touched.only = None
            touched.sorts.add(form.sort)
            touched.finder = form.finder if touched.finder is None else touched.finder
            touched.insert = form if form.is_insert else touched.insert
        for key in keys:
            touched.keys[key] = form.proposed
        if form in self.ops:
            self.ops[form].append((unit, op))
        else:
            self.ops[form] = [(unit, op)]
        return True

    @property
    def forms(self) -> tuple[Form, ...]:
        """In an order that does not depend on that of the writes, so that there are few texts."""
        return tuple(sorted(self.ops, key=_text))

    @property
    def lone(self) -> bool:
        """Whether there is one write of each form."""
        return all(len(ops) == 1 for ops in self.ops.values())

    @property
    def chosen(self) -> dict[Form, int]:
        """Inserts that name their own number: the greatest of them."""
        return {
            form: max(int(op.params[form.counter]) for _, op in ops)
            for form, ops in self.ops.items()
            if form.counter is not None
        }

    def params(self, forms: Iterable[Form], *, lone: bool) -> list[Any]:
        """For `together`, without the fence's."""
        found: list[Any] = []
        for form in forms:
            if lone or not form.by_key:
                found += self.ops[form][0][1].params
                continue
            columns = zip(*[op.params for _, op in self.ops[form]], strict=True)
            found += [listed(kind, column) for kind, column in zip(form.types, columns, strict=True)]
        return found


def _text(form: Form) -> str:
    return form.text


def waves_of(units: Iterable[tuple[int, Sequence[Op]]]) -> list[Wave]:
    """The writes of numbered units, cut into as few waves as can be without changing their order."""
    found: list[Wave] = []
    wave: Wave | None = None
    for unit, ops in units:
        for op in ops:
            if wave is None or not wave.takes(unit, op):
                wave = Wave()
                found.append(wave)
                wave.takes(unit, op)
    return found


@lru_cache(_TEXTS)
def together(forms: tuple[Form, ...], lone: bool, fence: str) -> str:
    """One statement that does them all, and fails as a whole unless each touches as many rows as it must.

    `fence` is a statement with two parameters, the first two, that must find a row; empty for none.
    """
    parts, checks, base = [], [], 0
    if fence:
        parts.append(f"own AS ({fence})")
        checks.append("(SELECT count(*) FROM own) = 1")
        base = 2
    for number, form in enumerate(forms):
        alone = lone or not form.by_key  # rows that are not known by their keys: it stands alone on its table
        text = form.lone(base) if alone else form.many(base)
        if form.rows is not None:
            wanted = str(form.rows) if alone else f"cardinality({array(form.types[0], base + 1)})"
            checks.append(f"(SELECT count(*) FROM w{number}) = {wanted}")
            text += " RETURNING 1"
        parts.append(f"w{number} AS ({text})")
        base += len(form.types)
    # a statement is a transaction of its own: one round trip, and the division is its ROLLBACK
    verdict = f"1 / (CASE WHEN {' AND '.join(checks)} THEN 1 ELSE 0 END)" if checks else "1"
    return f"WITH {', '.join(parts)} SELECT {verdict}"


def judged(wave: Wave) -> tuple[Form, ...] | None:
    """The forms whose writes may be refused; None if what is wrong with one of them cannot be asked for."""
    if any(form.rows is not None and form.finder is None for form in wave.ops):
        return None
    return tuple(form for form in wave.forms if form.rows is not None or (form.is_insert and not form.proposed))


@lru_cache(_TEXTS)
def sieve(forms: tuple[Form, ...], fence: str) -> str:
    """A question with the parameters of `together`: which writes would be refused now, as (form, write) from (0, 1) on.

    (-1, 0) stands for the fence.
    """
    parts, base = [], 0
    if fence:
        parts.append(f"SELECT {FENCED} AS form, 0::bigint AS write WHERE NOT EXISTS ({fence})")
        base = 2
    for number, form in enumerate(forms):
        wanted = form.condition.format(*form.slots)
        refused = wanted if form.is_insert else f'NOT EXISTS (SELECT FROM "{form.table}" AS t WHERE {wanted})'
        parts.append(f"SELECT {number}, r.i FROM {form.source(base, numbered=True)} WHERE {refused}")
        base += len(form.types)
    return " UNION ALL ".join(parts)
